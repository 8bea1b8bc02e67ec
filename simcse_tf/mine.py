"""Finds hard negatives for pairs: `python -m simcse_tf.mine PAIRS --model MODEL --to FILE`.

For each anchor, texts that the encoder takes for similar to it and that are not its positives. Vectors, index and the
rows so far lie in a hidden directory beside the output, which takes its name when it is complete; a run that was killed
continues with `--resume`. In memory are about 80 bytes per text, however long texts and vectors are; and of the
1,024 anchors that are searched for together some 50 bytes for each positive of the one that has the most.
"""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from simcse_tf import cli, loading
from simcse_tf.checks import check_range, require
from simcse_tf.data import mining, sources
from simcse_tf.data.columns import names_of_views, only_text
from simcse_tf.data.rows import Row
from simcse_tf.errors import UserError
from simcse_tf.files import Output, read_json_object, write_whole
from simcse_tf.indexing import Indexer, Running
from simcse_tf.serving import vectors
from simcse_tf.serving.index import Index

_DESCRIPTION = (
    "Find hard negatives for pairs: texts that the encoder takes for similar to an anchor, and that are not its "
    "positives. The output appears when it is complete; a run that was killed continues with --resume."
)
# Rows whose anchors are searched for together. What they give is written at once: a kill loses no more.
_BLOCK = 1024
_FOUND = "found.json"
# Directories of vectors.
_CANDIDATES, _ANCHORS = "candidates", "anchors"
_SAMPLE = 5
# How the table calls `mining.REASONS`.
_LABELS = {
    "positive": "a positive of the anchor",
    "anchor": "the anchor itself",
    "rank": "rank before --range-from",
    "max_score": "score above --max-score",
    "margin": "not below the positive by --margin",
    "relative_margin": "not below the positive by --relative-margin",
}


@dataclass(frozen=True)
class MineConfig(Running):
    """Flags of the command."""

    # --- Texts ---

    # Pairs: a .csv, .tsv or .jsonl file with anchor and positive, as training reads it. A third column is ignored.
    pairs: tyro.conf.Positional[str]
    # The encoder: a SavedModel, LiteRT, run or Hugging Face directory, a preset name, or a TF Serving address.
    model: str
    # The table with the negatives: .csv, .tsv or .jsonl, columns anchor, positive and negative (or negative_1,
    # negative_2 and so on).
    to: Path
    # Names of the columns of the pairs, anchor and positive, where they are not the usual ones.
    columns: tuple[str, ...] = ()
    # More texts that may be negatives, beside all positives: one a line, or a table or JSON lines.
    corpus: Path | None = None
    # The column of the corpus with the text, where it is not called text or sentence.
    corpus_column: str | None = None
    # Leave out rows that cannot be used, instead of stopping at the first.
    skip_bad_rows: bool = False

    # --- Negatives ---

    # Negatives for each row. A row for which too few are left is left out.
    negatives: int = 1
    # Rank of the nearest text that may be a negative; 1 is the nearest one that is not a positive.
    range_from: int = 1
    # Rank of the last text that may be a negative.
    range_to: int = 100
    # Highest cosine of a negative with its anchor.
    max_score: float | None = None
    # By how much at least a negative is less similar to the anchor than the positive is.
    margin: float | None = None
    # The same as a part of the positive's similarity: with 0.05 a negative is at most 95 % as similar. None for no
    # limit.
    relative_margin: float | None = 0.05
    # The nearest texts that may be negatives, or any of them at random.
    sampling: Literal["top", "random"] = "top"
    # Of the random choice, and of the sample that is shown.
    seed: int = 42

    # --- Vectors ---

    # Compare an anchor with all texts (flat), or with those of the nearest cells (ivf). Default: ivf above 50,000.
    index: Literal["flat", "ivf"] | None = None
    # Keep vectors and index in this directory, and take what is there: mining again with other limits is quick then.
    vectors: Path | None = None

    @property
    def limits(self) -> mining.Limits:
        """What may be a negative."""
        return mining.Limits(self.range_from, self.range_to, self.max_score, self.margin, self.relative_margin)

    @property
    def names(self) -> list[str]:
        """The columns of the output."""
        return names_of_views(2 + self.negatives)


