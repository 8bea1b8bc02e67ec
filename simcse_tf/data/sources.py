"""Where training text comes from: `open_source(spec)` -> `Source.rows()`, tuples of 1, 2 or 3 strings.

Standard library only at module level: a source is opened, and usually read to its end once, before TensorFlow is
imported.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from stat import S_ISREG

from simcse_tf.data import files
from simcse_tf.data.download import PUBLISHED, examples, fetch
from simcse_tf.data.files import BadTextError, Reject, Row, Rows
from simcse_tf.data.nli import CONTRADICTION, ENTAILMENT, triplets
from simcse_tf.data.survey import survey_text
from simcse_tf.errors import UserError, did_you_mean

_BUNDLED = {"bundled": "sentences.txt", "bundled:triplets": "triplets.csv"}
_NLI = "tfds:snli+multi_nli"
_NAMES = (*_BUNDLED, *PUBLISHED, _NLI)
# Column names that are understood without --columns, in the order of the views.
_KNOWN_COLUMNS = (("sent0", "sent1", "hard_neg"), ("anchor", "positive", "negative"), ("text",), ("sentence",))


@dataclass(frozen=True)
class Source:
    """Rows of text that can be read any number of times, in the same order.

    Attributes:
        name: As the user gave it.
        views: Strings in a row: 1 (sentence), 2 (anchor, positive) or 3 (anchor, positive, hard negative).
        needs_tensorflow: Reading imports TensorFlow.
        survey: A faster way to count and fingerprint all rows, if there is one; None if that found a bad one.
    """

    name: str
    views: int
    _read: Callable[[Reject], Rows]
    needs_tensorflow: bool = False
    survey: Callable[[], tuple[int, str] | None] = lambda: None

    def rows(self, on_bad: Callable[[str], None] | None = None) -> Iterator[Row]:
        """Streams the rows; every string is valid Unicode, stripped and not empty.

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
                raise UserError(f"{message}. Correct it, or give --skip-bad-rows to leave out and count such rows.")
            on_bad(message)

        rows = self._read(reject)
        try:
            yield next(rows)
        except StopIteration as end:
            raise UserError(f"{self.name}: no usable row: {end.value.format(bad=bad)}.") from None
        yield from rows


