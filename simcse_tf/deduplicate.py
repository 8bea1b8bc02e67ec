"""Leaves out rows that repeat others: `python -m simcse_tf.deduplicate FILE --to FILE [--model MODEL]`.

Rows whose texts differ in case and spacing alone are one, and with a model so are rows whose vectors are near. In
order, a row is kept unless it repeats one that was kept before it; those that are kept keep
their cells. Texts are compared, not what stands beside them: of equal texts with different labels the first is kept.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from simcse_tf import cli, loading
from simcse_tf.checks import check_range, require
from simcse_tf.data import whole_rows
from simcse_tf.data.rows import suffix
from simcse_tf.errors import UserError
from simcse_tf.files import Output
from simcse_tf.indexing import Indexer, Running
from simcse_tf.serving.index import first_of_each

_DESCRIPTION = (
    "Leave out the rows of a file that repeat others: those that differ in case and spacing alone, and with --model "
    "those that the encoder takes for the same. In order, a row is kept unless it repeats one that was kept before it."
)
_SAMPLE = 5


@dataclass(frozen=True)
class DeduplicateConfig(Running):
    """Flags of the command."""

    # A text a line, or a .csv, .tsv or .jsonl file; also .gz.
    file: tyro.conf.Positional[Path]
    # The same format without .gz: the rows that are kept, as they are.
    to: Path
    # The columns that are compared, where they are not those that training would read; joined, for the encoder.
    columns: tuple[str, ...] = ()
    # Leave out rows that cannot be used, instead of stopping at the first.
    skip_bad_rows: bool = False
    # Find near repetitions too, by this encoder: a SavedModel, LiteRT, run or Hugging Face directory, a preset name, or
    # a TF Serving address.
    model: str | None = None
    # The least cosine of rows of which one repeats the other.
    threshold: float = 0.95
    # Compare a row with all others (flat), or with those of the nearest cells (ivf). Default: ivf above 50,000.
    index: Literal["flat", "ivf"] | None = None


@dataclass(frozen=True)
class Repetitions:
    """Which rows repeat which.

    Attributes:
        exact: `(rows,)` int: the row that each differs from in nothing but case and spacing, -1 if none comes before.
        near: `(rows,)` int: the row that one of the others is near to, -1 if it is kept.
        cosines: `(rows,)` float: with that row.
    """

    exact: np.ndarray
    near: np.ndarray
    cosines: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """`(rows,)` bool."""
        return (self.exact < 0) & (self.near < 0)


def main(arguments: list[str]) -> None:
    """The command: numbers the distinct rows, compares their vectors, writes those that are kept."""
    config = cli.parse(DeduplicateConfig, arguments, prog=cli.prog("deduplicate"), description=_DESCRIPTION)
    source, output = _check(config)
    load = loading.locate(config.model) if config.model is not None else None
    if output.complete():
        print(f"{config.to}: is complete")
        return
    console = cli.console()
    with cli.phase(console, f"reading {config.file}"):
        texts = whole_rows.survey(source, skip_bad_rows=config.skip_bad_rows)
    if load is None:
        output.begin()
        found = _exact(texts)
    else:
        # Every complaint about flags and texts has been made.
        indexer = Indexer(load, str(config.model), batch_size=config.batch_size, console=console)
        output.begin()
        found = _near(config, texts, indexer, output.work / "rows", console)
    examples = _write(source, found, output)
    _report(config, texts, found, examples, console)
    output.publish()


def _check(config: DeduplicateConfig) -> tuple[whole_rows.WholeRows, Output]:
    check_range("threshold", config.threshold, above=0, high=1, why="it is a cosine")
    source = whole_rows.open_whole_rows(config.file, config.columns)
    output = config.output(config.to, read=[config.file], endings=[suffix(config.file)])
    if config.model is not None:
        require("faiss", "index", "finding near repetitions needs faiss")
    return source, output


def _exact(texts: whole_rows.Texts) -> Repetitions:
    """Rows that repeat others but for case and spacing."""
    rows = len(texts.first)
    return Repetitions(texts.repeats, np.full(rows, -1), np.zeros(rows, "float32"))


def _near(
    config: DeduplicateConfig, texts: whole_rows.Texts, indexer: Indexer, directory: Path, console: Console
) -> Repetitions:
    """Adds the rows that are near to others."""
    rows = texts.rows
    vectors = indexer.encode(directory, texts.read(), len(rows), texts.sha256, source=str(config.file))
    index = indexer.index(directory, texts.read(), vectors, config.index)
    with cli.Counted(console, "comparing", "texts", len(rows)) as shown:
        shown.update(0)
        repeats, cosines = first_of_each(index, vectors, config.threshold, progress=shown.update)
    found = _exact(texts)
    found.near[rows] = np.where(repeats >= 0, rows[repeats], -1)
    found.cosines[rows] = cosines
    return found


def _write(source: whole_rows.WholeRows, found: Repetitions, output: Output) -> dict[int, str]:
    """Writes the rows that are kept; returns the texts of the others' samples and of what these repeat."""
    wanted = {i for of in (found.exact, found.near) for row in _sample(of) for i in (row, int(of[row]))}
    examples: dict[int, str] = {}
    with open(output.unfinished, "wb") as file:
        file.write(source.head)
        count, kept = 0, found.kept.tolist()
        for count, (record, row) in enumerate(itertools.islice(source.rows(), len(kept)), 1):
            if kept[count - 1]:
                file.write(source.written(record))
            if count - 1 in wanted:
                examples[count - 1] = " ".join(row)
        if count != len(kept):
            raise UserError(f"{source.path}: changed while it was being read. Start anew with `overwrite`.")
        file.flush()
        os.fsync(file.fileno())
    return examples


