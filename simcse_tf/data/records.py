"""Texts of a file with what stands beside them in its columns: an id, and metadata. What an index keeps of a text.

JSON says what a value is. In a table every cell is text: a column is one of numbers if all of its cells are.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from simcse_tf.data import sources, text
from simcse_tf.data.columns import check_columns, only_text
from simcse_tf.data.rows import MISSING, BadTextError, Row, checked, first_place, identifier, suffix
from simcse_tf.errors import UserError

Value = str | int | float | None
# What the values of a column are.
Type = Literal["number", "text"]

# What id and text are called where they have no column.
ID, TEXT = "id", "text"
# Cells that say nothing.
_NOTHING = (None, MISSING, "")
# SQLite's name for the number of a row.
_RESERVED = "_rowid_"
# A cell that means a number and nothing else: 007 and 1e3 may be names.
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,14})(\.\d{1,15})?")


class Record(NamedTuple):
    """A text and what stands beside it.

    Attributes:
        id: What it is called; None where texts have no ids of their own.
        text: The text.
        metadata: The values of the layout's columns, in their order.
    """

    id: str | None
    text: str
    metadata: tuple[Value, ...] = ()


@dataclass(frozen=True)
class Layout:
    """The columns that records are made of.

    Attributes:
        text: That of the text; None where a line is a text.
        id: That of the id; None where texts have none.
        metadata: All others, and what their values are.
    """

    text: str | None = None
    id: str | None = None
    metadata: Mapping[str, Type] = field(default_factory=dict)

    @property
    def names(self) -> Row:
        """What id, text and metadata are called, in this order."""
        return (self.id or ID, self.text or TEXT, *self.metadata)

    @property
    def columns(self) -> Row:
        """Those that a file must have: text, id, metadata."""
        return tuple(name for name in (self.text, self.id, *self.metadata) if name is not None)


@dataclass(frozen=True)
class Records:
    """The records of a file, which can be read any number of times.

    Attributes:
        path: The file.
        layout: What they are made of.
        every_line: Of plain text blank lines are records too.
        count: How many there are.
        texts_sha256: Of the texts, as `simcse_tf.encode` computes it.
        sha256: Of everything.
    """

    path: Path
    layout: Layout
    every_line: bool = False
    count: int = 0
    texts_sha256: str = ""
    sha256: str = ""

    def read(self) -> Iterator[Record]:
        """Streams them.

        Raises:
            UserError: A row cannot be used; names file and line.
        """
        return self._records(self._stored)

    def surveyed(self, *, guess: bool) -> Records:
        """Reads the file once: counts and fingerprints the records.

        Args:
            guess: Find out what the values of each column are, and in JSON lines which columns there are.

        Raises:
            UserError: As `read`, there is none, two have one id, or a column is not there.
        """
        of_texts, of_all, keys, count = hashlib.sha256(), hashlib.sha256(), array("Q"), 0
        own, called = (self.layout.id, self.layout.text or TEXT), self.layout.names[:2]
        found: dict[str, set[Type]] = {name: set() for name in self.layout.metadata if guess}
        in_table = suffix(self.path) != ".jsonl"

        def beside(of: dict[str, Any]) -> tuple[Value, ...]:
            for name, cell in of.items():
                if name in own:
                    continue
                if name not in found:
                    if guess and name.lower() == ID and self.layout.id is None:
                        raise BadTextError(f"has '{name}', and the first row has none: give all texts ids, or none")
                    if guess:
                        _check_name(name, [*called, *found])
                    found[name] = set()
                if cell not in _NOTHING:
                    found[name].add("number" if _is_number(cell, in_table) else "text")
            return tuple(map(of.get, found)) if guess else self._stored(of)

        for record in self._records(beside):
            count += 1
            of_texts.update(f"{record.text}\n".encode())
            of_all.update(f"{json.dumps(record)}\n".encode())
            if record.id is not None:
                keys.append(_key(record.id))
        if count == 0:
            raise UserError(f"{self.path}: no row with text in it.")
        self._check_ids(np.array(keys))
        layout = self.layout
        if guess:
            guessed: dict[str, Type] = {
                name: "number" if each == {"number"} else "text" for name, each in found.items()
            }
            layout = replace(layout, metadata=guessed)
        else:
            check_columns(str(self.path), [*called, *found], layout.names, "each")
        of_all.update(json.dumps(layout.names).encode())
        return replace(self, layout=layout, count=count, texts_sha256=of_texts.hexdigest(), sha256=of_all.hexdigest())

    def _records(self, beside: Callable[[dict[str, Any]], tuple[Value, ...]]) -> Iterator[Record]:
        """The records, with what `beside` makes of a row's cells as metadata."""
        layout = self.layout
        column = layout.text or TEXT

        def reject(where: str, problem: str, start: str) -> None:
            raise UserError(f'{where}: {problem}; the row starts "{start}". Correct it.')

        def check(cells: Iterable[object], columns: Row) -> Record:
            of = dict(zip(columns, cells, strict=True))
            (words,) = checked((of.get(column, MISSING),), (column,))
            name = identifier(of.get(layout.id, MISSING), layout.id) if layout.id else None
            return Record(name, words, beside(of))

        if self.every_line:
            return (Record(None, line) for line in text.every_line(self.path))
        return sources.FORMATS[suffix(self.path)].rows(self.path, None, reject, check)

    def _stored(self, of: dict[str, Any]) -> tuple[Value, ...]:
        """A row's metadata, as its columns hold them."""
        kinds = self.layout.metadata.items()
        return tuple(None if of.get(name) in _NOTHING else stored(name, of[name], kind) for name, kind in kinds)

    def _check_ids(self, keys: np.ndarray) -> None:
        """Checks that no two are one, by their numbers."""
        distinct, counts = np.unique(keys, return_counts=True)
        twice, seen = set(distinct[counts > 1].tolist()), set()
        if not twice or self.layout.id is None:
            return
        which = ""

        def again(cells: list[object]) -> bool:
            nonlocal which
            which = identifier(cells[0], "id")
            if which in seen:
                return True
            seen.update({which} if _key(which) in twice else ())
            return False

        place = first_place(partial(sources.FORMATS[suffix(self.path)].rows, self.path), (self.layout.id,), again)
        raise UserError(f"{place}: the id '{which}' is there for the second time. Ids must differ.")