@dataclass
class Found:
    """What was found so far; written after each block of rows.

    Attributes:
        settings: What decides about the negatives.
        rows: Rows of the pairs that have been looked at.
        size: Bytes of the output that they gave.
        kept: Rows with negatives.
        left_out: Texts that were looked at and may be no negatives, by reason.
        candidates: Texts that may be negatives.
        positive_sum: Of the scores of the kept rows' positives.
        negative_sum: Of the scores of the negatives.
        sample: Rows to read, each with a number by which they were drawn.
    """

    settings: dict[str, Any]
    rows: int = 0
    size: int = 0
    kept: int = 0
    left_out: dict[str, int] = field(default_factory=lambda: dict.fromkeys(mining.REASONS, 0))
    candidates: int = 0
    positive_sum: float = 0.0
    negative_sum: float = 0.0
    sample: list[tuple[float, dict[str, Any]]] = field(default_factory=list)


def main(arguments: list[str]) -> None:
    """The command: encodes the distinct texts, searches for each anchor's nearest, writes rows with negatives."""
    config = cli.parse(MineConfig, arguments, prog=cli.prog("mine"), description=_DESCRIPTION)
    output = _check(config)
    pairs, corpus = _open(config)
    load = loading.locate(config.model)
    if output.complete():
        print(f"{config.to}: is complete")
        return
    console = cli.console()
    with cli.phase(console, f"reading {config.pairs}"):
        texts = mining.survey(pairs, corpus, skip_bad_rows=config.skip_bad_rows)
    _say(texts, config, console)

    # Every complaint about flags and texts has been made.
    indexer = Indexer(load, config.model, batch_size=config.batch_size, console=console)
    output.begin()
    space = _encode(texts, config, indexer, config.vectors or output.work / "vectors")
    found = _mine(texts, config, space, output, console)
    if not found.kept:
        raise UserError(
            f"no row has enough negatives left (`negatives` {config.negatives}); nearest texts left out: "
            f"{_reasons(found)}. Raise `range_to`, or loosen `relative_margin`, `margin` or `max_score`; with `resume` "
            "the vectors are kept."
        )
    # Published last: what is killed before can be had again, and this is what its figures are made from.
    _report(found, texts, config, space, console)
    output.publish()


def _check(config: MineConfig) -> Output:
    for name in ("negatives", "range_from"):
        check_range(name, getattr(config, name), low=1)
    last = config.range_from + config.negatives - 1
    check_range("range_to", config.range_to, low=last, why="`range_from` and `negatives` reach so far")
    if config.max_score is not None:
        check_range("max_score", config.max_score, low=-1, high=1, why="it is a cosine")
    if config.margin is not None:
        check_range("margin", config.margin, low=0, high=2)
    if config.relative_margin is not None:
        check_range("relative_margin", config.relative_margin, low=0, high=1)
    if config.corpus_column is not None and config.corpus is None:
        raise UserError("`corpus_column` names a column of `corpus`: give that too.")
    read = [Path(config.pairs), *([config.corpus] if config.corpus else [])]
    output = config.output(config.to, read=read, endings=sources.WITH_COLUMNS)
    if config.vectors is not None:
        cli.check_directory(config.vectors, "--vectors")
        for name in (_CANDIDATES, _ANCHORS):
            vectors.check_free(config.vectors / name)
    require("faiss", "index", "mining needs faiss")
    return output


def _open(config: MineConfig) -> tuple[sources.Source, sources.Source | None]:
    """The pairs and the corpus."""
    pairs = sources.open_source(config.pairs, columns=config.columns)
    if pairs.views < 2:
        raise UserError(
            f"{config.pairs}: single texts. Hard negatives belong to pairs: give a file with columns anchor and "
            "positive, or name the two with `columns`."
        )
    if pairs.draw is not None:
        raise UserError(
            f"{config.pairs}: its pairs are drawn anew for each epoch. Mining needs rows that stay as they are."
        )
    if pairs.target is not None:
        raise UserError(
            f"{config.pairs}: graded pairs, of which not all are positives. Mining needs pairs of which each is. "
            "Choose those, and name their two columns with `columns`."
        )
    if config.corpus is None:
        return pairs, None
    form = sources.file_format(config.corpus, otherwise="`corpus` takes a file.")
    columns: Row = () if config.corpus_column is None else (config.corpus_column,)
    if form.columns is not None and not columns:
        names = form.columns(config.corpus)
        columns = only_text(f"`corpus` {config.corpus}", names, "Name it with `corpus_column`.")
    return pairs, sources.open_source(str(config.corpus), columns=columns)


