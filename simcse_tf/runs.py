"""Reads a run directory: what the run is, what it measured, where its best encoder is. Standard library only.

`simcse_tf.training.checkpoint` writes the directory and says what else is in it.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simcse_tf.config import LAST, TrainConfig
from simcse_tf.errors import UserError
from simcse_tf.files import read_json, read_json_object

# Rows that are held out of training: those that judge the encoder, and those that its report judges it by.
HELD_OUT, HELD_OUT_TEST = "held_out.jsonl", "held_out_test.jsonl"
# The folder of the texts that are watched, and the file with the texts themselves.
WATCHED, WATCHED_TEXTS = "watched", "texts.json"
COMMANDS = "commands.jsonl"


@dataclass(frozen=True)
class JudgedOn:
    """A development set of a run, as far as its figures are to be read.

    Attributes:
        name: What its figures are logged under: `NAME/FIGURE`.
        headline: The figure by which encoders are compared.
        labels: What people call each figure; the first is the headline.
    """

    name: str
    headline: str
    labels: dict[str, str]

    @property
    def label(self) -> str:
        """What people call the headline."""
        return self.labels[self.headline]


@dataclass(frozen=True)
class Watched:
    """Texts that are encoded at every evaluation.

    Attributes:
        texts: All different.
        rows: Positions in `texts` of those that were in one row: anchor, positive, hard negatives. Empty if each text
            stands alone.
    """

    texts: list[str]
    rows: list[list[int]]

    def to_json(self) -> str:
        """JSON text, which `read_watched` finds in a run."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class Run:
    """A run as far as it has come.

    Attributes:
        path: Its directory.
        config: What is trained.
        metrics: What was logged, in order: dictionaries with a `step`; evaluations have a `dev`, the headline of the
            development set that selects, and every figure of every set as `NAME/FIGURE`. So have the mixes, which also
            have `keep`, the share of the starting weights, and `chosen`.
        commands: What trained it: dictionaries with the `step` at which each began, `date`, `command`, `machine` and
            `program`; of a run of version 0.1.0 nothing is known.
        versions: The packages that it was trained with; empty if it was killed before it wrote them.
        development_sets: What it is judged on; the first selects.
    """

    path: Path
    config: TrainConfig
    metrics: list[dict[str, Any]]
    commands: list[dict[str, Any]]
    versions: dict[str, str]
    development_sets: tuple[JudgedOn, ...]

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """The evaluations of steps, in order; the first is of the encoder that training began with."""
        return [line for line in self.metrics if "dev" in line and "keep" not in line]

    @property
    def mixes(self) -> list[dict[str, Any]]:
        """The evaluations of mixes of the best step's weights with the starting ones, from none of these to all.

        Their `step` is the best one. Empty where nothing was mixed.
        """
        return [line for line in self.metrics if "keep" in line]

    @property
    def before(self) -> dict[str, Any]:
        """The evaluation of the encoder that training began with.

        Raises:
            UserError: The run has not been evaluated yet.
        """
        return self._evaluated()[0]

    @property
    def best(self) -> dict[str, Any]:
        """The evaluation of the encoder that is kept: the chosen mix's, or the step's with the highest `dev`.

        Of equal steps it is the earliest. Where no set selects it is the last step's.

        Raises:
            UserError: The run has not been evaluated yet.
        """
        evaluated = self._evaluated()
        best = evaluated[-1] if self.config.select_by == LAST else max(evaluated, key=lambda line: line["dev"])
        return next((line for line in self.mixes if line["chosen"]), best)

    @property
    def steps(self) -> int:
        """Steps taken so far."""
        return max((int(line["step"]) for line in self.metrics), default=0)

    @property
    def encoder(self) -> Path:
        """The directory of the best encoder."""
        return best_encoder(self.path)

    def _evaluated(self) -> list[dict[str, Any]]:
        if not self.evaluations or not self.encoder.is_dir():
            raise UserError(f"{self.path}: the run has not been evaluated yet. Continue it with `resume`.")
        return self.evaluations


