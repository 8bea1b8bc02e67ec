"""Every objective and its gradients against NumPy in float64: loops for losses, finite differences for gradients."""

import numpy as np
import pytest
import tensorflow as tf

from simcse_tf.models.objectives import (
    CoSENT,
    InfoNCE,
    TripletMargin,
    Views,
    count_false_negatives,
    info_nce,
    same_text,
    triplet_margin,
    unit,
)

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


OBJECTIVES = {
    "unsupervised or pairs": (2, InfoNCE(0.5), lambda x: numpy_info_nce(x, 0.5)),
    "the paper's temperature": (2, InfoNCE(0.05), lambda x: numpy_info_nce(x, 0.05)),
    "hard negatives": (3, InfoNCE(0.3), lambda x: numpy_info_nce(x, 0.3)),
    "weighted hard negatives": (3, InfoNCE(0.3, 0.7), lambda x: numpy_info_nce(x, 0.3, 0.7)),
    "many hard negatives": (5, InfoNCE(0.3, 0.7), lambda x: numpy_info_nce(x, 0.3, 0.7)),
    "classes": (2, InfoNCE(0.3), lambda x: numpy_info_nce(x, 0.3, same=same_label), LABELS),
    "classes with hard negatives": (4, InfoNCE(0.3), lambda x: numpy_info_nce(x, 0.3, same=same_label), LABELS),
    "triplet margin": (3, TripletMargin(0.4), lambda x: numpy_triplet(x, 0.4)),
    "triplet margin to many": (5, TripletMargin(0.4), lambda x: numpy_triplet(x, 0.4)),
    "graded pairs": (2, CoSENT(0.5), lambda x: numpy_cosent(x, SCORES, 0.5), SCORES),
    "graded pairs at the usual temperature": (2, CoSENT(), lambda x: numpy_cosent(x, SCORES, 0.05), SCORES),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_loss_and_gradients_equal_numpy(name):
    views, objective, reference, *targets = OBJECTIVES[name]
    x = vectors(views)
    ids = tf.reshape(tf.range(N * views, dtype=tf.int64), [N, views])
    targets = [tf.constant(numbers, tf.int64 if numbers is LABELS else tf.float32) for numbers in targets]
    variable = tf.Variable(x, dtype=tf.float32)
    with tf.GradientTape() as tape:
        batch = Views(tf.convert_to_tensor(variable), ids, *targets)
        losses = objective(batch, batch)
    gradient = tape.gradient(losses, variable)
    np.testing.assert_allclose(losses, reference(x), rtol=1e-5, atol=1e-5)
    expected = finite_differences(lambda x: reference(x).sum(), x)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_the_hard_negative_weight_is_the_logarithm_of_the_papers_alpha():
    x = vectors(3)
    heavier = numpy_info_nce(x, 1.0, np.log(3.0))
    # alpha = 3 counts the own hard negative three times.
    for i in range(N):
        own = np.exp(cosine(x[i, 0], x[i, 1]))
        others = sum(np.exp(cosine(x[i, 0], x[j, v])) for j in range(N) for v in (1, 2))
        assert heavier[i] == pytest.approx(-np.log(own / (others + 2 * np.exp(cosine(x[i, 0], x[i, 2])))))
    actual = info_nce(x[:, 0], x[:, 1], x[:, 2:], temperature=1.0, hard_negative_weight=float(np.log(3.0)))
    np.testing.assert_allclose(actual, heavier, rtol=1e-5)


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


def test_anchors_of_one_replica_against_candidates_of_all():
    x = vectors(4)
    ids = tf.reshape(tf.range(N * 4, dtype=tf.int64), [N, 4])
    everyone = Views(tf.constant(x, tf.float32), ids, tf.constant(LABELS, tf.int64))
    whole = InfoNCE(0.2, 0.5)(everyone, everyone)
    own = [Views(*(part[i : i + 2] for part in everyone)) for i in range(0, N, 2)]
    parts = [InfoNCE(0.2, 0.5)(part, everyone, 2 * i) for i, part in enumerate(own)]
    np.testing.assert_allclose(tf.concat(parts, 0), whole, rtol=1e-6)


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
    x = tf.constant(vectors(2), tf.float16)
    losses = info_nce(x[:, 0], x[:, 1], temperature=0.01)
    assert losses.dtype == tf.float32
    assert np.isfinite(losses).all()


def test_a_zero_vector_has_no_nan():
    assert np.array_equal(unit(tf.zeros([2, 3])), np.zeros((2, 3)))
    x = tf.Variable(tf.zeros([2, 3]))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(info_nce(x, tf.ones([2, 3])))
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
