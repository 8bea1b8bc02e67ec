"""Runs a plan: encoder, batches, `fit`, the best encoder and what it scored. Reads top to bottom as the data flow."""

from __future__ import annotations

import contextlib
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import keras_hub
import tensorflow as tf
from rich.console import Console

import simcse_tf
from simcse_tf.config import TrainConfig
from simcse_tf.data import pipeline
from simcse_tf.evaluation import sts
from simcse_tf.models import presets
from simcse_tf.models.encoder import SentenceEncoder
from simcse_tf.models.losses import InfoNCE, Objective, TripletMargin
from simcse_tf.models.saved import load_encoder
from simcse_tf.training import callbacks, replicas
from simcse_tf.training.plan import Plan, scan_rows, total_steps
from simcse_tf.training.simcse import SimCSE

OBJECTIVES: dict[str, Callable[[TrainConfig], Objective]] = {
    "infonce": lambda config: InfoNCE(config.temperature, config.hard_negative_weight),
    "triplet": lambda config: TripletMargin(config.margin),
}


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    run: Path
    steps: int
    development_set: str
    best_step: int
    # What `callbacks.dev_scores` says of the encoder that training began with, and of the best one.
    before: dict[str, float]
    after: dict[str, float]


def train(plan: Plan, console: Console) -> Outcome:
    """Trains, evaluating as it goes; the best encoder is in the run directory's `checkpoints/best`.

    Args:
        plan: A checked run.
        console: Where progress goes.

    Raises:
        UserError: The weights do not fit, a data set cannot be had, or the loss is not finite.
    """
    config, run = plan.config, plan.run
    keras.utils.set_random_seed(config.seed)
    strategy = replicas.choose_strategy()

    # ---- Data that only TensorFlow Datasets can tell of ----
    pairs = plan.development_set or sts.from_tfds(config.tfds_dir)
    scan = plan.scan or scan_rows(config, plan.source)
    steps = total_steps(config, scan)
    if scan.bad:
        console.print(f"{scan.bad} bad rows are skipped, {scan.rows} are used; the first bad one: {scan.first_bad}")

    # ---- Model ----
    dtype = "float32" if config.mixed_precision == "off" else f"mixed_{config.mixed_precision}"
    with strategy.scope():
        encoder = load_encoder(
            plan.origin, config.encoder(), dropout=config.dropout, dtype=dtype, head_init=config.head_init
        )
        model = SimCSE(encoder, objective(config), config.dropout_masks)
        model.compile(optimizer=optimizer(config, steps, strategy), jit_compile=use_xla(config, strategy))
        model.optimizer.build(model.trainable_variables)

    # ---- Where the run stands ----
    progress = run.start(config)
    run.load_state(callbacks.state_variables(model))
    write_versions(run.path / "versions.json")

    # ---- Batches ----
    feed = pipeline.Feed(
        plan.source,
        batch_size=config.batch_size,
        seed=config.seed,
        shuffle_buffer=config.shuffle_buffer,
        skip_bad_rows=config.skip_bad_rows,
        start_step=progress.step,
    )
    batches = pipeline.token_batches(
        feed,
        encoder.tokenizer,
        views=plan.source.views,
        batch_size=config.batch_size,
        max_length=min(config.max_length, encoder.backbone.max_sequence_length),
    )

    # ---- Training ----
    evaluation = callbacks.Evaluation(
        encoder, pairs, run, progress, every=config.eval_every, total_steps=steps, console=console
    )
    bar = callbacks.ProgressBar(progress.step, steps, config.batch_size * plan.source.views, console)
    console.print(
        f"training {plan.origin.name} on {config.data}: {steps} steps of {config.batch_size}, "
        f"{strategy.num_replicas_in_sync} replica(s), XLA {'on' if model.jit_compile else 'off'}, run {run.path}"
    )
    if progress.step < steps:
        with _original_errors(feed):
            model.fit(
                batches,
                steps_per_epoch=steps - progress.step,
                callbacks=[callbacks.StopOnNonFiniteLoss(progress.step), bar, evaluation],
                shuffle=False,  # the feed has shuffled
                verbose=0,
            )
    best = evaluation.progress.best_step
    scores = {line["step"]: line for line in run.metrics() if "dev" in line}
    return Outcome(run.path, evaluation.progress.step, pairs.name, best, scores[0], scores[best])


def best_encoder(outcome: Outcome) -> SentenceEncoder:
    """The encoder with the highest score on the development set, which may be the one that training began with."""
    return load_encoder(presets.locate(str(outcome.run)))


def objective(config: TrainConfig) -> Objective:
    """The loss that a configuration asks for."""
    return OBJECTIVES[config.loss](config)


def optimizer(config: TrainConfig, steps: int, strategy: tf.distribute.Strategy) -> keras.optimizers.Optimizer:
    """AdamW whose learning rate falls linearly to 0, without warm-up, as in the paper's code."""
    adamw = keras.optimizers.AdamW(
        learning_rate=keras.optimizers.schedules.PolynomialDecay(config.learning_rate, steps, end_learning_rate=0.0),
        weight_decay=config.weight_decay,
        global_clipnorm=replicas.clip_norm(config.clip_norm, strategy),
        # Keras' default of 1e-7 is not PyTorch's, with which the published recipes were tuned.
        epsilon=1e-8,
    )
    # Keras would wrap it by itself only if the whole model, not just the backbone, were float16.
    return keras.optimizers.LossScaleOptimizer(adamw) if config.mixed_precision == "float16" else adamw


def use_xla(config: TrainConfig, strategy: tf.distribute.Strategy) -> bool:
    """By default on one GPU: on CPU a step is no faster, and XLA cannot compile a step across replicas."""
    if config.jit_compile == "auto":
        return strategy.num_replicas_in_sync == 1 and bool(tf.config.list_physical_devices("GPU"))
    return config.jit_compile == "on"


def write_versions(path: Path) -> None:
    """Says in the run directory what made its numbers."""
    versions = {
        "simcse_tf": simcse_tf.__version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "keras_hub": keras_hub.__version__,
    }
    path.write_text(json.dumps(versions, indent=2) + "\n", "utf-8")


@contextlib.contextmanager
def _original_errors(feed: pipeline.Feed):
    """An error in reading the data reaches us as TensorFlow's; this raises the one that the reader raised."""
    try:
        yield
    except tf.errors.OpError:
        if feed.error is not None:
            raise feed.error from None
        raise
