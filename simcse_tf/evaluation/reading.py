"""Reading SentEval's text files, with errors that name file and line."""

from __future__ import annotations

from pathlib import Path

from simcse_tf.errors import UserError


def read_lines(path: Path, encoding: str = "utf-8") -> list[str]:
    r"""The lines of a text file. They end with `\n` or `\r\n` alone: `str.splitlines` would also cut sentences.

    Raises:
        UserError: The file cannot be read or has another encoding; names the file and the line.
    """
    try:
        rows = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror}). Is SentEval's layout complete?") from e
    if rows[-1] == b"":
        rows.pop()
    return [_decode(row.removesuffix(b"\r"), encoding, f"{path}:{number}") for number, row in enumerate(rows, 1)]


def _decode(row: bytes, encoding: str, where: str) -> str:
    try:
        return row.decode(encoding)
    except UnicodeDecodeError as e:
        raise UserError(f"{where}: not {encoding} ({e.reason}): {row[:60]!r}. Convert the file.") from e


def columns(line: str, at_least: int, where: str) -> list[str]:
    """Splits `line` at tabs.

    Raises:
        UserError: Fewer than `at_least` columns; names `where`.
    """
    cells = line.split("\t")
    if len(cells) < at_least:
        raise UserError(
            f"{where}: {len(cells)} tab-separated column(s), expected {at_least}: {line[:60]!r}. Is the file cut off?"
        )
    return cells


def tidy(sentence: str) -> str:
    """`sentence` with one space for every run of whitespace, as SentEval hands it to an encoder."""
    return " ".join(sentence.split())
