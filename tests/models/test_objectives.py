"""Every objective and its gradients against NumPy in float64: loops for losses, finite differences for gradients.

A row of OBJECTIVES is compared with NumPy, between replicas, in chunks, and after Keras has saved it.
"""

from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

from simcse_tf import config
from simcse_tf.config import TrainConfig
from simcse_tf.errors import UserError
from simcse_tf.models import objectives
from simcse_tf.models.objectives import (
    CoSENT,
    InfoNCE,
    Objective,
    Queue,
    TripletMargin,
    Views,
    count_false_negatives,
    same_text,
    triplet_margin,
    unit,
)
from simcse_tf.models.terms import AlignUniform, DimensionContrast, WithTerms
from simcse_tf.training import gradcache, loop

N, DIM = 6, 5


def vectors(views, seed=0):
    return np.random.default_rng(seed).normal(size=(N, views, DIM))


def cosine(u, v):
    return u @ v / np.sqrt((u @ u) * (v @ v))


def numpy_info_nce(x, temperature, weight=0.0, same=lambda i, j, view: False):
    """Equation by equation, candidate by candidate."""
    losses = []
    for i in range(len(x)):
        own = np.exp(cosine(x[i, 0], x[i, 1]) / temperature)
        bottom = own
        for j in range(len(x)):
            if j != i and not same(i, j, 1):
                bottom += np.exp(cosine(x[i, 0], x[j, 1]) / temperature)
            for view in range(2, x.shape[1]):
                if not same(i, j, view):
                    bottom += np.exp(cosine(x[i, 0], x[j, view]) / temperature + (weight if i == j else 0.0))
        losses.append(-np.log(own / bottom))
    return np.array(losses)


def numpy_variant(
    x,
    frozen,
    temperature=0.5,
    *,
    directions=("a2p",),
    joint=False,
    own=lambda s: s,
    other=lambda s: s,
    decoupled=False,
    weight=0.0,
    mixed=None,
    queue=(),
    clean=False,
    same=lambda i, j, view: False,
):
    """InfoNCE with what later papers changed, pair by pair. What has no gradient is made of `frozen`."""
    n, views = len(x), x.shape[1] - clean
    losses = []
    for i in range(n):

        def among(direction, i=i):
            for j in range(n):
                if j == i:
                    continue
                if clean:
                    yield other(cosine(x[i, -1], x[j, -1])) / temperature
                    continue
                view, candidate = {"a2p": (0, 1), "p2a": (1, 0), "a2a": (0, 0), "p2p": (1, 1)}[direction]
                if not same(i, j, candidate):
                    yield other(cosine(x[i, view], x[j, candidate])) / temperature
            if direction != "a2p":
                return
            for j in range(n):
                for view in range(2, views):
                    if not same(i, j, view):
                        yield other(cosine(x[i, 0], x[j, view])) / temperature + weight * (i == j)
                if mixed is not None and (j + 1) % n != i and not same(i, (j + 1) % n, 1):
                    p, q = (v / np.linalg.norm(v) for v in (frozen[j, 1], frozen[(j + 1) % n, 1]))
                    yield other(cosine(x[i, 0], mixed * p + (1 - mixed) * q)) / temperature
            for vector in queue:
                yield other(cosine(x[i, 0], vector)) / temperature

        positive = own(cosine(x[i, 0], x[i, 1])) / temperature
        negatives = [list(among(direction)) for direction in directions]
        if joint:
            negatives = [np.concatenate(negatives)]
        sums = [np.exp(positive) * (not decoupled) + np.exp(found).sum() for found in negatives]
        losses.append(np.mean([np.log(total) - positive for total in sums]))
    return np.array(losses)


def arccon(s, margin=np.pi / 18):
    return np.cos(np.arccos(s) + margin) if s > 0 else s


def focal(s, margin=0.3):
    return s * (s + margin) if s > -margin / 2 else -(margin**2) / 4