def open_records(
    path: Path,
    *,
    text_column: str | None = None,
    id_column: str | None = None,
    like: Layout | None = None,
    every_line: bool = False,
) -> Records:
    """Finds out what a file's columns are, and reads it once: a bad row is found now and not in an hour.

    Args:
        path: A .txt, .csv, .tsv or .jsonl file, also with .gz.
        text_column: The column of the text; by default the only one, or `text` or `sentence`.
        id_column: The column of the ids; by default `id`, if there is one.
        like: The columns that there must be, instead.
        every_line: Of plain text blank lines are records too.

    Raises:
        UserError: No such file, an unknown format or column, a row that cannot be used or whose id another has; names
            file and line.
    """
    form = sources.file_format(path, otherwise="Name a file of texts.")
    names = None if form.columns is None else form.columns(path)
    layout = like if like is not None else _choose(path, names, text_column, id_column)
    if names is None and layout.columns:
        raise UserError(f"{path}: plain text has no columns; expected {', '.join(layout.columns)}. Give a table.")
    if names is not None:
        if like is not None and like.text is None:
            raise UserError(f"{path}: has columns, and the index is of lines without. Give plain text.")
        # Those of JSON lines are the first object's: what is beside the text may be in others alone.
        each = [name for name in layout.columns if name not in layout.metadata or suffix(path) != ".jsonl"]
        check_columns(str(path), names, each, "each")
    return Records(path, layout, every_line and names is None).surveyed(guess=like is None)


