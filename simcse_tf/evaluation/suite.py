"""What an encoder is judged on, and the judgement: STS, alignment and uniformity, transfer, in one pass over each set.

Anything is judged that turns `list[str]` into `(n, dim)`: one of our models, `SentenceTransformer(...).encode`, or a
function of yours.

    chosen = suite.load(sts_dir="SentEval/data")
    report = suite.judge(encode, chosen).to_dict()

Everything about the sets is checked by `load`, before any model need be there.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import simcse_tf
from simcse_tf.errors import UserError, did_you_mean
from simcse_tf.evaluation import geometry, sts, transfer
from simcse_tf.evaluation.embedding import Encode

# The seven tasks whose mean the SimCSE paper (and every paper after it) calls "Avg.".
AVERAGED = ("STS12", "STS13", "STS14", "STS15", "STS16", "STSB-test", "SICK-R")

# Names for `tasks` beside those of the two tables: the pairs of this package, and STS-B's development set from TFDS.
BUNDLED = "bundled"
TFDS = "tfds:glue/stsb"

# Alignment and uniformity are measured on these, and a run's picture is drawn of them.
_DEVELOPMENT = ("STSB-dev", BUNDLED)


@dataclass(frozen=True, eq=False)
class Suite:
    """Sets that were read and found whole.

    Attributes:
        pairs: The STS sets.
        transfer: The transfer tasks, and the directory of each.
        missing: Tasks that were looked for and are not there.
    """

    pairs: tuple[sts.Pairs, ...]
    transfer: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def development_set(self) -> sts.Pairs | None:
        """STS-B's development set, or the bundled pairs, if either is among `pairs`."""
        named = {pairs.name: pairs for pairs in self.pairs}
        return next((named[name] for name in _DEVELOPMENT if name in named), None)


@dataclass(frozen=True, eq=False)
class Judgement:
    """What `judge` found.

    Attributes:
        sts: Task to its result.
        development_set: The suite's.
        geometry: Alignment and uniformity on the development set, if there is one.
        vectors: Embeddings of the development set's two sides, `(2, n, dim)` float, for pictures; likewise.
        transfer: Task to its result.
        missing: As in the suite.
    """

    sts: dict[str, sts.Result]
    development_set: sts.Pairs | None
    geometry: geometry.Geometry | None
    vectors: np.ndarray | None
    transfer: dict[str, transfer.Result]
    missing: tuple[str, ...]

    @property
    def scores(self) -> dict[str, float]:
        """Spearman x 100 over all pairs of each task."""
        return {name: result.all.spearman for name, result in self.sts.items()}

    @property
    def average(self) -> float | None:
        """The mean over the paper's seven tasks; None unless all of them are there."""
        if not set(AVERAGED) <= self.scores.keys():
            return None
        return float(np.mean([self.scores[name] for name in AVERAGED]))

    def to_dict(self) -> dict[str, Any]:
        """Every figure, ready for JSON."""
        measured = None
        if self.development_set is not None and self.geometry is not None:
            measured = {"task": self.development_set.name, **self.geometry._asdict()}
        return {
            "scores": self.scores,
            "average": self.average,
            "missing": list(self.missing),
            "details": {name: result.to_dict() for name, result in self.sts.items()},
            "geometry": measured,
            "transfer": {name: dataclasses.asdict(result) for name, result in self.transfer.items()},
        }


