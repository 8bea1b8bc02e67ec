"""Alignment and uniformity against double loops and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simcse_tf.errors import UserError
from simcse_tf.evaluation import geometry, sts


def looped_alignment(x, y):
    total = 0.0
    for u, v in zip(x, y, strict=True):
        u, v = u / math.sqrt(sum(u * u)), v / math.sqrt(sum(v * v))
        total += sum((u - v) ** 2)
    return total / len(x)


def looped_uniformity(x, t=2.0):
    x = [u / math.sqrt(sum(u * u)) for u in x]
    values = [math.exp(-t * sum((x[i] - x[j]) ** 2)) for i in range(len(x)) for j in range(i)]
    return math.log(sum(values) / len(values))


def test_alignment_equals_a_loop_over_pairs():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 40, 7)) * 3
    assert geometry.alignment(x, y) == pytest.approx(looped_alignment(x, y), rel=1e-12)


@pytest.mark.parametrize("block", [1, 7, 30, 31, 1024])
def test_uniformity_equals_a_double_loop_whatever_the_blocks(monkeypatch, block):
    monkeypatch.setattr(geometry, "_BLOCK", block)
    x = np.random.default_rng(1).normal(size=(31, 5)) * 3
    assert geometry.uniformity(x) == pytest.approx(looped_uniformity(x), rel=1e-12)
    assert geometry.uniformity(x, t=0.5) == pytest.approx(looped_uniformity(x, 0.5), rel=1e-12)


def test_float32_vectors_are_measured_in_double_precision():
    x = np.random.default_rng(2).normal(size=(50, 6)).astype(np.float32)
    assert geometry.uniformity(x) == pytest.approx(looped_uniformity(x.astype(np.float64)), rel=1e-12)


def test_alignment_of_known_pairs():
    x = np.array([[2.0, 0, 0], [0, 3, 0]])
    assert geometry.alignment(x, 5 * x) == 0
    assert geometry.alignment(x, -x) == pytest.approx(4)
    assert geometry.alignment(x, x[::-1]) == pytest.approx(2)


def test_uniformity_of_known_sets():
    assert geometry.uniformity(np.full((5, 3), 0.7)) == pytest.approx(0, abs=1e-12)
    assert geometry.uniformity(np.eye(6)) == pytest.approx(-4)  # every squared distance is 2
    assert geometry.uniformity(np.array([[1.0, 0], [-2, 0]])) == pytest.approx(-8)
    # A square: 4 sides of squared length 2 and 2 diagonals of squared length 4.
    square = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    assert geometry.uniformity(square) == pytest.approx(math.log((4 * math.exp(-4) + 2 * math.exp(-8)) / 6))


@pytest.mark.parametrize(
    ("x", "y"),
    [(np.ones((2, 3)), np.ones((3, 3))), (np.ones((0, 3)), np.ones((0, 3))), (np.zeros((1, 2)), np.ones((1, 2)))],
)
def test_alignment_refuses_arrays_that_are_no_pairs(x, y):
    with pytest.raises(ValueError, match=r"alignment takes|length 0"):
        geometry.alignment(x, y)


@pytest.mark.parametrize("x", [np.ones((1, 3)), np.ones(4), np.zeros((3, 2))])
def test_uniformity_refuses_fewer_than_two_directions(x):
    with pytest.raises(ValueError, match=r"uniformity takes|length 0"):
        geometry.uniformity(x)


def test_geometry_takes_pairs_above_four_and_each_distinct_sentence_once():
    vectors = {"a": [1.0, 2], "b": [1.0, 2.5], "c": [-3.0, 1], "d": [0.0, -2]}
    pairs = sts.Pairs(
        "toy",
        ["a", "b", "c", "a"],
        ["b", "c", "d", "d"],
        np.array([4.2, 4.0, 0.0, 5.0]),
        {"all": slice(0, 4)},
        "memory",
    )
    calls = []

    def encode(texts):
        calls.append(list(texts))
        return np.array([vectors[text] for text in texts])

    measured = geometry.geometry(encode, pairs)
    table = {name: np.array(v) for name, v in vectors.items()}
    assert measured.positives == 2  # 4.0 is not above 4
    assert measured.sentences == 4
    assert measured.alignment == pytest.approx(
        looped_alignment([table["a"], table["a"]], [table["b"], table["d"]]), rel=1e-12
    )
    assert measured.uniformity == pytest.approx(looped_uniformity(list(table.values())), rel=1e-12)
    assert sorted(calls[0]) == ["a", "b", "c", "d"]
    assert len(calls) == 1
    assert geometry.measure(*sts.embed_pairs(encode, pairs), pairs) == measured


def test_bad_embeddings_and_pairs_without_positives_name_the_task():
    pairs = sts.Pairs("toy", ["a", "b"], ["c", "d"], np.array([5.0, 1.0]), {"all": slice(0, 2)}, "memory")
    with pytest.raises(UserError, match=r"toy: .*NaN or infinity for 4 sentence.*'a'"):
        geometry.geometry(lambda texts: np.full((len(texts), 3), np.nan), pairs)
    with pytest.raises(UserError, match=r"toy: .*length 0"):
        geometry.geometry(lambda texts: np.zeros((len(texts), 3)), pairs)
    ungraded = sts.Pairs("toy", ["a", "b"], ["c", "d"], np.array([4.0, 1.0]), {"all": slice(0, 2)}, "memory")
    with pytest.raises(UserError, match=r"toy \(memory\): none of 2 pairs is graded above 4"):
        geometry.geometry(lambda texts: np.ones((len(texts), 3)), ungraded)
