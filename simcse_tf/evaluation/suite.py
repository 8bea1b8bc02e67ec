"""What an encoder is judged on, and the judgement: STS, alignment and uniformity, transfer, in one pass over each set.

Anything that turns `list[str]` into `(n, dim)` can be judged: one of our models, a `SentenceTransformer`, or a function
of yours.

    print(suite.evaluate_encoder(model, sts_dir="SentEval/data"))

`evaluate_encoder` is `load`, which reads and checks the sets without a model, and then `judge`.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import simcse_tf
from simcse_tf.errors import UserError, did_you_mean
from simcse_tf.evaluation import development_files, geometry, sts, transfer
from simcse_tf.evaluation.development import DevelopmentSet, Figures, digits
from simcse_tf.evaluation.development_files import BUNDLED, TFDS
from simcse_tf.evaluation.embedding import Encode

# The seven tasks whose mean the SimCSE paper (and every paper after it) calls "Avg.".
AVERAGED = ("STS12", "STS13", "STS14", "STS15", "STS16", "STSB-test", "SICK-R")

# A development set as it may be given.
Development = DevelopmentSet | sts.Pairs | Path | str

# Alignment and uniformity are measured on these rather than on pairs of one's own.
_DEVELOPMENT = ("STSB-dev", BUNDLED)


class SupportsEncode(Protocol):
    """A model, as evaluation sees it."""

    def encode(self, texts: list[str], /) -> Any:
        """`(len(texts), dim)` numbers."""
        ...


@dataclass(frozen=True, eq=False)
class Suite:
    """Sets that were read and found whole.

    Attributes:
        pairs: The STS sets.
        transfer: The transfer tasks, and the directory of each.
        on: Development sets of one's own.
        missing: Tasks that were looked for and are not there.
    """

    pairs: tuple[sts.Pairs, ...]
    transfer: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    missing: tuple[str, ...] = ()
    on: tuple[DevelopmentSet, ...] = ()

    @property
    def development_set(self) -> sts.Pairs | None:
        """STS-B's development set, or the bundled pairs, if either is among `pairs`; else pairs of one's own."""
        named = {pairs.name: pairs for pairs in self.pairs}
        own = [name for name, pairs in named.items() if name not in sts.TASKS and geometry.is_measurable(pairs)]
        return next((named[name] for name in (*_DEVELOPMENT, *own) if name in named), None)


@dataclass(frozen=True, eq=False, repr=False)
class Judgement:
    """What `judge` found. Prints as a table of its figures.

    Attributes:
        sts: Task to its result.
        development_set: The suite's.
        geometry: Alignment and uniformity on the development set, if there is one.
        transfer: Task to its result.
        missing: As in the suite.
        on: The suite's development sets of one's own, each with its figures.
        answers: What each of these was answered, by its name, as in `development.Scored`.
        sizes: The headline of each STS and development set at each size to which the vectors were cut, the largest
            first.
    """

    sts: dict[str, sts.Result]
    development_set: sts.Pairs | None
    geometry: geometry.Geometry | None
    transfer: dict[str, transfer.Result]
    missing: tuple[str, ...]
    on: tuple[tuple[DevelopmentSet, Figures], ...] = ()
    answers: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    sizes: Mapping[int, Mapping[str, float]] = dataclasses.field(default_factory=dict)

    @property
    def scores(self) -> dict[str, float]:
        """Spearman x 100 over all pairs of each task."""
        return {name: result.all.spearman for name, result in self.sts.items()}

    @property
    def headlines(self) -> dict[str, float]:
        """The figure of each STS and development set that `sizes` has of fewer numbers."""
        return self.scores | {each.name: figures[each.headline] for each, figures in self.on}

    @property
    def average(self) -> float | None:
        """The mean over the paper's seven tasks; None unless all of them are there."""
        if not set(AVERAGED) <= self.scores.keys():
            return None
        return float(np.mean([self.scores[name] for name in AVERAGED]))

    def __repr__(self) -> str:
        rows = [(name, f"{score:.2f}", "Spearman x 100") for name, score in self.scores.items()]
        if self.average is not None:
            rows.append(("average", f"{self.average:.2f}", "of the paper's 7 tasks"))
        if self.geometry is not None:
            measured = self.geometry._asdict()
            rows += [(name, f"{measured[name]:.4f}", "lower is better") for name in ("alignment", "uniformity")]
        for each, figures in self.on:
            labels = each.labels
            rows += [(each.name, f"{value:.{digits(labels[name])}f}", labels[name]) for name, value in figures.items()]
        for size, scores in self.sizes.items():
            rows += [(name, f"{value:.2f}", f"{size} dimensions") for name, value in scores.items()]
        rows += [(name, f"{result.accuracy:.2f}", "accuracy") for name, result in self.transfer.items()]
        if self.missing:
            rows.append(("not there", "", ", ".join(self.missing)))
        wide = [max((len(cell) for cell in column), default=0) for column in zip(*rows, strict=True)]
        return "\n".join(f"{name:<{wide[0]}}  {figure:>{wide[1]}}  {what}" for name, figure, what in rows)

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
            "on": {each.name: {**each.about(), "figures": figures} for each, figures in self.on},
            "sizes": {str(size): dict(scores) for size, scores in self.sizes.items()},
        }


