"""What is learned from a teacher, and its gradients, against NumPy in float64: loops, and finite differences."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from simcse_tf.models.distillation import Distillation
from simcse_tf.models.objectives import InfoNCE, TripletMargin, Views, as_similar
from simcse_tf.models.terms import RankConsistency, WithTerms, rank_consistency
from tests.models.test_objectives import DIM, N, cosine, finite_differences, numpy_info_nce, numpy_triplet, vectors

TEACHER_DIM = 7
# Different texts for every view, and a teacher of another size that has an opinion on each.
TEACHER = np.random.default_rng(1).normal(size=(N, 4, TEACHER_DIM))
PROJECTION = np.random.default_rng(2).normal(size=(DIM, TEACHER_DIM))


def softmax(x):
    e = np.exp(x - np.max(x))
    return e / e.sum()


def numpy_vectors(x):
    projected = x @ PROJECTION
    return np.array([np.mean([1 - cosine(u, t) for u, t in zip(*row)]) for row in zip(projected, TEACHER)])  # noqa: B905


def numpy_listwise(x, teacher_temperature=0.3, temperature=0.5):
    views, losses = x.shape[1], []
    for i in range(N):
        others = [(j, view) for view in range(1, max(views, 2)) for j in range(N) if (j, view) != (i, 1)]
        others = [(j, view if views > 1 else 0) for j, view in others]
        wanted = softmax([cosine(TEACHER[i, 0], TEACHER[j, view]) / teacher_temperature for j, view in others])
        found = softmax([cosine(x[i, 0], x[j, view]) / temperature for j, view in others])
        losses.append(-np.sum(wanted * np.log(found)))
    return np.array(losses)


def numpy_consistency(x, temperature=0.5):
    losses = []
    for i in range(N):
        p = softmax([cosine(x[i, 0], x[j, 1]) / temperature for j in range(N)])
        q = softmax([cosine(x[j, 0], x[i, 1]) / temperature for j in range(N)])
        m = (p + q) / 2
        losses.append((np.sum(p * np.log(p / m)) + np.sum(q * np.log(q / m))) / 2)
    return np.array(losses)


def numpy_masked(x, margin, relative_margin):
    def same(i, j, view):
        limit = cosine(TEACHER[i, 0], TEACHER[i, 1])
        return cosine(TEACHER[i, 0], TEACHER[j, view]) > limit - margin - relative_margin * abs(limit)

    assert sum(same(i, j, view) for i in range(N) for j in range(N) for view in range(1, x.shape[1]) if i != j) > N
    return numpy_info_nce(x, 0.5, same=same)


def only(objective=None, **settings):
    off = {"vectors_weight": 0.0, "listwise_weight": 0.0, "temperature": 0.5, "teacher_temperature": 0.3}
    return Distillation(objective, **(off | settings))


OBJECTIVES = {
    "vectors": (2, only(vectors_weight=2.0), lambda x: 2 * numpy_vectors(x)),
    "vectors of single texts": (1, only(vectors_weight=1.0), numpy_vectors),
    "listwise": (2, only(listwise_weight=2.0), lambda x: 2 * numpy_listwise(x)),
    "listwise with hard negatives": (4, only(listwise_weight=1.0), numpy_listwise),
    "listwise among single texts": (1, only(listwise_weight=1.0), numpy_listwise),
    "listwise at RankCSE's temperatures": (
        2,
        Distillation(None, 0.0, 1.0),
        lambda x: numpy_listwise(x, 0.025, 0.05),
    ),
    "consistency": (3, RankConsistency(0.5), numpy_consistency),
    "mask": (2, InfoNCE(0.5, mask_margin=0.0), lambda x: numpy_masked(x, 0.0, 0.0)),
    "mask with hard negatives and a margin": (4, InfoNCE(0.5, mask_margin=0.1), lambda x: numpy_masked(x, 0.1, 0.0)),
    "mask with a relative margin": (
        3,
        InfoNCE(0.5, mask_margin=0.0, mask_relative_margin=0.2),
        lambda x: numpy_masked(x, 0.0, 0.2),
    ),
    "beside the triplet loss": (
        3,
        only(TripletMargin(0.4), listwise_weight=0.5),
        lambda x: numpy_triplet(x, 0.4) + 0.5 * numpy_listwise(x),
    ),
    "everything": (
        3,
        WithTerms(
            only(InfoNCE(0.5, mask_margin=0.1), vectors_weight=3.0, listwise_weight=2.0), [RankConsistency(0.5)], [4.0]
        ),
        lambda x: numpy_masked(x, 0.1, 0) + 3 * numpy_vectors(x) + 2 * numpy_listwise(x) + 4 * numpy_consistency(x),
    ),
}


def batch(x):
    views = x.shape[1]
    return Views(
        tf.convert_to_tensor(x),
        tf.reshape(tf.range(N * views, dtype=tf.int64), [N, views]),
        # Of any length.
        teacher=tf.constant(3 * TEACHER[:, :views], tf.float32),
        projected=tf.matmul(x, tf.constant(PROJECTION, tf.float32)[tf.newaxis]),
    )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_loss_and_gradients_equal_numpy(name):
    views, objective, reference = OBJECTIVES[name]
    x = vectors(views)
    variable = tf.Variable(x, dtype=tf.float32)
    with tf.GradientTape() as tape:
        everyone = batch(variable)
        losses = objective(everyone, everyone)
    gradient = tape.gradient(losses, variable)
    np.testing.assert_allclose(losses, reference(x), rtol=1e-5, atol=1e-5)
    expected = finite_differences(lambda x: reference(x).sum(), x)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_anchors_of_one_replica_against_candidates_of_all():
    views, objective, _ = OBJECTIVES["everything"]
    everyone = batch(tf.constant(vectors(views), tf.float32))
    own = [Views(*(None if part is None else part[i : i + 2] for part in everyone)) for i in range(0, N, 2)]
    gathered = everyone._replace(projected=None)
    parts = [objective(part, gathered, 2 * i) for i, part in enumerate(own)]
    np.testing.assert_allclose(tf.concat(parts, 0), objective(everyone, gathered), rtol=1e-5)


def test_the_consistency_is_a_divergence_that_moves():
    x = tf.constant(vectors(2), tf.float32)
    divergence = rank_consistency(x[:, 0], x[:, 1], x[:, 0], x[:, 1], temperature=0.01)
    assert 0 < np.min(divergence) < np.max(divergence) <= np.log(2) + 1e-6
    np.testing.assert_allclose(rank_consistency(x[:, 0], x[:, 0], x[:, 0], x[:, 0]), np.zeros(N), atol=1e-6)


def test_the_positive_of_an_anchor_stays_whatever_the_teacher_says():
    """It thinks nothing of any positive: only they are left, and nothing is to be learned."""
    x = tf.constant(vectors(2), tf.float32)
    teacher = np.zeros((N, 2, 2), "float32")
    teacher[:, 0, 0], teacher[:, 1, 1] = 1, 1
    everyone = Views(x, tf.reshape(tf.range(2 * N, dtype=tf.int64), [N, 2]), teacher=tf.constant(teacher))
    assert as_similar(everyone, everyone, margin=0.01).numpy().all()
    np.testing.assert_allclose(InfoNCE(0.5, mask_margin=0.01)(everyone, everyone), np.zeros(N), atol=1e-6)


@pytest.mark.parametrize(("of", "view"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_the_teacher_compares_any_view_with_any(of, view):
    everyone = batch(tf.constant(vectors(3), tf.float32))
    found = as_similar(everyone, everyone, slice(view, view + 1), margin=0.2, of=of)
    limits = [cosine(TEACHER[i, 0], TEACHER[i, 1]) - 0.2 for i in range(N)]
    expected = [[cosine(TEACHER[i, of], TEACHER[j, view]) > limits[i] for j in range(N)] for i in range(N)]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("objective", [Distillation(), InfoNCE(mask_margin=0.0)])
def test_a_batch_without_a_teacher_is_refused(objective):
    everyone = batch(tf.constant(vectors(2), tf.float32))._replace(teacher=None)
    with pytest.raises(ValueError, match="no vectors of a teacher"):
        objective(everyone, everyone)


def test_vectors_of_another_size_need_a_projection_and_similarities_do_not():
    everyone = batch(tf.constant(vectors(2), tf.float32))._replace(projected=None)
    with pytest.raises(
        ValueError, match=f"have {DIM} numbers, the teacher's {TEACHER_DIM}: .*projection={TEACHER_DIM}"
    ):
        Distillation()(everyone, everyone)
    assert Distillation(None, 0.0, 1.0)(everyone, everyone).shape == (N,)


@pytest.mark.parametrize("inner", [None, InfoNCE(0.1, mask_margin=0.2)])
def test_keras_saves_it_with_what_stands_beside_it(inner):
    objective = Distillation(inner, 2.0, 3.0, temperature=0.1)
    saved = keras.saving.serialize_keras_object(objective)
    assert keras.saving.deserialize_keras_object(saved) == objective
    assert objective.target == (inner and "label")
