"""Tables with a header: CSV and TSV, quoted as RFC 4180 has it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

from simcse_tf.data.rows import BadTextError, Check, Format, Reject, Row, Rows, checked, decode, lines, readable, suffix
from simcse_tf.errors import UserError


def rows(path: Path, columns: Row | None, reject: Reject, check: Check = checked) -> Rows:
    """The cells at `columns`, by default all, of a .csv or .tsv file with a header; blank lines are skipped.

    Quoting is strict: a quotation mark out of place is a bad row, since reading on would join cells and lines in
    silence.

    Raises:
        UserError: The file cannot be read or decompressed.
    """
    names = header(path)
    columns = tuple(names) if columns is None else columns
    picks = [names.index(c) for c in columns]
    count = 0
    for count, (record, cells) in enumerate(_records(path)):
        if count == 0:
            continue  # the header
        try:
            if record.problem:
                raise BadTextError(record.problem)
            if len(cells) != len(names):
                expected = f"{len(names)} column{'s' * (len(names) > 1)} ({', '.join(names)})"
                raise BadTextError(f"expected {expected}, found {len(cells)}")
            row = check((cells[i] for i in picks), columns)
        except BadTextError as e:
            reject(f"{path}:{record.first}", str(e), readable(record.start))
            continue
        yield row
    return f"{count} rows below the header, {{bad}} bad"


def header(path: Path) -> list[str]:
    """The column names of a table.

    Raises:
        UserError: It has no header, one that is not text, or one with another separator.
    """
    for record, cells in _records(path):
        if record.problem:
            raise UserError(f"{path}:{record.first}: expected a header with the column names: {record.problem}.")
        names = [c.strip() for c in cells]
        # Spreadsheets of many countries write semicolons. Read on, every row would be one text.
        if len(names) == 1 and any(mark in names[0] for mark in ";,\t"):
            separators = "commas" if _delimiter(path) == "," else "tabs"
            raise UserError(
                f"{path}:{record.first}: expected columns separated by {separators}, found one column, '{names[0]}'. "
                "Save the table so, or rename the column if it is one."
            )
        return names
    raise UserError(f"{path}: only blank lines. Expected a header with the column names.")


def written(records: Iterable[Iterable[str]], path: Path) -> bytes:
    """Records as they stand in a .csv or .tsv file of this name."""
    file = io.StringIO()
    plain, quoted = (
        csv.writer(file, delimiter=_delimiter(path), lineterminator="\n", quoting=quoting)
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
    )
    for record in records:
        cells = list(record)
        # Before Python 3.11.9 and 3.12.3 a cell with this in it is not quoted where lines end otherwise.
        (quoted if any("\r" in cell for cell in cells) else plain).writerow(cells)
    return file.getvalue().encode()


def _delimiter(path: Path) -> str:
    return "\t" if suffix(path) == ".tsv" else ","


class _Record:
    """Feeds csv.reader with lines; remembers where the record being read began and what is wrong with its text."""

    def __init__(self, path: Path):
        self._lines = lines(path)
        self._number = 0
        self.begin()

    def begin(self) -> None:
        self.first = self._number + 1
        self.start = b""
        self.problem = ""

    def __iter__(self) -> _Record:
        return self

    def __next__(self) -> str:
        raw = next(self._lines)
        self._number += 1
        self.start = self.start or raw
        try:
            return decode(raw)
        except BadTextError as e:
            self.problem = self.problem or str(e)
            return raw.decode("utf-8", "replace")


def _records(path: Path) -> Iterator[tuple[_Record, list[str]]]:
    kind = suffix(path)
    record = _Record(path)
    reader = csv.reader(record, delimiter=_delimiter(path), strict=True)
    while True:
        record.begin()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as e:
            cells = []
            record.problem = record.problem or (
                f"not valid {kind[1:].upper()} ({e}; a cell that begins with a quotation mark must end with one and "
                "double those inside)"
            )
        if cells or record.problem:
            yield record, cells


FORMAT = Format(rows, header, takes_all=True)
