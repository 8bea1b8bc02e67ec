"""The sum of an objective's losses over the first numbers of the vectors: against NumPy, saved, cut into replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from simcse_tf.errors import UserError
from simcse_tf.formats.encoders import SentenceEncoder
from simcse_tf.models.distillation import Distillation
from simcse_tf.models.matryoshka import Matryoshka, shortened, sizes_of
from simcse_tf.models.objectives import CoSENT, InfoNCE, TripletMargin, Views
from simcse_tf.serving import compact
from simcse_tf.training.simcse import SimCSE
from tests.models import test_objectives
from tests.models.test_objectives import (
    LABELS,
    SCORES,
    N,
    finite_differences,
    numpy_cosent,
    numpy_info_nce,
    numpy_triplet,
    same_label,
    vectors,
)

SIZES, WEIGHTS = (5, 3, 2), (1.0, 0.5, 2.0)
OBJECTIVES = {
    "pairs": (2, InfoNCE(0.5), lambda x: numpy_info_nce(x, 0.5)),
    "hard negatives and classes": (4, InfoNCE(0.3, 0.7), lambda x: numpy_info_nce(x, 0.3, 0.7, same_label), LABELS),
    "triplets": (3, TripletMargin(0.4), lambda x: numpy_triplet(x, 0.4)),
    "graded pairs": (2, CoSENT(0.5), lambda x: numpy_cosent(x, SCORES, 0.5), SCORES),
    "a function": (2, lambda local, gathered, row: local.vectors[:, 0, 0], lambda x: x[:, 0, 0]),
}


def batch(x, *targets):
    ids = tf.reshape(tf.range(N * x.shape[1], dtype=tf.int64), [N, x.shape[1]])
    targets = [tf.constant(numbers, tf.int64 if numbers is LABELS else tf.float32) for numbers in targets]
    return Views(tf.convert_to_tensor(x, tf.float32), ids, *targets)


@pytest.mark.parametrize("weights", [(), WEIGHTS])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_loss_and_gradients_equal_numpy(name, weights):
    views, objective, reference, *targets = OBJECTIVES[name]
    x = vectors(views)

    def expected(x):
        return sum(w * reference(x[..., :d]) for d, w in zip(SIZES, weights or (1, 1, 1), strict=True))

    variable = tf.Variable(x, dtype=tf.float32)
    with tf.GradientTape() as tape:
        whole = batch(variable, *targets)
        losses = Matryoshka(objective, SIZES, weights)(whole, whole)
    gradient = tape.gradient(losses, variable)
    assert losses.shape == (N,)
    np.testing.assert_allclose(losses, expected(x), rtol=1e-5, atol=1e-5)
    numeric = finite_differences(lambda x: expected(x).sum(), x)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-5 * np.abs(numeric).max())


def test_one_size_that_is_the_whole_is_the_objective_itself():
    whole = batch(vectors(2))
    np.testing.assert_array_equal(Matryoshka(InfoNCE(0.5), (5,))(whole, whole), InfoNCE(0.5)(whole, whole))


def test_anchors_of_one_replica_against_candidates_of_all():
    row = test_objectives.OBJECTIVES["classes with hard negatives"]
    row = row._replace(objective=Matryoshka(row.objective, SIZES, WEIGHTS))
    one, several = (test_objectives.losses_and_gradient(row, row.vectors(), replicas=n) for n in (1, 3))
    for value, expected in zip(several, one, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["off-dropout negatives", "a queue", "with dimensions and uniformity"])
def test_what_stands_beside_the_views_is_cut_too(name):
    row = test_objectives.OBJECTIVES[name]
    whole = row.batch(tf.constant(row.vectors(), tf.float32))

    def cut(views, size):
        queue = views.queue and views.queue._replace(vectors=views.queue.vectors[:, :size])
        without = None if views.without_dropout is None else views.without_dropout[:, :size]
        return views._replace(vectors=views.vectors[:, :, :size], without_dropout=without, queue=queue)

    expected = sum(w * row.objective(cut(whole, d), cut(whole, d)) for d, w in zip(SIZES, WEIGHTS, strict=True))
    np.testing.assert_allclose(Matryoshka(row.objective, SIZES, WEIGHTS)(whole, whole), expected, rtol=1e-6)


def test_it_is_saved_with_the_objective_inside():
    objective = Matryoshka(InfoNCE(0.1, 0.3), SIZES, WEIGHTS)
    config = keras.saving.serialize_keras_object(objective)
    assert keras.saving.deserialize_keras_object(config) == objective
    assert Matryoshka.from_config(objective.get_config()) == objective
    assert (sizes_of(objective), sizes_of(InfoNCE())) == (SIZES, ())
    assert sizes_of(Distillation(objective)) == SIZES
    assert [Matryoshka(inner, SIZES).target for inner in (InfoNCE(), CoSENT())] == ["label", "score"]
    assert [Matryoshka(inner, SIZES).compares_rows for inner in (InfoNCE(), TripletMargin())] == [True, False]


@pytest.mark.parametrize(
    ("sizes", "weights", "message"),
    [
        ((), (), "`sizes`: expected at least one"),
        ((5, 0), (), "`sizes` 0: must be at least 1"),
        ((5, 2, 5), (), "`sizes` 5 2 5: 5 is there twice"),
        ((5, 2.5), (), "`sizes` 2.5: expected whole numbers"),
        ((5, 2), (1.0,), "`weights` 1: 1 for the 2 sizes"),
        ((5, 2), (1.0, -1.0), "`weights` -1.0: must be above 0"),
    ],
)
def test_sizes_and_weights_that_cannot_be_are_refused(sizes, weights, message):
    with pytest.raises(UserError, match=message):
        Matryoshka(InfoNCE(), sizes, weights)


def test_vectors_that_are_shorter_than_a_size_are_refused():
    whole = batch(vectors(2))
    with pytest.raises(ValueError, match="size 6: the encoder's vectors have 5 numbers"):
        Matryoshka(InfoNCE(), (6, 3))(whole, whole)


def test_a_graph_cuts_vectors_as_numpy_does():
    x = np.float32(vectors(2)[0])
    np.testing.assert_allclose(shortened(x, 3), compact.shortened(x, 3), rtol=1e-6)


class TestSimCSE:
    def test_the_encoder_remembers_the_sizes_and_texts_are_checked_by_the_objective_inside(self, tiny_preset):
        model = SimCSE.from_preset(str(tiny_preset), objective=Matryoshka(CoSENT(), (16, 4)))
        assert (model.encoder.config.matryoshka, model.encoder.sizes) == ((16, 4), (4,))
        with pytest.raises(UserError, match="CoSENT needs rows of two texts and a score"):
            model.fit(["a dog", "a cat"])
        with pytest.raises(UserError, match="needs at least 2, which it compares"):
            model.fit([("a dog", "a cat", 0.5)])

    def test_a_teachers_vectors_stand_outside(self, tiny_preset):
        with pytest.raises(UserError, match="Put the Matryoshka into the Distillation"):
            SimCSE.from_preset(str(tiny_preset), objective=Matryoshka(Distillation(InfoNCE()), (16, 4)))
        inside = Distillation(Matryoshka(InfoNCE(), (16, 4)))
        assert SimCSE.from_preset(str(tiny_preset), objective=inside).encoder.sizes == (4,)
        with pytest.raises(UserError, match="`projection` 8: nothing learns a teacher's vectors"):
            SimCSE.from_preset(str(tiny_preset), projection=8)

    def test_a_size_beyond_the_encoders_is_refused(self, tiny_preset):
        with pytest.raises(UserError, match="`dim` 17: the vectors of this encoder have 16"):
            SimCSE.from_preset(str(tiny_preset), objective=Matryoshka(InfoNCE(), (17, 4)))

    def test_training_sees_all_numbers_of_an_encoder_that_gives_the_first(self, tiny_preset):
        encoder = SentenceEncoder.from_preset(str(tiny_preset), pooling="avg", head="none", dim=4)
        model = SimCSE(encoder, Matryoshka(InfoNCE(), (16, 4)))
        assert model.predict(["a dog", "a cat"], verbose=0).shape == (2, 4)
        model.compile(keras.optimizers.SGD(0.1))
        model.fit(["a dog", "a cat", "a man", "a woman"], batch_size=4, verbose=0)
        np.testing.assert_allclose(
            model.predict(["a dog", "a cat"], verbose=0), model.encoder.encode(["a dog", "a cat"]), atol=1e-5
        )
