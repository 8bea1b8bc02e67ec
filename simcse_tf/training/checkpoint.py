"""The run directory, and the state in it from which training continues exactly.

    config.json                 what the run is; written before the first step
    metrics.jsonl               a JSON object a line, each with its `step`
    tensorboard/                the same numbers for TensorBoard
    checkpoints/state-STEP/     weights, optimizer, dropout seeds, best score so far
    checkpoints/encoder-STEP/   an encoder (simcse_tf.models.saved); `best` is a link to the best one

Checking it needs no TensorFlow.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from simcse_tf.config import TrainConfig
from simcse_tf.errors import UserError
from simcse_tf.files import point_to, whole_directory

# A run continues although these differ: they do not change what is computed.
_FREE = ("output_dir", "export_to", "report", "overwrite", "resume")


@dataclass(frozen=True)
class Progress:
    """How far a run has come."""

    step: int = 0
    best_score: float = float("-inf")
    best_step: int = 0


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

    def check(self, config: TrainConfig) -> None:
        """Checks that a run with this configuration may use the directory; changes nothing.

        Raises:
            UserError: It holds another run and neither `overwrite` nor `resume` is set, or there is nothing to resume,
                or the run to resume was configured differently.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--output-dir {self.path}: is a file.")
        if config.resume:
            self._check_resumable(config)
        elif self.path.is_dir() and any(self.path.iterdir()):
            if not self._config.is_file():
                raise UserError(
                    f"--output-dir {self.path}: holds files that are not a run's. Choose an empty or a new directory."
                )
            if not config.overwrite:
                raise UserError(
                    f"--output-dir {self.path}: already holds a run. Continue it with --resume, replace it with "
                    "--overwrite, or choose another directory."
                )

    def start(self, config: TrainConfig) -> Progress:
        """Makes the directory ready: empties it (`overwrite`) or finds out how far the run came (`resume`).

        Returns:
            Step 0, or the step of the newest state.
        """
        if config.resume:
            state = self._newest_state()
            progress = Progress() if state is None else Progress(**_read_json(state / "progress.json"))
            self._drop_after(progress.step)
            return progress
        if config.overwrite and self.path.exists():
            shutil.rmtree(self.path)
        self.checkpoints.mkdir(parents=True)
        self._config.write_text(config.to_json(), "utf-8")
        return Progress()

    def log(self, step: int, **values: float) -> None:
        """Adds a line to `metrics.jsonl`."""
        with self._metrics.open("a", encoding="utf-8") as f:
            f.write(json.dumps({"step": step, **values}) + "\n")

    def metrics(self) -> list[dict[str, float]]:
        """What `log` wrote, in order."""
        return [json.loads(line) for line in self._metrics.read_text("utf-8").splitlines()]

    def save_best(self, encoder: Any, step: int) -> None:
        """Keeps the encoder as the best so far."""
        from simcse_tf.models.saved import save_encoder

        directory = self.checkpoints / f"encoder-{step:08d}"
        shutil.rmtree(directory, ignore_errors=True)
        save_encoder(encoder, directory)
        point_to(self.best, directory)
        for other in self.checkpoints.glob("encoder-*"):
            if other != directory:
                shutil.rmtree(other)

    def save_state(self, variables: list[Any], progress: Progress) -> None:
        """Writes everything that training needs to continue, then removes the older state.

        Args:
            variables: The model's (dropout seeds among them) and the optimizer's Keras variables, always in the same
                order.
            progress: Saved with them.
        """
        from safetensors.numpy import save_file

        directory = self.checkpoints / f"state-{progress.step:08d}"
        shutil.rmtree(directory, ignore_errors=True)
        with whole_directory(directory) as new:
            save_file(
                {name: np.asarray(variable) for name, variable in _named(variables)}, new / "variables.safetensors"
            )
            (new / "progress.json").write_text(json.dumps(progress.__dict__), "utf-8")
        for other in self.checkpoints.glob("state-*"):
            if other != directory:
                shutil.rmtree(other)

    def load_state(self, variables: list[Any]) -> None:
        """Reads the newest state into the variables; does nothing if there is none yet.

        Raises:
            UserError: It was written for another set of variables.
        """
        from safetensors.numpy import load_file

        state = self._newest_state()
        if state is None:
            return
        values = load_file(state / "variables.safetensors")
        if values.keys() != dict(_named(variables)).keys():
            raise UserError(
                f"{state}: was written for another model or by another version; start anew with --overwrite."
            )
        for name, variable in _named(variables):
            variable.assign(values[name])

    def _newest_state(self) -> Path | None:
        return max(self.checkpoints.glob("state-*"), default=None)

    def _check_resumable(self, config: TrainConfig) -> None:
        if not self._config.is_file():
            raise UserError(f"--resume: {self.path} holds no run (no config.json). Start it without --resume.")
        before = TrainConfig.from_json(self._config.read_text("utf-8"), where=str(self._config))
        for field in fields(TrainConfig):
            old, new = getattr(before, field.name), getattr(config, field.name)
            if field.name not in _FREE and old != new:
                flag = "--" + field.name.replace("_", "-")
                raise UserError(
                    f"--resume: the run in {self.path} has {flag} {old}, not {new}. Give the flags that it was started "
                    "with, or start another run in another directory."
                )

    def _drop_after(self, step: int) -> None:
        """Removes metrics of steps that will be taken again."""
        if not self._metrics.is_file():
            return
        lines = self._metrics.read_text("utf-8").splitlines()
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        self._metrics.write_text("".join(line + "\n" for line in kept), "utf-8")


def _named(variables: list[Any]) -> Iterator[tuple[str, Any]]:
    # Paths are not unique (every dropout layer's seed state has the same), and Keras numbers the models of a process in
    # them.
    for i, variable in enumerate(variables):
        yield f"{i:05d}/{variable.path.rsplit('/', 1)[-1]}/{'x'.join(map(str, variable.shape))}", variable


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8"))
