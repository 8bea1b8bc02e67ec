"""Trainings that visitors start: one at a time, each in a folder and a process of its own; the others wait their turn.

    NAME/job.json           what is trained; NAME is the exported model's name too
    NAME/your-rows.jsonl    the rows
    NAME/watched.jsonl      a sample of them
    NAME/lock               locked while a process of the training lives
    NAME/log.txt            what the processes wrote
    NAME/stop               there once somebody pressed Stop
    NAME/end.json           how it ended (simcse_tf.demo.learner)
    NAME/run/               the trainer's run directory

The folders are all there is: a server that is started again finds its trainings, whether they wait, run or have ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from simcse_tf import runs
from simcse_tf.config import LAST, TrainConfig
from simcse_tf.demo.learner import END, JOB, LOG, RUN, STOP
from simcse_tf.demo.material import Material
from simcse_tf.errors import UserError
from simcse_tf.files import read_json_object, whole_directory, write_whole
from simcse_tf.formats import presets

MAX_STEPS = 1_000
MAX_BATCH = 64
MAX_WAITING = 10
# A training is stopped then, and what it has kept so far is exported.
MINUTES = 30
# Fewer pairs are all trained on: a tenth of them, held out, would say nothing.
_HOLDS_OUT = 250
_EVALUATIONS = 12
_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}"
_LOCK, _ROWS, _WATCHED = "lock", "your-rows.jsonl", "watched.jsonl"


@dataclass(frozen=True)
class Settings:
    """What a visitor may choose.

    Attributes:
        base: One of `Jobs.bases`.
        steps: Steps to take.
        temperature: By default what suits the rows: pairs that the encoder mostly knows already want a low one.
        learning_rate: At the first step; it falls to 0.
        batch_size: Rows in a step.
    """

    base: str = "minilm"
    steps: int = 40
    temperature: float | None = None
    learning_rate: float = 5e-5
    batch_size: int = 16

    def check(self, rows: int) -> None:
        """Checks the numbers.

        Raises:
            UserError: One is out of range.
        """
        for name, value, low, high in (
            ("Steps", self.steps, 1, MAX_STEPS),
            ("Batch", self.batch_size, 2, min(MAX_BATCH, rows)),
        ):
            if not isinstance(value, int) or not low <= value <= high:
                why = f", as many as there are rows: {rows}" if high == rows else ""
                raise UserError(f"{name} {value}: expected a whole number from {low} to {high}{why}.")
        for name, value in (("Temperature", self.temperature), ("Learning rate", self.learning_rate)):
            if value is not None and not (isinstance(value, int | float) and 0 < value <= 1):
                raise UserError(f"{name} {value}: expected a number above 0, at most 1.")


class State(NamedTuple):
    """How a training stands: what, why if that has to be said, and the version that it was exported as."""

    what: Literal["waiting", "running", "stopping", "done", "stopped", "failed"]
    message: str = ""
    version: str | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.what in ("done", "stopped", "failed")


class Job:
    """A training, as its folder has it.

    Args:
        directory: The folder.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self.name = directory.name
        self.run = directory / RUN
        self.about = read_json_object(directory / JOB)

    def state(self) -> State:
        """How it stands now."""
        alive = (lock := _lock(self.directory, fcntl.LOCK_SH)) is None
        if lock is not None:
            os.close(lock)
        # Looked for after the lock: a process that is gone has written it.
        if (self.directory / END).is_file():
            return State(**read_json_object(self.directory / END))
        if alive:
            return State("stopping" if (self.directory / STOP).exists() else "running")
        if (self.directory / LOG).exists():
            if (self.directory / STOP).exists():
                return State("stopped", "Stopped, and nothing was exported.")
            return State("failed", "It was killed, and could not say why.")
        return State("waiting")


