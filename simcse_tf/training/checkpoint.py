"""Writes the run directory, and the state in it from which training continues exactly. `simcse_tf.runs` reads it.

    config.json                 what the run is; written before the first step
    data.json                   fingerprints of what it reads
    versions.json               the packages that it is trained with
    development.json            what it is judged on, the set that selects first
    held_out.jsonl              rows of its data that it is judged by and not trained on, if any
    held_out_test.jsonl         more of them, which it is not judged by: its report is
    watched/                    texts that it watches, if any, and their vectors at every evaluation
    commands.jsonl              the commands that trained it: when, on which machine, by which version
    metrics.jsonl               a JSON object a line, each with its `step`
    tensorboard/                the same numbers for TensorBoard
    teacher/                    a teacher's vectors of the rows, if there is one (simcse_tf.training.teaching)
    checkpoints/state-STEP/     weights, optimizer, dropout seeds, best score so far
    checkpoints/encoder-STEP/   an encoder (simcse_tf.formats.encoders); `best` is a link to the best one, or to its mix
                                with the starting weights, encoder-STEP-keep-SHARE
    result.json                 what the run came to, and where it was exported to; there once training is complete
    report.html, report.json    what training changed (simcse_tf.report)

A kill at any moment leaves a run that can be resumed: the newest `state-STEP` says how far it came and which encoder is
the best. It appears whole or not at all, and until it is there, everything that the state before it refers to is kept.
Checking the directory needs no TensorFlow.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from simcse_tf import runs
from simcse_tf.config import TrainConfig
from simcse_tf.data import json_lines
from simcse_tf.data.columns import names_of_views
from simcse_tf.data.held_out import HeldOut
from simcse_tf.errors import UserError
from simcse_tf.files import point_to, read_json, whole_directory, write_whole
from simcse_tf.formats import safetensors
from simcse_tf.runs import Watched
from simcse_tf.training import fingerprint

# A resumed run may have these changed: what is computed does not depend on them (on the strategy only by rounding).
_CHANGEABLE = ("output_dir", "export_to", "report", "overwrite", "resume", "save_every", "strategy")
# What may lie in the directory of a run that was killed before it had a configuration.
_BEGINNINGS = {"data.json", ".data.json.partial", ".config.json.partial"}


@dataclass(frozen=True)
class Progress:
    """How far a run has come; -1 steps: not begun."""

    step: int = -1
    best_score: float = float("-inf")
    best_step: int = -1


class RunDirectory:
    """Where a run keeps its files.

    Args:
        path: The directory; need not exist yet.
    """

    def __init__(self, path: Path):
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.best = self.checkpoints / "best"
        self.tensorboard = path / "tensorboard"
        self._metrics = path / "metrics.jsonl"
        self._config = path / "config.json"
        self._data = path / "data.json"
        self._result = path / "result.json"
        self.held_out = path / runs.HELD_OUT
        self._watched = path / runs.WATCHED

    def check(self, config: TrainConfig) -> None:
        """Checks that a run with this configuration may use the directory; changes nothing.

        Raises:
            UserError: It holds files of something else, or a run and neither `overwrite` nor `resume` is set, or the
                run to resume was configured differently.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"`output_dir` {self.path}: is a file.")
        if self._config.is_file():
            if config.resume:
                self._check_resumable(config)
            elif not config.overwrite:
                raise UserError(
                    f"`output_dir` {self.path}: already holds a run. Continue it with `resume`, replace it with "
                    "`overwrite`, or choose another directory."
                )
        elif self.path.is_dir() and any(child.name not in _BEGINNINGS for child in self.path.iterdir()):
            raise UserError(
                f"`output_dir` {self.path}: holds files that are not a run's. Choose an empty or a new directory."
            )

    def check_data(self, config: TrainConfig, data: dict[str, str | int]) -> None:
        """Checks that a run to be resumed reads what it read before.

        Args:
            config: The run's, with `resume`.
            data: Fingerprints by `fingerprint.MEANING`'s names, all or some.

        Raises:
            UserError: It does not.
        """
        before = self.data() if config.resume and self._config.is_file() else {}
        for name, meaning in fingerprint.MEANING.items():
            if name in before and name in data and before[name] != data[name]:
                what = meaning.format(**vars(config))
                raise UserError(
                    f"`resume`: {what} changed since the run in {self.path} was started, so that it cannot continue as "
                    "it began. Restore them, or start another run in another directory."
                )

    def start(self, config: TrainConfig, data: dict[str, str | int] | None = None) -> Progress:
        """Makes the directory ready: empties it (`overwrite`), or removes what a kill left unfinished (`resume`).

        Args:
            config: The run's.
            data: Its `data.json`, kept for `check_data`.

        Returns:
            Where the run stands: at the newest state, or not begun.
        """
        if config.resume and self._config.is_file():
            progress = self.progress()
            self._drop_after(progress)
            return progress
        if config.overwrite and self.path.exists():
            # The configuration last: without it the rest would be taken for files of something else.
            for child in sorted(self.path.iterdir(), key=lambda child: child == self._config):
                _remove(child)
        self.path.mkdir(parents=True, exist_ok=True)
        write_whole(self._data, json.dumps(data or {}, indent=2) + "\n")
        write_whole(self._config, config.to_json())
        self.checkpoints.mkdir()
        return Progress()

    def progress(self) -> Progress:
        """Where the run stands: at the newest state, or not begun."""
        state = self._newest_state()
        return Progress() if state is None else Progress(**read_json(state / "progress.json"))

    def data(self) -> dict[str, Any]:
        """What `start` was given when the run began."""
        return read_json(self._data)

    def result(self) -> dict[str, Any] | None:
        """What `write_result` wrote; None while training is not complete."""
        return read_json(self._result) if self._result.is_file() else None

    def write_result(self, result: dict[str, Any]) -> None:
        """Says what the run came to: training is complete."""
        write_whole(self._result, json.dumps(result, indent=2) + "\n")

    def write_held_out(self, held: HeldOut) -> None:
        """Keeps the rows that are held out of training."""
        names = names_of_views(len(held.rows[0]))
        for file, rows in ((runs.HELD_OUT, held.rows), (runs.HELD_OUT_TEST, held.test)):
            if rows:
                write_whole(self.path / file, json_lines.written(names, rows))

    def write_watched(self, watched: Watched) -> None:
        """Keeps the texts that are watched."""
        self._watched.mkdir(exist_ok=True)
        write_whole(self._watched / runs.WATCHED_TEXTS, watched.to_json())

    def save_watched(self, vectors: np.ndarray, step: int) -> None:
        """Keeps what a step has made of them.

        Args:
            vectors: `(texts, dim)`. They are kept in half precision, of which a picture shows nothing.
            step: The step.
        """
        file = io.BytesIO()
        np.save(file, vectors.astype(np.float16))
        write_whole(self._watched / f"step-{step:08d}.npy", file.getvalue())

    def log_command(self, step: int, **about: Any) -> None:
        """Adds to `commands.jsonl` that a command trains the run from a step on."""
        with (self.path / runs.COMMANDS).open("a", encoding="utf-8") as f:
            f.write(json.dumps({"step": step, **about}, ensure_ascii=False) + "\n")

    def log(self, step: int, **values: float) -> None:
        """Adds a line to `metrics.jsonl`."""
        with self._metrics.open("a", encoding="utf-8") as f:
            f.write(json.dumps({"step": step, **values}) + "\n")

    def save_best(self, encoder: Any, step: int) -> None:
        """Keeps the encoder as the best so far."""
        from simcse_tf.formats.encoders import save_encoder

        directory = self._encoder(step)
        save_encoder(encoder, directory)
        point_to(self.best, directory)

    def save_mix(self, encoder: Any, step: int, share: float, lines: Sequence[dict[str, Any]]) -> None:
        """Keeps a mix of the best encoder with the starting one in its place, once training is complete.

        Args:
            encoder: The mix.
            step: The best encoder's.
            share: Of the starting weights.
            lines: What goes to `metrics.jsonl` about this mix and the others.
        """
        from simcse_tf.formats.encoders import save_encoder

        directory = self._encoder(step)
        if share > 0:
            directory = directory.with_name(f"{directory.name}-keep-{share:g}")
            save_encoder(encoder, directory)
        for line in lines:
            self.log(step, **line)
        point_to(self.best, directory)

    def save_state(self, variables: list[Any], progress: Progress) -> None:
        """Writes everything that training needs to continue, then removes what is older.

        Args:
            variables: The model's (dropout seeds among them) and the optimizer's Keras variables, always in the same
                order.
            progress: Saved with them.
        """
        directory = self.checkpoints / f"state-{progress.step:08d}"
        with whole_directory(directory) as new:
            safetensors.save(
                {name: np.asarray(variable) for name, variable in _named(variables)}, new / "variables.safetensors"
            )
            (new / "progress.json").write_text(json.dumps(progress.__dict__), "utf-8")
        self._prune(progress)

    def load_state(self, variables: list[Any], step: int) -> None:
        """Reads the state of a step into the variables.

        Raises:
            UserError: It is not there, or was written for another set of variables.
        """
        state = self.checkpoints / f"state-{step:08d}"
        if not state.is_dir():
            raise UserError(
                f"{state}: not here, though the chief has it. `output_dir` must be on storage that all workers share."
            )
        values = safetensors.load(state / "variables.safetensors")
        if values.keys() != dict(_named(variables)).keys():
            raise UserError(
                f"{state}: was written for another model or by another version. Start anew with `overwrite`."
            )
        for name, variable in _named(variables):
            variable.assign(values[name])

    def _newest_state(self) -> Path | None:
        return max(self.checkpoints.glob("state-*"), default=None)

    def _encoder(self, step: int) -> Path:
        return self.checkpoints / f"encoder-{step:08d}"

    def _prune(self, progress: Progress) -> None:
        """Removes all checkpoints but those of `progress`, and what a kill left of others."""
        kept = {self.checkpoints / f"state-{progress.step:08d}", self._encoder(progress.best_step), self.best}
        for other in set(self.checkpoints.iterdir()) - kept:
            if other.name.startswith(("state-", "encoder-", ".")):
                _remove(other)

    def _check_resumable(self, config: TrainConfig) -> None:
        now = fixed_on_resume(config)
        for name, old in fixed_on_resume(runs.read_config(self.path)).items():
            new = now[name]
            if old != new:
                raise UserError(
                    f"`resume`: the run in {self.path} has `{name}` {old}, not {new}. Give the settings that it was "
                    "started with, or start another run in another directory."
                )

    def _drop_after(self, progress: Progress) -> None:
        """Removes what belongs to steps that will be taken again."""
        self.checkpoints.mkdir(exist_ok=True)
        if progress.step < 0:
            self.best.unlink(missing_ok=True)
        else:
            point_to(self.best, self._encoder(progress.best_step))
        self._prune(progress)
        for step, vectors in runs.watched_steps(self.path).items():
            if step > progress.step:
                vectors.unlink()
        if self._metrics.is_file():
            # Mixes are made, all together, once training is complete.
            logged = runs.read_metrics(self.path)
            kept = [line for line in logged if line["step"] <= progress.step and "keep" not in line]
            write_whole(self._metrics, "".join(json.dumps(line) + "\n" for line in kept))


def fixed_on_resume(config: TrainConfig) -> dict[str, Any]:
    """The settings that decide what is computed, which a resumed run cannot change."""
    return {field.name: getattr(config, field.name) for field in fields(config) if field.name not in _CHANGEABLE}


def _named(variables: list[Any]) -> Iterator[tuple[str, Any]]:
    # Paths are not unique (every dropout layer's seed state has the same), and Keras numbers the models of a process in
    # them.
    for i, variable in enumerate(variables):
        yield f"{i:05d}/{variable.path.rsplit('/', 1)[-1]}/{'x'.join(map(str, variable.shape))}", variable


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