def numpy_dimensions(x, temperature=5.0):
    z, other = ((x[:, view] - x[:, view].mean(0)) / np.sqrt(x[:, view].var(0) + 1e-5) for view in (0, 1))
    logits = z.T @ other / len(x) / temperature
    losses = [np.log(np.exp(logits[d]).sum()) - logits[d, d] for d in range(x.shape[2])]
    return np.full(len(x), np.mean(losses))


def numpy_align_uniform(x, weight=1.0):
    u = x / np.linalg.norm(x, axis=-1, keepdims=True)
    spread = []
    for view in (0, 1):
        potentials = [
            np.exp(-2 * ((u[i, view] - u[j, view]) ** 2).sum()) for i in range(len(x)) for j in range(len(x)) if i != j
        ]
        spread.append(np.log(np.mean(potentials)))
    return ((u[:, 0] - u[:, 1]) ** 2).sum(-1) + weight * np.mean(spread)


def numpy_triplet(x, margin):
    u = x / np.linalg.norm(x, axis=-1, keepdims=True)
    near = ((u[:, 0] - u[:, 1]) ** 2).sum(-1)
    hinges = [np.maximum(0.0, near - ((u[:, 0] - u[:, v]) ** 2).sum(-1) + margin) for v in range(2, x.shape[1])]
    return np.mean(hinges, axis=0)


def numpy_cosent(x, scores, temperature):
    """The batch's loss, for every row."""
    total = 1.0
    for i in range(len(x)):
        for j in range(len(x)):
            if scores[i] > scores[j]:
                total += np.exp((cosine(x[j, 0], x[j, 1]) - cosine(x[i, 0], x[i, 1])) / temperature)
    return np.full(len(x), np.log(total))


def finite_differences(f, x, step=1e-5):
    gradient = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[at] += step
        down[at] -= step
        gradient[at] = (f(up) - f(down)) / (2 * step)
    return gradient


LABELS = [0, 1, 0, 2, 1, 0]
SCORES = [0.5, 4.0, 4.0, -1.0, 2.5, 0.0]


def same_label(i, j, view):
    return view == 1 and LABELS[i] == LABELS[j]


QUEUE = np.random.default_rng(5).normal(size=(4, DIM))
ALL = ("a2p", "p2a", "a2a", "p2p")


class Row(NamedTuple):
    """An objective, and what it should give for vectors, of which those without a gradient are `frozen`."""

    views: int
    objective: Objective
    reference: object
    targets: list | None = None
    queue: bool = False
    # Behind the views stands one more, the anchors without dropout.
    clean: bool = False

    def vectors(self):
        return vectors(self.views + self.clean)

    def batch(self, x, rows=slice(None)):
        """The rows of a batch of these vectors, as the objective gets them."""
        ids = tf.reshape(tf.range(N * self.views, dtype=tf.int64), [N, self.views])
        targets = None
        if self.targets is not None:
            targets = tf.constant(self.targets, tf.int64 if self.targets is LABELS else tf.float32)[rows]
        queue = None
        if self.queue:
            # One place is empty, and one has a text of the batch: row 2's positive.
            held = np.concatenate([QUEUE[:3], vectors(2, seed=9)[:2, 0]])
            queue = Queue(tf.constant(held, tf.float32), tf.constant([100, 101, 102, -1, 2 * self.views + 1], tf.int64))
        without = x[rows, self.views] if self.clean else None
        return Views(x[rows, : self.views], ids[rows], targets, without, queue)


def variant(views=2, *, clean=False, targets=None, queue=False, settings=None, **reference):
    """A row of InfoNCE: how it is set, and how that is written for NumPy."""

    def numpy(x, frozen):
        if not queue:
            return numpy_variant(x, frozen, clean=clean, **reference)
        # Row 2 alone leaves out the text that is its positive.
        others = [numpy_variant(x, frozen, queue=held, **reference) for held in (QUEUE_OF_OTHERS, QUEUE[:3])]
        return np.where(np.arange(N) == 2, others[1], others[0])

    return Row(views, InfoNCE(0.5, **(settings or {})), numpy, targets, queue, clean)


