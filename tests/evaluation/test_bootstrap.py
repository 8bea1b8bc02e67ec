"""Intervals against SciPy and scikit-learn, item by item."""

import numpy as np
import pytest
from scipy import stats

from simcse_tf.evaluation import bootstrap
from simcse_tf.evaluation.development import Graded, Labelled, Triplets
from simcse_tf.evaluation.pairs import Pairs
from simcse_tf.evaluation.retrieval import Retrieval

N = 120
RNG = np.random.default_rng(1)
TEXTS = [f"text {i}" for i in range(N)]


def graded(gold):
    return Graded.of(Pairs("mine", TEXTS, TEXTS[::-1], gold, {"mine": slice(0, len(gold))}, "here"))


def percentiles(changes):
    return pytest.approx(np.percentile(changes, [2.5, 97.5]).tolist(), abs=1e-9)


def samples():
    return np.concatenate(list(bootstrap.draws(N)))


def test_graded_pairs_have_the_interval_of_scipys_spearman_over_the_same_draws():
    gold = RNG.integers(0, 6, N).astype(float)
    before, after = gold / 5 + RNG.normal(0, 0.6, N), np.round(gold / 5 + RNG.normal(0, 0.3, N), 1)
    changes = [
        100 * (stats.spearmanr(after[at], gold[at]).statistic - stats.spearmanr(before[at], gold[at]).statistic)
        for at in samples()
    ]
    assert list(bootstrap.interval(graded(gold), before, after)) == percentiles(changes)


def test_labelled_pairs_have_the_interval_of_scikit_learns_average_precision_over_the_same_draws():
    metrics = pytest.importorskip("sklearn.metrics")
    same = RNG.random(N) < 0.3
    before, after = same + RNG.normal(0, 1.0, N), np.round(same + RNG.normal(0, 0.5, N), 1)
    each = Labelled("mine", "here", TEXTS, TEXTS[::-1], same)
    changes = [
        100
        * (metrics.average_precision_score(same[at], after[at]) - metrics.average_precision_score(same[at], before[at]))
        for at in samples()
    ]
    assert list(bootstrap.interval(each, before, after)) == percentiles(changes)


def of_mean(changes):
    """SciPy's interval, drawn otherwise."""
    found = stats.bootstrap((changes,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(5))
    return pytest.approx(list(found.confidence_interval), abs=0.12 * np.ptp(found.confidence_interval))


def test_triplets_have_scipys_paired_interval():
    before, after = RNG.random((2, N, 2))
    after[:, 0] += 0.3
    changes = 100.0 * ((after[:, 0] > after[:, 1]) * 1.0 - (before[:, 0] > before[:, 1]))
    found = bootstrap.interval(Triplets("mine", "here", TEXTS, TEXTS, TEXTS), before, after)
    assert list(found) == of_mean(changes)
    assert 0 < found[0] < found[1]


def test_queries_have_scipys_paired_interval():
    each = Retrieval("mine", "here", TEXTS, TEXTS, [{i: 1.0} for i in range(N)])
    # The right document at some rank, or nowhere among the first ten.
    ranks = RNG.integers(1, 14, (2, N))
    before, after = np.full((2, N, 10), -1)
    for answers, found in ((before, ranks[0]), (after, np.maximum(ranks[1] - 2, 1))):
        for query, rank in enumerate(found):
            answers[query, rank - 1 : rank] = query
    ndcg = [np.where(found <= 10, 1 / np.log2(found + 1), 0) for found in (ranks[0], np.maximum(ranks[1] - 2, 1))]
    assert list(bootstrap.interval(each, before, after)) == of_mean(100 * (ndcg[1] - ndcg[0]))
    assert each.gains(before, after) == pytest.approx(ndcg[1] - ndcg[0])
    assert [each.rank(query, before) for query in range(N)] == [rank if rank <= 10 else None for rank in ranks[0]]


def test_the_same_answers_have_the_interval_0_and_draws_do_not_change():
    gold = np.arange(N, dtype=float)
    cosines = RNG.random(N)
    assert bootstrap.interval(graded(gold), cosines, cosines) == (0, 0)
    np.testing.assert_array_equal(samples(), samples())
    assert samples().shape == (bootstrap.SAMPLES, N)


def test_draws_without_a_figure_are_left_out_and_without_any_there_is_no_interval():
    # A third of the draws miss the only pair with another grade.
    assert bootstrap.interval(graded(np.eye(N)[0]), RNG.random(N), RNG.random(N)) is not None
    assert bootstrap.interval(graded(np.arange(N)), np.ones(N), RNG.random(N)) is None


def test_a_few_items_that_all_became_better_are_no_proof():
    each = Triplets("mine", "here", TEXTS[:3], TEXTS[:3], TEXTS[:3])
    assert bootstrap.interval(each, np.tile([0.1, 0.2], (3, 1)), np.tile([0.2, 0.1], (3, 1))) is None


def test_gains_say_which_items_became_better():
    gold = np.array([0.0, 1, 2, 3, 4])
    before, after = np.array([0.9, 0.1, 0.2, 0.3, 0.4]), np.array([0.0, 0.1, 0.2, 0.4, 0.3])
    assert graded(gold).gains(before, after).tolist() == [4, 1, 1, 0, 0]
    each = Labelled("mine", "here", ["a"] * 3, ["b"] * 3, [True, False, False])
    assert each.gains(np.array([0.1, 0.2, 0.3]), np.array([0.9, 0.2, 0.3])).tolist() == [2, 1, 1]
    each = Triplets("mine", "here", ["a"], ["b"], ["c"])
    assert each.gains(np.array([[0.5, 0.4]]), np.array([[0.6, 0.7]])) == pytest.approx([-0.2])
