"""Semantic textual similarity: does cosine similarity rank sentence pairs as people do?

Protocol (Gao et al. 2021, section 6.1 and appendix B): no regressor, Spearman's correlation x 100, a task's subsets
concatenated ("all"), STS13 without its SMT subset. Pearson, each subset, "mean" and "wmean" (weighted by pairs) are
for comparison with papers that report those. Runs of whitespace count as one space, as in SentEval; nothing else is
done to the text, while SentEval's download script also tokenises and lowercases it.

Everything depends on a function `encode(list[str]) -> (n, dim)` alone. A new task is one entry in `TASKS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from simcse_tf.errors import UserError, did_you_mean
from simcse_tf.evaluation.embedding import Encode, check, embed, unit
from simcse_tf.evaluation.pairs import (
    Pairs,
    Row,
    bundled,
    from_rows,
    from_tfds,
    read_benchmark,
    read_pairs,
    read_semeval,
    read_sick,
)

__all__ = [
    "TASKS",
    "Correlation",
    "Pairs",
    "Result",
    "Task",
    "available",
    "bundled",
    "embed_pairs",
    "evaluate",
    "from_tfds",
    "load",
    "read_pairs",
    "score",
    "spearman_of_samples",
]


# What to do where sets are missing, for messages.
FETCH = "python -m simcse_tf.evaluate with `fetch` downloads the STS sets"


class Correlation(NamedTuple):
    """Agreement of cosine similarities with grades, x 100."""

    spearman: float
    pearson: float


@dataclass(frozen=True, eq=False)
class Result:
    """What `score` found; `all` is the figure that the paper reports, `cosines` `(n,)` is for plots."""

    task: str
    source: str
    all: Correlation
    mean: Correlation
    wmean: Correlation
    subsets: dict[str, Correlation]
    cosines: np.ndarray
    gold: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """The figures without the arrays, ready for JSON."""
        return {
            "source": self.source,
            "pairs": len(self.gold),
            **{name: getattr(self, name)._asdict() for name in ("all", "mean", "wmean")},
            "subsets": {name: correlation._asdict() for name, correlation in self.subsets.items()},
        }


@dataclass(frozen=True)
class Task:
    """One STS set in SentEval's layout.

    Attributes:
        folder: Under the STS directory.
        files: What a subset is read from; `{}` stands for its name.
        subsets: Name to number of scored pairs, in the protocol's order.
        read: Turns the paths of one subset's files into its scored rows.
        lowest: The lowest grade on the scale; the highest is 5.
    """

    folder: str
    files: tuple[str, ...]
    subsets: Mapping[str, int]
    read: Callable[..., list[Row]]
    lowest: float = 0.0

    @property
    def pairs(self) -> int:
        """Scored pairs in all subsets together."""
        return sum(self.subsets.values())

    def paths(self, sts_dir: Path, subset: str) -> list[Path]:
        """The files of `subset`."""
        return [sts_dir / self.folder / name.format(subset) for name in self.files]


_SEMEVAL = ("STS.input.{}.txt", "STS.gs.{}.txt")
_BENCHMARK = ("STS/STSBenchmark", ("sts-{}.csv",))
_STS12 = {"MSRpar": 750, "MSRvid": 750, "SMTeuroparl": 459, "surprise.OnWN": 750, "surprise.SMTnews": 399}
_STS13 = {"FNWN": 189, "headlines": 750, "OnWN": 561}
_STS14 = {"deft-forum": 450, "deft-news": 300, "headlines": 750, "images": 750, "OnWN": 750, "tweet-news": 750}
_STS15 = {"answers-forums": 375, "answers-students": 750, "belief": 375, "headlines": 750, "images": 750}
_STS16 = {"answer-answer": 254, "headlines": 249, "plagiarism": 230, "postediting": 244, "question-question": 209}

TASKS: dict[str, Task] = {
    "STS12": Task("STS/STS12-en-test", _SEMEVAL, _STS12, read_semeval),
    "STS13": Task("STS/STS13-en-test", _SEMEVAL, _STS13, read_semeval),
    "STS14": Task("STS/STS14-en-test", _SEMEVAL, _STS14, read_semeval),
    "STS15": Task("STS/STS15-en-test", _SEMEVAL, _STS15, read_semeval),
    "STS16": Task("STS/STS16-en-test", _SEMEVAL, _STS16, read_semeval),
    "STSB-dev": Task(*_BENCHMARK, {"dev": 1500}, read_benchmark),
    "STSB-test": Task(*_BENCHMARK, {"test": 1379}, read_benchmark),
    "SICK-R": Task("SICK", ("SICK_{}_annotated.txt",), {"test": 4927}, read_sick, lowest=1.0),
}


def _task(name: str) -> Task:
    if name not in TASKS:
        raise UserError(f"unknown STS task '{name}'. {did_you_mean(name, TASKS)}")
    return TASKS[name]


def available(sts_dir: Path | str, tasks: Iterable[str] | None = None) -> tuple[list[str], list[str]]:
    """Which tasks `sts_dir` holds.

    Args:
        sts_dir: The directory that holds `STS/` and `SICK/`.
        tasks: Names to look for; all of `TASKS` if not given.

    Returns:
        Names found and names missing, in the order asked. A task of which any file is there counts as found, so that
        `load` says which one it lacks.

    Raises:
        UserError: Unknown task, or no such directory.
    """
    sts_dir = Path(sts_dir)
    if not sts_dir.is_dir():
        raise UserError(
            f"{sts_dir}: no such directory. Expected the one with STS/ and SICK/ in it (SentEval's layout)."
        )
    names = list(TASKS if tasks is None else tasks)
    files = {name: [p for s in _task(name).subsets for p in _task(name).paths(sts_dir, s)] for name in names}
    found = [name for name in names if any(path.is_file() for path in files[name])]
    return found, [name for name in names if name not in found]


def load(task: str, sts_dir: Path | str) -> Pairs:
    """Reads one task from SentEval's layout.

    Raises:
        UserError: Unknown task; a file is missing, cut off, not UTF-8 or has the wrong columns; a grade is not a number
            or off the scale; another number of pairs than the task has. Names file and line.
    """
    spec = _task(task)
    folder = Path(sts_dir) / spec.folder
    subsets = {}
    for name, expected in spec.subsets.items():
        paths = spec.paths(Path(sts_dir), name)
        for path in paths:
            if not path.is_file():
                raise UserError(
                    f"{path}: not found, and {task} needs it. Expected SentEval's layout under `sts_dir`; {FETCH}."
                )
        subsets[name] = spec.read(*paths)
        if len(subsets[name]) != expected:
            raise UserError(
                f"{paths[-1]}: {len(subsets[name])} scored pairs, but {task} has {expected} here. "
                "Is the file cut off? Get it again."
            )
    return from_rows(task, subsets, source=str(folder), lowest=spec.lowest)


def embed_pairs(encode: Encode, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Embeds both sides of `pairs`, each distinct sentence once.

    Returns:
        Two `(n, dim)` float arrays, which `score` and `geometry.measure` take.

    Raises:
        UserError: The encoder's answer is not one finite vector per sentence.
    """
    vectors = embed(encode, pairs.a + pairs.b, pairs.name)
    return vectors[: len(pairs.a)], vectors[len(pairs.a) :]


