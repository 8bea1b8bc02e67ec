"""Finds texts that say the same: `python -m simcse_tf.paraphrases FILE --model MODEL --to FILE [--communities FILE]`.

All pairs of rows whose cosine is above a threshold, the most alike first, and communities of such rows. Vectors and the
pairs so far lie in a hidden directory beside the output, which takes its name when it is complete; a run that was
killed continues with `--resume`. In memory are about 300 bytes for each text and 100 for each pair, however long
texts and vectors are.
"""

from __future__ import annotations

import itertools
import json
import os
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from simcse_tf import cli, loading
from simcse_tf.checks import require
from simcse_tf.data import sources, whole_rows
from simcse_tf.errors import UserError
from simcse_tf.files import Output, check_writable, read_json_object, write_whole
from simcse_tf.indexing import Indexer, Running, check_name
from simcse_tf.serving import paraphrases, vectors

_DESCRIPTION = (
    "Find texts that say the same: pairs whose cosine is above a threshold, and communities of them. The output "
    "appears when it is complete; a run that was killed continues with --resume."
)
PAIRS = ("score", "row1", "row2", "text1", "text2")
COMMUNITIES = ("community", "row", "score", "text")
# A pair on disk, while others are looked for.
_PAIR = np.dtype([("rows", "<i4", 2), ("cosine", "<f4")])
# Cells whose pairs are written at once: a kill loses no more.
_CELLS = 16
# Rows that are written at once.
_LINES = 4096
_SAMPLE = 5


@dataclass(frozen=True)
class ParaphrasesConfig(Running):
    """Flags of the command."""

    # A text a line, or a .csv, .tsv or .jsonl file; also .gz.
    file: tyro.conf.Positional[Path]
    # The encoder: a SavedModel, LiteRT, run or Hugging Face directory, a preset name, or a TF Serving address.
    model: str
    # The pairs: a .csv, .tsv or .jsonl file with the columns score, row1, row2, text1 and text2. Rows are counted from
    # 0, without blank lines and those that are left out.
    to: Path
    # The communities too, the largest first: the same formats, with the columns community, row, score and text, a row
    # for each text; score is the cosine with the community's first. Replaces an older file.
    communities: Path | None = None
    # The columns that are compared, where they are not those that training would read; joined, for the encoder.
    columns: tuple[str, ...] = ()
    # Leave out rows that cannot be used, instead of stopping at the first.
    skip_bad_rows: bool = False
    # The least cosine of a pair, and of a text with the first of its community.
    threshold: float = 0.8
    # Most pairs for each text, the most alike: what bounds the output where very many texts are alike.
    top_k: int = paraphrases.TOP_K
    # Compare a text with all others (flat), or with those of the nearest cells (ivf). Default: ivf above 50,000.
    index: paraphrases.Kind | None = None
    # Keep the vectors in this directory, and take what is there: looking again with another threshold is quick then.
    vectors: Path | None = None


def main(arguments: list[str]) -> None:
    """The command: encodes the distinct texts, compares them, writes pairs and communities."""
    config = cli.parse(ParaphrasesConfig, arguments, prog=cli.prog("paraphrases"), description=_DESCRIPTION)
    source, output = _check(config)
    load = loading.locate(config.model)
    if output.complete():
        print(f"{config.to}: is complete")
        return
    console = cli.console()
    with cli.phase(console, f"reading {config.file}"):
        texts = whole_rows.survey(source, skip_bad_rows=config.skip_bad_rows)
    kind = config.index or paraphrases.kind_for(len(texts.rows))
    if kind == "ivf":
        require("faiss", "index", "comparing so many texts needs faiss")

    # Every complaint about flags and texts has been made.
    indexer = Indexer(load, config.model, batch_size=config.batch_size, console=console)
    output.begin()
    place = config.vectors or output.work / "vectors"
    encoded = indexer.encode(place, texts.read(), len(texts.rows), texts.sha256, source=str(config.file))
    found, cosines = paraphrases.best_first(*_compare(config, kind, texts, encoded, output, console))
    with cli.phase(console, "writing"):
        lines = _Lines(output.work, texts)
        result = _write_pairs(config, texts, found, cosines, lines, output)
        if config.communities is not None:
            centres, nearness = paraphrases.communities(encoded, found, cosines, config.threshold, config.top_k)
            result |= _write_communities(config.communities, texts, centres, nearness, lines)
    _report(config, kind, texts, result, console)
    output.publish()


