"""Rows of text: what they are, how a format gives them, and the reading and checking that formats share.

Standard library only. What decides the throughput: files are read as bytes through a 256 KiB buffer and cut at newlines
in C; there is no object per line but its text and its row. A line is decoded by itself, so that a byte that is not
UTF-8 costs one row, whose number is known. Memory does not grow with the file: a line is never read past `LONGEST`
bytes.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from simcse_tf.errors import UserError

Row = tuple[str, ...]
# Takes a bad row: where it is ("file:line"), what is wrong with it, and its start.
Reject = Callable[[str, str, str], None]
# Makes a row of the cells at some columns, or raises `BadTextError`.
Check = Callable[[Iterable[object], Row], Any]
# Yields rows; returns what it has read, as text with a place for the number of bad rows.
Rows = Generator[Any, None, str]

# Bytes. Longer lines are bad rows: a file without newlines must not be read into memory. For a cell the csv module has
# a limit of its own, 131,072 characters.
LONGEST = 1 << 20
# A byte order mark.
MARK = b"\xef\xbb\xbf"
# In place of a cell that is not there.
MISSING = object()


class BadTextError(Exception):
    """Says what is wrong with one row; never leaves the package."""


class _FoundError(Exception):
    """The place that `first_place` looks for."""


@dataclass(frozen=True)
class Format:
    """How one kind of file is read. `simcse_tf.data.sources.FORMATS` lists them by suffix.

    Attributes:
        rows: Yields the rows of a file, their texts at the given columns. A `check` as fourth argument says what to
            make of the cells; by default `checked`.
        columns: The names of a file's columns; None where a row is one text.
        takes_all: Whether the columns of a file that has no more than 3 are all text, unless they have known names.
        survey: A faster way to count and fingerprint all rows, if there is one. It returns None where a row is bad,
            which `rows` can name.
    """

    rows: Callable[..., Rows]
    columns: Callable[[Path], list[str]] | None = None
    takes_all: bool = False
    survey: Callable[[Path], tuple[int, str] | None] | None = None


def suffix(path: Path) -> str:
    """The suffix that names the format, in lower case and without `.gz`."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def lines(path: Path) -> Generator[bytes, None, None]:
    """The lines of a file, decompressed if its name ends in .gz, without a byte order mark.

    A line that is too long is cut to `LONGEST` bytes.

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
        BadTextError: They are not UTF-8, or as many as `lines` cuts a line to.
    """
    if len(raw) >= LONGEST:
        raise BadTextError(f"longer than {LONGEST - 1:,} bytes (is this one text?)")
    try:
        return raw.decode()
    except UnicodeDecodeError as e:
        raise BadTextError(f"byte 0x{raw[e.start]:02x} at position {e.start + 1} is not UTF-8") from None


def checked(cells: Iterable[object], columns: Row) -> Row:
    """Strips the cells of a row.

    Raises:
        BadTextError: One is missing, not a string, not valid Unicode, or empty.
    """
    row = []
    for name, cell in zip(columns, cells, strict=True):
        if cell is MISSING:
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


def number(
    cell: object, name: str, valid: Callable[[float], bool] = math.isfinite, expected: str = "a number"
) -> float:
    """The number that a cell holds, as JSON's number or as text.

    Raises:
        BadTextError: There is none, or it is not `valid`.
    """
    if cell is MISSING:
        raise BadTextError(f"no '{name}'")
    try:
        value = float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not valid(value):
        raise BadTextError(f"'{name}' is {json.dumps(cell)[:20]}, expected {expected or 'a number'}")
    return value


def identifier(cell: object, name: str) -> str:
    """What a cell is called by: text, or in JSON also a whole number.

    Raises:
        BadTextError: It is neither, or as `checked`.
    """
    if isinstance(cell, int) and not isinstance(cell, bool):
        return str(cell)
    return checked((cell,), (name,))[0]


def first_place(read: Callable[[Row, Reject, Check], Rows], columns: Row, found: Callable[[list[object]], bool]) -> str:
    """Where the first row with such cells is, as FILE:LINE; for a message. There must be one."""

    def check(cells: Iterable[object], columns: Row) -> None:
        if found(list(cells)):
            raise BadTextError("")

    def reject(place: str, problem: str, text: str) -> None:
        if not problem:
            raise _FoundError(place)

    try:
        for _ in read(columns, reject, check):
            pass
    except _FoundError as e:
        return str(e)
    raise AssertionError("no row has such cells")


def readable(raw: bytes) -> str:
    """The start of a row as it can be printed on a terminal."""
    text = raw[:400].decode("utf-8", "backslashreplace").strip()
    shown = text[:40] + "..." * (len(text) > 40)
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in shown)


def _open(path: Path) -> BinaryIO:
    if path.suffix.lower() == ".gz":
        # GzipFile's own readline is Python; a buffer around it cuts the lines in C.
        return io.BufferedReader(gzip.open(path), 1 << 18)  # pyright: ignore[reportArgumentType]
    return open(path, "rb", buffering=1 << 18)


def _check_unicode(text: str, name: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as e:
        # JSON can spell half of a UTF-16 pair, which no UTF-8 text can hold.
        raise BadTextError(f"'{name}' has \\u{ord(text[e.start]):x}, half of a surrogate pair") from None
