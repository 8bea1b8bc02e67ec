"""Which columns of a file are a row's texts, and which says what it is to them. Standard library only.

| texts | beside them | rows |
|---|---|---|
| one | | sentences |
| one | `label` or `class` | texts of classes: those of one class are each other's positives |
| two | | anchor, positive |
| two | `score`, `grade` or `label`, a number | graded pairs |
| more | | anchor, positive, hard negatives |
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from simcse_tf.data.rows import Row
from simcse_tf.errors import UserError, did_you_mean

# What a row says of its texts: the class that its one text belongs to, or how alike its two texts are.
Target = Literal["label", "score"]

# Names that are understood, of a row's only text,
SINGLE = ("text", "sentence")
# of several texts in the order of the views, where the third may occur any number of times (negative_1, negative_2),
SEVERAL = (
    ("sent0", "sent1", "hard_neg"),
    ("anchor", "positive", "negative"),
    ("query", "document", "negative"),
    ("query", "positive", "negative"),
    ("question", "answer", "negative"),
    ("sentence1", "sentence2"),
    ("text1", "text2"),
)
# and of what stands beside texts.
GRADES = ("score", "grade")
LABELS = ("label",)
_CLASSES = ("label", "class")
# By the number of texts.
_BESIDE: dict[int, tuple[Target, Row]] = {1: ("label", _CLASSES), 2: ("score", (*GRADES, *LABELS))}
_TARGETS = {*_CLASSES, *GRADES, *LABELS}
_EXPECTED = "them (anchor, positive, hard negatives, or one text)"


@dataclass(frozen=True)
class Columns:
    """The columns that rows are made of.

    Attributes:
        texts: In the order of the views; none of a source that has no columns.
        target: What the other column is, if there is one.
        beside: That column.
    """

    texts: Row = ()
    target: Target | None = None
    beside: Row = ()


def choose(where: str, names: Sequence[str] | None, columns: Row, *, takes_all: bool = False) -> Columns:
    """Which of a source's columns rows are made of.

    Args:
        where: The source, for messages.
        names: All of its columns; None if it has none.
        columns: Those to be read, as the user names them: texts in the order of the views, and with them a label or a
            score, by its name or as `label:NAME`, `score:NAME`. If not given: those of known names, else all.
        takes_all: All columns may be taken if there are no more than 3 and their names are unknown.

    Raises:
        UserError: It is not clear, a column is not there, or the columns do not belong together.
    """
    if names is None:
        if columns:
            raise UserError(f"`columns` {','.join(columns)}: {where} has no named columns. Omit `columns`.")
        return Columns()
    if columns:
        texts, beside = _named(where, names, columns)
    else:
        texts = known_texts(names) or tuple(name for name in SINGLE if name in names)[:1]
        guessed = () if texts else _guess(names, takes_all)
        texts = texts or guessed
        allowed = _BESIDE[len(texts)][1] if len(texts) in _BESIDE else ()
        beside = tuple(name for name in names if name in allowed and name not in texts)
        if not texts or (guessed and len(texts) + len(beside) < len(names)):
            raise UserError(_which(where, names, _EXPECTED))
    if len(beside) > 1:
        raise UserError(
            f"{where}: which of the columns {', '.join(beside)} belongs to the text? Name the columns of text, and it "
            f"after them, with `columns`."
        )
    check_columns(where, names, (*texts, *beside), _EXPECTED)
    return Columns(texts, _BESIDE[len(texts)][0] if beside else None, beside)


def only_text(where: str, names: Sequence[str] | None, setting: str) -> Row:
    """The column of a source that has one text in each row.

    Args:
        where: The source, for messages.
        names: All of its columns; None if it has none, and then neither has the answer.
        setting: How a user says which it is, for the message.

    Raises:
        UserError: It is not clear.
    """
    if names is None:
        return ()
    found = tuple(name for name in names if name in SINGLE or len(names) == 1)[:1]
    if not found:
        raise UserError(f"{where}: which of its columns ({', '.join(names)}) is the text? {setting}")
    return found


def known_texts(names: Sequence[str]) -> Row:
    """Those of a source's columns that by their names are anchor, positive and hard negatives, in this order."""
    for anchor, positive, *negative in SEVERAL:
        if anchor in names and positive in names:
            return (anchor, positive, *_hard_negatives(names, negative))
    return ()


def names_of_views(views: int) -> list[str]:
    """The names under which a file with so many texts in a row is written and read again."""
    if views == 1:
        return ["text"]
    negatives = [f"negative_{i}" for i in range(1, views - 1)]
    return ["anchor", "positive", *(negatives if len(negatives) != 1 else ["negative"])]


def check_columns(where: str, names: Sequence[str], chosen: Sequence[str], expected: str) -> None:
    """Checks that columns can be read by their names.

    Args:
        where: The source, for messages.
        names: All of its columns.
        chosen: Those to be read.
        expected: What `columns` takes, for messages.

    Raises:
        UserError: One has no name, is not there, is there twice or is to be read twice.
    """
    if "" in chosen:
        raise UserError(_which(where, names, expected))
    for name in chosen:
        if name not in names:
            raise UserError(f"{where}: no column '{name}'. {did_you_mean(name, names)}")
        if names.count(name) > 1:
            raise UserError(f"{where}: two columns are named '{name}'. Rename one of them.")
        if chosen.count(name) > 1:
            raise UserError(f"{where}: the column '{name}' is chosen twice. Name each column once in `columns`.")


def _named(where: str, names: Sequence[str], columns: Row) -> tuple[Row, Row]:
    """The columns that a user names, as texts and what is beside them."""
    texts, beside = [], {}
    for column in columns:
        target, _, name = column.partition(":")
        if column not in names and target in ("label", "score"):
            beside[name] = target
        elif column in _TARGETS and len(columns) > 1:
            beside[column] = None
        else:
            texts.append(column)
    target, allowed = _BESIDE.get(len(texts), (None, ()))
    for name, said in beside.items():
        if target is None or (said != target if said else name not in allowed):
            raise UserError(
                f"{where}: the column '{name}' beside {len(texts)} of text. A label or class belongs to one text, a "
                "score, grade or label to two. In `columns`, label:NAME and score:NAME say what a column of another "
                "name is."
            )
    return tuple(texts), tuple(beside)


def _guess(names: Sequence[str], takes_all: bool) -> Row:
    """The texts of a table whose columns are few and unknown."""
    for anchor, _, *negative in SEVERAL:
        if anchor in names and _hard_negatives(names, negative):
            return ()  # A hard negative without a positive: not for us to guess.
    if not takes_all or len(names) > 3:
        return ()
    return tuple(names) if len(names) == 1 else tuple(name for name in names if name not in _TARGETS)


def _hard_negatives(names: Iterable[str], known: Sequence[str]) -> list[str]:
    """`negative`, `negative_1`, `negative_2`, ... as far as they are there, in the order of their numbers."""
    found = {}
    for name in names:
        match = re.fullmatch(r"(.*?)(?:_(\d+))?", name, re.DOTALL)
        if match and match[1] in known:
            found[name] = int(match[2] or -1)
    return sorted(found, key=lambda name: found[name])


def _which(where: str, names: Sequence[str], expected: str) -> str:
    return f"{where}: which of its columns ({', '.join(names)}) are the text? Name {expected} with `columns`."
