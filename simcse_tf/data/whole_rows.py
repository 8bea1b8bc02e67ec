"""The rows of a file with all that stands in them, and the distinct texts that they have."""

from __future__ import annotations

import hashlib
import itertools
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simcse_tf.data import sources, tables
from simcse_tf.data.mining import distinct
from simcse_tf.data.rows import Reject, Row, checked, lines, suffix
from simcse_tf.data.strings import folded
from simcse_tf.errors import UserError

# A row as the file has it: the cells of a table, else the line.
Record = list[str] | bytes


@dataclass(frozen=True)
class WholeRows:
    """A file of rows: text, a table, or JSON lines.

    Attributes:
        path: The file.
        columns: Those whose texts are encoded and compared; none of a text file.
        names: The columns of a table; none of a file whose rows are lines.
    """

    path: Path
    columns: Row
    names: Row = ()

    def rows(self, on_bad: Reject = lambda *_: None) -> Iterator[tuple[Record, Row]]:
        """Streams the rows, and of each the texts; blank lines and bad rows are left out."""
        if self.names:
            places = [self.names.index(name) for name in self.columns]

            def check(cells: Iterable[object], _: Row) -> tuple[list[str], Row]:
                record = [str(cell) for cell in cells]
                return record, checked((record[i] for i in places), self.columns)

            yield from tables.rows(self.path, self.names, on_bad, check)
            return
        # Each line that is not blank gives a row, or is rejected.
        whole = (raw for raw in lines(self.path) if raw.decode("utf-8", "replace").strip())

        def reject(*problem: str) -> None:
            on_bad(*problem)
            next(whole)

        rows = sources.FORMATS[suffix(self.path)].rows(self.path, self.columns, reject)
        yield from ((raw, row) for row, raw in zip(rows, whole, strict=True))

    def written(self, record: Record) -> bytes:
        """A row as it stands in a file of this format."""
        if isinstance(record, bytes):
            return record.rstrip(b"\r\n") + b"\n"
        return tables.written([record], self.path)

    @property
    def head(self) -> bytes:
        """What stands above the rows."""
        return sources.heading(self.path, self.names) if self.names else b""


@dataclass(frozen=True)
class Texts:
    """The distinct texts of a file's rows; those that differ in case and spacing alone are one.

    Attributes:
        source: Where the texts are.
        numbers: `(rows,)` int: the number of each row's text among the distinct ones.
        first: `(rows,)` bool: whether it is there for the first time.
        sha256: Of all of them.
        bad: Rows of the file that cannot be used; they have no number.
    """

    source: WholeRows
    numbers: np.ndarray
    first: np.ndarray
    sha256: str
    bad: int

    @property
    def rows(self) -> np.ndarray:
        """`(distinct texts,)` int: the row in which each comes first."""
        return np.flatnonzero(self.first)

    @property
    def repeats(self) -> np.ndarray:
        """`(rows,)` int: the row whose text each row has again, -1 if it is there for the first time."""
        return np.where(self.first, -1, self.rows[self.numbers])

    def read(self) -> Iterator[str]:
        """Streams the distinct texts, by number; those of several columns are joined."""
        rows = itertools.compress(self.source.rows(), self.first)
        return (" ".join(row) for _, row in rows)


def open_whole_rows(path: Path, columns: Row = ()) -> WholeRows:
    """Finds out which columns of a file are text.

    Args:
        path: A .txt, .csv, .tsv or .jsonl file, also .gz.
        columns: Those to take; by default those that training would read, without label or score.

    Raises:
        UserError: There is no such file, it is of another kind, or it is not clear which columns.
    """
    sources.file_format(path, otherwise="Name a file of texts.")
    source = sources.open_source(str(path), columns=columns)
    names = tables.header(path) if suffix(path) in sources.TABLES else []
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path}: two columns are named '{name}'. Rename one of them.")
    # A label or a score stands beside the texts.
    return WholeRows(path, source.columns[:-1] if source.target else source.columns, tuple(names))


def survey(source: WholeRows, *, skip_bad_rows: bool) -> Texts:
    """Reads the rows once: a bad one is found now and not in an hour.

    Args:
        source: The rows.
        skip_bad_rows: Leave out those that cannot be used, and count them.

    Raises:
        UserError: A bad row, with file and line; or there are none.
    """
    keys, digest, bad = array("Q"), hashlib.sha256(), 0

    def reject(where: str, problem: str, start: str) -> None:
        nonlocal bad
        if not skip_bad_rows:
            raise UserError(
                f'{where}: {problem}; the row starts "{start}". Correct it, or set `skip_bad_rows` to leave such rows '
                "out and count them."
            )
        bad += 1

    for _, row in source.rows(reject):
        joined = " \0 ".join(row)
        keys.append(folded(joined))
        digest.update(f"{joined}\n".encode())
    if not keys:
        raise UserError(f"{source.path}: no row with text in it.")
    return Texts(source, *distinct(np.array(keys)), digest.hexdigest(), bad)
