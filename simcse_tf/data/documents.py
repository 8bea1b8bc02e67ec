"""Documents: a row is a pair of crops, runs of sentences from one document, and another pair in every epoch.

Two crops of one document are the positive pair of Gonzalez-Marquez et al. (TMLR 2026), who take two sentences each. A
stored row is a part of a document, `(sentences, document)`: one sentence a line, and the document's number, so that the
parts of one document are known to belong together. Standard library only.
"""

from __future__ import annotations

import math
import os
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from simcse_tf.config import check_crops
from simcse_tf.data.rows import MARK, BadTextError, Reject, Row, Rows, checked, readable, reading, suffix
from simcse_tf.errors import UserError

PREFIX = "documents:"
# Files of a folder that are documents, also with .gz.
SUFFIXES = (".txt", ".md")

# Bytes of one file in a folder: it is read whole.
_LONGEST = 1 << 24
_BLOCK = 1 << 16
# A document longer than so many crops is cut into parts. Two crops of a book would have little to do with each other,
# and a book would be seen no more often than a note.
_CROPS_PER_PART = 16
# Words of a piece, at least, of a document in which no sentence ends.
_PIECE = 16

# Where a sentence ends whatever stands before: at a blank line or one without a letter (a rule, the underline of a
# heading), and before an item of a list or a row of a table.
_ITEM = r"[ \t]*(?:(?:[-*+•]|\d+[.)])[ \t]+|(?=\|))"
_BREAKS = re.compile(rf"\n(?:(?:[^\w\n]*\n)+(?:{_ITEM})?|{_ITEM})")
# A stop, with the quotation marks and brackets that it closes. Those of European scripts end a sentence before a space
# that no lower-case letter or digit follows, but not after a single letter or digit ("J. Smith", "1. Introduction").
# Both begin with a set of characters, which `re` looks for five times as fast as for alternatives.
_STOP = re.compile(r"""([.!?…](?<!\b\w\.)["'”’»)\]]*) (?![a-z0-9ß-öø-ÿα-ώа-џ])""")  # noqa: RUF001 - a quotation mark
_OTHER_STOP = re.compile(r"""([。！？｡।॥؟۔։።။།]["'”’」』）)]*) ?""")  # noqa: RUF001 - stops of many scripts
_WORD = re.compile(r"\w")

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n.*?\n---[ \t]*(?:\n|\Z)", re.DOTALL)
_FENCED = re.compile(r"^[ \t]*(`{3,}|~{3,})[^`\n]*(?:\n|\Z).*?(?:^[ \t]*\1[`~]*[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^[ \t]*#{1,6}[ \t]+(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Crops:
    """How two crops are taken from a document.

    Attributes:
        sentences: Sentences of a crop.
        overlap: Sentences that the two may have in common, fewer than `sentences`.
    """

    sentences: int
    overlap: int

    def __post_init__(self):
        check_crops(self.sentences, self.overlap)

    def check(self, cells: Iterable[object], columns: Row) -> list[str]:
        """The parts of a document, one sentence a line; what a `Format` makes of a row's only cell.

        Raises:
            BadTextError: The cell is no text, or the document is too short for two crops.
        """
        (text,) = checked(cells, columns)
        return self.parts(text)

    def parts(self, text: str) -> list[str]:
        """The parts of a document, one sentence a line.

        Raises:
            BadTextError: The document is too short for two crops.
        """
        found = sentences(text)
        needed = 2 * self.sentences - self.overlap
        if len(found) < needed:
            raise BadTextError(
                f"a document of {len(found)} sentence{'s' * (len(found) != 1)}, too short for two crops: "
                f"`crop_sentences` {self.sentences} with `crop_overlap` {self.overlap} takes {needed}"
            )
        return ["\n".join(part) for part in _evenly(found, math.ceil(len(found) / (_CROPS_PER_PART * self.sentences)))]

    def draw(self, rows: Iterable[Row], seed: int, epoch: int) -> Iterator[Row]:
        """Two crops of each part, `(anchor, positive)`. All pairs that overlap no more than they may are as likely."""
        # Python promises the same numbers of `random()` in every version, and of no other method.
        rng = random.Random(f"{seed} {epoch}")
        for part, _ in rows:
            found = part.split("\n")
            # Two different places, in either order; from the earlier crop on, the later one is moved apart.
            apart = self.sentences - self.overlap - 1
            places = len(found) - self.sentences + 1 - apart
            one = int(rng.random() * places)
            other = int(rng.random() * (places - 1))
            if other >= one:
                other += 1 + apart
            else:
                one += apart
            yield tuple(" ".join(found[start : start + self.sentences]) for start in (one, other))


def sentences(text: str) -> list[str]:
    """Cuts a text into sentences, by its stops and its layout, in whatever language.

    Blank lines, lines without a letter, list items and the rows of tables end a sentence; a single newline does not,
    since lines may be wrapped. Abbreviations are not known: "Dr. Smith" is cut, "e.g. this", "No. 5" and "J. Smith" are
    not. A text in which no sentence ends is cut into pieces of 16 words or more. One without spaces as well, as in
    Thai, is one sentence.
    """
    found: list[str] = []
    for block in _BREAKS.split("\n" + text):
        block = _STOP.sub(r"\1\n", " ".join(block.split()))
        if not block.isascii():
            block = _OTHER_STOP.sub(r"\1\n", block)
        found += block.split("\n")
    found = [sentence for sentence in found if _WORD.search(sentence)]
    if len(found) == 1 and len(words := found[0].split(" ")) >= 2 * _PIECE:
        return [" ".join(piece) for piece in _evenly(words, len(words) // _PIECE)]
    return found


def markdown(text: str) -> str:
    """The text of a Markdown file: without fenced code and front matter; a heading is a paragraph."""
    text = _FENCED.sub("\n", _FRONT_MATTER.sub("", text.replace("\r\n", "\n")))
    return _HEADING.sub(r"\n\1\n", text)


def survey(folder: Path) -> str:
    """Looks at the names of a folder's files.

    Returns:
        How many are documents, and how many others there are.

    Raises:
        UserError: None is a document, or the folder cannot be read.
    """
    found = Counter(suffix(path) for path in _files(folder))
    documents = sum(found.pop(name, 0) for name in SUFFIXES)
    others = ", ".join(f"{n:,} {name or 'without a suffix'}" for name, n in found.most_common(3))
    others += ", ..." if len(found) > 3 else ""
    if not documents:
        raise UserError(
            f"{folder}: no {' or '.join(SUFFIXES)} file in this folder or below it (hidden ones do not count)"
            f"{f', but others: {others}' if others else ''}. Each such file would be a document."
        )
    return f"{documents:,} {' and '.join(SUFFIXES)} files" + (f"; others are left out: {others}" if others else "")


def folder_rows(folder: Path, crops: Crops, reject: Reject) -> Rows:
    """Stored rows of the .txt and .md files in a folder and below, also with .gz, each a document, in order of names.

    Raises:
        UserError: A file or folder cannot be read, or a file not be decompressed.
    """
    return stored(_documents(folder, crops, reject))


def stored(documents: Rows) -> Rows:
    """Stored rows of documents.

    Args:
        documents: The parts of each, as `Crops.check` gives them.
    """
    number = 0
    while True:
        try:
            parts = next(documents)
        except StopIteration as end:
            return end.value
        number += 1
        yield from ((part, str(number)) for part in parts)


def _documents(folder: Path, crops: Crops, reject: Reject) -> Rows:
    number = 0
    for path in _files(folder):
        if suffix(path) not in SUFFIXES:
            continue
        number += 1
        with reading(path) as file:
            # Room for the longest takes longer to make than most files to read.
            raw = file.read(_BLOCK)
            raw += file.read(_LONGEST) if len(raw) == _BLOCK else b""
            raw = raw.removeprefix(MARK)
        start, line = 0, 1
        try:
            if len(raw) > _LONGEST:
                raise BadTextError(f"longer than {_LONGEST:,} bytes (cut it into several files)")
            text = raw.decode()
            parts = crops.parts(markdown(text) if suffix(path) == ".md" else text)
        except UnicodeDecodeError as e:
            start, line = raw.rfind(b"\n", 0, e.start) + 1, raw.count(b"\n", 0, e.start) + 1
            problem = f"byte 0x{raw[e.start]:02x} at position {e.start - start + 1} is not UTF-8"
        except BadTextError as e:
            problem = str(e)
        else:
            yield parts
            continue
        reject(f"{path}:{line}", problem, readable(raw[start : start + 400]))
    return f"{number} files, {{bad}} bad"


def _files(folder: Path | str) -> Iterator[Path]:
    """Every file in a folder and below, in order of names. Hidden ones and links to folders are left out."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as e:
        raise UserError(f"{folder}: cannot be read ({e.strerror}).") from e
    for entry in found:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path)
        elif entry.is_file():
            yield Path(entry.path)


def _evenly(items: list[str], parts: int) -> Iterator[list[str]]:
    """Cuts a list into parts of like length."""
    return (items[len(items) * i // parts : len(items) * (i + 1) // parts] for i in range(parts))