QUEUE_OF_OTHERS = np.concatenate([QUEUE[:3], vectors(2, seed=9)[1:2, 0]])


def plain(views, objective, reference, targets=None):
    return Row(views, objective, lambda x, frozen: reference(x), targets)


OBJECTIVES = {
    "unsupervised or pairs": plain(2, InfoNCE(0.5), lambda x: numpy_info_nce(x, 0.5)),
    "the paper's temperature": plain(2, InfoNCE(0.05), lambda x: numpy_info_nce(x, 0.05)),
    "hard negatives": plain(3, InfoNCE(0.3), lambda x: numpy_info_nce(x, 0.3)),
    "weighted hard negatives": plain(3, InfoNCE(0.3, 0.7), lambda x: numpy_info_nce(x, 0.3, 0.7)),
    "many hard negatives": plain(5, InfoNCE(0.3, 0.7), lambda x: numpy_info_nce(x, 0.3, 0.7)),
    "classes": plain(2, InfoNCE(0.3), lambda x: numpy_info_nce(x, 0.3, same=same_label), LABELS),
    "classes with hard negatives": plain(4, InfoNCE(0.3), lambda x: numpy_info_nce(x, 0.3, same=same_label), LABELS),
    "triplet margin": plain(3, TripletMargin(0.4), lambda x: numpy_triplet(x, 0.4)),
    "triplet margin to many": plain(5, TripletMargin(0.4), lambda x: numpy_triplet(x, 0.4)),
    "graded pairs": plain(2, CoSENT(0.5), lambda x: numpy_cosent(x, SCORES, 0.5), SCORES),
    "graded pairs at the usual temperature": plain(2, CoSENT(), lambda x: numpy_cosent(x, SCORES, 0.05), SCORES),
    "both directions": variant(settings={"directions": ("p2a", "a2p")}, directions=("a2p", "p2a")),
    "all directions": variant(settings={"directions": ALL}, directions=ALL),
    "all directions in one sum": variant(
        4,
        settings={"directions": ALL, "joint": True, "hard_negative_weight": 0.7},
        directions=ALL,
        joint=True,
        weight=0.7,
    ),
    "all directions with classes": variant(
        3,
        settings={"directions": ALL},
        directions=ALL,
        same=lambda i, j, view: view < 2 and LABELS[i] == LABELS[j],
        targets=LABELS,
    ),
    "arccon": variant(settings={"logits": "arccon"}, own=arccon),
    "focal with hard negatives": variant(
        3, settings={"logits": "focal", "hard_negative_weight": 0.7}, own=lambda s: s * abs(s), other=focal, weight=0.7
    ),
    "decoupled": variant(settings={"decoupled": True}, decoupled=True),
    "decoupled, all directions in one sum": variant(
        settings={"directions": ALL, "joint": True, "decoupled": True}, directions=ALL, joint=True, decoupled=True
    ),
    "mixed negatives": variant(settings={"mixed_negatives": 0.2}, mixed=0.2),
    "mixed negatives of classes with hard ones": variant(
        3,
        settings={"mixed_negatives": 0.4, "hard_negative_weight": 0.7},
        mixed=0.4,
        weight=0.7,
        same=same_label,
        targets=LABELS,
    ),
    "off-dropout negatives": variant(settings={"positive_scale": 0.9}, clean=True, own=lambda s: 0.9 * s),
    "a queue": variant(queue=True),
    "a queue, mixed negatives and arccon": variant(
        3, queue=True, settings={"logits": "arccon", "mixed_negatives": 0.2}, own=arccon, mixed=0.2
    ),
    "alignment and uniformity": plain(2, AlignUniform(0.7), lambda x: numpy_align_uniform(x, 0.7)),
    "with dimensions and uniformity": plain(
        3,
        WithTerms(InfoNCE(0.3), (DimensionContrast(0.5), AlignUniform()), (0.4, 0.2)),
        lambda x: numpy_info_nce(x, 0.3) + 0.4 * numpy_dimensions(x, 0.5) + 0.2 * numpy_align_uniform(x),
    ),
}


