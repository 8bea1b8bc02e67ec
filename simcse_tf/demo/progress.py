"""How far a training is, as its run directory tells."""

from __future__ import annotations

import itertools
import math
from statistics import median
from typing import NamedTuple

from simcse_tf import runs
from simcse_tf.demo.jobs import Job
from simcse_tf.errors import UserError

# What the scores of a training mean.
_MEANS = {
    "ndcg@10": "partners found near the top",
    "accuracy": "nearer to the positive than to the negative",
    "spearman": "agreement with people",
}
# Steps whose durations say how fast it is now.
_RECENT = 20


class Progress(NamedTuple):
    """A training in numbers.

    Attributes:
        step: Steps taken; -1 before the first evaluation.
        total: Steps to take.
        losses: Step and loss.
        scores: Step and score at each evaluation.
        judge: What scores, and what the score is called.
        rate: Texts a second.
        left: Seconds to the last evaluation.
        best_step: The step whose encoder is kept, so far.
    """

    step: int
    total: int
    losses: list[tuple[float, float]]
    scores: list[tuple[float, float]]
    judge: str
    rate: float | None
    left: float | None
    best_step: int | None


def of_job(job: Job) -> Progress:
    """What is known of a training now."""
    total = int(job.about["steps"])
    nothing = Progress(-1, total, [], [], "", None, None, None)
    try:
        run = runs.read(job.run)
    except UserError:  # not begun
        return nothing
    if not run.evaluations:
        return nothing
    judge = run.development_sets[0]
    best = run.best["step"] if run.encoder.is_dir() else None
    rate, left = _speed(run, total, int(job.about["texts"]))
    return Progress(
        run.steps,
        total,
        [(line["step"], line["loss"]) for line in run.metrics if "loss" in line],
        [(line["step"], line["dev"]) for line in run.evaluations],
        _named(judge),
        rate,
        left,
        best,
    )


def _named(judge: runs.JudgedOn) -> str:
    """What scores, for people."""
    name = {"your-rows": "your rows", "held-out": "rows held out", "bundled": "bundled pairs"}.get(
        judge.name, judge.name
    )
    means = _MEANS.get(judge.headline)
    return f"{name}: {f'{means} ({judge.label})' if means else judge.label}"


def _speed(run: runs.Run, total: int, texts: int) -> tuple[float | None, float | None]:
    """Texts a second, and the seconds that steps and evaluations will still take."""
    lines = run.metrics
    # A step that follows an evaluation waits for its encoder to be saved; the first one compiles.
    seconds = [
        line["elapsed_seconds"] - before["elapsed_seconds"]
        for before, line in itertools.pairwise(lines)
        if "loss" in line and "loss" in before
    ][-_RECENT:]
    if not seconds or median(seconds) <= 0:
        return None, None
    evaluations = math.ceil(total / run.config.eval_every) - (len(run.evaluations) - 1)
    # From one evaluation to the next, all that is not a step.
    between = median(line["evaluation_seconds"] for line in run.evaluations) + _saving(lines)
    left = (total - run.steps) * median(seconds) + max(evaluations, 0) * between
    return texts / median(seconds), left


def _saving(lines: list[dict]) -> float:
    """How long the encoder and the state take to be saved: the first step after an evaluation tells."""
    seconds = [
        line["elapsed_seconds"] - before["elapsed_seconds"]
        for before, line in itertools.pairwise(lines)
        if "loss" in line and "dev" in before and before["step"] > 0
    ]
    return median(seconds) if seconds else 0.0
