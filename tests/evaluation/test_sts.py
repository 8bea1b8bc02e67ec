"""STS against an independent rank computation, on small and synthetic sets in SentEval's layout."""

from __future__ import annotations

import subprocess
import sys
import zlib

import numpy as np
import pytest
from scipy import stats

from simcse_tf.errors import UserError
from simcse_tf.evaluation import sts

from .layout import write_task


def encode(texts):
    """Letter counts: deterministic, different for different sentences, never zero."""
    return np.array([[1 + t.lower().count(c) for c in "abcdefghijklmnopqrstuvwxyz0123456789"] for t in texts], float)


def make_pairs(a, b, gold, **subsets):
    return sts.Pairs("toy", list(a), list(b), np.array(gold, float), subsets or {"all": slice(0, len(gold))}, "memory")


def ranks(x):
    """Average ranks, by counting: no sorting, no SciPy."""
    x = np.asarray(x)
    below = (x[None, :] < x[:, None]).sum(1)
    equal = (x[None, :] == x[:, None]).sum(1)
    return below + (equal + 1) / 2


def pearson(x, y):
    x, y = x - np.mean(x), y - np.mean(y)
    return 100 * (x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum())


def random_vectors(texts):
    """A vector of its own for every sentence: no ties but between equal pairs."""
    return np.stack([np.random.default_rng(zlib.crc32(t.encode())).normal(size=8) for t in texts])


def test_scores_equal_an_independent_rank_computation(tmp_path):
    content = write_task(tmp_path, "STS13")
    result = sts.evaluate(random_vectors, sts.load("STS13", tmp_path))
    cosines, golds, spearman, pearsons, sizes = [], [], [], [], []
    for a, b, gold in content.values():
        x, y = random_vectors(a), random_vectors(b)
        cosine = [np.dot(u, v) / np.sqrt(np.dot(u, u) * np.dot(v, v)) for u, v in zip(x, y, strict=True)]
        cosines += cosine
        golds += list(gold)
        spearman.append(pearson(ranks(cosine), ranks(gold)))
        pearsons.append(pearson(np.array(cosine), gold))
        sizes.append(len(gold))
    np.testing.assert_allclose(result.cosines, cosines, atol=1e-11)
    np.testing.assert_array_equal(result.gold, golds)
    assert result.all.spearman == pytest.approx(pearson(ranks(cosines), ranks(golds)), abs=1e-9)
    assert result.all.pearson == pytest.approx(pearson(np.array(cosines), np.array(golds)), abs=1e-9)
    assert [c.spearman for c in result.subsets.values()] == pytest.approx(spearman, abs=1e-9)
    assert [c.pearson for c in result.subsets.values()] == pytest.approx(pearsons, abs=1e-9)
    assert result.mean.spearman == pytest.approx(sum(spearman) / 3, abs=1e-9)
    assert result.wmean.spearman == pytest.approx(np.dot(spearman, sizes) / 1500, abs=1e-9)
    assert result.wmean.pearson == pytest.approx(np.dot(pearsons, sizes) / 1500, abs=1e-9)
    assert result.mean.spearman != pytest.approx(result.wmean.spearman, abs=1e-6)


def test_pairs_of_equal_sentences_tie_however_their_cosine_is_rounded():
    same = [f"sentence {i}" for i in range(50)]
    gold = np.arange(100) / 20
    pairs = make_pairs(same + same, same + [f"other {i}" for i in range(50)], gold)
    result = sts.evaluate(random_vectors, pairs)
    assert np.all(result.cosines[:50] == 1)
    assert result.all.spearman == pytest.approx(pearson(ranks(result.cosines), ranks(gold)), abs=1e-9)


def test_spearman_is_known_for_a_hand_made_order():
    # Cosines 1 > 0.8 > 0.6 > 0 against grades 4, 5, 2, 1: one swap among 4 ranks gives 1 - 6 * 2 / (4 * 15) = 0.8.
    a = np.array([[1.0, 0], [1, 0], [1, 0], [1, 0]])
    b = np.array([[3.0, 0], [4, 3], [3, 4], [0, 9]])
    result = sts.score(a, b, make_pairs("abcd", "efgh", [4, 5, 2, 1]))
    assert result.all.spearman == pytest.approx(80)
    np.testing.assert_allclose(result.cosines, [1, 0.8, 0.6, 0], atol=1e-15)


def test_the_result_as_json_has_every_figure_but_no_arrays():
    result = sts.evaluate(encode, make_pairs(["a", "b", "c"], ["a", "bx", "zz"], [5, 3, 0], x=slice(0, 3)))
    figures = result.to_dict()
    assert figures["pairs"] == 3
    assert figures["source"] == "memory"
    assert figures["all"] == {"spearman": result.all.spearman, "pearson": result.all.pearson}
    assert figures["subsets"]["x"] == figures["mean"] == figures["wmean"] == figures["all"]


