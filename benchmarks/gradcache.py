"""GradCache against the plain step: gradients, peak memory, time. `python -m benchmarks.gradcache`.

Unsupervised SimCSE on `minilm`, 32 tokens, AdamW, real sentences. Every measurement is a process of its own, whose peak
is its maximum resident set over its whole life. Prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.texts import SHARED
from benchmarks.workers import ROOT, resident_memory

_WIKI = SHARED / "wiki_sentences.txt"


def main() -> None:
    """Runs what is asked for, each measurement in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(_WIKI) if _WIKI.is_file() else "bundled", help="sentences, one a line")
    parser.add_argument("--preset", default="minilm")
    parser.add_argument("--chunk-size", type=int, default=32)
    parser.add_argument("--plain-batch", type=int, default=64, help="what memory and time are compared with")
    parser.add_argument("--timed-batch", type=int, default=256, help="what is timed in chunks, over several steps")
    parser.add_argument("--large-batch", type=int, default=4096, help="whose memory is measured; one step")
    parser.add_argument("--gradient-batch", type=int, default=1024, help="one that the plain step can do: 11 MiB a row")
    parser.add_argument("--jit-compile", action="store_true", help="compile the step with XLA")
    parser.add_argument("--only", choices=("plain", "timed", "large", "gradients"), nargs="*", default=None)
    parser.add_argument("--output", type=Path, default=Path("gradcache.json"))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        task = json.loads(given.worker)
        print(json.dumps((_gradients if task.pop("compare") else _steps)(**task)))
        return

    common = {"data": given.data, "preset": given.preset, "jit_compile": given.jit_compile}
    plain = {"batch_size": given.plain_batch, "chunk_size": None, "steps": 5, "compare": False}
    chunked = plain | {"chunk_size": given.chunk_size}
    compared = {"batch_size": given.gradient_batch, "chunk_size": given.chunk_size, "compare": True}
    tasks = {
        "plain": plain,
        "timed": chunked | {"batch_size": given.timed_batch, "steps": 3},
        "large": chunked | {"batch_size": given.large_batch, "steps": 1},
        "gradients": compared,
    }
    results = {}
    for name in given.only or tasks:
        results[name] = _in_a_process(tasks[name] | common)
        print(f"{name}: {json.dumps(results[name])}", file=sys.stderr)
    print(_table(results))
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "command": sys.argv}
    given.output.write_text(json.dumps({"machine": machine, **results}, indent=2) + "\n", "utf-8")


def _in_a_process(task: dict) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gradcache", "--worker", json.dumps(task)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
        env={"TF_CPP_MIN_LOG_LEVEL": "3"} | os.environ,
    )
    return json.loads(done.stdout.splitlines()[-1])


def _table(results: dict) -> str:
    lines = [f"{'batch':>6} {'chunk':>6} {'peak MiB':>9} {'s/step':>8} {'ms/sentence':>12} {'CPU ms/sentence':>16}"]
    for name in ("plain", "timed", "large"):
        if name in results:
            r = results[name]
            lines.append(
                f"{r['batch_size']:>6} {r['chunk_size'] or '-':>6} {r['peak_mib']:>9.0f} {r['seconds_per_step']:>8.2f} "
                f"{r['ms_per_sentence']:>12.2f} {r['cpu_ms_per_sentence']:>16.2f}"
            )
    if {"plain", "large"} <= results.keys():
        large, plain = results["large"], results["plain"]
        lines.append(
            f"peak memory of {large['batch_size']} in chunks, of {plain['batch_size']} plain: "
            f"{large['peak_mib'] / plain['peak_mib']:.2f} times"
        )
    if {"plain", "timed"} <= results.keys():
        wall, cpu = (
            results["timed"][key] / results["plain"][key] for key in ("ms_per_sentence", "cpu_ms_per_sentence")
        )
        lines.append(f"time per sentence in chunks, against plain: {wall:.2f} times; CPU time: {cpu:.2f} times")
    if "gradients" in results:
        r = results["gradients"]
        lines.append(
            f"gradients, batch {r['batch_size']}, chunk {r['chunk_size']} against plain, dropout off: "
            f"|difference| / |plain| = {r['relative_norm']:.1e}, "
            f"largest difference / largest gradient = {r['relative_maximum']:.1e}; losses {r['loss_plain']:.7f} and "
            f"{r['loss_chunked']:.7f}"
        )
    return "\n".join(lines)


