"""Runs a plan: encoder, batches, `fit`, the best encoder and what it scored. Reads top to bottom as the data flow."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from rich.console import Console

from simcse_tf import runs
from simcse_tf.config import LAST, TrainConfig
from simcse_tf.data import pipeline
from simcse_tf.data.held_out import HeldOut
from simcse_tf.data.tokenization import check_prompts
from simcse_tf.errors import UserError
from simcse_tf.evaluation import suite
from simcse_tf.files import write_json
from simcse_tf.formats.encoders import SentenceEncoder
from simcse_tf.models.distillation import Distillation
from simcse_tf.models.matryoshka import Matryoshka
from simcse_tf.models.objectives import CoSENT, InfoNCE, Objective, TripletMargin
from simcse_tf.models.terms import AlignUniform, DimensionContrast, RankConsistency, WithTerms
from simcse_tf.training import callbacks, compute, fingerprint, keep, provenance, replicas, teaching
from simcse_tf.training.checkpoint import Progress, RunDirectory, fixed_on_resume
from simcse_tf.training.optimizer import AdamW
from simcse_tf.training.plan import Plan, check_sizes, fingerprints, scan_rows, total_steps
from simcse_tf.training.progress import ProgressBar
from simcse_tf.training.simcse import SimCSE

OBJECTIVES: dict[str, Callable[[TrainConfig], Objective]] = {
    "infonce": lambda config: info_nce(config),
    "triplet": lambda config: TripletMargin(config.margin),
    "cosent": lambda config: CoSENT(config.temperature),
    "align_uniform": lambda config: AlignUniform(),
}
TERMS: dict[str, Callable[[], Objective]] = {
    "dimensions": DimensionContrast,
    "align_uniform": AlignUniform,
    "consistency": RankConsistency,
}


# Of English prose, about; for a warning.
_TOKENS_OF_A_SENTENCE = 25


class StoppedError(Exception):
    """SIGTERM ended the run early, its state is saved; or a worker is gone, and the last state that was saved is."""


def train(
    plan: Plan, console: Console, *, command: str = "", open_teacher: Callable[[], teaching.Teacher] | None = None
) -> dict[str, Any] | None:
    """Trains, evaluating as it goes; the best encoder is in the run directory's `checkpoints/best`.

    Args:
        plan: A checked run.
        console: Where progress goes.
        command: What started the run, for its report.
        open_teacher: Loads the run's `teacher`, if it has one.

    Returns:
        What the run came to, as its `result.json` says; None on workers other than the chief, which alone evaluates
        and writes.

    Raises:
        UserError: The weights do not fit, a data set cannot be had, the run to resume read something else, the workers
            differ, or the loss is not finite.
        StoppedError: SIGTERM arrived, or another worker is gone.
    """
    try:
        with replicas.noticing_lost_workers():
            return _train(plan, console, command, open_teacher)
    except replicas.LostError as e:
        raise StoppedError(str(e)) from None


def _train(
    plan: Plan, console: Console, command: str, open_teacher: Callable[[], teaching.Teacher] | None
) -> dict[str, Any] | None:
    config, run, is_chief = plan.config, plan.run, plan.cluster.is_chief
    with replicas.rendezvous_timeout(plan.cluster):
        strategy = replicas.choose_strategy(config.strategy, plan.cluster)
    replicas.check_batch_size(config.batch_size, strategy)
    config.check_chunks(strategy.num_replicas_in_sync)
    workers = replicas.Workers(strategy, len(plan.cluster.workers))
    deterministic = config.jit_compile != "on" and not tf.config.list_physical_devices("GPU")
    if deterministic:
        # Makes a resumed run equal to the bit. On CPU it costs nothing; on GPU it is much slower. With it, Keras
        # switches XLA off.
        tf.config.experimental.enable_op_determinism()

    # ---- Data that only TensorFlow Datasets can read ----
    development_sets = plan.development_sets
    about = [each.about() for each in development_sets]
    scan = plan.scan or scan_rows(config, plan.source)
    steps = total_steps(config, scan)
    if scan.bad:
        console.print(f"{scan.bad} bad rows are skipped, {scan.rows} are used; the first bad one: {scan.first_bad}")

    # ---- Model ----
    teacher = None if open_teacher is None else open_teacher()
    precision = compute.precision(config, strategy)
    dtype = "float32" if precision == "off" else f"mixed_{precision}"
    with strategy.scope():
        encoder = keep.starting_encoder(plan.origin, config, dtype)
        # Of a preset that keras-hub has downloaded, the plan did not know.
        check_sizes(config, encoder.dim)
        model = simcse(encoder, config, None if teacher is None else teacher.dim)
        model.compile(
            optimizer=optimizer(config, steps, strategy, loss_scale=precision == "float16"),
            jit_compile=compute.use_xla(config, strategy),
        )

    # Again with the first batches, but by then the run directory has been begun.
    check_prompts(encoder.config.prompts, encoder.tokenizer, max_length=config.max_length)

    # ---- Where the run stands ----
    data = fingerprints(config, scan, development_sets, plan.held_out, plan.watched)
    data["starting_weights"] = fingerprint.of_encoder(encoder)
    progress = Progress()
    if is_chief:
        run.check_data(config, data)
        progress = run.start(config, data)
        write_json(run.path / "versions.json", suite.versions())
        write_json(run.path / "development.json", about)
        if plan.held_out is not None and plan.held_out.rows:
            run.write_held_out(plan.held_out)
        if plan.watched is not None:
            run.write_watched(plan.watched)
        run.log_command(max(progress.step, 0), command=command, **provenance.of_this_process())
    step = agreed_step(workers, plan, data, progress.step)
    if step >= 0:
        run.load_state(callbacks.state_variables(model), step)
    start = max(step, 0)
    model.steps_per_execution = compute.steps_per_execution(config, strategy, start, steps)

    # ---- Teacher ----
    taught = []
    if teacher is not None:
        learned = ", ".join(config.teach) + (" through a projection" if model.projection is not None else "")
        console.print(f"teacher {config.teacher}: {learned}; {teacher.dim} numbers for each text", markup=False)
        if not is_chief:
            workers.all_gather(0)  # once the chief has written them
        taught = teaching.vectors_of_rows(teacher, run.path / teaching.DIRECTORY, plan.source, scan, config)
        if is_chief:
            workers.all_gather(0)
        del teacher

    # ---- Batches ----
    feed = pipeline.Feed(
        plan.source,
        batch_size=config.batch_size,
        seed=config.seed,
        shuffle_buffer=config.shuffle_buffer,
        skip_bad_rows=config.skip_bad_rows,
        start_step=start,
        teacher=taught,
    )
    batches = pipeline.token_batches(
        feed,
        encoder.tokenizer,
        max_length=config.max_length,
        prompts=encoder.config.prompts,
        repetition=repetition(config, start),
        # Determinism takes parallel calls out again, and TensorFlow writes an error about it.
        parallel=not deterministic,
    )

    # ---- Training ----
    evaluation = callbacks.Evaluation(
        encoder,
        development_sets,
        run,
        progress,
        keep_last=config.select_by == LAST,
        watched=plan.watched.texts if plan.watched else (),
        every=config.eval_every,
        total_steps=steps,
        console=console,
    )
    checkpoints = callbacks.Checkpoints(
        start,
        due=lambda step: step == steps or any(step % n == 0 for n in (config.eval_every, config.save_every) if n),
        save=(lambda: run.save_state(callbacks.state_variables(model), evaluation.progress)) if is_chief else None,
        workers=workers,
    )
    evaluations = [line["evaluation_seconds"] for line in runs.read_metrics(run.path) if "evaluation_seconds" in line]
    bar = ProgressBar(
        start,
        steps,
        sentences_per_step=config.batch_size * plan.source.views,
        eval_every=config.eval_every,
        evaluation_seconds=evaluations[-1] if evaluations else 0.0,
        export=config.export_to is not None,
        report=config.report,
        mixes=len(keep.between(config)),
        console=console,
    )
    columns = f" (columns {', '.join(plan.source.columns)})" if plan.source.columns else ""
    if plan.source.note:
        console.print(f"{config.data}: {plan.source.note}", markup=False)
    if plan.source.crops and config.max_length < _TOKENS_OF_A_SENTENCE * config.crop_sentences:
        console.print(
            f"warning: --max-length {config.max_length} cuts the end off many crops of --crop-sentences "
            f"{config.crop_sentences}: a sentence has about {_TOKENS_OF_A_SENTENCE} tokens"
        )
    if plan.held_out is not None:
        console.print(_about_held_out(plan.held_out, run, "document" if plan.source.crops else "text"))
    for each in about:
        console.print(f"development set {each['name']}: {each['size']} ({each['kind']}) from {each['source']}")
    if config.layers:
        console.print(f"{plan.origin.name}: begins with {encoder.backbone.num_layers} of its layers", markup=False)
    console.print(
        f"training {plan.origin.name} on {config.data}{columns}: {steps} steps of {config.batch_size}, "
        f"{strategy.num_replicas_in_sync} replica(s), {dtype}, XLA {'on' if model.jit_compile else 'off'}, "
        f"run {run.path}"
    )
    if start < steps:
        # The chief evaluates alone, without the others' help; they wait for it in the next step.
        of_the_chief = [bar, evaluation] if is_chief else []
        with _original_errors(feed), checkpoints.heeding_sigterm():
            model.fit(
                replicas.distribute(batches, config.batch_size, strategy),
                steps_per_epoch=steps - start,
                callbacks=[callbacks.StopOnNonFiniteLoss(start), *of_the_chief, checkpoints],
                shuffle=False,  # the feed has shuffled
                verbose=0,
            )
    if checkpoints.stopped:
        raise StoppedError(f"SIGTERM: the state after step {checkpoints.step} of {steps} is saved in {run.path}.")
    if is_chief and config.keep is not None:
        keep.mix(plan, data["starting_weights"], dtype=dtype, console=console)
    result = write_result(run) if is_chief else None
    # No worker is done before the run is complete: the chief may be stopped in its last evaluation, and need the others
    # to resume.
    workers.all_gather(0)
    return result


def _about_held_out(held: HeldOut, run: RunDirectory, what: str) -> str:
    if held.problem:
        return (
            f"nothing was held out for evaluation: {held.problem}. Where general pairs are no judge of your data, name "
            "a set of your own with --dev, or keep the last encoder with --select-by last"
        )
    split = f": {len(held.rows):,} judge the encoder, {len(held.test):,} are for the report" if held.test else ""
    return (
        f"{len(held.rows) + len(held.test):,} of {held.total:,} rows are held out of training{split}. No {what} of "
        f"theirs is in the others; they are in {run.held_out}{f' and {runs.HELD_OUT_TEST}' if held.test else ''}"
    )


def write_result(run: RunDirectory) -> dict[str, Any]:
    """Writes and returns the scores of a run whose training is complete."""
    scores = runs.read(run.path)
    judge = scores.development_sets[0]
    result = {
        "run": str(run.path),
        "steps": scores.steps,
        "development_set": judge.name,
        f"{judge.headline}_before": round(scores.before["dev"], 2),
        f"{judge.headline}_after": round(scores.best["dev"], 2),
        "best_step": scores.best["step"],
    }
    if scores.mixes:
        result["keep"] = scores.best["keep"]
    run.write_result(result)
    return result


def agreed_step(workers: replicas.Workers, plan: Plan, data: dict[str, str], step: int) -> int:
    """The chief's step, once it is known that all workers belong to the same run.

    Args:
        workers: All of them.
        plan: This worker's.
        data: This worker's fingerprints.
        step: The chief's; without meaning on the others.

    Raises:
        UserError: A worker's flags or data differ from the chief's.
    """
    compared = {"flags": fingerprint.of_text(json.dumps(fixed_on_resume(plan.config), default=str))} | data
    rows = workers.all_gather(step, *(int(value.split()[-1][:15], 16) for value in compared.values()))
    for i, row in enumerate(rows):
        for name, local, chiefs in zip(compared, row[1:], rows[0, 1:], strict=True):
            if local != chiefs:
                what = {"flags": "the flags"} | fingerprint.MEANING
                raise UserError(
                    f"worker {i * len(plan.cluster.workers) // len(rows)} differs from the chief in "
                    f"{what[name].format(**vars(plan.config))}. Give all workers the same."
                )
    return int(rows[0, 0])


def objective(config: TrainConfig) -> Objective:
    """The loss that a configuration asks for."""
    loss = None if config.loss == "none" else OBJECTIVES[config.loss](config)
    taught, terms = config.taught, config.numbers("add")
    if loss is None or taught.keys() & {"vectors", "listwise"}:
        loss = Distillation(
            loss,
            vectors_weight=taught.get("vectors", 0.0),
            listwise_weight=taught.get("listwise", 0.0),
            teacher_temperature=config.teacher_temperature,
            temperature=config.student_temperature,
        )
    if terms:
        loss = WithTerms(loss, tuple(TERMS[name]() for name in terms), tuple(terms.values()))
    return Matryoshka(loss, config.matryoshka, config.matryoshka_weights) if config.matryoshka else loss


def info_nce(config: TrainConfig) -> InfoNCE:
    """InfoNCE with a configuration's settings."""
    ((logits, margin),) = config.numbers("logits").items()
    negatives = config.numbers("negatives")
    return InfoNCE(
        config.temperature,
        config.hard_negative_weight,
        config.mask_false_negatives,
        directions=config.directions,
        joint=config.joint,
        logits=logits,
        margin=margin or None,
        positive_scale=negatives.get("off_dropout", 1.0),
        decoupled=config.decoupled,
        mixed_negatives=negatives.get("mixed"),
        mask_margin=config.taught.get("mask"),
        mask_relative_margin=config.mask_relative_margin,
    )


