import numpy as np
import pytest

from simcse_tf.serving.probes import PROBES, SAME_ANY_FORMAT, SAME_FLOAT32, difference


@pytest.fixture
def vectors():
    vectors = np.random.default_rng(0).normal(size=(len(PROBES), 384))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("float32")


def moved(vectors, distance):
    return vectors + distance * np.eye(*vectors.shape, k=7)


def test_the_same_vectors_are_of_the_same_model(vectors):
    assert difference(vectors, vectors, tolerance=0) == ""


@pytest.mark.parametrize("tolerance", [SAME_FLOAT32, SAME_ANY_FORMAT])
def test_what_is_further_than_arithmetic_explains_is_another_model(vectors, tolerance):
    assert difference(vectors, moved(vectors, 0.5 * tolerance), tolerance=tolerance) == ""
    assert "other vectors" in difference(vectors, moved(vectors, 2 * tolerance), tolerance=tolerance)


def test_rounding_is_not_another_model(vectors):
    rounded = vectors + np.random.default_rng(1).uniform(-1e-6, 1e-6, vectors.shape)
    assert difference(vectors, rounded, tolerance=SAME_FLOAT32) == ""
    halved = vectors.astype("float16").astype("float32")
    assert difference(vectors, halved, tolerance=SAME_ANY_FORMAT) == ""


def test_another_number_of_dimensions_and_nan_are_another_model(vectors):
    assert "384" in difference(vectors, vectors[:, :-1], tolerance=SAME_ANY_FORMAT)
    assert difference(vectors, vectors * np.nan, tolerance=SAME_ANY_FORMAT)
