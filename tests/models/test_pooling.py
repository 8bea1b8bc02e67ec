import numpy as np
import pytest
import tensorflow as tf

from simcse_tf.config import Pooling
from simcse_tf.models.pooling import POOLERS

HIDDEN = np.random.default_rng(0).normal(size=(4, 3, 5, 2)).astype("float32")  # layers, n, length, dim
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]])


def pool(name):
    pooler = POOLERS[name]
    return np.array(pooler.pool([tf.constant(HIDDEN[i]) for i in pooler.layers], tf.constant(MASK)))


def mean_of_tokens(layer):
    return np.array([layer[i, : MASK[i].sum()].mean(0) for i in range(3)])


EXPECTED = {
    "cls": HIDDEN[-1][:, 0],
    "cls_before_pooler": HIDDEN[-1][:, 0],
    "avg": mean_of_tokens(HIDDEN[-1]),
    "avg_top2": (mean_of_tokens(HIDDEN[-1]) + mean_of_tokens(HIDDEN[-2])) / 2,
    "avg_first_last": (mean_of_tokens(HIDDEN[0]) + mean_of_tokens(HIDDEN[-1])) / 2,
}


@pytest.mark.parametrize("name", EXPECTED)
def test_pooling_equals_numpy(name):
    np.testing.assert_allclose(pool(name), EXPECTED[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", EXPECTED)
def test_padding_changes_nothing(name):
    before = pool(name)
    HIDDEN[:, 1, 2:] += 100
    try:
        np.testing.assert_array_equal(pool(name), before)
    finally:
        HIDDEN[:, 1, 2:] -= 100


def test_every_pooler_of_the_configuration_exists():
    assert set(POOLERS) == set(Pooling.__args__)