def read_held_out(path: Path, name: str = HELD_OUT) -> list[tuple[str, ...]]:
    """The texts of each row of its data that a run is not trained on; none if it holds out nothing.

    Args:
        path: The run.
        name: Of the file.

    Raises:
        UserError: The file is damaged; names file and line.
    """
    file = path / name
    if not file.is_file():
        return []
    rows = []
    # Not splitlines, which would also cut texts.
    for number, line in enumerate(file.read_bytes().split(b"\n")[:-1], 1):
        try:
            anchor, positive, *negatives = json.loads(line).values()
        except (ValueError, AttributeError) as e:
            raise UserError(f"{file}:{number}: damaged ({e}). Train again in another directory.") from e
        rows.append((anchor, positive, *negatives))
    return rows


def read_watched(path: Path) -> Watched | None:
    """The texts that a run watches; None if it watches none.

    Raises:
        UserError: The file is damaged.
    """
    file = path / WATCHED / WATCHED_TEXTS
    if not file.is_file():
        return None
    try:
        return Watched(**read_json_object(file))
    except TypeError as e:
        raise UserError(f"{file}: damaged ({e}). Train again in another directory.") from e


def watched_steps(path: Path) -> dict[int, Path]:
    """The steps whose vectors of the watched texts are there, in order, and their files in NumPy's format."""
    files = sorted((path / WATCHED).glob("step-*.npy"))
    return {int(file.stem.removeprefix("step-")): file for file in files}


def is_run(path: Path) -> bool:
    """Whether a directory is a run's, finished or not."""
    return (path / "config.json").is_file() and (path / "checkpoints").is_dir()


def best_encoder(path: Path) -> Path:
    """Where a run keeps the best encoder; not there before the first evaluation."""
    return path / "checkpoints" / "best"


def read(path: Path) -> Run:
    """Reads a run, finished, stopped or being trained.

    Raises:
        UserError: There is no run, or a file of it is damaged; names the file and the line.
    """
    if not is_run(path):
        raise UserError(
            f"{path}: not a run directory (no config.json and checkpoints/ in it). Name one that training wrote."
        )
    versions = path / "versions.json"
    config = read_config(path)
    return Run(
        path,
        config,
        read_metrics(path),
        _read_log(path / COMMANDS),
        read_json(versions) if versions.is_file() else {},
        _development_sets(path / "development.json", config),
    )


def read_config(path: Path) -> TrainConfig:
    """What a run was started with.

    Raises:
        UserError: The file cannot be read, or is not a configuration; names it.
    """
    file = path / "config.json"
    return TrainConfig.from_dict(read_json_object(file), where=str(file))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """What a run has logged in `metrics.jsonl`, in order; nothing if there is no such file yet.

    A last line without its end is left out: it is being written, or a kill cut it off and `resume` repeats its step.

    Raises:
        UserError: Any other line is damaged; names file and line.
    """
    return _read_log(path / "metrics.jsonl")


def _read_log(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    entries = []
    lines = file.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict) or "step" not in entry:
                raise ValueError("an object with a step was expected")
            entries.append(entry)
        except ValueError as e:
            if number == len(lines):
                break
            raise UserError(
                f"{file}:{number}: damaged ({e}). Delete the line, or train again in another directory."
            ) from e
    return entries


def _development_sets(file: Path, config: TrainConfig) -> tuple[JudgedOn, ...]:
    if file.is_file():
        sets: tuple[JudgedOn, ...] = ()
        try:
            sets = tuple(JudgedOn(each["name"], each["headline"], each["labels"]) for each in read_json(file))
            whole = bool(sets) and all(each.label for each in sets)
        except (KeyError, TypeError):
            whole = False
        if not whole:
            raise UserError(
                f"{file}: damaged: expected a list of development sets, each with name, headline and labels. Restore "
                "it, or train again in another directory."
            )
        return sets
    # Version 0.1.0 knew graded pairs alone.
    name = "STSB-dev" if config.sts_dir or config.dev != ("bundled",) else "bundled"
    return (JudgedOn(name, "spearman", {"spearman": "Spearman x 100"}),)
