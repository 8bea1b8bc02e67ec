"""Plain text: one sentence a line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from simcse_tf.data.rows import MARK, BadTextError, Check, Format, Reject, Row, Rows, decode, lines, readable, reading
from simcse_tf.errors import UserError

# Bytes. A line that spans two blocks is still far shorter than what `lines` cuts at.
_BLOCK = 1 << 14


def rows(path: Path, columns: Row | None, reject: Reject, check: Check | None = None) -> Rows:
    """One sentence a line, `(sentence,)`, or what a `check` makes of it; blank lines are skipped. There are no columns.

    Raises:
        UserError: The file cannot be read or decompressed.
    """
    number = 0
    for number, raw in enumerate(lines(path), 1):
        try:
            text = decode(raw).strip()
            if not text:
                continue
            row = (text,) if check is None else check((text,), ("text",))
        except BadTextError as e:
            reject(f"{path}:{number}", str(e), readable(raw))
            continue
        yield row
    return f"{number} lines, {{bad}} bad, all others blank"


def every_line(path: Path) -> Iterator[str]:
    """The lines of a file, blank ones too, without their line ends; constant memory.

    Raises:
        UserError: The file cannot be read, or a line is not UTF-8; names file and line.
    """
    for number, raw in enumerate(lines(path), 1):
        try:
            yield decode(raw).rstrip("\r\n")
        except BadTextError as e:
            raise UserError(f'{path}:{number}: {e}; the line starts "{readable(raw)}". Correct it.') from None


def survey(path: Path) -> tuple[int, str] | None:
    """Counts and checks what `rows` would yield, in blocks of 16 KiB instead of line by line.

    Returns:
        The number of rows and a fingerprint of the text; None if a row is bad, which `rows` can name.

    Raises:
        UserError: The file cannot be read or decompressed.
    """
    with reading(path) as file:
        rest = file.read(len(MARK)).removeprefix(MARK)
        found, digest = 0, hashlib.sha256(rest)
        while block := file.read(_BLOCK):
            digest.update(block)
            whole, newline, rest = (rest + block).rpartition(b"\n")
            count = _count(whole + newline)
            if count is None or len(rest) >= _BLOCK:
                return None
            found += count
        count = _count(rest)
    return None if count is None else (found + count, digest.hexdigest())


def _count(text: bytes) -> int | None:
    """How many lines are not blank; None if a byte is not UTF-8."""
    try:
        return sum(map(bool, map(str.strip, text.decode().split("\n"))))
    except UnicodeDecodeError:
        return None


FORMAT = Format(rows, survey=survey)
