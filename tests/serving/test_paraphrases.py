"""Pairs and communities of vectors, beside loops over everything."""

import itertools

import numpy as np
import pytest

from simcse_tf.errors import UserError
from simcse_tf.serving import Client, paraphrases


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("float32")


def grouped(rows, dim=8, groups=40, seed=0):
    """Vectors in groups, as sentences are."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(groups, dim))
    return unit(centres[rng.integers(groups, size=rows)] + 0.3 * rng.normal(size=(rows, dim)))


def expected(vectors, threshold):
    """All pairs, by a loop in float64."""
    scores = vectors.astype("float64") @ vectors.astype("float64").T
    pairs = [(i, j) for i, j in itertools.combinations(range(len(vectors)), 2) if scores[i, j] >= threshold]
    return {pair: scores[pair] for pair in pairs}


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(paraphrases, "_ROWS", 16)
    monkeypatch.setattr(paraphrases, "_COLUMNS", 24)


@pytest.mark.parametrize("rows", [1, 2, 15, 16, 17, 100, 333])
def test_the_pairs_are_those_of_a_loop_over_everything(small_blocks, rows):
    vectors = grouped(rows)
    found, cosines = paraphrases.find(vectors, 0.8, top_k=rows)
    wanted = expected(vectors, 0.8)
    assert {tuple(pair) for pair in found.tolist()} == wanted.keys()
    assert len(found) == len(wanted)
    np.testing.assert_allclose(cosines, [wanted[tuple(pair)] for pair in found.tolist()], atol=1e-6)
    assert (np.diff(cosines) <= 0).all()


def test_cells_find_the_same_as_long_as_all_of_them_are_near(small_blocks, monkeypatch):
    pytest.importorskip("faiss", reason="faiss is not installed: pip install 'simcse-tf[index]'")
    vectors = grouped(400)
    monkeypatch.setattr(paraphrases, "_FLAT", 100)
    monkeypatch.setattr(paraphrases, "_PROBES", 40)
    found, _ = paraphrases.find(vectors, 0.8, top_k=400)
    assert {tuple(pair) for pair in found.tolist()} == expected(vectors, 0.8).keys()
    monkeypatch.setattr(paraphrases, "_PROBES", 4)
    fewer, _ = paraphrases.find(vectors, 0.8, top_k=400)
    assert 0.9 * len(found) < len(fewer) <= len(found)
    assert {tuple(pair) for pair in fewer.tolist()} <= {tuple(pair) for pair in found.tolist()}


def test_a_row_has_top_k_pairs_with_later_rows_the_nearest(small_blocks):
    vectors = grouped(200, groups=3)
    found, cosines = paraphrases.find(vectors, 0.5, top_k=4)
    wanted = expected(vectors, 0.5)
    for i in range(200):
        best = sorted((score for (first, _), score in wanted.items() if first == i), reverse=True)[:4]
        np.testing.assert_allclose(cosines[found[:, 0] == i], best, atol=1e-6)


def test_rows_that_are_all_alike_give_no_more_than_top_k_pairs_each(small_blocks):
    vectors = unit(np.ones((1000, 4)))
    found, _ = paraphrases.find(vectors, 0.9, top_k=3)
    assert len(found) == 3 * 1000 - 3 - 2 - 1
    centres, cosines = paraphrases.communities(vectors, *paraphrases.find(vectors, 0.9, 3), 0.9, 3)
    assert len(set(centres.tolist())) == 1, "a community fell apart where its rows have more pairs than are kept"
    np.testing.assert_allclose(cosines, 1, atol=1e-6)


@pytest.mark.parametrize("top_k", [2, 10, 300])
def test_communities_are_those_of_a_loop_over_everything(top_k):
    vectors = grouped(300, groups=30, seed=1)
    near = vectors.astype("float64") @ vectors.astype("float64").T >= 0.85
    np.fill_diagonal(near, False)
    found = paraphrases.find(vectors, 0.85, top_k)
    centres, cosines = paraphrases.communities(vectors, *found, 0.85, top_k)
    if top_k == 300:
        free, wanted = np.ones(300, bool), np.full(300, -1)
        for row in np.argsort(-near.sum(axis=1), kind="stable"):
            if free[row] and (near[row] & free).any():
                wanted[near[row] & free] = wanted[row] = row
                free[near[row]] = free[row] = False
        np.testing.assert_array_equal(centres, wanted)
    # However few pairs are kept: everybody is near to the centre, and who could still join one is in one.
    inside = centres >= 0
    for row in np.flatnonzero(inside):
        assert centres[row] == row or near[row, centres[row]]
        assert cosines[row] == pytest.approx(vectors[row] @ vectors[centres[row]], abs=1e-6)
    assert not near[np.ix_(~inside, ~inside)].any()


def test_communities_do_not_hang_together_by_chains():
    angles = np.radians(np.arange(0, 100, 10))
    vectors = unit(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    threshold = np.cos(np.radians(15))
    centres, _ = paraphrases.communities(vectors, *paraphrases.find(vectors, threshold), threshold)
    assert max(np.bincount(centres[centres >= 0])) == 3


def test_communities_are_listed_by_size_with_the_centre_first():
    of, cosines = np.array([4, -1, 2, 4, 4, 2]), np.array([0.8, 0, 1, 0.9, 1, 0.7])
    groups = paraphrases.by_size(of, cosines, of == np.arange(6))
    assert [group.tolist() for group in groups] == [[4, 3, 0], [2, 5]]
    assert paraphrases.by_size(np.full(3, -1), np.zeros(3), np.zeros(3, bool)) == []


class Stub:
    """A model that counts letters."""

    name = "stub"

    def encode_batch(self, texts):
        return unit(np.array([[1e-3 + text.count(c) for c in "abcdef"] for text in texts]))


def test_the_client_takes_texts_or_vectors():
    model, texts = Client(Stub()), ["aaab", "ccd", "aab", "fff", "ccdd", "aaaab"]
    pairs = model.paraphrases(texts, threshold=0.9)
    assert [pair[1:] for pair in pairs] == [(0, 5), (0, 2), (2, 5), (1, 4)]
    assert pairs[0][0] == pytest.approx(13 / np.sqrt(10 * 17), abs=1e-3)
    assert model.paraphrases(model.encode(texts), threshold=0.9) == pairs
    assert model.communities(texts, threshold=0.9) == [[0, 5, 2], [1, 4]]
    assert len(model.paraphrases(texts, threshold=0.9, top_k=1)) == 3
    assert model.paraphrases(["a"]) == model.communities(["a"]) == []
    assert model.paraphrases([]) == model.communities([]) == []
    with pytest.raises(UserError, match="`threshold` 80"):
        model.paraphrases(texts, threshold=80)
    with pytest.raises(UserError, match="`top_k` 0"):
        model.paraphrases(texts, top_k=0)