def _say(texts: mining.Texts, config: MineConfig, console: Console) -> None:
    """Shows what was read."""
    bad = f" ({texts.bad:,} bad rows left out)" if texts.bad else ""
    console.print(
        f"{len(texts.anchors):,} pairs{bad}: {texts.distinct_anchors:,} distinct anchors; {texts.candidates:,} "
        "distinct texts among which negatives are looked for"
    )
    if texts.pairs.views > 2:
        console.print(f"the hard negatives that {config.pairs} has already are ignored")
    if texts.candidates <= config.negatives:
        raise UserError(
            f"`negatives` {config.negatives}: there are {texts.candidates} distinct texts, the positives among them. "
            "Give more pairs, or more texts with `corpus`."
        )


@dataclass(frozen=True)
class Space:
    """The vectors of the distinct texts, mapped into memory.

    Attributes:
        anchors: `(distinct anchors, dim)` float32 of unit length.
        candidates: `(candidates, dim)`.
        index: Of the candidates.
    """

    anchors: np.ndarray
    candidates: np.ndarray
    index: Index


def _encode(texts: mining.Texts, config: MineConfig, indexer: Indexer, directory: Path) -> Space:
    """Encodes what has no vector in the directory yet, and makes the index if it is not there."""
    of_pairs, of_all = texts.sha256
    place = directory / _CANDIDATES
    candidates = indexer.encode(
        place, texts.read_candidates(), texts.candidates, of_all, source=config.pairs, side="passage"
    )
    anchors = indexer.encode(
        directory / _ANCHORS,
        texts.read_anchors(),
        texts.distinct_anchors,
        of_pairs,
        source=config.pairs,
        side="query",
    )
    return Space(anchors, candidates, indexer.index(place, texts.read_candidates(), candidates, config.index))


def _mine(texts: mining.Texts, config: MineConfig, space: Space, output: Output, console: Console) -> Found:
    """Writes the rows with their negatives; those that a killed run has written stay."""
    positives = mining.Positives(texts.anchors, texts.positives, texts.candidates)
    found = _continued(config, texts, space, output, console)
    total = len(texts.anchors)
    stream = itertools.islice(texts.read_pairs(), found.rows, total)
    with (
        open(output.unfinished, "r+b" if found.rows else "wb") as file,
        cli.Counted(console, "mining", "rows", total) as shown,
    ):
        file.truncate(found.size)
        file.seek(found.size)
        if not found.rows:
            file.write(sources.heading(config.to, config.names))
        shown.update(found.rows)
        while block := list(itertools.islice(stream, _BLOCK)):
            lines = _block(block, found, texts, config, space, positives)
            file.write(sources.written(config.to, config.names, lines))
            file.flush()
            os.fsync(file.fileno())
            found.size = file.tell()
            write_whole(output.work / _FOUND, json.dumps(asdict(found)) + "\n")
            shown.update(found.rows)
    if found.rows != total:
        raise UserError(f"{config.pairs}: changed while it was being read. Start anew with `overwrite`.")
    return found


def _continued(config: MineConfig, texts: mining.Texts, space: Space, output: Output, console: Console) -> Found:
    """What a killed run found, if it looked for the same."""
    settings = {
        "texts": texts.sha256[1],
        "model": config.model,
        "index": space.index.about.kind,
        "columns": config.names,
        "format": config.to.suffix,
        **asdict(config.limits),
        "sampling": config.sampling,
        "seed": config.seed,
    }
    if (output.work / _FOUND).is_file():
        found = Found(**read_json_object(output.work / _FOUND))
        if found.settings == settings:
            return found
        console.print("the stopped run had other flags: its vectors are kept, its rows are not")
    return Found(settings)