@dataclass(frozen=True)
class Scan:
    """What `scan` has seen.

    Attributes:
        rows: Good rows.
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
    """Reads and checks rows, and counts them. Imports TensorFlow where the source needs it.

    Args:
        source: What to read.
        at_most: Stop after this many good rows.
        skip_bad_rows: Count rows that cannot be used instead of raising at the first.

    Raises:
        UserError: As `Source.rows`.
    """
    if at_most is None and (found := source.survey()) and found[0]:
        return Scan(found[0], 0, True, None, found[1])
    rows = bad = 0
    first_bad = None

    def note(message: str) -> None:
        nonlocal bad, first_bad
        bad += 1
        first_bad = first_bad or message

    digest = hashlib.blake2b(digest_size=16)
    read = itertools.islice(source.rows(note if skip_bad_rows else None), at_most)
    # In blocks: hashing every row by itself would take longer than reading it.
    while block := list(itertools.islice(read, 1024)):
        rows += len(block)
        digest.update("\n".join(map("\0".join, block)).encode() + b"\n")
    return Scan(rows, bad, at_most is None or rows < at_most, first_bad, digest.hexdigest())


def open_source(spec: str, *, columns: tuple[str, ...] = (), tfds_dir: Path | None = None) -> Source:
    """Finds out what `spec` is and checks what can be checked in milliseconds. A file wins over a name.

    Args:
        spec: `bundled`, `bundled:triplets`, `wiki1m`, `nli_for_simcse`, `tfds:NAME:SPLIT:FIELD[,FIELD...]`,
            `tfds:snli+multi_nli`, or the path of a .txt, .csv, .tsv or .jsonl file, also with .gz.
        columns: Text columns of a table or keys of JSON lines, in the order of the views. If not given: those of
            `_KNOWN_COLUMNS` that are there, else the columns of a table that has no more than 3.
        tfds_dir: Where TensorFlow Datasets keeps its data.

    Raises:
        UserError: Unknown name, no such file, unknown suffix or column, columns for a source that has none, an empty
            or unreadable file.
    """
    if len(columns) > 3:
        raise UserError(f"--columns takes at most 3 names (anchor, positive, hard negative), not {len(columns)}.")
    if os.path.isfile(spec):
        return _open_file(spec, Path(spec), columns)
    if spec in _BUNDLED:
        return _open_file(spec, Path(str(resources.files("simcse_tf.data.corpora"))) / _BUNDLED[spec], columns)
    if spec in PUBLISHED:
        if not PUBLISHED[spec].columns:
            _no_columns(spec, columns)
            return Source(spec, 1, lambda reject: files.text_rows(fetch(spec), reject))
        chosen = _choose(spec, PUBLISHED[spec].columns, columns)
        return Source(spec, len(chosen), lambda reject: files.table_rows(fetch(spec), chosen, reject))
    if spec.startswith("tfds:"):
        _no_columns(spec, columns)
        return _open_tfds(spec, tfds_dir)
    path = Path(spec)
    if path.name == spec and not path.suffix and not os.path.exists(spec):
        raise UserError(
            f"--data {spec}: neither a file nor a known name. {did_you_mean(spec, _NAMES)} "
            f"Or the path of a {', '.join(files.SUFFIXES)} file, also with .gz; or tfds:NAME:SPLIT:FIELD[,FIELD...]."
        )
    return _open_file(spec, path, columns)


def _open_tfds(spec: str, tfds_dir: Path | None) -> Source:
    if spec == _NLI:
        return Source(spec, 3, partial(_nli_rows, tfds_dir), needs_tensorflow=True)
    # NAME may end in a version (":1.0.0") and SPLIT may be a slice ("train[:10%]").
    match = re.fullmatch(r"tfds:([^:]+(?::\d[\d.*]*)?):([^:\[\]]+(?:\[[^\]]*\][^:\[\]]*)*):([^:\[\]]+)", spec)
    fields = tuple(f.strip() for f in match[3].split(",")) if match else ()
    if match is None or not all(fields) or len(fields) > 3:
        raise UserError(
            f"--data {spec}: expected tfds:NAME:SPLIT:FIELD[,FIELD...] with at most 3 fields, such as "
            f"tfds:glue/sst2:train:sentence; or {_NLI}."
        )
    read = partial(_tfds_rows, spec, match[1], match[2], fields, tfds_dir)
    return Source(spec, len(fields), read, needs_tensorflow=True)


def _open_file(spec: str, path: Path, columns: tuple[str, ...]) -> Source:
    try:
        mode = os.stat(path).st_mode
    except OSError as e:
        raise UserError(f"{path}: {e.strerror}. --data takes a file, or a name: {', '.join(_NAMES)}.") from e
    if not S_ISREG(mode):
        raise UserError(f"{path}: not a regular file. Expected a {', '.join(files.SUFFIXES)} file, also with .gz.")
    kind = files.suffix(path)
    if kind not in files.SUFFIXES:
        raise UserError(f"{path}: the suffix '{kind}' is unknown. {did_you_mean(kind, files.SUFFIXES)}")
    if kind == ".txt":
        _no_columns(spec, columns)
    lines = files.lines(path)
    if next(lines, None) is None:
        raise UserError(f"{path}: empty (0 lines). Expected {'one sentence a line' if kind == '.txt' else 'rows'}.")
    lines.close()

    if kind == ".txt":
        return Source(spec, 1, partial(files.text_rows, path), survey=partial(survey_text, path))
    if kind == ".jsonl":
        chosen = _choose(str(path), files.first_keys(path), columns, take_all=False)
        return Source(spec, len(chosen), partial(files.json_rows, path, chosen))
    chosen = _choose(str(path), files.header(path), columns)
    return Source(spec, len(chosen), partial(files.table_rows, path, chosen))


def _no_columns(spec: str, columns: tuple[str, ...]) -> None:
    if columns:
        raise UserError(f"--columns {','.join(columns)}: {spec} has no named columns. Leave the flag out.")


def _choose(where: str, header: Sequence[str], columns: tuple[str, ...], *, take_all: bool = True) -> tuple[str, ...]:
    chosen = columns
    if not chosen:
        known = next((names for names in _KNOWN_COLUMNS if names[0] in header), ())
        chosen = tuple(name for name in known if name in header)
        if chosen != known[: len(chosen)]:
            chosen = ()  # A hard negative without a positive: not for us to guess.
        elif not chosen and take_all and len(header) <= 3:
            chosen = tuple(header)
    if not chosen or "" in chosen:
        names = ", ".join(header)
        raise UserError(f"{where}: which of its columns ({names}) are the text? Name 1, 2 or 3 with --columns.")
    for name in chosen:
        if name not in header:
            raise UserError(f"{where}: no column '{name}'. {did_you_mean(name, header)}")
        if header.count(name) > 1:
            raise UserError(f"{where}: two columns are named '{name}'. Rename one of them.")
    return chosen


def _tfds_rows(
    where: str, name: str, split: str, fields: tuple[str, ...], tfds_dir: Path | None, reject: Reject
) -> Rows:
    number = 0
    for number, raw in enumerate(examples(name, split, fields, tfds_dir=tfds_dir), 1):
        row = _checked_example(f"{where}, example {number}", raw, fields, reject)
        if row:
            yield row
    return f"{number} examples, {{bad}} bad"


def _nli_rows(tfds_dir: Path | None, reject: Reject) -> Rows:
    fields = ("premise", "hypothesis")
    number = 0

    def pairs() -> Iterator[tuple[str, str, int]]:
        nonlocal number
        for name in ("snli", "multi_nli"):
            for i, (*raw, label) in enumerate(examples(name, "train", fields, label="label", tfds_dir=tfds_dir), 1):
                number += 1
                if label in (ENTAILMENT, CONTRADICTION):
                    row = _checked_example(f"tfds:{name}, train, example {i}", raw, fields, reject)
                    if row:
                        yield row[0], row[1], label

    yield from triplets(pairs())
    return f"{number} examples, {{bad}} bad, no premise with both an entailment and a contradiction"


def _checked_example(where: str, raw: Sequence[bytes], fields: tuple[str, ...], reject: Reject) -> Row | None:
    try:
        return files.checked((files.decode(cell) for cell in raw), fields)
    except BadTextError as e:
        reject(where, str(e), files.readable(b" ".join(raw)))
        return None