class Jobs:
    """The trainings of a folder.

    Args:
        root: Where runs are, which trainings may begin with; theirs are in `root/learn/NAME/run`.
        models: Where the models are exported to.
        more: Further encoders to begin with: presets by name, or directories.
    """

    def __init__(self, root: Path, models: Path, more: Sequence[str] = ()):
        self._root, self._folder, self._models = root, root / "learn", models
        self._more = tuple(more)
        self._lock = threading.Lock()

    def bases(self) -> dict[str, str]:
        """What a training may begin with, as the trainer takes it, and what people call it.

        Presets on this machine, earlier trainings and runs; the newest of these first.
        """
        found = {str(path): f"training {path.parent.name}" for path in self._folder.glob(f"*/{RUN}")}
        found |= {str(path): f"run {path.name}" for path in self._root.glob("*")}
        with_encoder = [each for each in found if runs.is_run(Path(each)) and runs.best_encoder(Path(each)).is_dir()]
        newest = sorted(with_encoder, key=lambda each: -Path(each).stat().st_mtime)
        named = {each: each for each in (*self._more, *presets.on_this_machine())}
        return named | {each: found[each] for each in newest}

    def all(self) -> list[Job]:
        """Every training, the newest first."""
        jobs = [Job(path.parent) for path in self._folder.glob(f"*/{JOB}") if re.fullmatch(_NAME, path.parent.name)]
        return sorted(jobs, key=lambda job: -job.about["created"])

    def get(self, name: str) -> Job:
        """A training by its name.

        Raises:
            UserError: There is none.
        """
        if not isinstance(name, str) or not re.fullmatch(_NAME, name) or not (self._folder / name / JOB).is_file():
            raise UserError(f"no training '{str(name)[:60]}'.")
        return Job(self._folder / name)

    def free_name(self) -> str:
        """A name that no model and no training has."""
        taken = {path.name for folder in (self._models, self._folder) for path in folder.glob("*")}
        return next(name for i in range(1, len(taken) + 2) if (name := f"mine-{i}") not in taken)

    def place(self, job: Job) -> int:
        """A waiting training's place in the queue; the next one's is 1."""
        return sum(each.about["created"] <= job.about["created"] for each in self._waiting())

    def start(self, name: str, material: Material, settings: Settings) -> Job:
        """Puts a training into the queue, and starts it if none is running.

        Raises:
            UserError: The name is taken or none, a setting is wrong, or too many are waiting.
        """
        if not isinstance(name, str) or not re.fullmatch(_NAME, name):
            raise UserError(
                f"The model's name '{str(name)[:60]}': expected 1 to 40 letters, digits, - and _, the first a letter "
                "or a digit."
            )
        settings.check(len(material.rows))
        bases = self.bases()
        if settings.base not in bases:
            raise UserError(f"'{str(settings.base)[:100]}': no encoder to begin with. Choose one of the list.")
        with self._lock:
            if len(self._waiting()) >= MAX_WAITING:
                raise UserError(f"{MAX_WAITING} trainings are waiting already. Try again later.")
            directory = self._folder / name
            if directory.exists() or (self._models / name).exists():
                raise UserError(f"There is a model '{name}' already. Choose another name, such as {self.free_name()}.")
            with whole_directory(directory) as new:
                material.write(new / _ROWS)
                material.write_sample(new / _WATCHED)
                about = {
                    "created": time.time(),
                    "rows": len(material.rows),
                    "kind": material.kind,
                    "texts": settings.batch_size * material.views,
                    "base": bases[settings.base],
                    "steps": settings.steps,
                    "minutes": MINUTES,
                    "to": str((self._models / name).absolute()),
                    "flags": _flags(directory.absolute(), self._models / name, material, settings),
                }
                write_whole(new / JOB, json.dumps(about, indent=2) + "\n")
        self.advance()
        return Job(directory)

    def stop(self, name: str) -> None:
        """Stops a training, which keeps its encoder as far as it has come; takes a waiting one out of the queue."""
        job = self.get(name)
        with self._lock:
            what = job.state().what
            if what == "waiting":
                said = State("stopped", "Taken out of the queue.")
                write_whole(job.directory / END, json.dumps(said._asdict()) + "\n")
            elif what == "running":
                (job.directory / STOP).touch()
                # The trainer is in the group of the process that waits for it.
                os.killpg(int((job.directory / _LOCK).read_text()), signal.SIGTERM)

    def delete(self, name: str) -> None:
        """Deletes a training that has ended, its rows, log and run; the model that it exported stays.

        Raises:
            UserError: It has not ended, or it is what one that has not ended begins with.
        """
        job = self.get(name)
        with self._lock:
            if not job.state().ended:
                raise UserError(f"'{name}' has not ended. Stop it first.")
            for other in self.all():
                if str(job.run) in other.about["flags"] and not other.state().ended:
                    raise UserError(f"'{other.name}' begins with '{name}', and has not ended.")
            shutil.rmtree(job.directory)

    def advance(self) -> None:
        """Starts the training that has waited longest, unless one is running."""
        with self._lock:
            waiting = self._waiting()
            if waiting and all(job.state().what not in ("running", "stopping") for job in self.all()):
                _start(waiting[0])

    def keep_going(self) -> None:
        """Starts one training after the other, from now on, in a thread of its own."""

        def loop() -> None:
            while True:
                # Folders may be deleted at any time.
                with contextlib.suppress(UserError, OSError):
                    self.advance()
                time.sleep(0.5)

        threading.Thread(target=loop, daemon=True).start()

    def _waiting(self) -> list[Job]:
        """Those that wait, the longest first."""
        return [job for job in reversed(self.all()) if job.state().what == "waiting"]


def _start(job: Job) -> None:
    lock = _lock(job.directory, fcntl.LOCK_EX)
    if lock is None:  # somebody is just looking
        return
    try:
        with (job.directory / LOG).open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "simcse_tf.demo.learner", str(job.directory.absolute()), str(lock)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=(lock,),
                start_new_session=True,
            )
        os.pwrite(lock, str(process.pid).encode(), 0)
    finally:
        # The process has it too, and the lock with it.
        os.close(lock)
    # Nobody waits for it otherwise, and it would stay a zombie.
    threading.Thread(target=process.wait, daemon=True).start()


def _lock(directory: Path, kind: int) -> int | None:
    """Locks a training; None if one of its processes has it locked. Closing the descriptor gives the lock back."""
    descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _flags(directory: Path, to: Path, material: Material, settings: Settings) -> list[str]:
    """The trainer's flags."""
    rows, pairs = directory / _ROWS, material.views > 1
    began = runs.read_config(Path(settings.base)) if runs.is_run(Path(settings.base)) else TrainConfig(pooling="avg")
    # A head that a run keeps belongs to its encoder; of its own a pair needs none.
    head = "always" if began.head == "always" else "none" if pairs or material.labelled else "train_only"
    judged = ["bundled", "--select-by", LAST]
    if pairs:
        judged = ["held-out", "bundled"] if len(material.rows) >= _HOLDS_OUT else [str(rows), "--select-by", LAST]
    options: dict[str, Any] = {
        "preset": settings.base,
        "pooling": began.pooling,
        "head": head,
        "data": rows,
        "temperature": settings.temperature or (0.05 if pairs or material.labelled else 0.3),
        "learning-rate": settings.learning_rate,
        "batch-size": settings.batch_size,
        "max-steps": settings.steps,
        "eval-every": max(2, math.ceil(settings.steps / _EVALUATIONS)),
        "watch": directory / _WATCHED,
        "output-dir": directory / RUN,
        "export-to": to.absolute(),
    }
    flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return [*flags, "--dev", *judged, "--no-report"]
