"""What the page accepts: sentences, lines and uploaded files, with limits; and text as HTML."""

from __future__ import annotations

import html
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from simcse_tf.data.records import Records, open_records
from simcse_tf.data.rows import Row
from simcse_tf.data.sources import FORMATS
from simcse_tf.errors import UserError, did_you_mean

MAX_CHARACTERS = 5_000
MAX_CANDIDATES = 1_000
MAX_MATRIX = 50
MAX_MAP = 50_000
MAX_INDEX = 200_000
MAX_TRAIN = 20_000
# A compressed file may hold a thousand times its size: uploads are plain.
SUFFIXES = list(FORMATS)
_GUESS_ROWS = 100


def escape(text: str) -> str:
    """Text as HTML that shows it: tags are not run, nor are the template marks of the HTML component (`{`, `$`)."""
    escaped = html.escape(text, quote=True)
    return escaped.replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;").replace("`", "&#96;")


def shorten(text: str, most: int = 80) -> str:
    """The start of a text, for a label."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def size(count: int) -> str:
    """A number of bytes."""
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count / 2**10:,.0f} KiB"


def sentence(text: object, what: str) -> str:
    """One sentence, whitespace at its ends removed.

    Raises:
        UserError: It is empty, too long or not a string.
    """
    if text is not None and not isinstance(text, str):
        raise UserError(f"{what}: expected a string, not {type(text).__name__}.")
    text = (text or "").strip()
    if not text:
        raise UserError(f"{what} is empty. Type a sentence.")
    if len(text) > MAX_CHARACTERS:
        raise UserError(
            f"{what} has {len(text):,} characters; at most {MAX_CHARACTERS:,} are taken. A sentence encoder reads "
            "sentences: shorten it, or split it into lines and use Rank or Search."
        )
    return text


def sentences(text: object, what: str, *, least: int, most: int) -> list[str]:
    """The lines of a text, or a list of sentences; blank ones are left out.

    Raises:
        UserError: Too few, too many, or one that is too long or not a string.
    """
    given = (text or "").splitlines() if isinstance(text, str | None) else text
    if not isinstance(given, list) or not all(isinstance(line, str) for line in given):
        raise UserError(f"{what}: expected a list of strings.")
    found = [line.strip() for line in given if line.strip()]
    if len(found) > most:
        raise UserError(f"{what}: {len(found):,} lines; at most {most:,} are taken. Leave some out.")
    if len(found) < least:
        raise UserError(f"{what}: {len(found)} of at least {least} lines. Type one sentence a line.")
    return [sentence(line, f"{what}, line {i}") for i, line in enumerate(found, 1)]


def columns(path: str | Path) -> list[str]:
    """The column names of an uploaded table, the keys of JSON lines; none for plain text.

    Raises:
        UserError: The file is of another kind, or has no header.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise UserError(f"{path.name}: files of type '{kind}' are not read. Expected one of {', '.join(SUFFIXES)}.")
    names = FORMATS[kind].columns
    if names is None:
        return []
    with _named(path):
        return names(path)


def guess_column(path: str | Path, names: list[str]) -> str | None:
    """The column with the longest text in the first rows, which is the text's more often than not.

    Raises:
        UserError: No column can be read; names the row.
    """
    best, longest, wrong = None, 0, None
    for name in names:
        try:
            length = sum(len(row[0]) for row in islice(rows(path, (name,)), _GUESS_ROWS))
        except UserError as e:
            # A column with an empty cell, say, is not the text's; a row that is wrong is wrong in all of them.
            wrong = e
            continue
        if length > longest:
            best, longest = name, length
    if best is None and wrong is not None:
        raise wrong
    return best


def rows(path: str | Path, names: tuple[str, ...]) -> Iterator[Row]:
    """Rows of an uploaded file, checked as they are read.

    Args:
        path: The file.
        names: Columns of a table; ignored for plain text.

    Raises:
        UserError: A row that cannot be used, with file and line.
    """
    path = Path(path)
    known = columns(path)
    if known:
        for name in names:
            if name not in known:
                raise UserError(f"{path.name}: no column '{name}'. {did_you_mean(name, known)}")

    def reject(where: str, problem: str, start: str) -> None:
        raise UserError(f'{where}: {problem}; the line starts "{start}". Correct the file and upload it again.')

    with _named(path):
        yield from FORMATS[path.suffix.lower()].rows(path, names, reject)


def file_sentences(path: str | Path, column: str | None, *, least: int, most: int) -> list[str]:
    """The sentences of an uploaded file.

    Args:
        path: The file.
        column: Of a table; the one with the longest text if not given.
        least: Fewest sentences.
        most: Most sentences.

    Raises:
        UserError: A row that cannot be used (with its line), too few or too many.
    """
    path = Path(path)
    column = column or guess_column(path, columns(path))
    found: list[str] = []
    for text, *_rest in rows(path, (column,) if column else ()):
        if len(found) == most:
            raise UserError(f"{path.name}: more than {most:,} lines; at most {most:,} are taken. Split the file.")
        if len(text) > MAX_CHARACTERS:
            raise UserError(
                f"{path.name}: sentence {len(found) + 1} has {len(text):,} characters; at most {MAX_CHARACTERS:,} are "
                "taken. Split it into lines."
            )
        found.append(text)
    if len(found) < least:
        raise UserError(f"{path.name}: {len(found)} of at least {least} sentences. Expected one a line.")
    return found


def records(path: str | Path, column: str | None) -> Records:
    """The texts of an uploaded file, with what stands beside them.

    Args:
        path: The file.
        column: Of the text; the one with the longest text if not given.

    Raises:
        UserError: A row that cannot be used (with its line), none, too many, or a text that is too long.
    """
    path = Path(path)
    column = column or guess_column(path, columns(path))
    with _named(path):
        found = open_records(path, text_column=column)
        if found.count > MAX_INDEX:
            raise UserError(
                f"{path.name}: {found.count:,} lines; at most {MAX_INDEX:,} are taken. `simcse-tf index build` takes "
                "any number."
            )
        for number, record in enumerate(found.read(), 1):
            if len(record.text) > MAX_CHARACTERS:
                raise UserError(
                    f"{path.name}: sentence {number} has {len(record.text):,} characters; at most {MAX_CHARACTERS:,} "
                    "are taken. Split it into lines."
                )
    return found


class _named:  # noqa: N801 - reads as a statement
    """Errors name the file as the user knows it, not where the server keeps it."""

    def __init__(self, path: Path):
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, UserError):
            raise UserError(str(error).replace(str(self._path), self._path.name)) from None