def _sample(of: np.ndarray) -> list[int]:
    """A few of the rows that repeat others, always the same."""
    rows = np.flatnonzero(of >= 0)
    return sorted(np.random.default_rng(0).choice(rows, min(len(rows), _SAMPLE), replace=False).tolist())


def _report(
    config: DeduplicateConfig,
    texts: whole_rows.Texts,
    found: Repetitions,
    examples: dict[int, str],
    console: Console,
) -> None:
    """Shows what was left out, with examples; prints the same as JSON."""
    rows, kept = len(found.exact), int(np.count_nonzero(found.kept))
    exact, near = (int(np.count_nonzero(of >= 0)) for of in (found.exact, found.near))
    shown = Table("rows of " + str(config.file), title_justify="left")
    shown.add_column("number", justify="right")
    shown.add_column("%", justify="right")
    counts = [("read", rows), ("left out: equal but for case and spacing", exact)]
    if config.model is not None:
        counts.append((f"left out: cosine of at least {config.threshold:g}", near))
    for label, count in [*counts, ("kept", kept)]:
        shown.add_row(label, f"{count:,}", f"{100 * count / rows:.1f}")
    console.print(shown)
    if texts.bad:
        console.print(f"rows that cannot be used and were left out before: {texts.bad:,}")
    pairs = [
        {
            "text": examples[row],
            "repeats": examples[int(of[row])],
            "cosine": float(found.cosines[row]) if near else None,
        }
        for of, near in ((found.exact, False), (found.near, True))
        for row in _sample(of)
    ]
    for pair in pairs:
        cosine = "" if pair["cosine"] is None else f"  ({pair['cosine']:.3f})"
        console.print(f"left out  {pair['text']}\nkept      {pair['repeats']}{cosine}\n", markup=False)
    result: dict[str, Any] = {
        "file": str(config.file),
        "to": str(config.to),
        "model": config.model,
        "threshold": config.threshold if config.model is not None else None,
        "bad_rows": texts.bad,
        "rows": rows,
        "exact": exact,
        "near": near,
        "kept": kept,
        "sample": pairs,
    }
    cli.hand_over(result, config.json)


if __name__ == "__main__":
    cli.run(main)