def _block(
    block: list[Row],
    found: Found,
    texts: mining.Texts,
    config: MineConfig,
    space: Space,
    positives: mining.Positives,
) -> list[Row]:
    """The rows that a block of pairs becomes; counts them in `found`."""
    at = slice(found.rows, found.rows + len(block))
    # Rows of one anchor often stand together.
    numbers, place = np.unique(texts.anchors[at], return_inverse=True)
    queries = space.anchors[numbers]
    own, begins = positives.of(numbers)
    own_scores = np.einsum("nd,nd->n", np.repeat(queries, np.diff(begins), axis=0), space.candidates[own])
    # Its positives and the anchor itself have no rank.
    deepest = config.range_to + int(np.diff(begins).max()) + 1
    scores, rows = space.index.nearest(queries, min(deepest, texts.candidates))
    verdicts = mining.judge(
        scores,
        rows >= 0,
        positives.among(numbers, rows),
        rows == texts.itself[numbers][:, None],
        np.minimum.reduceat(own_scores, begins[:-1]),
        config.limits,
    )
    # Drawn alike before and after a kill: by the block's place in the file.
    rng = np.random.default_rng([config.seed, found.rows])
    taken = mining.choose(verdicts, config.negatives, rng if config.sampling == "random" else None)

    verdicts, taken = verdicts[place], taken[place]
    kept = np.flatnonzero(taken[:, 0] >= 0)
    negatives = np.take_along_axis(rows[place[kept]], taken[kept], axis=1)
    negative_scores = np.take_along_axis(scores[place[kept]], taken[kept], axis=1)
    positive_scores = np.einsum("nd,nd->n", queries[place[kept]], space.candidates[texts.positives[at][kept]])
    lines = [(*block[i][:2], *picked) for i, picked in zip(kept.tolist(), space.index.texts(negatives), strict=True)]

    found.rows += len(block)
    found.kept += len(kept)
    for i, reason in enumerate(mining.REASONS, 1):
        found.left_out[reason] += int(np.count_nonzero(verdicts == i))
    found.candidates += int(np.count_nonzero(verdicts == mining.CANDIDATE))
    found.positive_sum += float(positive_scores.sum(dtype="float64"))
    found.negative_sum += float(negative_scores.sum(dtype="float64"))
    drawn = rng.random(len(kept))
    for i in np.argsort(drawn)[:_SAMPLE].tolist():
        texts_of, scores_of = lines[i], [positive_scores[i], *negative_scores[i]]
        scored = [{"text": text, "score": float(score)} for text, score in zip(texts_of[1:], scores_of, strict=True)]
        found.sample.append((float(drawn[i]), {"anchor": texts_of[0], "positive": scored[0], "negatives": scored[1:]}))
    found.sample = sorted(found.sample, key=lambda one: one[0])[:_SAMPLE]
    return lines


def _reasons(found: Found) -> str:
    """How many texts were left out for which reason."""
    return ", ".join(f"{_LABELS[reason]} {count:,}" for reason, count in found.left_out.items() if count) or "none"


def _report(found: Found, texts: mining.Texts, config: MineConfig, space: Space, console: Console) -> None:
    """Shows what was left out and why, and rows to read; prints the same as JSON."""
    looked_at = found.candidates + sum(found.left_out.values())
    chosen = found.kept * config.negatives
    shown = Table("nearest texts of each row's anchor", title_justify="left")
    shown.add_column("number", justify="right")
    shown.add_column("%", justify="right")
    counts = [("looked at", looked_at)]
    counts += [(f"left out: {_LABELS[reason]}", count) for reason, count in found.left_out.items() if count]
    counts += [("may be negatives", found.candidates), ("taken", chosen)]
    for label, count in counts:
        shown.add_row(label, f"{count:,}", f"{100 * count / looked_at:.1f}")
    console.print(shown)
    positive, negative = found.positive_sum / found.kept, found.negative_sum / chosen
    console.print(
        f"{found.kept:,} rows written; {found.rows - found.kept:,} left out, for which too few negatives remained\n"
        f"mean score of the positives {positive:.3f}, of the negatives {negative:.3f}\n"
    )
    for _, row in found.sample:
        console.print(f"anchor           {row['anchor']}", markup=False)
        for name, each in [("positive", row["positive"]), *(("negative", each) for each in row["negatives"])]:
            console.print(f"{name}  {each['score']:6.3f} {each['text']}", markup=False)
        console.print()
    result = {
        "pairs": config.pairs,
        "model": config.model,
        "to": str(config.to),
        "index": space.index.about.kind,
        **asdict(config.limits),
        "sampling": config.sampling,
        "seed": config.seed,
        "distinct_anchors": texts.distinct_anchors,
        "candidates": texts.candidates,
        "bad_rows": texts.bad,
        "rows": found.rows,
        "rows_written": found.kept,
        "negatives": config.negatives,
        "looked_at": looked_at,
        "left_out": found.left_out,
        "may_be_negatives": found.candidates,
        "mean_score": {"positive": positive, "negative": negative},
        "sample": [row for _, row in found.sample],
    }
    cli.hand_over(result, config.json)


if __name__ == "__main__":
    cli.run(main)
