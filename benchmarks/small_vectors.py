"""Numbers times bits of a vector, with and without Matryoshka, over seeds: `python -m benchmarks.small_vectors`.

Every row is a run of `simcse_tf.train` with one seed, plain or with `--matryoshka`, or the encoder before training. Its
vectors are cut to each size and kept in 32, 8 and 1 bit a number, and judged on STS-B's development set, as
`encode --dtype` stores them, and in a `flat` index of `--rows` vectors: recall@10 against the whole vectors in float32,
bytes of a vector in memory, milliseconds of a search. The index is filled as benchmarks/index.py fills its own, from
the vectors of the training sentences. Rows are kept in benchmarks/small_vectors.jsonl, a line each: the command
continues with those that are missing. A row takes 5 to 10 minutes on 2 quiet cores, by estimate; there are 7.

`--table` prints the table of the documentation and trains nothing.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import docs_search, objectives
from benchmarks.index import generated
from benchmarks.measurements import over_seeds, paired_difference
from benchmarks.texts import SHARED
from benchmarks.workers import ROOT
from simcse_tf import UserError, cli, quiet
from simcse_tf.data.records import Layout, Record
from simcse_tf.files import sha256
from simcse_tf.serving import compact, segment
from simcse_tf.serving.index import Index, Writer

ROWS = Path(__file__).parent / "small_vectors.jsonl"
SEEDS, SIZES = (42, 43, 44), (384, 256, 128, 64, 32)
COMMAND = (
    "unsup-bert-base --preset minilm --pooling avg --head none --mask-false-negatives --temperature 0.1 "
    "--max-steps 186 --eval-every 62 --data wiki_sentences.txt"
)
_DTYPES: dict[int, compact.Dtype] = {32: "float32", 8: "int8", 1: "binary"}
_QUERIES, _TOP = 500, 10


def main(arguments: list[str]) -> None:
    """Makes the rows that are missing, or prints what there is."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.small_vectors",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--command", default=COMMAND, help="the plain run, its data a file in --shared")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="of vectors, the encoder's own first")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--vectors", type=int, default=100_000, help="in the index")
    parser.add_argument("--rows", type=Path, default=ROWS, help="where rows are kept")
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder of texts and STS data")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "small_vectors", help="where the run at work is")
    parser.add_argument("--table", action="store_true", help="print the table of the rows that are there")
    given = parser.parse_args(arguments)
    small = f"{given.command} --matryoshka {' '.join(map(str, given.sizes))}"
    if given.table:
        print(markdown(objectives.read(given.rows), given.command, small, given.sizes))
        return
    if not given.shared.is_dir():
        raise UserError(f"--shared {given.shared}: is not a directory. Expected one with wiki_sentences.txt and sts/.")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    tasks = [(given.command, None), *((command, seed) for seed in given.seeds for command in (given.command, small))]
    for command in (given.command, small):
        objectives.configuration(command, None, given.shared, given.build).validate()
    sentences = given.shared / "wiki_sentences.txt"
    objectives.measure_missing(
        given.rows,
        tasks,
        sha256(sentences)[:12],
        lambda command, seed: measure(
            command, seed, given.shared, sentences, given.build / "run", given.sizes, given.vectors
        ),
    )


def measure(
    command: str, seed: int | None, shared: Path, sentences: Path, to: Path, sizes: Sequence[int], count: int
) -> dict[str, Any]:
    """Trains once; the figures of each size and each number of bits."""
    with cli.lean_imports():
        quiet.import_tensorflow()
    import keras

    from simcse_tf import SentenceEncoder
    from simcse_tf.evaluation import sts
    from simcse_tf.formats import presets
    from simcse_tf.training import keep

    config = objectives.configuration(command, seed, shared, to)
    if seed is None:
        encoder = keep.starting_encoder(presets.locate(config.preset), config)
    else:
        docs_search.trained(config)
        encoder = SentenceEncoder.from_preset(str(to))
    pairs = sts.load("STSB-dev", shared / "sts")
    compared = sts.embed_pairs(encoder.encode, pairs)
    real = encoder.encode(sentences.read_text("utf-8").splitlines())
    del encoder
    keras.backend.clear_session()
    gc.collect()
    shuffled = real[np.random.default_rng(0).permutation(len(real))]
    queries, real = shuffled[:_QUERIES], shuffled[_QUERIES:]
    searched = generated(real, 0, count).astype("float32")
    exact = np.argpartition(queries @ -searched.T, _TOP, axis=1)[:, :_TOP]
    cells = {}
    for dim in sizes:
        for bits, dtype in _DTYPES.items():
            a, b = (compact.floats(compact.quantized(compact.shortened(x, dim), dtype), dim) for x in compared)
            score = sts.score(a, b, pairs).all.spearman
            found = search(compact.shortened(searched, dim), bits, queries, exact)
            cells[f"{dim}:{bits}"] = {"STSB-dev": round(score, 4), **found}
    return {"vectors": count, "cells": cells}


