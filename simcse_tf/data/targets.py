"""Rows with a target, a number behind their texts: labels of classes, from which pairs are drawn, and scores of pairs.

Standard library only.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from simcse_tf.data.rows import (
    BadTextError,
    Check,
    Reject,
    Row,
    Rows,
    checked,
    first_place,
    identifier,
    number,
    readable,
)
from simcse_tf.errors import UserError

# A format's reader of one file.
Read = Callable[[Row, Reject, Check], Rows]


def scored(read: Read, columns: Row, reject: Reject) -> Rows:
    """Graded pairs, `(text, text, score)`: any finite numbers, of which a higher one means more alike."""
    return read(columns, reject, _scored)


def labelled(read: Read, columns: Row, reject: Reject) -> Rows:
    """Texts with the number of their class, `(text, label)`.

    A text whose class has no different one is a bad row: it has no positive. The file is read twice, first to find
    them.

    Raises:
        UserError: Fewer than two classes have two different texts; names the first row.
    """
    column = columns[1]
    first: dict[str, str] = {}
    usable: dict[str, int] = {}
    count = 0
    for text, label in read(columns, lambda *_: None, _labelled):
        count += 1
        if first.setdefault(label, text) != text:
            usable.setdefault(label, len(usable))
    if first and len(usable) < 2:
        place = first_place(read, columns, lambda cells: True)
        values = f"{len(first):,} different value{'s' * (len(first) != 1)} in {count:,} rows"
        raise UserError(
            f"{place}: from here on '{column}' has {values}, of which {len(usable)} with two different texts. Texts of "
            "one class are each other's positives, those of other classes negatives: expected at least 2 classes with "
            f"2 texts each. To train on the texts alone, set `columns` {columns[0]}."
        )

    def check(cells: Iterable[object], columns: Row) -> tuple[str, int]:
        text, label = _labelled(cells, columns)
        if label not in usable:
            raise BadTextError(f"no different text has the {column} '{readable(label.encode())}', so no positive")
        return text, usable[label]

    return (yield from read(columns, reject, check))


def draw_pairs(rows: Iterable[Any], seed: int, epoch: int) -> Iterator[Any]:
    """Every text once as an anchor, in random order, with a different text of its class: `(anchor, positive, label)`.

    All texts are held in memory, so that a file that is sorted by class is shuffled perfectly.

    Args:
        rows: `(text, label)`; each class has two different texts.
        seed: Decides order and positives, with `epoch`.
        epoch: Every epoch has others.
    """
    anchors = list(rows)
    # The different texts of each class, with their places.
    places: dict[int, dict[str, int]] = {}
    for text, label in anchors:
        members = places.setdefault(label, {})
        members.setdefault(text, len(members))
    classes = {label: list(members) for label, members in places.items()}
    rng = random.Random(f"{seed} {epoch}")
    rng.shuffle(anchors)
    for text, label in anchors:
        members = classes[label]
        step = 1 + int(rng.random() * (len(members) - 1))
        yield text, members[(places[label][text] + step) % len(members)], label


def _scored(cells: Iterable[object], columns: Row) -> tuple[str, str, float]:
    *texts, score = cells
    left, right = checked(texts, columns[:2])
    return left, right, number(score, columns[2])


def _labelled(cells: Iterable[object], columns: Row) -> tuple[str, str]:
    text, label = cells
    return checked((text,), columns[:1])[0], identifier(label, columns[1])