def evaluate_encoder(
    model: SupportsEncode | Encode,
    *,
    sts_dir: Path | str | None = None,
    transfer_dir: Path | str | None = None,
    tasks: Sequence[str] = (),
    tfds_dir: Path | str | None = None,
    on: Development | Sequence[Development] = (),
) -> Judgement:
    """Judges a sentence encoder; without directories and tasks on the bundled pairs, which are a smoke test.

    Args:
        model: Anything whose `encode(texts)` turns `list[str]` into `(n, dim)` numbers, or such a function.
        sts_dir: SentEval's data directory, the one with `STS/` and `SICK/`.
        transfer_dir: SentEval's `downstream` folder.
        tasks: Names from `STS_TASKS` and `TRANSFER_TASKS`, `bundled` or `tfds:glue/stsb`; by default everything that
            the directories hold.
        tfds_dir: Where TensorFlow Datasets keeps its data; its own default if not given.
        on: Development sets of your own, one or several: from `open_development_set`, or what it takes; also graded
            pairs, such as from `load_pairs`.

    Returns:
        What prints as a table and has `scores` (task to Spearman x 100), `average` (of the paper's seven tasks, or
        None), `geometry`, `transfer`, `on`, `missing`, `sizes` (the scores of the first numbers of every vector, for
        each size that the model was trained for) and `to_dict()`.

    Raises:
        UserError: `model` cannot encode; an unknown task; a set that is missing or damaged; an answer of the model that
            is not one finite vector for each text.
    """
    encode: Any = getattr(model, "encode", model)
    # A string has an `encode` of its own.
    if isinstance(model, str) or not callable(encode):
        raise UserError(
            f"a model of type {type(model).__name__} cannot encode texts. Expected something with encode(texts), such "
            "as what simcse_tf.load(model) returns, or a function of a list of strings."
        )
    sizes = getattr(model, "sizes", ())
    return judge(encode, load(sts_dir, transfer_dir, tasks, tfds_dir=tfds_dir, on=on), sizes=sizes)