def score(embeddings_a: np.ndarray, embeddings_b: np.ndarray, pairs: Pairs) -> Result:
    """Correlates the cosine similarity of embedded pairs with their grades.

    Args:
        embeddings_a: `(n, dim)` float, for `pairs.a`; any length.
        embeddings_b: The same for `pairs.b`.
        pairs: The sentences and grades.

    Raises:
        UserError: An embedding is missing, not finite or zero, or a correlation is undefined; names the task.
    """
    a = unit(check(embeddings_a, pairs.a, pairs.name), pairs.a, pairs.name)
    b = unit(check(embeddings_b, pairs.b, pairs.name), pairs.b, pairs.name)
    if a.shape != b.shape:
        raise UserError(f"{pairs.name}: the two sides have embeddings of {a.shape[1]} and {b.shape[1]} numbers.")
    # Equal sentences must tie, which the last bits of their cosine 1 would undo.
    cosines = np.round(np.sum(a * b, axis=1), 12)
    subsets = {s: _correlate(cosines[at], pairs.gold[at], f"{pairs.name} {s}") for s, at in pairs.subsets.items()}
    weights = [len(pairs.gold[at]) for at in pairs.subsets.values()]
    table = np.array(list(subsets.values()))
    return Result(
        task=pairs.name,
        source=pairs.source,
        all=_correlate(cosines, pairs.gold, pairs.name),
        mean=Correlation(*np.average(table, axis=0).tolist()),
        wmean=Correlation(*np.average(table, axis=0, weights=weights).tolist()),
        subsets=subsets,
        cosines=cosines,
        gold=pairs.gold,
    )


def evaluate(encode: Encode, pairs: Pairs) -> Result:
    """Embeds `pairs` and scores them.

    Raises:
        UserError: As `embed_pairs` and `score`.
    """
    return score(*embed_pairs(encode, pairs), pairs)


def spearman_of_samples(cosines: np.ndarray, gold: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Spearman's correlation x 100 of samples of the pairs, for bootstrap intervals.

    Args:
        cosines: `(n,)` of the pairs.
        gold: `(n,)` their grades.
        samples: `(samples, n)` int, the pairs of each.

    Returns:
        `(samples,)` float; NaN where all grades or all cosines of a sample are equal.
    """
    from scipy.stats import rankdata

    a, b = (rankdata(values[samples], axis=1) for values in (cosines, gold))
    a, b = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100 * np.sum(a * b, axis=1) / np.sqrt(np.sum(a * a, axis=1) * np.sum(b * b, axis=1))


def ranks(values: np.ndarray) -> np.ndarray:
    """The places of numbers in their order, from 1 on; equal ones share the mean of theirs: `(n,)` to `(n,)`.

    As scipy.stats.rankdata, which a training run does without: importing it would delay the first step.
    """
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


def _correlate(cosines: np.ndarray, gold: np.ndarray, where: str) -> Correlation:
    if np.ptp(gold) == 0:
        raise UserError(
            f"{where}: the gold scores of all {len(gold)} pairs are {gold[0]:g}: no correlation is defined."
        )
    # float32 rounding alone spreads the similarities of equal vectors by about 1e-7.
    if np.ptp(cosines) < 1e-6:
        raise UserError(
            f"{where}: every pair has the same similarity ({cosines[0]:.6f}): no correlation is defined. "
            "The encoder gives every sentence the same direction; has training collapsed?"
        )
    # Laid out as scipy.stats.spearmanr does: the same to the last bit.
    spearman = np.corrcoef(np.column_stack([ranks(cosines), ranks(gold)]), rowvar=False)[0, 1]
    return Correlation(100 * float(spearman), 100 * float(np.corrcoef(cosines, gold)[0, 1]))