def losses_and_gradient(row, x, *, replicas=1):
    """Of all anchors, as many replicas compute them: each its own against the candidates of all."""
    variable = tf.Variable(x, dtype=tf.float32)
    with tf.GradientTape() as tape:
        whole = tf.convert_to_tensor(variable)
        everyone, n = row.batch(whole), N // replicas
        own = [row.batch(whole, slice(i, i + n)) for i in range(0, N, n)]
        losses = tf.concat([row.objective(part, everyone, i * n) for i, part in enumerate(own)], axis=0)
    return losses.numpy(), tape.gradient(losses, variable).numpy()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_loss_and_gradients_equal_numpy(name):
    row = OBJECTIVES[name]
    x = row.vectors()
    losses, gradient = losses_and_gradient(row, x)
    np.testing.assert_allclose(losses, row.reference(x, x), rtol=1e-5, atol=1e-5)
    expected = finite_differences(lambda moved: row.reference(moved, x).sum(), x)
    # Under arccon's root is 1e-6 more.
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_replicas_compute_what_one_would_with_the_whole_batch(name):
    row = OBJECTIVES[name]
    one, several = (losses_and_gradient(row, row.vectors(), replicas=n) for n in (1, 3))
    for value, expected in zip(several, one, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_chunks_give_the_gradients_of_the_whole_batch(name):
    row = OBJECTIVES[name]
    dense = keras.layers.Dense(DIM)
    dense.build((None, DIM))
    inputs = {"x": tf.constant(row.vectors(), tf.float32)}
    vectors, backpropagate = gradcache.encode(lambda chunk: dense(chunk["x"]), inputs, 2, [])
    with tf.GradientTape() as tape:
        tape.watch(vectors)
        loss = tf.reduce_mean(row.objective(row.batch(vectors), row.batch(vectors)))
    gradients = backpropagate(tape.gradient(loss, vectors), dense.trainable_variables)
    with tf.GradientTape() as tape:
        vectors = dense(inputs["x"])
        loss = tf.reduce_mean(row.objective(row.batch(vectors), row.batch(vectors)))
    for value, expected in zip(gradients, tape.gradient(loss, dense.trainable_variables), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_keras_saves_its_settings(name):
    objective = OBJECTIVES[name].objective
    assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(objective)) == objective


def test_every_name_that_a_command_takes_makes_an_objective():
    assert {*objectives._LOGITS} == {*config.LOGITS}
    assert (*objectives._DIRECTIONS,) == config.DIRECTIONS
    assert {*loop.TERMS} == {*config.TERMS}
    for logits in ("cosine", "arccon", "arccon:0.2", "focal", "focal:0.1"):
        given = TrainConfig(
            logits=logits, directions=ALL, joint=True, negatives=("mixed:0.3",), add=("dimensions:0.2",)
        )
        given.validate()
        made = loop.objective(given)
        assert made.weights == (0.2,)
        assert made.objective.mixed_negatives == 0.3
        assert made.objective.directions == ALL
        assert made.objective.logits == logits.partition(":")[0]


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        ({"directions": ("p2a",)}, ["`directions` p2a", "without a2p"]),
        ({"directions": ("a2p", "a2q")}, ["`directions` a2q", "a2p"]),
        ({"joint": True}, ["`joint`", "one direction"]),
        ({"logits": "arcon"}, ["'arccon'"]),
        ({"margin": 0.1}, ["`margin` 0.1", "cosine"]),
        ({"logits": "arccon", "margin": 2.0}, ["`margin` 2.0", "arccon"]),
        ({"mixed_negatives": 1.0}, ["`mixed_negatives` 1.0", "mixed"]),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, facts):
    with pytest.raises(UserError) as e:
        InfoNCE(**settings)
    for fact in facts:
        assert fact in str(e.value)


