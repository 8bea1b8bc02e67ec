"""A part of the training rows that is held out of training, so that it can be judged by texts that it never saw.

Half of it judges the encoder during training and selects the best one. The other half, the test part, selects nothing:
its figures are not too high for having been the highest of several.

Rows that share a text, ignoring case and spacing, belong to one group, and so do all that are connected through others;
a group is held out whole or not at all, and is in one half. The parts of a document are a group: each carries the
document's number.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass, field

import numpy as np

from simcse_tf.data.rows import Reject, Row, Rows
from simcse_tf.data.sources import Source
from simcse_tf.data.strings import folded

# A tenth of the rows, but no more in each half than give a steady figure in seconds, and no fewer rows and groups than
# say anything. Groups share no text: there are at least as many documents to tell apart.
_SHARE = 10
_MOST = 1000
_FEWEST = 20
# The data alone decide which: the runs of one ablation, which differ in their seed, are judged by the same rows.
_SEED = 0
# Of longer data the groups would take too much memory: 0.5 GB at this number of pairs.
_LONGEST = 2_000_000


@dataclass(frozen=True)
class HeldOut:
    """What `hold_out` came to.

    Attributes:
        training: The other rows; all of them if none could be held out.
        rows: Those that are held out and judge, in order.
        total: How many rows there are.
        problem: Why none are held out, if none are.
        test: Those that are held out for the test, in order; none where two halves would be too small.
    """

    training: Source
    rows: list[Row]
    total: int
    problem: str = ""
    test: list[Row] = field(default_factory=list)


def hold_out(source: Source, *, skip_bad_rows: bool, batch_size: int) -> HeldOut:
    """Chooses groups of rows at random, of equal data always the same: a tenth of the rows, at most 1,000 in a half.

    Where a half would have fewer than 20 rows, or fewer than 20 groups, there is no test part.

    Where a source draws, stored rows are chosen, and what is drawn of them once is kept.

    Args:
        source: Pairs or triplets that can be read without TensorFlow.
        skip_bad_rows: Leave out rows that cannot be used.
        batch_size: As many rows must be left to train on.

    Raises:
        UserError: As `Source.rows`.
    """
    groups = _Groups()
    on_bad = (lambda message: None) if skip_bad_rows else None
    for row in itertools.islice(source.stored(on_bad), _LONGEST + 1):
        groups.add(row)
    total = len(groups.parents)
    if total > _LONGEST:
        return HeldOut(source, [], total, f"there are more than {_LONGEST:,} rows")
    wanted = min(total // _SHARE, 2 * _MOST)
    if wanted < _FEWEST or total - wanted < batch_size:
        return HeldOut(source, [], total, f"{total:,} rows are too few")

    # Groups in random order; of them alternately those for each half, as far as they fit in.
    members = groups.members()
    order = np.random.default_rng(_SEED).permutation(len(members)).tolist()
    judging, testing = (_fit([members[place] for place in order[half::2]], wanted // 2) for half in (0, 1))
    if len(testing) < _FEWEST or len(judging) < _FEWEST:
        judging, testing = _fit([members[place] for place in order], min(wanted, _MOST)), []
    if len(judging) < _FEWEST:
        return HeldOut(source, [], total, "too many rows are connected by texts that they share, or of one document")
    judges, tests = (set(itertools.chain(*chosen)) for chosen in (judging, testing))
    chosen = judges | tests

    def read(reject: Reject) -> Rows:
        rows, place = source.read(reject), 0
        while True:
            try:
                row = next(rows)
            except StopIteration as end:
                return end.value
            if place not in chosen:
                yield row
            place += 1

    held = [(place, row) for place, row in enumerate(source.stored(on_bad)) if place in chosen]
    halves = ([row for place, row in held if place in half] for half in (judges, tests))
    rows, test = (half if source.draw is None else list(source.draw(iter(half), _SEED, 0)) for half in halves)
    return HeldOut(dataclasses.replace(source, read=read, survey=None), rows, total, test=test)


def _fit(groups: list[list[int]], wanted: int) -> list[list[int]]:
    """The first groups that together have at most so many rows; one that is too large for the rest is left out."""
    chosen, left = [], wanted
    for group in groups:
        if len(group) <= left:
            chosen.append(group)
            left -= len(group)
    return chosen


class _Groups:
    """Rows that are connected by texts (union-find): `parents` leads from each row to the first of its group."""

    def __init__(self):
        self.parents: list[int] = []
        self._first: dict[int, int] = {}

    def add(self, row: Row) -> None:
        """Takes in the next row."""
        place = len(self.parents)
        self.parents.append(place)
        for text in row:
            one, other = self._root(self._first.setdefault(folded(text), place)), self._root(place)
            self.parents[max(one, other)] = min(one, other)

    def members(self) -> list[list[int]]:
        """The rows of each group, in the order of the groups' first rows."""
        found: dict[int, list[int]] = {}
        for place in range(len(self.parents)):
            found.setdefault(self._root(place), []).append(place)
        return list(found.values())

    def _root(self, place: int) -> int:
        while self.parents[place] != place:
            self.parents[place] = self.parents[self.parents[place]]
            place = self.parents[place]
        return place