def search(vectors: np.ndarray, bits: segment.Bits, queries: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """Looks for the queries in a flat index, one at a time, texts included.

    Args:
        vectors: `(n, dim)` float32 of unit length.
        bits: Of a number.
        queries: `(queries, full)`.
        exact: `(queries, 10)` int: what should be found.
    """
    with tempfile.TemporaryDirectory(prefix="simcse_tf_small_") as directory:
        records = (Record(None, f"sentence {i}") for i in range(len(vectors)))
        fingerprint = np.zeros((1, vectors.shape[1]), "float32")
        with Writer(Path(directory) / "index") as writer:
            writer.build(Layout(), records, vectors, fingerprint=fingerprint, model="", bits=bits)
        opened, seconds, right = Index(Path(directory) / "index"), [], []
        for i, query in [*enumerate(queries[:50]), *enumerate(queries)]:
            began = time.perf_counter()
            (answers,) = opened.search(query[np.newaxis], top_k=_TOP, threshold=-1.0)
            seconds.append(time.perf_counter() - began)
            right.append(len({int(answer.id) for answer in answers} & set(exact[i].tolist())) / _TOP)
    return {"recall@10": round(float(np.mean(right[50:])), 4), "ms": round(1000 * median(seconds[50:]), 3)}


def markdown(rows: Sequence[dict[str, Any]], plain: str, small: str, sizes: Sequence[int]) -> str:
    """The table of the documentation, and what Matryoshka costs and keeps."""
    runs = {"before training": [row for row in rows if (row["command"], row["seed"]) == (plain, None)]}
    for name, command in {"plain": plain, "Matryoshka": small}.items():
        of = [row for row in rows if row["command"] == command and row["seed"] is not None]
        runs[name] = sorted(of, key=lambda row: row["seed"])
    runs = {name: of for name, of in runs.items() if of}

    def figures(of: Sequence[dict[str, Any]], cell: str, name: str) -> list[float]:
        return [row["cells"][cell][name] * (100 if name == "recall@10" else 1) for row in of]

    heads = [f"{figure}, {name}" for figure in ("STS-B dev", "recall@10") for name in runs]
    lines = [f"| numbers | bits | bytes | ms | {' | '.join(heads)} |", "|---:" * (4 + len(heads)) + "|"]
    for dim in sizes:
        for bits in _DTYPES:
            cell = f"{dim}:{bits}"
            ms = median(figure for of in runs.values() for figure in figures(of, cell, "ms"))
            scores = [over_seeds(figures(of, cell, name)) for name in ("STSB-dev", "recall@10") for of in runs.values()]
            lines.append(f"| {dim} | {bits} | {dim * bits // 8:,} | {ms:.1f} | {' | '.join(scores)} |")
    said, whole, third = [], f"{sizes[0]}:32", sizes[0] // 3
    for name, of in runs.items():
        if third in sizes:
            both = [figures(of, cell, "STSB-dev") for cell in (f"{third}:32", whole)]
            kept = [100 * cut / all_of_it for cut, all_of_it in zip(*both, strict=True)]
            said.append(f"{name}: {third} of {sizes[0]} numbers keep {over_seeds(kept)} % of STS-B dev")
    seeds = {row["seed"] for row in runs.get("plain", ())} & {row["seed"] for row in runs.get("Matryoshka", ())}
    if seeds:
        both = [[row for row in runs[name] if row["seed"] in seeds] for name in ("Matryoshka", "plain")]
        found = paired_difference(*(figures(of, whole, "STSB-dev") for of in both))
        interval = "" if found.interval is None else f" ({found.interval[0]:+.2f} to {found.interval[1]:+.2f})"
        said.append(f"Matryoshka against plain, all numbers, {len(seeds)} seeds: {found.mean:+.2f}{interval}")
    return "\n".join([*lines, "", *(f"- {line}" for line in said)])


if __name__ == "__main__":
    cli.run(main)