def test_as_many_weights_as_terms():
    with pytest.raises(UserError, match="`weights`.* expected 2"):
        WithTerms(InfoNCE(), (DimensionContrast(), AlignUniform()), (0.1,))


def test_anchors_without_dropout_stand_for_no_hard_negatives_and_no_other_direction():
    x = tf.constant(vectors(4), tf.float32)
    for objective, row in ((InfoNCE(), Row(3, None, None, clean=True)), (InfoNCE(directions=ALL), OFF_DROPOUT)):
        with pytest.raises(ValueError, match="without dropout"):
            objective(row.batch(x), row.batch(x))


OFF_DROPOUT = OBJECTIVES["off-dropout negatives"]


def test_a_learned_temperature_takes_the_place_of_the_objectives():
    x = tf.constant(vectors(2), tf.float32)
    batch = OBJECTIVES["both directions"].batch(x)
    learned = batch._replace(temperature=tf.constant(0.2))
    for objective, fixed in (
        (InfoNCE(0.5), InfoNCE(0.2)),
        (InfoNCE(0.5, decoupled=True), InfoNCE(0.2, decoupled=True)),
    ):
        np.testing.assert_allclose(objective(batch, learned), fixed(batch, batch), rtol=1e-6)


def test_an_anchor_without_negatives_has_no_loss_even_if_decoupled():
    x = tf.constant(vectors(2), tf.float32)
    alone = OBJECTIVES["classes"].batch(x)._replace(targets=tf.zeros([N], tf.int64))
    np.testing.assert_array_equal(InfoNCE(0.5, decoupled=True)(alone, alone), np.zeros(N))


def test_a_queue_and_anchors_without_dropout_are_as_long_as_what_they_are_compared_with():
    for name in ("a queue", "off-dropout negatives"):
        row = OBJECTIVES[name]
        x = row.vectors()
        whole = row.batch(tf.constant(x, tf.float32))
        first = whole._replace(vectors=whole.vectors[..., :3])
        shorter = row.batch(tf.constant(x[..., :3], tf.float32))
        if row.queue:
            shorter = shorter._replace(queue=Queue(whole.queue.vectors[:, :3], whole.queue.text_ids))
        np.testing.assert_allclose(row.objective(first, first), row.objective(shorter, shorter), rtol=1e-6)


def test_the_hard_negative_weight_is_the_logarithm_of_the_papers_alpha():
    x = vectors(3)
    heavier = numpy_info_nce(x, 1.0, np.log(3.0))
    # alpha = 3 counts the own hard negative three times.
    for i in range(N):
        own = np.exp(cosine(x[i, 0], x[i, 1]))
        others = sum(np.exp(cosine(x[i, 0], x[j, v])) for j in range(N) for v in (1, 2))
        assert heavier[i] == pytest.approx(-np.log(own / (others + 2 * np.exp(cosine(x[i, 0], x[i, 2])))))
    batch = OBJECTIVES["hard negatives"].batch(tf.constant(x, tf.float32))
    np.testing.assert_allclose(InfoNCE(1.0, float(np.log(3.0)))(batch, batch), heavier, rtol=1e-5)


def test_texts_that_occur_twice_are_not_each_others_negatives():
    x = vectors(4)
    ids = np.arange(N * 4).reshape(N, 4)
    ids[4, 0] = ids[1, 1]  # anchor 4 is the positive of row 1
    ids[3, 1] = ids[2, 1]  # rows 2 and 3 have the same positive
    ids[5, 3] = ids[0, 0]  # the second hard negative of row 5 is the anchor of row 0

    def same(i, j, view):
        return ids[j, view] in (ids[i, 0], ids[i, 1])

    batch = Views(tf.constant(x, tf.float32), tf.constant(ids, tf.int64))
    np.testing.assert_allclose(InfoNCE(0.5)(batch, batch), numpy_info_nce(x, 0.5, same=same), rtol=1e-5)
    unmasked = numpy_info_nce(x, 0.5)
    assert not np.allclose(numpy_info_nce(x, 0.5, same=same), unmasked)
    assert same_text(batch, batch).shape == (N, 3 * N)


