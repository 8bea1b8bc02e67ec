"""Where training text comes from: `open_source(spec)` -> `Source.rows()`, tuples of texts.

Standard library only at module level: a source is opened, and usually read to its end once, before TensorFlow is
imported.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from stat import S_ISREG
from typing import Any

from simcse_tf.data import documents, json_lines, tables, targets, text, tfds
from simcse_tf.data.columns import Target, choose, only_text
from simcse_tf.data.published import PUBLISHED, fetch
from simcse_tf.data.rows import Format, Reject, Row, Rows, lines, suffix
from simcse_tf.errors import UserError, did_you_mean

# What a file is read as, by the end of its name (also with .gz behind it).
FORMATS: dict[str, Format] = {
    ".txt": text.FORMAT,
    ".csv": tables.FORMAT,
    ".tsv": tables.FORMAT,
    ".jsonl": json_lines.FORMAT,
}
# Files whose rows have a header, and may span lines.
TABLES = (".csv", ".tsv")
# Files whose rows have named columns.
WITH_COLUMNS = (*TABLES, ".jsonl")
_BUNDLED = {"bundled": "sentences.txt", "bundled:triplets": "triplets.csv"}
_NAMES = (*_BUNDLED, *PUBLISHED, tfds.NLI)


@dataclass(frozen=True)
class Source:
    """Rows of text that can be read any number of times, in the same order.

    Attributes:
        name: As given to `open_source`.
        views: Texts in a row: 1 (sentence), 2 (anchor, positive) or more (anchor, positive, hard negatives).
        read: Yields the rows; hands over the ones that cannot be used.
        columns: What the rows are read from, where the source has columns.
        needs_tensorflow: Reading imports TensorFlow.
        survey: A faster way to count and fingerprint all rows, if there is one; it returns None if it found a bad one.
        draw: Makes the rows of an epoch of the stored ones, where they differ from epoch to epoch: as many in each,
            decided by the seed and the epoch alone.
        target: What the number behind the texts of a row is, if there is one: the `label` of their class, or the
            `score` of a pair.
        note: What people should know of it before it is read.
        crops: Rows are pairs of crops of documents.
    """

    name: str
    views: int
    read: Callable[[Reject], Rows]
    columns: tuple[str, ...] = ()
    needs_tensorflow: bool = False
    survey: Callable[[], tuple[int, str] | None] | None = None
    draw: Callable[[Iterator[Row], int, int], Iterator[Row]] | None = None
    target: Target | None = None
    note: str = ""
    crops: bool = False

    def rows(self, on_bad: Callable[[str], None] | None = None, *, seed: int = 0, epoch: int = 0) -> Iterator[Row]:
        """Streams the rows of an epoch; every string is valid Unicode, stripped and not empty.

        Args:
            on_bad: As for `stored`.
            seed: Decides with `epoch` what is drawn, where the source draws.
            epoch: From 0.

        Raises:
            UserError: As `stored`.
        """
        stored = self.stored(on_bad)
        return stored if self.draw is None else self.draw(stored, seed, epoch)

    def stored(self, on_bad: Callable[[str], None] | None = None) -> Iterator[Row]:
        """Streams what the rows of every epoch are made of: they themselves, unless the source draws.

        Args:
            on_bad: Called with a message for every row that cannot be used, which is then left out. Without it such
                a row is an error.

        Raises:
            UserError: A bad row (with file, line number and the row's start), no good row at all, a compressed file
                that is broken, or whatever `open_source` could not know without reading.
        """
        bad = 0

        def reject(place: str, problem: str, text: str) -> None:
            nonlocal bad
            bad += 1
            message = f'{place}: {problem}; the row starts "{text}"'
            if on_bad is None:
                raise UserError(f"{message}. Correct it, or set `skip_bad_rows` to leave such rows out and count them.")
            on_bad(message)

        rows = self.read(reject)
        try:
            yield next(rows)
        except StopIteration as end:
            raise UserError(f"{self.name}: no usable row: {end.value.format(bad=bad)}.") from None
        yield from rows


@dataclass(frozen=True)
class Scan:
    """What `scan` has seen.

    Attributes:
        rows: Good rows; as many are drawn in each epoch.
        bad: Rows left out.
        complete: The end was reached, hence `rows` is all there is.
        first_bad: The message about the first row left out.
        fingerprint: Of the good rows, in order, or of the text that they are in.
    """

    rows: int
    bad: int
    complete: bool
    first_bad: str | None
    fingerprint: str = field(default="", compare=False)


def scan(source: Source, *, at_most: int | None = None, skip_bad_rows: bool = False) -> Scan:
    """Reads and checks the stored rows, and counts them. Imports TensorFlow where the source needs it.

    Args:
        source: What to read.
        at_most: Stop after this many good rows.
        skip_bad_rows: Count rows that cannot be used instead of raising at the first.

    Raises:
        UserError: As `Source.rows`.
    """
    if at_most is None and source.survey and (found := source.survey()) and found[0]:
        return Scan(found[0], 0, True, None, found[1])
    rows = bad = 0
    first_bad = None

    def note(message: str) -> None:
        nonlocal bad, first_bad
        bad += 1
        first_bad = first_bad or message

    digest = hashlib.blake2b(digest_size=16)
    read = itertools.islice(source.stored(note if skip_bad_rows else None), at_most)
    # In blocks: hashing every row by itself would take longer than reading it.
    while block := list(itertools.islice(read, 1024)):
        rows += len(block)
        if source.target:
            block = [map(str, row) for row in block]
        digest.update("\n".join(map("\0".join, block)).encode() + b"\n")
    return Scan(rows, bad, at_most is None or rows < at_most, first_bad, digest.hexdigest())


def open_source(
    spec: str,
    *,
    columns: tuple[str, ...] = (),
    tfds_dir: Path | None = None,
    crop_sentences: int = 2,
    crop_overlap: int = 1,
) -> Source:
    """Finds out what `spec` is and checks what can be checked in milliseconds. A file wins over a name.

    Args:
        spec: `bundled`, `bundled:triplets`, `wiki1m`, `nli_for_simcse`, `tfds:NAME:SPLIT:FIELD[,FIELD...]`,
            `tfds:snli+multi_nli`, or the path of a .txt, .csv, .tsv or .jsonl file, also with .gz; documents:
            `documents:FILE`, one a line or row of such a file, or a folder of .txt and .md files.
        columns: Columns of a table or keys of JSON lines: texts in the order of the views, and a label or a score; see
            `simcse_tf.data.columns`. If not given: those of known names, else the columns of a table that has no more
            than 3. Of documents a text.
        tfds_dir: Where TensorFlow Datasets keeps its data.
        crop_sentences: Sentences of a crop. Two crops of a document are a row.
        crop_overlap: Sentences that the two may have in common, fewer than `crop_sentences`.

    Raises:
        UserError: Unknown name, no such file, unknown suffix or column, columns for a source that has none, an empty
            or unreadable file, a folder without documents.
    """
    if os.path.isfile(spec):
        return _open_file(spec, Path(spec), columns)
    if spec in _BUNDLED:
        return _open_file(spec, Path(str(resources.files("simcse_tf.data.corpora"))) / _BUNDLED[spec], columns)
    if spec in PUBLISHED:
        published = PUBLISHED[spec]
        kind = FORMATS[published.file.suffix]
        texts = choose(spec, published.columns, columns).texts
        return Source(spec, len(texts) or 1, lambda reject: kind.rows(fetch(spec), texts, reject), texts)
    if spec.startswith(tfds.PREFIX):
        choose(spec, None, columns)
        views, read = tfds.find(spec, tfds_dir)
        return Source(spec, views, read, needs_tensorflow=True)
    crops = documents.Crops(crop_sentences, crop_overlap)
    path = Path(spec.removeprefix(documents.PREFIX))
    if os.path.isdir(spec.removeprefix(documents.PREFIX)):
        choose(spec, None, columns)
        read = partial(documents.folder_rows, path, crops)
        return Source(spec, 2, read, draw=crops.draw, note=documents.survey(path), crops=True)
    if spec.startswith(documents.PREFIX):
        return _open_documents(spec, path, columns, crops)
    if path.name == spec and not path.suffix and not os.path.exists(spec):
        raise UserError(
            f"`data` {spec}: neither a file nor a known name. {did_you_mean(spec, _NAMES)} "
            f"Or the path of a {', '.join(FORMATS)} file, also with .gz, or of a folder of documents; or "
            "tfds:NAME:SPLIT:FIELD[,FIELD...]."
        )
    return _open_file(spec, path, columns)


def file_format(path: Path, *, otherwise: str) -> Format:
    """How a file is read, by the end of its name.

    Args:
        path: A file that should hold something.
        otherwise: What could have been meant if there is no such file, for the message.

    Raises:
        UserError: There is no such file, it is empty or cannot be read, or its suffix is unknown.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as e:
        raise UserError(f"{path}: {e.strerror}. {otherwise}") from e
    if not S_ISREG(mode):
        raise UserError(f"{path}: not a regular file. Expected a {', '.join(FORMATS)} file, also with .gz.")
    if suffix(path) not in FORMATS:
        raise UserError(f"{path}: the suffix '{suffix(path)}' is unknown. {did_you_mean(suffix(path), FORMATS)}")
    first = lines(path)
    if next(first, None) is None:
        raise UserError(f"{path}: empty (0 lines). Expected rows of text.")
    first.close()
    return FORMATS[suffix(path)]


def heading(path: Path, names: Sequence[str]) -> bytes:
    """What stands above the rows of a file of this name."""
    return tables.written([names], path) if suffix(path) in TABLES else b""


def written(path: Path, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Rows as they stand in a file of this name; numbers stay numbers in JSON lines."""
    if suffix(path) in TABLES:
        return tables.written((map(str, row) for row in rows), path)
    return json_lines.written(names, rows)


def _open_file(spec: str, path: Path, columns: tuple[str, ...]) -> Source:
    kind = file_format(path, otherwise=f"`data` takes a file, or a name: {', '.join(_NAMES)}.")
    names = kind.columns(path) if kind.columns else None
    chosen = choose(spec, names, columns, takes_all=kind.takes_all)
    every, read = (*chosen.texts, *chosen.beside), partial(kind.rows, path)
    if chosen.target == "label":
        read = partial(targets.labelled, read, every)
        return Source(spec, 2, read, every, draw=targets.draw_pairs, target="label")
    if chosen.target == "score":
        return Source(spec, 2, partial(targets.scored, read, every), every, target="score")
    survey = partial(kind.survey, path) if kind.survey else None
    return Source(spec, len(every) or 1, partial(read, every), every, survey=survey)


def _open_documents(spec: str, path: Path, columns: tuple[str, ...], crops: documents.Crops) -> Source:
    kind = file_format(path, otherwise=f"`data` {documents.PREFIX}FILE takes a file with a document on each line.")
    names = kind.columns(path) if kind.columns else None
    texts = choose(spec, names, columns or only_text(spec, names, "Name it with `columns`.")).texts
    if len(texts) > 1:
        raise UserError(f"`columns` {','.join(columns)}: of documents one column is the text. Name 1.")

    def read(reject: Reject) -> Rows:
        return documents.stored(kind.rows(path, texts, reject, crops.check))

    return Source(spec, 2, read, texts, draw=crops.draw, crops=True)
