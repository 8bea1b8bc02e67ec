"""Hard negatives, given an encoder's scores: which of an anchor's nearest texts may be its negatives, which are taken.

Also which distinct texts there are at all.
"""

from __future__ import annotations

import hashlib
import itertools
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from simcse_tf.data.rows import Row
from simcse_tf.data.sources import Source
from simcse_tf.data.strings import folded

# Why a text is not a negative, in the order in which it is asked: a text counts for the first that applies.
REASONS = ("positive", "anchor", "rank", "max_score", "margin", "relative_margin")
CANDIDATE = 0
# Not among the texts that are looked at.
BEYOND = -1


@dataclass(frozen=True)
class Texts:
    """Which distinct texts the pairs and the corpus consist of, by number; the texts themselves are in the files.

    Two texts that differ in case and spacing alone are one, spelled as it is where it comes first.

    Attributes:
        pairs: Anchor and positive of a row, and perhaps more.
        corpus: Single texts.
        anchors: `(rows,)`: number of each row's anchor.
        positives: `(rows,)`: number of each row's positive among the candidates.
        first_anchors: `(rows,)` bool: where an anchor comes first.
        first_candidates: `(rows + lines of the corpus,)` bool: where a candidate comes first.
        itself: `(distinct anchors,)`: the number of the same text among the candidates, -1 if it is not there.
        sha256: Of the pairs, and of pairs and corpus.
        bad: Rows left out.
    """

    pairs: Source
    corpus: Source | None
    anchors: np.ndarray
    positives: np.ndarray
    first_anchors: np.ndarray
    first_candidates: np.ndarray
    itself: np.ndarray
    sha256: tuple[str, str]
    bad: int

    @property
    def distinct_anchors(self) -> int:
        """How many anchors there are."""
        return len(self.itself)

    @property
    def candidates(self) -> int:
        """How many texts may be negatives."""
        return int(np.count_nonzero(self.first_candidates))

    def read_pairs(self) -> Iterator[Row]:
        """Streams the rows of the pairs."""
        return self.pairs.rows(self._on_bad)

    def read_anchors(self) -> Iterator[str]:
        """Streams the distinct anchors, by number."""
        return itertools.compress((row[0] for row in self.read_pairs()), self.first_anchors)

    def read_candidates(self) -> Iterator[str]:
        """Streams the texts that may be negatives, by number."""
        positives = (row[1] for row in self.read_pairs())
        others = (row[0] for row in self.corpus.rows(self._on_bad)) if self.corpus else ()
        return itertools.compress(itertools.chain(positives, others), self.first_candidates)

    @property
    def _on_bad(self) -> Callable[[str], None] | None:
        # They have been counted.
        return (lambda message: None) if self.bad else None


def survey(pairs: Source, corpus: Source | None, *, skip_bad_rows: bool = False) -> Texts:
    """Reads all texts once: a bad row is found now and not in an hour.

    Args:
        pairs: Rows of two or more texts, anchor and positive first.
        corpus: Rows of one text.
        skip_bad_rows: Leave out rows that cannot be used.

    Raises:
        UserError: As `Source.rows`.
    """
    bad = 0

    def note(message: str) -> None:
        nonlocal bad
        bad += 1

    on_bad = note if skip_bad_rows else None
    digest = hashlib.sha256()
    anchors, candidates = array("Q"), array("Q")
    for row in pairs.rows(on_bad):
        digest.update(f"{row[0]}\0{row[1]}\n".encode())
        anchors.append(folded(row[0]))
        candidates.append(folded(row[1]))
    of_pairs = digest.hexdigest()
    for (text,) in corpus.rows(on_bad) if corpus else ():
        digest.update(f"{text}\n".encode())
        candidates.append(folded(text))

    anchor_keys, candidate_keys = np.array(anchors), np.array(candidates)
    anchor_numbers, first_anchors = distinct(anchor_keys)
    candidate_numbers, first_candidates = distinct(candidate_keys)
    anchor_keys, candidate_keys = anchor_keys[first_anchors], candidate_keys[first_candidates]
    order = np.argsort(candidate_keys)
    places = order[np.searchsorted(candidate_keys, anchor_keys, sorter=order).clip(max=len(order) - 1)]
    return Texts(
        pairs,
        corpus,
        anchor_numbers,
        candidate_numbers[: len(anchors)],
        first_anchors,
        first_candidates,
        np.where(candidate_keys[places] == anchor_keys, places, -1),
        (of_pairs, digest.hexdigest()),
        bad,
    )