def load(
    sts_dir: Path | str | None = None,
    transfer_dir: Path | str | None = None,
    tasks: Sequence[str] = (),
    *,
    tfds_dir: Path | str | None = None,
    on: Development | Sequence[Development] = (),
    columns: tuple[str, ...] = (),
) -> Suite:
    """Reads and checks the sets. Without a directory, tasks and sets of one's own: the bundled pairs.

    Args:
        sts_dir: SentEval's data directory, the one with `STS/` and `SICK/`.
        transfer_dir: SentEval's `downstream` folder.
        tasks: Names from `sts.TASKS` and `transfer.TASKS`, `bundled` or `tfds:glue/stsb`; these sets must be there. By
            default everything that the directories hold; what they lack is then noted in `missing`.
        tfds_dir: Where TensorFlow Datasets keeps its data; its own default if not given.
        on: Development sets of one's own, one or several, as `development_files.find` takes them.
        columns: Their text columns, where they have other names than the usual ones.

    Raises:
        UserError: Unknown task; a task without its directory; a set that is missing, cut off or not in its format;
            nothing to judge on; no scikit-learn for transfer tasks.
    """
    for name in tasks:
        valid = [*sts.TASKS, *transfer.TASKS, BUNDLED, TFDS]
        if name not in valid:
            raise UserError(f"unknown task '{name}'. {did_you_mean(name, valid)}")
    if {"STSB-dev", TFDS} <= set(tasks):
        raise UserError(f"`tasks`: STSB-dev and {TFDS} are the same set from two places. Name one of them.")
    graded, graded_missing = _present("sts_dir", sts, sts_dir, tasks)
    classified, classified_missing = _present("transfer_dir", transfer, transfer_dir, tasks)
    pairs = [sts.load(name, where) for name, where in graded.items()]
    several = [on] if isinstance(on, str) or not isinstance(on, Sequence) else on
    own = development_files.find(several, tfds_dir=tfds_dir, columns=columns, setting="on") if several else ()
    if BUNDLED in tasks or (sts_dir is None and transfer_dir is None and not tasks and not own):
        pairs.append(sts.bundled())
    if classified:
        transfer.check_installed()
    for name, where in classified.items():
        transfer.load(name, where)
    # Last, since it imports TensorFlow.
    if TFDS in tasks:
        pairs.append(sts.from_tfds(tfds_dir))
    if not pairs and not classified and not own:
        looked = " and ".join(str(directory) for directory in (sts_dir, transfer_dir) if directory is not None)
        raise UserError(
            f"{looked}: none of the tasks is there. Expected SentEval's layout, such as {sts.TASKS['STSB-dev'].folder}/"
            f"sts-dev.csv; {sts.FETCH}."
        )
    return Suite(tuple(pairs), classified, (*graded_missing, *classified_missing), own)


def judge(
    encode: Encode, suite: Suite, *, sizes: Sequence[int] = (), say: Callable[[str], None] = lambda line: None
) -> Judgement:
    """Embeds every set once and scores it.

    Args:
        encode: `list[str]` to `(n, dim)` numbers, of any length.
        suite: From `load`.
        sizes: The headlines of STS and development sets are taken of the first so many numbers too.
        say: Called with a line of progress before each task.

    Raises:
        UserError: The encoder's answer is not one finite vector per sentence, or a score is undefined; names the task.
    """
    results, measured = {}, None
    of_sizes: dict[int, dict[str, float]] = {size: {} for size in sorted(sizes, reverse=True)}
    for pairs in suite.pairs:
        say(f"{pairs.name}: {len(pairs.gold)} pairs from {pairs.source}")
        a, b = sts.embed_pairs(encode, pairs)
        results[pairs.name] = sts.score(a, b, pairs)
        for size, scores in of_sizes.items():
            scores[pairs.name] = sts.score(a[:, :size], b[:, :size], pairs).all.spearman
        if pairs is suite.development_set:
            measured = geometry.measure(a, b, pairs)
    own, answers = [], {}
    for each in suite.on:
        say(f"{each.name}: {each.size} from {each.source}")
        (figures, answers[each.name]), *cut = each.score_sizes(encode, tuple(of_sizes))
        for found, scores in zip(cut, of_sizes.values(), strict=True):
            scores[each.name] = found.figures[each.headline]
        own.append((each, figures))
    classified = {}
    for name, where in suite.transfer.items():
        say(f"{name}: logistic regression on {where}")
        classified[name] = transfer.evaluate(encode, name, where)
    return Judgement(results, suite.development_set, measured, classified, suite.missing, tuple(own), answers, of_sizes)


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
    setting: str, table: Any, directory: Path | str | None, tasks: Sequence[str]
) -> tuple[dict[str, Path], list[str]]:
    """The tasks of a table that are to be read, with their directory, and those that were looked for in vain."""
    named = [name for name in tasks if name in table.TASKS]
    if directory is None:
        if named:
            raise UserError(f"`tasks` {' '.join(named)}: set `{setting}` to the directory that holds them.")
        return {}, []
    # A set that was named has to be there: `load` says which file is not.
    found, missing = (named, []) if tasks else table.available(directory)
    return dict.fromkeys(found, Path(directory)), missing
