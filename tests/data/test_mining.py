import numpy as np
import pytest

from simcse_tf.data import mining
from simcse_tf.data.mining import Limits, Positives
from simcse_tf.data.sources import open_source

ANCHORS, K, CANDIDATES = 60, 30, 80


@pytest.fixture(scope="module")
def nearest():
    """Scores in descending order, as a search gives them, with the texts that they belong to; some found too few."""
    rng = np.random.default_rng(0)
    scores = np.sort(rng.uniform(-0.3, 1, (ANCHORS, K)).astype("float32"), axis=1)[:, ::-1]
    rows = np.array([rng.permutation(CANDIDATES)[:K] for _ in range(ANCHORS)])
    rows[::7, K // 2 :] = -1
    # Up to 3 positives each; some anchors are a candidate too.
    positives = [rng.choice(CANDIDATES, rng.integers(1, 4), replace=False) for _ in range(ANCHORS)]
    itself = np.where(np.arange(ANCHORS) % 3 == 0, rows[:, 1], -1)
    least = rng.uniform(-0.2, 1, ANCHORS).astype("float32")
    return scores, rows, positives, itself, least


def loop(scores, rows, positives, itself, least, limits):
    """The same as `judge`, text by text."""
    verdicts = []
    for i in range(len(rows)):
        rank, row = 0, []
        for score, text in zip(scores[i], rows[i], strict=True):
            ranked = text not in positives[i] and text != itself[i]
            rank += ranked
            if text < 0 or rank > limits.range_to:
                row.append(None)
                continue
            if not ranked:
                row.append("positive" if text in positives[i] else "anchor")
                continue
            least_i = np.float32(least[i])
            if rank < limits.range_from:
                row.append("rank")
            elif limits.max_score is not None and score > limits.max_score:
                row.append("max_score")
            elif limits.margin is not None and score > least_i - limits.margin:
                row.append("margin")
            elif limits.relative_margin is not None and score > least_i - limits.relative_margin * abs(least_i):
                row.append("relative_margin")
            else:
                row.append("candidate")
        verdicts.append(row)
    return verdicts


LIMITS = [
    Limits(),
    Limits(range_from=4, range_to=12),
    Limits(max_score=0.6),
    Limits(margin=0.1),
    Limits(relative_margin=0.05),
    Limits(3, 20, 0.8, 0.05, 0.1),
]


def judged(nearest, limits):
    scores, rows, positives, itself, least = nearest
    pairs = [(i, p) for i, own in enumerate(positives) for p in own]
    known = Positives(*np.array(pairs).T, CANDIDATES)
    own = known.among(np.arange(ANCHORS), rows)
    return mining.judge(scores, rows >= 0, own, rows == itself[:, None], least, limits)


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_texts_are_left_out_for_the_reasons_that_a_loop_finds(nearest, limits):
    names = [*mining.REASONS, None, "candidate"]  # -1 and 0 count from the end
    found = [[names[verdict - 1] for verdict in row] for row in judged(nearest, limits).tolist()]
    assert found == loop(*nearest, limits)


def test_every_reason_occurs(nearest):
    verdicts = judged(nearest, LIMITS[-1])
    assert set(np.unique(verdicts)) == {-1, 0, *range(1, 1 + len(mining.REASONS))}


def test_a_negative_is_below_a_positive_that_is_below_zero():
    near = np.array([[-0.17, -0.21, -0.23]])
    verdicts = mining.judge(near, near < 1, near > 1, near > 1, np.array([-0.2]), Limits(relative_margin=0.1))
    assert verdicts.tolist() == [[6, 6, 0]]


@pytest.mark.parametrize("negatives", [1, 3, K + 1])
def test_top_takes_the_first_candidates_of_rows_that_have_enough(nearest, negatives):
    verdicts = judged(nearest, LIMITS[-1])
    columns = mining.choose(verdicts, negatives)
    assert columns.shape == (ANCHORS, negatives)
    for verdict, taken in zip(verdicts, columns.tolist(), strict=True):
        candidates = np.flatnonzero(verdict == mining.CANDIDATE).tolist()
        assert taken == (candidates[:negatives] if len(candidates) >= negatives else [-1] * negatives)


def test_random_takes_any_candidate_and_keeps_their_order(nearest):
    verdicts = judged(nearest, LIMITS[0])
    drawn = [mining.choose(verdicts, 2, np.random.default_rng(seed)) for seed in range(200)]
    assert (drawn[0] == mining.choose(verdicts, 2, np.random.default_rng(0))).all()
    assert {tuple(columns[0]) for columns in map(np.array, drawn)} != {tuple(drawn[0][0])}
    for i, verdict in enumerate(verdicts):
        seen = {column for columns in drawn for column in columns[i].tolist()}
        assert seen == set(np.flatnonzero(verdict == mining.CANDIDATE))
    assert all((columns[:, 0] < columns[:, 1]).all() for columns in drawn)


def test_distinct_keys_are_numbered_as_they_come():
    numbers, first = mining.distinct(np.array([7, 3, 7, 9, 3, 1], "uint64"))
    assert numbers.tolist() == [0, 1, 0, 2, 1, 3]
    assert first.tolist() == [True, True, False, True, False, True]


def test_positives_of_several_anchors():
    known = Positives(np.array([2, 0, 2, 1, 2]), np.array([5, 1, 3, 9, 5]), 10)
    rows, begins = known.of(np.array([0, 2]))
    assert rows.tolist() == [1, 3, 5]
    assert begins.tolist() == [0, 1, 3]
    assert known.among(np.array([0, 2]), np.array([[1, 5, 9], [5, 1, 3]])).tolist() == [
        [True, False, False],
        [True, False, True],
    ]


def test_texts_that_differ_in_case_and_spacing_are_one(tmp_path):
    (tmp_path / "p.csv").write_text("anchor,positive\nA dog,It  barks\na  DOG,it barks\na cat,A DOG\n", "utf-8")
    (tmp_path / "c.txt").write_text("IT BARKS\na bird\nA cat\n", "utf-8")
    pairs, corpus = (open_source(str(tmp_path / name)) for name in ("p.csv", "c.txt"))
    texts = mining.survey(pairs, corpus)
    assert list(texts.read_anchors()) == ["A dog", "a cat"]
    assert list(texts.read_candidates()) == ["It  barks", "A DOG", "a bird", "A cat"]
    assert texts.anchors.tolist() == [0, 0, 1]
    assert texts.positives.tolist() == [0, 0, 1]
    assert texts.itself.tolist() == [1, 3]
    without = mining.survey(pairs, None)
    assert without.itself.tolist() == [1, -1]
    assert without.sha256[0] == texts.sha256[0] != texts.sha256[1]