def simcse(encoder: SentenceEncoder, config: TrainConfig, teacher_dim: int | None = None) -> SimCSE:
    """The model that a configuration trains, with its encoder, from a teacher whose vectors have so many numbers."""
    negatives = config.numbers("negatives")
    # Vectors of one size are compared as they are.
    projects = "vectors" in config.taught and teacher_dim != encoder.backbone.hidden_dim
    return SimCSE(
        encoder,
        objective(config),
        config.dropout_masks,
        config.chunk_size,
        config.max_length,
        off_dropout="off_dropout" in negatives,
        queue_size=int(negatives["queue"]) if "queue" in negatives else None,
        learn_temperature=config.learn_temperature,
        word_repetition=config.word_repetition,
        projection=teacher_dim if projects else None,
    )


def repetition(config: TrainConfig, start: int) -> pipeline.Repetition | None:
    """What a configuration repeats in the batches from a step on."""
    rate = config.word_repetition
    return None if rate is None else pipeline.Repetition(rate, seed=config.seed, start_step=start)


def optimizer(
    config: TrainConfig, steps: int, strategy: tf.distribute.Strategy, *, loss_scale: bool = False
) -> keras.optimizers.Optimizer:
    """AdamW whose learning rate falls linearly to 0, without warm-up, as in the paper's code.

    Args:
        config: The run.
        steps: Where the rate is 0.
        strategy: Whose replicas share the gradients.
        loss_scale: Multiply the loss, so that its gradients are not too small for float16.
    """
    adamw = AdamW(
        learning_rate=keras.optimizers.schedules.PolynomialDecay(config.learning_rate, steps, end_learning_rate=0.0),
        weight_decay=config.weight_decay,
        global_clipnorm=replicas.clip_norm(config.clip_norm, strategy),
        # Keras' default of 1e-7 is not PyTorch's, with which the published recipes were tuned.
        epsilon=1e-8,
    )
    # Keras would wrap it by itself only if the whole model, not just the backbone, were float16.
    return keras.optimizers.LossScaleOptimizer(adamw) if loss_scale else adamw


@contextlib.contextmanager
def _original_errors(feed: pipeline.Feed):
    """TensorFlow replaces an error of the data's reader by its own; this raises the reader's."""
    try:
        yield
    except tf.errors.OpError:
        if feed.error is not None:
            raise feed.error from None
        raise
