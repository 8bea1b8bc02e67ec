"""simcse_tf itself, through the same calls as its commands."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.contenders import common
from benchmarks.workers import StepTurns, Turns


def train(turns: Turns, settings: dict[str, Any]) -> None:
    """`simcse_tf.training.loop.train` as `python -m simcse_tf.train` calls it, held between steps."""
    from rich.console import Console

    from simcse_tf import cli, quiet
    from simcse_tf.config import recipe
    from simcse_tf.evaluation import sts
    from simcse_tf.evaluation.development import Graded
    from simcse_tf.training.plan import plan

    with cli.lean_imports():
        # As the command does, with what it sets.
        quiet.import_tensorflow()

        from simcse_tf.training import callbacks, loop
        from simcse_tf.training.simcse import SimCSE

    supervised = settings["views"] == 3

    class Rounds(callbacks.StepCallback):
        def on_train_begin(self, logs=None):
            encoder = self.model.encoder
            encoder.head.set_weights(common.head(encoder.dim))

            def evaluate(sts_dir: str) -> dict[str, Any]:
                pairs = sts.load("STSB-dev", Path(sts_dir))
                began = time.perf_counter()
                scores = callbacks.figures(encoder, Graded.of(pairs))
                return {"seconds": time.perf_counter() - began, "score": scores["spearman_without_head"]}

            self._turns = StepTurns(turns, {"evaluate": evaluate})
            self._turns.begin()

        def on_step(self, loss):
            self._turns.after_step(loss)

    fit = SimCSE.fit

    def fit_in_rounds(self, *args, callbacks, **kwargs):
        return fit(self, *args, callbacks=[*callbacks, Rounds()], **kwargs)

    SimCSE.fit = fit_in_rounds
    with tempfile.TemporaryDirectory(prefix="simcse_tf_bench_") as directory:
        config = dataclasses.replace(
            recipe("sup-bert-base" if supervised else "unsup-bert-base"),
            preset=settings["model"],
            data=settings["data"],
            batch_size=settings["batch_size"],
            dropout=settings["dropout"],
            learning_rate=common.LEARNING_RATE,
            max_steps=common.TOTAL_STEPS,
            # Keeps the file's order, in which the others read it too.
            shuffle_buffer=1,
            dev=("bundled",),
            eval_every=common.TOTAL_STEPS,
            output_dir=Path(directory) / "run",
            report=False,
        )
        loop.train(plan(config), Console(stderr=True))


def encode_saved_model(turns: Turns, settings: dict[str, Any]) -> None:
    """A SavedModel as `simcse_tf.load` opens it."""
    from simcse_tf.serving.disk import DiskBackend

    _encode_exported(turns, settings, DiskBackend(Path(settings["saved_model"])))


def encode_litert(turns: Turns, settings: dict[str, Any]) -> None:
    """A LiteRT model as `simcse_tf.load` opens it."""
    from simcse_tf.serving.litert import LiteRTBackend

    _encode_exported(turns, settings, LiteRTBackend(Path(settings["litert"])))


def _encode_exported(turns: Turns, settings: dict[str, Any], model: Any) -> None:
    """Single calls through the client, and through the SavedModel's signature or `embedder.py` alone."""
    from simcse_tf.serving.client import Client

    client = Client(model)
    tasks = common.encoding(lambda texts: client.encode(texts, batch_size=settings["batch_size"]), client.encode)
    turns.serve(tasks | {"latency_model": common.latency(model.encode_batch)})


def encode_live(turns: Turns, settings: dict[str, Any]) -> None:
    """The encoder in this process, which is what evaluation and training use."""
    from simcse_tf.formats import presets
    from simcse_tf.formats.encoders import load_encoder

    encoder = load_encoder(presets.locate(settings["model"]))
    turns.serve(common.encoding(lambda texts: encoder.encode(texts, batch_size=settings["batch_size"]), encoder.encode))


def gemm(turns: Turns, settings: dict[str, Any]) -> None:
    """TensorFlow's matrix product."""
    import tensorflow as tf

    turns.serve({"gemm": lambda: common.gemm_rate(lambda m, n: tf.random.normal([m, n]), tf.matmul)})