def _check(config: ParaphrasesConfig) -> tuple[whole_rows.WholeRows, Output]:
    paraphrases.check(config.threshold, config.top_k)
    source = whole_rows.open_whole_rows(config.file, config.columns)
    output = config.output(config.to, read=[config.file], endings=sources.WITH_COLUMNS)
    if config.communities is not None:
        check_name("communities", config.communities, [config.file], sources.WITH_COLUMNS)
        if config.communities.absolute() == config.to.absolute():
            raise UserError(f"`communities` {config.communities}: is `to` as well. Choose another name.")
        check_writable(config.communities, "communities")
    if config.vectors is not None:
        cli.check_directory(config.vectors, "--vectors")
        vectors.check_free(config.vectors)
    return source, output


def _compare(
    config: ParaphrasesConfig,
    kind: paraphrases.Kind,
    texts: whole_rows.Texts,
    encoded: np.ndarray,
    output: Output,
    console: Console,
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of distinct texts, by number, and their cosines; those that a killed run has found stay."""
    settings = {
        "texts": texts.sha256,
        "model": config.model,
        "index": kind,
        "threshold": config.threshold,
        "top_k": config.top_k,
    }
    state, where, pairs = (output.work / name for name in ("found.json", "cells.npz", "pairs"))
    # Cells that have been looked at, and the pairs that they gave.
    done, count = 0, 0
    if state.is_file():
        before = read_json_object(state)
        if before["settings"] == settings:
            done, count = before["cells"], before["pairs"]
        else:
            console.print("the stopped run had other flags: its vectors are kept, its pairs are not")
    if done:
        with np.load(where) as saved:
            among = paraphrases.Cells(**saved)
    else:
        with cli.phase(console, f"sorting {len(encoded):,} texts ({kind})"):
            among = paraphrases.cells(encoded, kind)
        np.savez(where, **vars(among))
    stream = paraphrases.pairs(encoded, among, config.threshold, config.top_k, begin=done)
    with (
        open(pairs, "r+b" if done else "wb") as file,
        cli.Counted(console, "comparing", "texts", len(encoded)) as shown,
    ):
        file.truncate(count * _PAIR.itemsize)
        file.seek(0, os.SEEK_END)
        shown.update(int(among.begins[done]))
        while blocks := list(itertools.islice(stream, _CELLS)):
            for rows, cosines in blocks:
                block = np.empty(len(rows), _PAIR)
                block["rows"], block["cosine"] = rows, cosines
                file.write(block.tobytes())
                count += len(block)
            file.flush()
            os.fsync(file.fileno())
            done += len(blocks)
            write_whole(state, json.dumps({"settings": settings, "cells": done, "pairs": count}) + "\n")
            shown.update(int(among.begins[done]))
    found = np.fromfile(pairs, _PAIR)
    return found["rows"], found["cosine"]


class _Lines:
    """The texts of all rows, on disk, by row.

    Args:
        directory: Where to put them.
        texts: Where they are from.

    Raises:
        UserError: The file has other rows by now.
    """

    def __init__(self, directory: Path, texts: whole_rows.Texts):
        ends = array("q", [0])
        with open(directory / "texts", "wb") as file:
            for _, row in itertools.islice(texts.source.rows(), len(texts.first)):
                ends.append(ends[-1] + file.write(" ".join(row).encode()))
        if len(ends) != len(texts.first) + 1:
            raise UserError(f"{texts.source.path}: changed while it was being read. Start anew with `overwrite`.")
        self._ends, self._bytes = np.array(ends), np.memmap(directory / "texts", "uint8", "r")

    def __getitem__(self, row: int) -> str:
        return self._bytes[self._ends[row] : self._ends[row + 1]].tobytes().decode()


def _write_pairs(
    config: ParaphrasesConfig,
    texts: whole_rows.Texts,
    found: np.ndarray,
    cosines: np.ndarray,
    lines: _Lines,
    output: Output,
) -> dict[str, Any]:
    """Writes the pairs of rows: first those that differ in case and spacing alone."""
    again = np.flatnonzero(~texts.first)
    equal = np.stack([texts.repeats[again], again], axis=1)
    rows = np.concatenate([equal, texts.rows[found]])
    scores = np.append(np.ones(len(equal), "float32"), cosines)

    def line(i: int) -> Sequence[Any]:
        first, second = rows[i].tolist()
        return _rounded(scores[i]), first, second, lines[first], lines[second]

    _write(output.unfinished, config.to, PAIRS, map(line, range(len(rows))))
    most = np.bincount(found.ravel(), minlength=1)
    return {
        "equal": len(equal),
        "pairs": len(rows),
        "with_top_k": int(np.count_nonzero(most >= config.top_k)),
        # Where the threshold is right, these are still paraphrases.
        "least": [dict(zip(PAIRS, line(i), strict=True)) for i in range(len(rows))[-_SAMPLE:]],
    }


def _write_communities(
    path: Path, texts: whole_rows.Texts, centres: np.ndarray, nearness: np.ndarray, lines: _Lines
) -> dict[str, Any]:
    """Writes the communities of rows, the largest first, each with its centre first and then by cosine."""
    repeated = np.bincount(texts.numbers) > 1
    # Rows of equal texts are a community of their own if the text is in none.
    alone = (centres < 0) & repeated
    centres, nearness = np.where(alone, np.arange(len(centres)), centres), np.where(alone, 1, nearness)
    of, scores = centres[texts.numbers], nearness[texts.numbers]
    groups = paraphrases.by_size(of, scores, of == texts.numbers)
    rows = ((n, row) for n, group in enumerate(groups) for row in group.tolist())
    partial = path.with_name(f".{path.name}.partial")
    _write(partial, path, COMMUNITIES, ((n, row, _rounded(scores[row]), lines[row]) for n, row in rows))
    os.replace(partial, path)
    sizes = [len(group) for group in groups]
    return {"communities": len(sizes), "in_communities": sum(sizes), "largest": max(sizes, default=0)}


def _write(file: Path, to: Path, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes rows in the format of the name that the file will get."""
    stream = iter(rows)
    with open(file, "wb") as out:
        out.write(sources.heading(to, names))
        while block := list(itertools.islice(stream, _LINES)):
            out.write(sources.written(to, names, block))
        out.flush()
        os.fsync(out.fileno())


def _rounded(cosine: np.float32) -> float:
    return round(min(float(cosine), 1.0), 4)


def _report(
    config: ParaphrasesConfig, kind: paraphrases.Kind, texts: whole_rows.Texts, found: dict[str, Any], console: Console
) -> None:
    """Shows what was found, with the pairs that are least alike; prints the same as JSON."""
    shown = Table("texts of " + str(config.file), title_justify="left")
    shown.add_column("number", justify="right")
    counts = {
        "rows": len(texts.first),
        "pairs": found["pairs"],
        "of them equal but for case and spacing": found["equal"],
    }
    if config.communities is not None:
        counts |= {
            "communities": found["communities"],
            "rows in them": found["in_communities"],
            "rows in the largest": found["largest"],
        }
    for label, count in counts.items():
        shown.add_row(label, f"{count:,}")
    console.print(shown)
    if texts.bad:
        console.print(f"rows that cannot be used and were left out before: {texts.bad:,}\n")
    if found["with_top_k"]:
        console.print(
            f"{found['with_top_k']:,} texts have {config.top_k} pairs or more, and may have others: --top-k says how "
            "many are written\n"
        )
    if found["least"]:
        console.print("the pairs that are least alike:\n")
    for pair in found["least"]:
        console.print(f"{pair['score']:.3f}  {pair['text1']}\n       {pair['text2']}\n", markup=False)
    result = {
        "file": str(config.file),
        "to": str(config.to),
        "model": config.model,
        "threshold": config.threshold,
        "top_k": config.top_k,
        "index": kind,
        "bad_rows": texts.bad,
        "rows": len(texts.first),
        "distinct": len(texts.rows),
    }
    cli.hand_over(result | found, config.json)


if __name__ == "__main__":
    cli.run(main)