def load(
    sts_dir: Path | str | None = None,
    transfer_dir: Path | str | None = None,
    tasks: Sequence[str] = (),
    *,
    tfds_dir: Path | str | None = None,
) -> Suite:
    """Reads and checks the sets. Without a directory and without tasks: the bundled pairs.

    Args:
        sts_dir: SentEval's data directory, the one with `STS/` and `SICK/`.
        transfer_dir: SentEval's `downstream` folder.
        tasks: Names from `sts.TASKS` and `transfer.TASKS`, `bundled` or `tfds:glue/stsb`; these sets must be there. By
            default everything that the directories hold; what they lack is then noted in `missing`.
        tfds_dir: Where TensorFlow Datasets keeps its data; its own default if not given.

    Raises:
        UserError: Unknown task; a task without its directory; a set that is missing, cut off or not in its format;
            nothing to judge on; no scikit-learn for transfer tasks.
    """
    for name in tasks:
        valid = [*sts.TASKS, *transfer.TASKS, BUNDLED, TFDS]
        if name not in valid:
            raise UserError(f"unknown task '{name}'. {did_you_mean(name, valid)}")
    if {"STSB-dev", TFDS} <= set(tasks):
        raise UserError(f"--tasks: STSB-dev and {TFDS} are the same set from two places: name one of them.")
    graded, graded_missing = _present("--sts-dir", sts, sts_dir, tasks)
    classified, classified_missing = _present("--transfer-dir", transfer, transfer_dir, tasks)
    pairs = [sts.load(name, where) for name, where in graded.items()]
    if BUNDLED in tasks or (sts_dir is None and transfer_dir is None and not tasks):
        pairs.append(sts.bundled())
    if classified:
        transfer.check_installed()
    for name, where in classified.items():
        transfer.load(name, where)
    # Last, since it imports TensorFlow.
    if TFDS in tasks:
        pairs.append(sts.from_tfds(tfds_dir))
    if not pairs and not classified:
        looked = " and ".join(str(directory) for directory in (sts_dir, transfer_dir) if directory is not None)
        raise UserError(
            f"{looked}: none of the tasks is there. Expected SentEval's layout, such as {sts.TASKS['STSB-dev'].folder}/"
            "sts-dev.csv; `python -m simcse_tf.evaluate --fetch DIR` downloads the STS sets."
        )
    return Suite(tuple(pairs), classified, (*graded_missing, *classified_missing))


def judge(encode: Encode, suite: Suite, *, say: Callable[[str], None] = lambda line: None) -> Judgement:
    """Embeds every set once and scores it.

    Args:
        encode: `list[str]` to `(n, dim)` numbers, of any length.
        suite: From `load`.
        say: Called with a line of progress before each task.

    Raises:
        UserError: The encoder's answer is not one finite vector per sentence, or a score is undefined; names the task.
    """
    results, measured, vectors = {}, None, None
    for pairs in suite.pairs:
        say(f"{pairs.name}: {len(pairs.gold)} pairs from {pairs.source}")
        a, b = sts.embed_pairs(encode, pairs)
        results[pairs.name] = sts.score(a, b, pairs)
        if pairs is suite.development_set:
            measured, vectors = geometry.measure(a, b, pairs), np.stack([a, b])
    classified = {}
    for name, where in suite.transfer.items():
        say(f"{name}: logistic regression on {where}")
        classified[name] = transfer.evaluate(encode, name, where)
    return Judgement(results, suite.development_set, measured, vectors, classified, suite.missing)


def versions() -> dict[str, str]:
    """The versions of what figures depend on, as installed; imports none of it."""
    found = {"simcse_tf": simcse_tf.__version__, "python": platform.python_version()}
    for name in ("tensorflow", "tensorflow-text", "keras", "keras-hub", "numpy", "scipy", "scikit-learn"):
        try:
            found[name.replace("-", "_")] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # an optional one
    return found


def _present(
    flag: str, table: Any, directory: Path | str | None, tasks: Sequence[str]
) -> tuple[dict[str, Path], list[str]]:
    """The tasks of a table that are to be read, with their directory, and those that were looked for in vain."""
    named = [name for name in tasks if name in table.TASKS]
    if directory is None:
        if named:
            raise UserError(f"--tasks {' '.join(named)}: where are they? Give {flag}.")
        return {}, []
    # A set that was named has to be there: `load` says which file is not.
    found, missing = (named, []) if tasks else table.available(directory)
    return dict.fromkeys(found, Path(directory)), missing
