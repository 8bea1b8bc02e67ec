"""Encoding: throughput, latency of single calls, memory, share of the arithmetic limit."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.contenders import common
from benchmarks.limit import Counter
from benchmarks.measurements import OURS, Measurement
from benchmarks.parts import exports
from benchmarks.parts.setting import BATCH_SIZE, Setting, best_rate, gemms, running, say
from benchmarks.workers import Worker

_CONTENDERS = {
    OURS: "ours.encode_saved_model",
    f"{OURS}, in process": "ours.encode_live",
    "sentence-transformers": "sbert.encode",
    "ONNX Runtime": "onnx_runtime.encode",
}
# What `--quick` leaves out.
_SLOW = ("ours.encode_live",)
# The smallest cosine between two vectors of a text that are called the same, in float32 and in 8 bits.
_SAME, _SAME_INT8 = 0.999, 0.97
# Calls of the model in a turn, by batch size.
_CALLS = {1: 150, 8: 30, 64: 10}


def encode(setting: Setting) -> list[Measurement]:
    """All of it."""
    memory = Measurement("memory_encoding", "Memory, encoding", "MiB", False)
    models = {"saved_model": exports.saved_model(setting), "onnx": exports.onnx(setting)}
    contenders = {who: function for who, function in _CONTENDERS.items() if not (setting.quick and function in _SLOW)}
    with running(setting, contenders, **models) as workers, running(setting, gemms(setting)) as products:
        check(setting, workers)
        speeds = _throughput(setting, workers, products)
        for who, worker in workers.items():
            memory.add(who, worker.turn("memory")["memory"] / 2**20)
        calls = _latency(setting, workers)
    return [*speeds, *calls, memory]


def check(setting: Setting, workers: dict[str, Worker], *, reference: str = OURS, int8: Collection[str] = ()) -> None:
    """Everybody gives the same vectors.

    Args:
        setting: The run's.
        workers: All of them.
        reference: The worker whose vectors the others' are compared with.
        int8: The workers that compute in 8 bits.

    Raises:
        RuntimeError: Somebody does not.
    """
    answers = {who: w.turn("vectors", path=str(setting.texts.sts), at_most=64) for who, w in workers.items()}
    for who, answer in answers.items():
        pairs = zip(answers[reference]["vectors"], answer["vectors"], strict=True)
        cosine = min(sum(x * y for x, y in zip(a, b, strict=True)) for a, b in pairs)
        if cosine < (_SAME_INT8 if who in int8 else _SAME):
            raise RuntimeError(f"{who} gives other vectors than {reference}: a cosine of {cosine}")
    say(f"all give the same vectors, to a cosine of {_SAME}" + (f", in 8 bits of {_SAME_INT8}" if int8 else ""))


def throughput(
    setting: Setting, workers: dict[str, Worker], path: Path, at_most: int
) -> Iterator[dict[str, dict[str, Any]]]:
    """Everybody encodes the same texts, in turns.

    Yields:
        The answers of a round: `texts` and `seconds`.
    """
    for i in range(2 if setting.quick else 6):
        answers = {who: worker.turn("throughput", path=str(path), at_most=at_most) for who, worker in workers.items()}
        if i:  # the first time it compiled
            yield answers


def latency(
    setting: Setting, p50: Measurement, p99: Measurement, tasks: dict[str, tuple[Worker, str]], batch_size: int
) -> None:
    """Single calls with different sentences, in turns.

    Args:
        setting: The run's.
        p50: Gets the median of each round's calls, in milliseconds.
        p99: Gets the 99th percentile.
        tasks: Contender to its worker, and the worker's task.
        batch_size: Sentences in a call.
    """
    calls = _CALLS[batch_size]
    arguments = {
        "path": str(setting.texts.sts),
        "batch_size": batch_size,
        "calls": calls // 5 if setting.quick else calls,
        "untimed": 2,
    }
    for _ in range(1 if setting.quick else 5):
        for who, (worker, task) in tasks.items():
            seconds = sorted(worker.turn(task, **arguments)["seconds"])
            p50.add(who, 1000 * median(seconds))
            p99.add(who, 1000 * seconds[math.ceil(0.99 * len(seconds)) - 1])
    say(f"{p50.title}: " + ", ".join(f"{who} {figure:.1f} ms" for who, figure in p50.medians().items()))


def _throughput(setting: Setting, workers: dict[str, Worker], products: dict[str, Worker]) -> list[Measurement]:
    measured = []
    for name, title, path, at_most in (
        ("sts", "STS-B's sentences", setting.texts.sts, 256 if setting.quick else 1500),
        ("long", "long Wikipedia sentences", setting.texts.long, 64 if setting.quick else 256),
    ):
        speed = Measurement(f"encode_{name}", f"Encode {title}: batch {BATCH_SIZE}", "sentences/s", True)
        share = Measurement(f"limit_encode_{name}", f"Share of the arithmetic limit, encoding {title}", "", True)
        operations = Counter(setting.model).encoding(common.lines(str(path))[:at_most], common.LONGEST_ENCODED)
        for answers in throughput(setting, workers, path, at_most):
            ideal = operations / best_rate(products)
            for who, answer in answers.items():
                speed.add(who, answer["texts"] / answer["seconds"])
                share.add(who, ideal / answer["seconds"])
        say(f"{title}: " + ", ".join(f"{who} {figure:.0f} {speed.unit}" for who, figure in speed.medians().items()))
        measured += [speed, share]
    return measured


def _latency(setting: Setting, workers: dict[str, Worker]) -> list[Measurement]:
    """`simcse_tf` here is the SavedModel's signature, which is what a server calls; the client sorts and checks too."""
    tasks = {who: (worker, "latency") for who, worker in workers.items()}
    tasks[f"{OURS}, client"] = tasks[OURS]
    tasks[OURS] = (workers[OURS], "latency_model")
    measured = []
    for batch_size in _CALLS:
        p50 = Measurement(f"latency_{batch_size}", f"A call with {batch_size}, p50", "ms", False)
        p99 = Measurement(f"latency_{batch_size}_p99", f"A call with {batch_size}, p99", "ms", False)
        latency(setting, p50, p99, tasks, batch_size)
        measured += [p50, p99]
    return measured