def test_texts_of_the_anchors_class_are_no_negatives_whatever_is_masked_beside_them():
    x, ids = vectors(2), np.arange(N * 2).reshape(N, 2)
    ids[3, 1] = ids[4, 1]  # of different classes
    batch = Views(tf.constant(x, tf.float32), tf.constant(ids, tf.int64), tf.constant(LABELS, tf.int64))
    assert count_false_negatives(batch, batch) == 2

    def same(i, j, view):
        return same_label(i, j, view) or ids[j, view] in (ids[i, 0], ids[i, 1])

    unmasked = numpy_info_nce(x, 0.5, same=same_label)
    np.testing.assert_allclose(InfoNCE(0.5, 0.0, False)(batch, batch), unmasked, rtol=1e-5)
    np.testing.assert_allclose(InfoNCE(0.5)(batch, batch), numpy_info_nce(x, 0.5, same=same), rtol=1e-5)
    alone = batch._replace(targets=tf.zeros([N], tf.int64))
    np.testing.assert_allclose(InfoNCE(0.5)(alone, alone), np.zeros(N), atol=1e-6)


@pytest.mark.parametrize("scores", [[3.0] * N, [1.0]])
def test_scores_that_order_nothing_give_no_loss_and_no_gradient(scores):
    x = tf.Variable(vectors(2)[: len(scores)], dtype=tf.float32)
    with tf.GradientTape() as tape:
        batch = Views(tf.convert_to_tensor(x), tf.zeros([len(scores), 2], tf.int64), tf.constant(scores))
        losses = CoSENT()(batch, batch)
    np.testing.assert_array_equal(losses, np.zeros(len(scores)))
    np.testing.assert_array_equal(tape.gradient(losses, x), np.zeros(x.shape))


def test_cosent_refuses_rows_without_scores_or_with_other_than_two_texts():
    for views, targets in ((2, None), (3, tf.zeros([2]))):
        batch = Views(tf.zeros([2, views, 3]), tf.zeros([2, views], tf.int64), targets)
        with pytest.raises(ValueError, match=f"{views} views and {'no ' * (targets is None)}scores"):
            CoSENT()(batch, batch)


def test_half_precision_vectors_give_float32_losses():
    batch = OBJECTIVES["hard negatives"].batch(tf.constant(vectors(3), tf.float16))
    losses = InfoNCE(0.01)(batch, batch)
    assert losses.dtype == tf.float32
    assert np.isfinite(losses).all()


def test_a_zero_vector_has_no_nan():
    assert np.array_equal(unit(tf.zeros([2, 3])), np.zeros((2, 3)))
    x = tf.Variable(tf.concat([tf.zeros([N, 1, DIM]), tf.ones([N, 1, DIM])], axis=1))
    with tf.GradientTape() as tape:
        batch = OBJECTIVES["both directions"].batch(tf.convert_to_tensor(x))
        loss = tf.reduce_sum(InfoNCE(logits="arccon")(batch, batch))
    assert np.isfinite(tape.gradient(loss, x)).all()


def test_the_triplet_loss_is_zero_where_the_margin_is_kept():
    a = tf.constant([[1.0, 0.0]])
    opposite = -a[:, tf.newaxis]
    assert triplet_margin(a, a, opposite, margin=3.9).numpy() == [0.0]
    assert triplet_margin(a, a, opposite, margin=4.5).numpy() == pytest.approx([0.5])


def test_the_triplet_loss_refuses_rows_without_hard_negatives():
    batch = Views(tf.zeros([2, 2, 3]), tf.zeros([2, 2], tf.int64))
    with pytest.raises(ValueError, match="3 views"):
        TripletMargin()(batch, batch)