def test_each_distinct_sentence_is_encoded_once():
    calls = []

    def counting(texts):
        calls.append(list(texts))
        return encode(texts)

    result = sts.evaluate(counting, make_pairs(["x", "y", "x"], ["y", "z", "x"], [1, 2, 5]))
    assert calls == [["x", "y", "z"]]
    assert result.cosines[2] == pytest.approx(1)


def test_float32_lists_and_integers_are_embeddings_too():
    pairs = make_pairs(["aab", "bb", "c"], ["ab", "bc", "zz"], [5, 3, 1])
    expected = sts.evaluate(encode, pairs).all.spearman
    for kind in (np.float32, np.int64):
        assert sts.evaluate(lambda t, kind=kind: encode(t).astype(kind), pairs).all.spearman == pytest.approx(expected)
    assert sts.evaluate(lambda t: encode(t).tolist(), pairs).all.spearman == pytest.approx(expected)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_embedding_that_is_not_finite_names_the_task_and_the_sentence(value):
    def broken(texts):
        vectors = encode(texts)
        vectors[texts.index("second one"), 3] = value
        return vectors

    with pytest.raises(UserError, match=r"toy: .*NaN or infinity for 1 sentence.*'second one'.*Nothing was scored"):
        sts.evaluate(broken, make_pairs(["first", "third"], ["second one", "last"], [1, 5]))


def test_an_embedding_of_length_zero_names_the_task_and_the_sentence():
    with pytest.raises(UserError, match=r"toy: .*length 0.*'nothing'"):
        sts.score(np.ones((2, 3)), np.array([[0.0, 0, 0], [1, 2, 3]]), make_pairs("ab", ["nothing", "d"], [1, 5]))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda t: encode(t)[:-1], r"toy: .*shape \(3, 36\) for 4 sentences.*'first'"),
        (lambda t: encode(t)[:, 0], r"toy: .*shape \(4,\) for 4 sentences"),
        (lambda t: encode(t)[:, :0], r"toy: .*shape \(4, 0\) for 4 sentences"),
        (lambda t: [[1.0, 2.0], [1.0], [1.0, 2.0], [1.0, 2.0]], r"toy: .*1 value\(s\) for 'second'"),
        (lambda t: [["x"]] * len(t), r"toy: .*not give a table of numbers.*'first'"),
        (lambda t: object(), r"toy: .*not give a table of numbers"),
    ],
)
def test_embeddings_of_a_wrong_shape_name_the_task(broken, message):
    pairs = make_pairs(["first", "second"], ["third", "last"], [1, 5])
    with pytest.raises(UserError, match=message):
        sts.evaluate(broken, pairs)


def test_sides_of_different_dimension_are_refused():
    with pytest.raises(UserError, match=r"toy: .*3 and 2 numbers"):
        sts.score(np.ones((2, 3)), np.ones((2, 2)), make_pairs("ab", "cd", [1, 5]))


def test_a_collapsed_encoder_is_an_error_and_not_a_score():
    def collapsed(texts):
        return np.ones((len(texts), 8), np.float32) + np.float32(1e-7) * encode(texts)[:, :8].astype(np.float32)

    with pytest.raises(UserError, match=r"toy all: every pair has the same similarity \(1\.000000\).*collapsed"):
        sts.evaluate(collapsed, make_pairs(["a", "b", "c"], ["d", "e", "f"], [1, 2, 3]))


def test_gold_scores_that_are_all_the_same_are_an_error_that_names_the_subset():
    pairs = make_pairs(["a", "b", "c", "d"], ["a", "e", "f", "d"], [1, 2, 3, 3], one=slice(0, 2), two=slice(2, 4))
    with pytest.raises(UserError, match="toy two: the gold scores of all 2 pairs are 3"):
        sts.evaluate(encode, pairs)


def test_spearman_with_ties_is_scipys_to_the_last_bit():
    rng = np.random.default_rng(0)
    cosines, gold = rng.normal(size=500).round(1).astype("float32"), rng.integers(0, 6, 500).astype("float64")
    np.testing.assert_array_equal(sts.ranks(cosines), stats.rankdata(cosines))
    assert sts._correlate(cosines, gold, "toy").spearman == 100 * stats.spearmanr(cosines, gold).statistic


def test_importing_the_evaluation_brings_in_neither_tensorflow_nor_scipy_nor_sklearn():
    code = (
        "import sys; from simcse_tf.evaluation import fetch, geometry, sts, transfer; "
        "print([m for m in ('tensorflow', 'keras', 'scipy', 'sklearn', 'tensorflow_datasets') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_real_sets_load_with_their_published_sizes_and_score(shared_data):
    found, missing = sts.available(shared_data / "sts")
    assert found == ["STS12", "STSB-dev", "STSB-test"]
    assert "SICK-R" in missing
    spearman = {task: sts.evaluate(encode, sts.load(task, shared_data / "sts")).all.spearman for task in found}
    # Letter counts know something about overlap, and nothing about meaning.
    assert all(20 < value < 70 for value in spearman.values()), spearman
