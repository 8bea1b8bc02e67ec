"""Training: the step's speed, its memory, the evaluation inside it, its share of the arithmetic limit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.contenders import common
from benchmarks.limit import Counter
from benchmarks.measurements import OURS, Measurement
from benchmarks.parts.setting import BATCH_SIZE, Setting, best_rate, gemms, running, say
from benchmarks.workers import ROOT, Worker, environment

_CONTENDERS = {
    OURS: "ours.train",
    "PyTorch": "pytorch.train",
    "sentence-transformers": "sbert.train",
}
_TOLERANCE = 1e-3


def unsupervised(setting: Setting) -> list[Measurement]:
    """The unsupervised step; with it the evaluation and the arithmetic limit."""
    data = setting.texts.wiki
    speed, memory = _measurements("unsupervised", "unsupervised")
    share = Measurement("limit_training", "Share of the arithmetic limit, training", "", True)
    evaluation = Measurement("evaluation", "STS-B dev pass inside training", "s", False)
    rows, counter = common.rows(str(data)), Counter(setting.model)
    contenders = _CONTENDERS if setting.quick else _CONTENDERS | {"PyTorch, compiled": "pytorch.train_compiled"}
    _check(setting, data, views=1)
    with running(setting, contenders, data=str(data), views=1) as workers, running(setting, gemms(setting)) as products:
        for steps, answers in _rounds(setting, workers, speed, memory, views=1):
            batches = [rows[step * BATCH_SIZE : (step + 1) * BATCH_SIZE] for step in steps]
            ideal = sum(counter.step(batch, common.MAX_LENGTH) for batch in batches) / best_rate(products)
            for who, answer in answers.items():
                share.add(who, ideal / answer["seconds"])
        # A pass that compiles, and two that count.
        for i in range(0 if setting.quick else 3):
            for who in (OURS, "sentence-transformers"):
                answer = workers[who].turn("evaluate", sts_dir=str(setting.texts.sts_dir))
                if i:
                    evaluation.add(who, answer["seconds"])
    return [speed, share, memory, *([] if setting.quick else [evaluation])]


def supervised(setting: Setting) -> list[Measurement]:
    """The supervised step."""
    data = setting.texts.triplets
    speed, memory = _measurements("supervised", "supervised triplets")
    _check(setting, data, views=3)
    with running(setting, _CONTENDERS, data=str(data), views=3) as workers:
        for _ in _rounds(setting, workers, speed, memory, views=3):
            pass
    return [speed, memory]


def bert_base(setting: Setting) -> list[Measurement]:
    """The unsupervised step of a BERT-base with random weights."""
    return _large(setting, "bert_base", "unsupervised, BERT-base's size")


def xlm_roberta_base(setting: Setting) -> list[Measurement]:
    """The unsupervised step of an XLM-RoBERTa-base with random weights."""
    return _large(setting, "xlm_roberta_base", "unsupervised, XLM-RoBERTa-base's size")


def _large(setting: Setting, name: str, title: str) -> list[Measurement]:
    model = setting.build / name
    if not model.is_dir():
        command = ["-m", "benchmarks.models", name, str(model), str(setting.texts.wiki)]
        subprocess.run([sys.executable, *command], cwd=ROOT, env=environment(), check=True)
    speed, memory = _measurements(name, title)
    contenders = {who: _CONTENDERS[who] for who in (OURS, "PyTorch")}
    with running(setting, contenders, model=str(model), data=str(setting.texts.wiki), views=1) as workers:
        for _ in _rounds(setting, workers, speed, memory, views=1, untimed=0, steps=1, rounds=2):
            pass
    return [speed, memory]


def _measurements(name: str, title: str) -> tuple[Measurement, Measurement]:
    return (
        Measurement(f"train_{name}", f"Train, {title}: batch {BATCH_SIZE}", "sentences/s", True),
        Measurement(f"memory_{name}", f"Memory, training, {title}", "MiB", False),
    )


def _rounds(
    setting: Setting,
    workers: dict[str, Worker],
    speed: Measurement,
    memory: Measurement,
    *,
    views: int,
    untimed: int = 1,
    steps: int = 3,
    rounds: int = 5,
) -> Iterator[tuple[range, dict[str, dict[str, Any]]]]:
    """Trains in turns.

    Yields:
        The timed steps' numbers, counted from 0, and everybody's answers.
    """
    if setting.quick:
        steps, rounds = 1, 1
    in_a_turn = untimed + steps
    for i in range(1 + rounds):
        answers = {who: worker.turn("train", untimed=untimed, steps=steps) for who, worker in workers.items()}
        if i == 0:  # it compiled
            if setting.quick:
                _same_losses(answers)
            continue
        for who, answer in answers.items():
            speed.add(who, steps * BATCH_SIZE * views / answer["seconds"])
        say(", ".join(f"{who} {figures[-1]:.1f} {speed.unit}" for who, figures in speed.rounds.items()))
        yield range(i * in_a_turn + untimed, (i + 1) * in_a_turn), answers
    for who, answer in answers.items():
        memory.add(who, answer["memory"] / 2**20)


def _check(setting: Setting, data: Path, *, views: int) -> None:
    """Everybody computes the same without dropout."""
    if setting.quick:
        return  # what is timed is without dropout, and checked itself
    with running(setting, _CONTENDERS, data=str(data), views=views, dropout=0.0) as workers:
        _same_losses({who: worker.turn("train", untimed=0, steps=2) for who, worker in workers.items()})


def _same_losses(answers: dict[str, dict[str, Any]]) -> None:
    """Compares the first steps; the second loss depends on the first one's gradients, clipping and optimizer.

    Raises:
        RuntimeError: Somebody computes something else.
    """
    ours = answers[OURS]["losses"]
    for who, answer in answers.items():
        if max(abs(a - b) for a, b in zip(ours, answer["losses"], strict=True)) > _TOLERANCE:
            raise RuntimeError(f"{who} computes other losses than {OURS}: {answer['losses']}, {ours}")
    say(f"without dropout all compute the same losses to {_TOLERANCE:g}: {ours}")