class Positives:
    """The positives of each anchor.

    Args:
        anchors: `(rows,)`: an anchor's number, for each pair.
        positives: `(rows,)`: its positive's number.
        candidates: Number of texts that there are.
    """

    def __init__(self, anchors: np.ndarray, positives: np.ndarray, candidates: int):
        self._candidates = candidates
        self._known = np.unique(anchors.astype("int64") * candidates + positives)

    def of(self, anchors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The positives of some anchors `(n,)`, one anchor after the other, and where each's begin `(n + 1,)`."""
        starts = np.searchsorted(self._known, anchors * self._candidates)
        counts = np.searchsorted(self._known, (anchors + 1) * self._candidates) - starts
        begins = np.concatenate([[0], np.cumsum(counts)])
        return self._known[np.arange(begins[-1]) + np.repeat(starts - begins[:-1], counts)] % self._candidates, begins

    def among(self, anchors: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Whether texts `(n, k)` are positives of their anchor `(n,)`."""
        pairs = anchors[:, None] * self._candidates + rows
        places = np.searchsorted(self._known, pairs).clip(max=len(self._known) - 1)
        return self._known[places] == pairs


@dataclass(frozen=True)
class Limits:
    """Which of an anchor's nearest texts may be its negatives.

    Attributes:
        range_from: Rank of the first; 1 is the nearest text that is neither the anchor nor one of its positives.
        range_to: Rank of the last.
        max_score: Highest score.
        margin: By how much at least a negative's score is below that of the anchor's least similar positive.
        relative_margin: The same as a part of that positive's score: with 0.05 a negative is at most 95 % as similar.
    """

    range_from: int = 1
    range_to: int = 100
    max_score: float | None = None
    margin: float | None = None
    relative_margin: float | None = None


def judge(
    scores: np.ndarray,
    found: np.ndarray,
    positive: np.ndarray,
    itself: np.ndarray,
    positive_scores: np.ndarray,
    limits: Limits,
) -> np.ndarray:
    """Says of each found text whether it may be a negative.

    Args:
        scores: `(anchors, k)` float: cosines with the anchor, highest first.
        found: `(anchors, k)` bool: whether there is a text at all.
        positive: `(anchors, k)` bool: it is one of the anchor's positives.
        itself: `(anchors, k)` bool: it is the anchor.
        positive_scores: `(anchors,)` float: the cosine of the anchor's least similar positive.
        limits: What may be a negative.

    Returns:
        `(anchors, k)` int8: `CANDIDATE`, `BEYOND`, or 1 + the place in `REASONS`.
    """
    verdicts = np.where(found, CANDIDATE, BEYOND).astype("int8")

    def leave_out(reason: str, where: np.ndarray) -> None:
        verdicts[(verdicts == CANDIDATE) & where] = 1 + REASONS.index(reason)

    leave_out("positive", positive)
    leave_out("anchor", itself)
    rank = np.cumsum(verdicts == CANDIDATE, axis=1)
    verdicts[rank > limits.range_to] = BEYOND
    leave_out("rank", rank < limits.range_from)
    least = positive_scores[:, None]
    if limits.max_score is not None:
        leave_out("max_score", scores > limits.max_score)
    if limits.margin is not None:
        leave_out("margin", scores > least - limits.margin)
    if limits.relative_margin is not None:
        # Of a positive below 0 too, the negative is the less similar one.
        leave_out("relative_margin", scores > least - limits.relative_margin * np.abs(least))
    return verdicts


def choose(verdicts: np.ndarray, negatives: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """Takes negatives among the candidates.

    Args:
        verdicts: `(anchors, k)`: what `judge` returned.
        negatives: How many for each anchor.
        rng: Takes them at random; by default the most similar ones are taken.

    Returns:
        `(anchors, negatives)` int: columns, the most similar first; -1 in all of a row with fewer candidates.
    """
    anchors, k = verdicts.shape
    candidate = verdicts == CANDIDATE
    order = np.broadcast_to(np.arange(k, dtype=float), (anchors, k)) if rng is None else rng.random((anchors, k))
    enough = np.count_nonzero(candidate, axis=1) >= negatives
    columns = np.full((anchors, negatives), -1)
    if enough.any():
        taken = np.argsort(np.where(candidate[enough], order[enough], np.inf), axis=1, kind="stable")[:, :negatives]
        columns[enough] = np.sort(taken, axis=1)
    return columns


def distinct(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers the distinct keys in the order in which they come.

    Args:
        keys: `(n,)`.

    Returns:
        `(n,)` int: each key's number; `(n,)` bool: whether it is there for the first time.
    """
    _, places, inverse = np.unique(keys, return_index=True, return_inverse=True)
    first = np.zeros(len(keys), bool)
    first[places] = True
    numbers = np.cumsum(first) - 1
    return numbers[places][inverse], first
