"""What all contenders do alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

LEARNING_RATE = 3e-5
# The learning rate falls linearly to 0 at this step; no run gets so far.
TOTAL_STEPS = 1000
CLIP_NORM = 1.0
TEMPERATURE = 0.05
MAX_LENGTH = 32
# all-MiniLM-L6-v2's own, which encoding takes.
LONGEST_ENCODED = 256
# Rows, inner dimension, columns: dense layers of MiniLM and BERT-base over a batch's real tokens, and a square.
GEMM_SHAPES = ((3000, 384, 1536), (3000, 1536, 384), (3000, 768, 3072), (1536, 1536, 1536))

Encode = Callable[[list[str]], np.ndarray]


def head(dim: int) -> list[np.ndarray]:
    """SimCSE's MLP starts alike everywhere: `(dim, dim)` kernel and `(dim,)` bias."""
    kernel = np.random.default_rng(0).normal(0, 0.02, (dim, dim)).astype("float32")
    return [kernel, np.zeros(dim, "float32")]


def lines(path: str) -> list[str]:
    """The texts of a file, one a line."""
    return [line for line in Path(path).read_text("utf-8").split("\n") if line.strip()]


def rows(path: str) -> list[list[str]]:
    """The rows of a file of sentences, or of a table of triplets: lists of 1 or 3 texts."""
    if not path.endswith(".csv"):
        return [[line] for line in lines(path)]
    import csv

    with Path(path).open(encoding="utf-8", newline="") as f:
        return list(csv.reader(f))[1:]


def encoding(encode: Encode, call: Encode) -> dict[str, Callable[..., dict[str, Any]]]:
    """The tasks of a contender in encoding.

    Args:
        encode: Any number of texts to unit vectors, sorted by length inside.
        call: One call of the model.
    """

    def vectors(path: str, at_most: int) -> dict[str, Any]:
        return {"vectors": encode(lines(path)[:at_most]).tolist()}

    def throughput(path: str, at_most: int) -> dict[str, Any]:
        texts = lines(path)[:at_most]
        return {"seconds": seconds(encode, texts), "texts": len(texts)}

    def spearman(pairs: str, sts_dir: str) -> dict[str, Any]:
        from simcse_tf.evaluation import sts

        read = sts.bundled() if pairs == "bundled" else sts.load(pairs, sts_dir)
        return {"spearman": sts.evaluate(encode, read).all.spearman}

    return {"vectors": vectors, "throughput": throughput, "spearman": spearman, "latency": latency(call)}


def latency(call: Encode) -> Callable[..., dict[str, Any]]:
    """The task of calling the model with different texts, one call after another."""

    def task(path: str, batch_size: int, calls: int, untimed: int) -> dict[str, Any]:
        texts = lines(path)
        batches = [texts[i * batch_size : (i + 1) * batch_size] for i in range(calls + untimed)]
        return {"seconds": [seconds(call, batch) for batch in batches][untimed:]}

    return task


def gemm_rate(make: Callable[[int, int], Any], product: Callable[[Any, Any], Any]) -> dict[str, Any]:
    """The highest rate of a library's float32 matrix product over the shapes of `GEMM_SHAPES`, in operations a second.

    Args:
        make: A matrix of this many rows and columns.
        product: Multiplies two of them.
    """
    best = 0.0
    for m, k, n in GEMM_SHAPES:
        a, b = make(m, k), make(k, n)
        for _ in range(10):
            best = max(best, 2 * m * k * n / seconds(lambda pair: product(*pair), (a, b)))
    return {"rate": best}


def seconds(function: Callable[[Any], Any], argument: Sequence[Any]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    function(argument)
    return time.perf_counter() - began
