"""Rows of text files: one sentence a line, tables with a header, JSON lines; each also gzipped. Standard library only.

What decides the throughput: files are read as bytes through a 256 KiB buffer and cut at newlines in C; no object per
line but its text and its row. A line is decoded by itself, so that a byte that is no UTF-8 costs one row, whose number
is known. Memory does not grow with the file: a line is never read past `LONGEST` bytes.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from simcse_tf.errors import UserError

Row = tuple[str, ...]
# Takes a bad row: where it is ("file:line"), what is wrong with it, and its text.
Reject = Callable[[str, str, str], None]
# Yields rows; returns what it has read, as text with a place for the number of bad rows.
Rows = Generator[Row, None, str]

SUFFIXES = (".txt", ".csv", ".tsv", ".jsonl")
# Bytes. Longer lines are bad rows: a file without newlines must not be read into memory. For a cell the csv module has
# a limit of its own, 131,072 characters.
LONGEST = 1 << 20
# A byte order mark.
MARK = b"\xef\xbb\xbf"


class BadTextError(Exception):
    """Says what is wrong with one row; never leaves the package."""


def suffix(path: Path) -> str:
    """The suffix that tells the format, in lower case and without `.gz`."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def text_rows(path: Path, reject: Reject) -> Rows:
    """One sentence a line, `(sentence,)`; blank lines are skipped.

    Raises:
        UserError: The file cannot be read or decompressed.
    """
    number = 0
    for number, raw in enumerate(lines(path), 1):
        try:
            text = decode(raw).strip()
        except BadTextError as e:
            reject(f"{path}:{number}", str(e), readable(raw))
            continue
        if text:
            yield (text,)
    return f"{number} lines, {{bad}} bad, all others blank"


def json_rows(path: Path, columns: Row, reject: Reject) -> Rows:
    """One JSON object a line, its values at `columns`; blank lines are skipped.

    Raises:
        UserError: The file cannot be read or decompressed.
    """
    number = 0
    for number, raw in enumerate(lines(path), 1):
        try:
            if raw.isspace():
                continue
            item = _json_object(raw)
            row = checked((item.get(c, _MISSING) for c in columns), columns)
        except BadTextError as e:
            reject(f"{path}:{number}", str(e), readable(raw))
            continue
        yield row
    return f"{number} lines, {{bad}} bad, all others blank"


def table_rows(path: Path, columns: Row, reject: Reject) -> Rows:
    """The cells at `columns` of a .csv or .tsv file with a header; blank lines are skipped.

    Quoting is that of RFC 4180 for both, and strict: a quotation mark out of place is a bad row, since reading on
    would join cells and lines in silence.

    Raises:
        UserError: The file cannot be read or decompressed.
    """
    names = header(path)
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
            row = checked((cells[i] for i in picks), columns)
        except BadTextError as e:
            reject(f"{path}:{record.first}", str(e), readable(record.start))
            continue
        yield row
    return f"{count} rows below the header, {{bad}} bad"


def header(path: Path) -> list[str]:
    """The column names of a table.

    Raises:
        UserError: It has no header, or one that is no text.
    """
    for record, cells in _records(path):
        if record.problem:
            raise UserError(f"{path}:{record.first}: expected a header with the column names: {record.problem}.")
        return [c.strip() for c in cells]
    raise UserError(f"{path}: only blank lines. Expected a header with the column names.")


def first_keys(path: Path) -> list[str]:
    """The keys of the first JSON object within 100 lines.

    Raises:
        UserError: There is none.
    """
    problem = "only blank lines"
    for raw in itertools.islice(lines(path), 100):
        try:
            return list(_json_object(raw))
        except BadTextError as e:
            problem = problem if raw.isspace() else str(e)
    raise UserError(f"{path}: no JSON object in its first 100 lines ({problem}). Expected one on each line.")


def lines(path: Path) -> Generator[bytes, None, None]:
    """The lines of a file, decompressed if its name ends in .gz, without a byte order mark.

    A line that is too long comes cut to `LONGEST` bytes.

    Raises:
        UserError: The file cannot be read or decompressed.
    """
    with reading(path) as file:
        raw = file.readline(LONGEST).removeprefix(MARK)
        while raw:
            yield raw
            while len(raw) == LONGEST and raw[-1:] != b"\n":
                raw = file.readline(LONGEST)
            raw = file.readline(LONGEST)


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """Opens a file, decompressed if its name ends in .gz.

    Raises:
        UserError: It cannot be read or decompressed.
    """
    try:
        with _open(path) as file:
            yield file
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise UserError(f"{path}: broken or incomplete gzip file ({e}). Compress or download it again.") from e
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror}).") from e


def decode(raw: bytes) -> str:
    """Text of UTF-8 bytes.

    Raises:
        BadTextError: They are no UTF-8, or as many as `lines` cuts a line to.
    """
    if len(raw) >= LONGEST:
        raise BadTextError(f"longer than {LONGEST - 1:,} bytes (is this one sentence?)")
    try:
        return raw.decode()
    except UnicodeDecodeError as e:
        raise BadTextError(f"byte 0x{raw[e.start]:02x} at position {e.start + 1} is no UTF-8") from None


def checked(cells: Iterator[object], columns: Row) -> Row:
    """Strips the cells of a row.

    Raises:
        BadTextError: One is missing, no string, no valid Unicode, or empty.
    """
    row = []
    for name, cell in zip(columns, cells, strict=True):
        if cell is _MISSING:
            raise BadTextError(f"no '{name}'")
        if not isinstance(cell, str):
            raise BadTextError(f"'{name}' is {json.dumps(cell)[:20]}, expected a string")
        text = cell.strip()
        if not text:
            raise BadTextError(f"'{name}' is empty")
        if not text.isascii():
            _check_unicode(text, name)
        row.append(text)
    return tuple(row)


def readable(raw: bytes) -> str:
    """The start of a row as it can be shown on a terminal."""
    text = raw[:400].decode("utf-8", "backslashreplace").strip()
    shown = text[:40] + "..." * (len(text) > 40)
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in shown)


_MISSING = object()


def _open(path: Path) -> BinaryIO:
    if path.suffix.lower() == ".gz":
        # GzipFile's own readline is Python; a buffer around it cuts the lines in C.
        return io.BufferedReader(gzip.open(path), 1 << 18)  # pyright: ignore[reportArgumentType]
    return open(path, "rb", buffering=1 << 18)


def _json_object(raw: bytes) -> dict[str, object]:
    text = decode(raw)
    try:
        item = json.loads(text)
    except json.JSONDecodeError as e:
        raise BadTextError(f"broken JSON ({e.msg} at position {e.colno})") from None
    except (ValueError, RecursionError) as e:
        raise BadTextError(f"JSON that cannot be read ({e})") from None
    if not isinstance(item, dict):
        raise BadTextError("not a JSON object")
    return item


def _check_unicode(text: str, name: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as e:
        # JSON can spell half of a UTF-16 pair, which no UTF-8 text can hold.
        raise BadTextError(f"'{name}' has \\u{ord(text[e.start]):x}, half of a surrogate pair") from None


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
    reader = csv.reader(record, delimiter="\t" if kind == ".tsv" else ",", strict=True)
    while True:
        record.begin()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as e:
            cells = []
            record.problem = record.problem or (
                f"no valid {kind[1:].upper()} ({e}; a cell that begins with a quotation mark must end with one and "
                "double those inside)"
            )
        if cells or record.problem:
            yield record, cells
