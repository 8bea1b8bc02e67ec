"""Pairs and communities of a million vectors: time, memory, and how many of the pairs are found.

`python -m benchmarks.paraphrases VECTORS.npy [--rows N]`; the array is one that `simcse_tf.encode` wrote. Where it has
fewer rows than are asked for, the others are made of it: each with noise of its own length, so that they are near to
their origin and no paraphrases of it. Needs the extra `index`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from simcse_tf.serving import paraphrases

_BLOCK = 8192
_SAMPLE = 1000


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--threshold", type=float, default=0.8)
    parser.add_argument("--index", choices=["flat", "ivf"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="simcse_tf_paraphrases_") as scratch:
        vectors = enlarged(np.load(arguments.vectors, mmap_mode="r"), arguments.rows, Path(scratch) / "vectors")
        memory, times, began = [_memory()], {}, time.perf_counter()

        def passed(what: str) -> None:
            nonlocal began
            now = time.perf_counter()
            times[f"{what}_s"], began = round(now - began, 1), now
            memory.append(_memory())

        among = paraphrases.cells(vectors, arguments.index)
        passed("cells")
        found = []
        for pair in paraphrases.pairs(vectors, among, arguments.threshold, paraphrases.TOP_K):
            found.append(pair)
            memory.append(_memory())
        passed("compare")
        rows, cosines = paraphrases.best_first(*(np.concatenate(each) for each in zip(*found, strict=True)))
        passed("sort")
        centres, _ = paraphrases.communities(vectors, rows, cosines, arguments.threshold)
        passed("communities")
        result = {
            "rows": len(vectors),
            "threshold": arguments.threshold,
            "cells": len(among),
            **times,
            "pairs": len(rows),
            "found": _found(vectors, rows, arguments.threshold),
            "in_communities": int(np.count_nonzero(centres >= 0)),
            "largest": int(np.bincount(centres[centres >= 0], minlength=1).max()),
            "memory_mib": round(max(memory) - memory[0]),
        }
    print(json.dumps(result, indent=2))


def enlarged(given: np.ndarray, rows: int, to: Path) -> np.ndarray:
    """As many rows, mapped into memory."""
    rng, dim = np.random.default_rng(0), given.shape[1]
    with to.open("wb") as file:
        for start in range(0, rows, _BLOCK):
            places = np.arange(start, min(rows, start + _BLOCK))
            block = given[places % len(given)].astype("float32")
            copies = places >= len(given)
            block[copies] += rng.standard_normal((int(copies.sum()), dim), "float32") / np.float32(dim**0.5)
            file.write((block / np.linalg.norm(block, axis=1, keepdims=True)).tobytes())
    return np.memmap(to, "float32", "r", shape=(rows, dim))


def _found(vectors: np.ndarray, rows: np.ndarray, threshold: float) -> float:
    """The part of the pairs of some rows, compared with all, that was found; of rows that have few enough for it."""
    chosen = np.sort(np.random.default_rng(1).choice(len(vectors), min(_SAMPLE, len(vectors)), replace=False))
    known = {tuple(pair) for pair in rows[np.isin(rows, chosen).any(axis=1)].tolist()}
    wanted = set()
    for start in range(0, len(vectors), _BLOCK):
        near = np.argwhere(vectors[chosen] @ vectors[start : start + _BLOCK].T >= threshold)
        pairs = np.sort(np.stack([chosen[near[:, 0]], start + near[:, 1]], axis=1), axis=1)
        wanted |= {(i, j) for i, j in pairs.tolist() if i != j}
    return round(len(wanted & known) / max(1, len(wanted)), 4)


def _memory() -> float:
    """MiB of this process that are no file's."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
