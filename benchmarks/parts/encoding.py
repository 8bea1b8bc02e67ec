"""Encoding: throughput, latency of single calls, memory, share of the arithmetic limit."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
import time
from functools import cache
from statistics import median

from benchmarks.contenders import common
from benchmarks.limit import Counter
from benchmarks.measurements import OURS, Measurement
from benchmarks.parts.setting import BATCH_SIZE, Setting, best_rate, gemms, running, say
from benchmarks.workers import ROOT, Worker, environment

_CONTENDERS = {
    OURS: "ours.encode_saved_model",
    f"{OURS}, in process": "ours.encode_live",
    "sentence-transformers": "sbert.encode",
    "ONNX Runtime": "onnx_runtime.encode",
}
# What `--quick` leaves out.
_SLOW = ("ours.encode_live",)
# all-MiniLM-L6-v2's own.
_MAX_LENGTH = 256
# Calls of the model in a turn, by batch size.
_CALLS = {1: 150, 8: 30, 64: 10}


def encode(setting: Setting) -> list[Measurement]:
    """All of it."""
    memory = Measurement("memory_encoding", "Memory, encoding", "MiB", False)
    models = export(setting)
    contenders = {who: function for who, function in _CONTENDERS.items() if not (setting.quick and function in _SLOW)}
    with running(setting, contenders, **models) as workers, running(setting, gemms(setting)) as products:
        _check(setting, workers)
        throughput = _throughput(setting, workers, products)
        for who, worker in workers.items():
            memory.add(who, worker.turn("memory")["memory"] / 2**20)
        latency = _latency(setting, workers)
    return [*throughput, *latency, memory]


@cache
def export(setting: Setting) -> dict[str, str | int]:
    """Writes our SavedModel and the ONNX graph; once in every run, because the program may have changed.

    Returns:
        Settings for the workers.
    """
    saved_model, onnx = setting.build / "saved_model", setting.build / "minilm.onnx"
    shutil.rmtree(saved_model, ignore_errors=True)
    began = time.perf_counter()
    with (setting.build / "logs" / "export.log").open("w") as log:
        for command in (
            ["-m", "simcse_tf.export", str(setting.model), "--to", str(saved_model)],
            ["-m", "benchmarks.contenders.onnx_runtime", str(setting.model), str(onnx)],
        ):
            subprocess.run([sys.executable, *command], cwd=ROOT, env=environment(), stdout=log, stderr=log, check=True)
    say(f"exported a SavedModel and an ONNX graph in {time.perf_counter() - began:.1f} s")
    return {"saved_model": str(saved_model), "onnx": str(onnx), "max_length": _MAX_LENGTH}


def _check(setting: Setting, workers: dict[str, Worker]) -> None:
    """Everybody gives the same vectors.

    Raises:
        RuntimeError: Somebody does not.
    """
    answers = {who: w.turn("vectors", path=str(setting.texts.sts), at_most=64) for who, w in workers.items()}
    for who, answer in answers.items():
        pairs = zip(answers[OURS]["vectors"], answer["vectors"], strict=True)
        cosine = min(sum(x * y for x, y in zip(a, b, strict=True)) for a, b in pairs)
        if cosine < 1 - 1e-3:
            raise RuntimeError(f"{who} gives other vectors than {OURS}: a cosine of {cosine}")
    say("all give the same vectors, to a cosine of 0.999")


def _throughput(setting: Setting, workers: dict[str, Worker], products: dict[str, Worker]) -> list[Measurement]:
    measured = []
    for name, title, path, at_most in (
        ("sts", "STS-B's sentences", setting.texts.sts, 256 if setting.quick else 1500),
        ("long", "long Wikipedia sentences", setting.texts.long, 64 if setting.quick else 256),
    ):
        speed = Measurement(f"encode_{name}", f"Encode {title}: batch {BATCH_SIZE}", "sentences/s", True)
        share = Measurement(f"limit_encode_{name}", f"Share of the arithmetic limit, encoding {title}", "", True)
        operations = Counter(setting.model).encoding(common.lines(str(path))[:at_most], _MAX_LENGTH)
        for i in range(2 if setting.quick else 6):
            answers = {w: worker.turn("throughput", path=str(path), at_most=at_most) for w, worker in workers.items()}
            if i == 0:
                continue  # it compiled
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
    tasks[OURS] = (workers[OURS], "latency_signature")
    measured = []
    for batch_size, calls in _CALLS.items():
        p50 = Measurement(f"latency_{batch_size}", f"A call with {batch_size}, p50", "ms", False)
        p99 = Measurement(f"latency_{batch_size}_p99", f"A call with {batch_size}, p99", "ms", False)
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
        measured += [p50, p99]
    return measured