def given_records(
    texts: Iterable[str],
    ids: Iterable[str] | None,
    metadata: Iterable[Mapping[str, Any]] | None,
    like: Layout | None = None,
) -> tuple[Layout, Iterator[Record]]:
    """Records of what a caller has, read once as they are needed.

    Args:
        texts: The texts.
        ids: As many, if they have any.
        metadata: As many, if they have any: names and values, of which the first ones say what the columns are.
        like: What the columns must be, instead.

    Raises:
        UserError: There is not one for each text, or a text is none; or they are not what they must be.
    """
    beside = None if metadata is None else iter(metadata)
    first = next(beside, {}) if beside is not None else {}
    kinds: dict[str, Type] = {name: "text" if isinstance(value, str) else "number" for name, value in first.items()}
    layout = Layout(None, None if ids is None else ID, kinds) if like is None else like
    if (layout.id is None) != (ids is None):
        raise UserError(f"`ids`: the index has {'none' if layout.id is None else 'some: give one for each text'}.")

    def read() -> Iterator[Record]:
        names = itertools.repeat(None) if ids is None else ids
        values = itertools.repeat({}) if beside is None else itertools.chain([first], beside)
        for number, (words, name, each) in enumerate(_together(texts, names, values)):
            where = f"text {number}"
            if not isinstance(words, str) or not isinstance(name, str | None):
                raise UserError(f"{where}: texts and ids must be strings.")
            if each.keys() != layout.metadata.keys():
                raise UserError(
                    f"{where}: metadata {', '.join(each)}; expected {', '.join(layout.metadata) or 'none'}."
                )
            try:
                kept = tuple(stored(column, each[column], kind) for column, kind in layout.metadata.items())
            except BadTextError as e:
                raise UserError(f"{where}: {e}.") from e
            yield Record(name, words.encode("utf-8", "replace").decode(), kept)

    return layout, read()


def _together(texts: Iterable[str], ids: Iterable[Any], metadata: Iterable[Any]) -> Iterator[tuple[str, Any, Any]]:
    """One of each, as long as there are texts."""
    ids, metadata = iter(ids), iter(metadata)
    for words in texts:
        try:
            yield words, next(ids), next(metadata)
        except StopIteration:
            raise UserError("`ids` and `metadata`: there must be one for each text, and there are fewer.") from None


def stored(name: str, value: Any, kind: Type) -> Value:
    """A value as a column of this kind holds it.

    Raises:
        BadTextError: A text where the column holds numbers.
    """
    if value is None:
        return None
    if kind == "text":
        plain = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        # JSON can spell half of a UTF-16 pair, which UTF-8 has no bytes for.
        return plain.encode("utf-8", "replace").decode()
    if not _is_number(value, True):
        raise BadTextError(f"'{name}' is {json.dumps(value)[:40]}, expected a number, as in all other rows")
    if isinstance(value, str):
        return float(value) if "." in value else int(value)
    return int(value) if isinstance(value, bool) else value


def _choose(path: Path, names: list[str] | None, text_column: str | None, id_column: str | None) -> Layout:
    if names is None:
        if given := text_column or id_column:
            raise UserError(f"{path}: no column '{given}': plain text has none. Give a table, or omit the column.")
        return Layout()
    (texts,) = (text_column,) if text_column else only_text(str(path), names, "Name it with `text_column`.")
    ids = id_column or next((name for name in names if name.lower() == ID and name != texts), None)
    for i, name in enumerate(names):
        try:
            _check_name(name, names[:i])
        except BadTextError as e:
            raise UserError(f"{path}: {e}.") from e
    return Layout(texts, ids, {name: "text" for name in names if name not in (texts, ids)})


def _check_name(name: str, others: Sequence[str]) -> None:
    """Checks that a column of an index can be called so.

    Raises:
        BadTextError: Another one is, or it is called nothing.
    """
    if not name:
        raise BadTextError("a column has no name. Give it one")
    if name.lower() in (_RESERVED, *map(str.lower, others)):
        raise BadTextError(f"the column '{name}' needs another name: no other may have it, were it in other case")


def _is_number(value: Any, in_table: bool) -> bool:
    """Whether a value is a number that SQLite can hold; in a table it is text."""
    if isinstance(value, str):
        return in_table and _NUMBER.fullmatch(value) is not None
    return isinstance(value, int | float) and math.isfinite(value) and abs(value) < 2**63


def _key(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