def _model(preset: str, chunk_size: int | None, jit_compile: bool, dropout: float):
    import keras

    from simcse_tf.config import TrainConfig
    from simcse_tf.formats import presets
    from simcse_tf.formats.encoders import load_encoder
    from simcse_tf.training import loop, replicas
    from simcse_tf.training.simcse import SimCSE

    keras.utils.set_random_seed(0)
    config = TrainConfig(chunk_size=chunk_size)
    encoder = load_encoder(presets.locate(preset), config.encoder(), dropout=dropout)
    model = SimCSE(encoder, loop.objective(config), chunk_size=chunk_size)
    model.compile(optimizer=loop.optimizer(config, 100, replicas.choose_strategy()), jit_compile=jit_compile)
    return model


def _batches(data: str, tokenizer, batch_size: int):
    from simcse_tf.data import pipeline, sources

    feed = pipeline.Feed(sources.open_source(data), batch_size=batch_size, seed=0)
    return pipeline.token_batches(feed, tokenizer, max_length=32)


def _steps(data: str, preset: str, jit_compile: bool, batch_size: int, chunk_size: int | None, steps: int) -> dict:
    import keras

    class Clock(keras.callbacks.Callback):
        """When each step began and ended."""

        def on_train_begin(self, logs=None):
            self.seconds = []

        def on_train_batch_begin(self, batch, logs=None):
            self._began = time.perf_counter(), time.process_time()

        def on_train_batch_end(self, batch, logs=None):
            self.loss = float(logs["loss"])
            wall, cpu = self._began
            self.seconds.append((time.perf_counter() - wall, time.process_time() - cpu))

    model = _model(preset, chunk_size, jit_compile, dropout=0.1)
    batches = _batches(data, model.encoder.tokenizer, batch_size)
    clock = Clock()
    model.fit(batches, steps_per_epoch=steps, verbose=0, shuffle=False, callbacks=[clock])
    # The first step is traced and compiled. Of the others the median; where there is only one, all of it counts. On a
    # machine that does other things too, processor time is the steadier of the two.
    wall, cpu = (statistics.median(times) for times in zip(*(clock.seconds[1:] or clock.seconds), strict=True))
    return {
        "batch_size": batch_size,
        "chunk_size": chunk_size,
        "steps": steps,
        "jit_compile": jit_compile,
        "loss": clock.loss,
        "peak_mib": resident_memory() / 2**20,
        "seconds_per_step": wall,
        "seconds_first_step": clock.seconds[0][0],
        "ms_per_sentence": 1000 * wall / batch_size,
        "cpu_ms_per_sentence": 1000 * cpu / batch_size,
    }


def _gradients(data: str, preset: str, jit_compile: bool, batch_size: int, chunk_size: int) -> dict:
    import numpy as np
    import tensorflow as tf

    model = _model(preset, None, jit_compile, dropout=0.0)
    batch = model._with_positives(next(iter(_batches(data, model.encoder.tokenizer, batch_size))))
    found = {}
    for size in (None, chunk_size):
        model.chunk_size = size
        gradients, logs = tf.function(model.gradients, jit_compile=jit_compile)(batch)
        found[size] = np.concatenate([np.ravel(g).astype("float64") for g in gradients]), float(logs["loss"])
    (plain, loss_plain), (chunked, loss_chunked) = found[None], found[chunk_size]
    difference = chunked - plain
    return {
        "batch_size": batch_size,
        "chunk_size": chunk_size,
        "jit_compile": jit_compile,
        "relative_norm": float(np.linalg.norm(difference) / np.linalg.norm(plain)),
        "relative_maximum": float(np.abs(difference).max() / np.abs(plain).max()),
        "loss_plain": loss_plain,
        "loss_chunked": loss_chunked,
        "peak_mib": resident_memory() / 2**20,
    }


if __name__ == "__main__":
    main()
