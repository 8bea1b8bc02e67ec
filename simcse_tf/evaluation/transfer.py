"""SentEval's transfer tasks: logistic regression on frozen embeddings (Conneau & Kiela 2018; Gao et al. 2021, app. E).

MR, CR, SUBJ and MPQA have no splits and are cross-validated, TREC and MRPC have a test split, SST2 a development split
too: `classifier` has the protocol for each. Examples are sorted by number of words, as SentEval sorts them, because
that decides what its folds hold. Embeddings go in as the encoder gives them, unscaled; a pair (u, v) becomes
[|u - v|, u * v]. Runs of whitespace count as one space.

Needs scikit-learn (the extra `eval`). A new task is one entry in `TASKS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simcse_tf.checks import require
from simcse_tf.errors import UserError, did_you_mean
from simcse_tf.evaluation.classifier import classify
from simcse_tf.evaluation.embedding import Encode, embed
from simcse_tf.evaluation.reading import columns, read_lines, tidy


@dataclass(frozen=True)
class Examples:
    """One split: sentences `a`, the other sentences `b` of a pair task (else None), and integer `labels`."""

    a: list[str]
    b: list[str] | None
    labels: list[int]


@dataclass(frozen=True)
class Task:
    """One transfer task in SentEval's layout.

    Attributes:
        splits: Split to its files under the transfer directory; the names decide the protocol (see `classifier`).
        read: Turns the paths of one split into its examples.
        published: Examples per split in the set that published figures are measured on.
    """

    splits: Mapping[str, tuple[str, ...]]
    read: Callable[..., Examples]
    published: Mapping[str, int]


@dataclass(frozen=True)
class Result:
    """Accuracies x 100 of one task.

    Attributes:
        task: Its name, as in `TASKS`.
        accuracy: On the test split, or over the outer folds.
        dev_accuracy: Of the regularisation that was picked, where it was picked.
        f1: Of the positive class x 100; for MRPC alone.
        examples: Per split, as read.
        note: What differs if the sizes are not those of the published set; else empty.
    """

    task: str
    accuracy: float
    dev_accuracy: float
    f1: float | None
    examples: dict[str, int]
    note: str


def _read_two_classes(positive: Path, negative: Path) -> Examples:
    texts = [[tidy(line) for line in read_lines(path, "latin-1")] for path in (positive, negative)]
    for path, sentences in zip((positive, negative), texts, strict=True):
        if not sentences:
            raise UserError(f"{path}: no sentences. Is the file complete?")
    return Examples(texts[0] + texts[1], None, [1] * len(texts[0]) + [0] * len(texts[1]))


def _read_sst(path: Path) -> Examples:
    rows = [columns(line, 2, f"{path}:{number}")[:2] for number, line in enumerate(read_lines(path), 1)]
    labels = [_label(row[1], ["0", "1"], f"{path}:{number}") for number, row in enumerate(rows, 1)]
    return Examples([tidy(sentence) for sentence, _ in rows], None, labels)


def _read_trec(path: Path) -> Examples:
    sentences, labels = [], []
    for number, line in enumerate(read_lines(path, "latin-1"), 1):
        kind, _, question = line.strip().partition(" ")
        coarse, colon, _ = kind.partition(":")
        if not colon or not question:
            raise UserError(f"{path}:{number}: expected 'LABEL:detail question', not {line[:60]!r}.")
        labels.append(_label(coarse, ["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"], f"{path}:{number}"))
        sentences.append(tidy(question))
    return Examples(sentences, None, labels)


def _read_mrpc(path: Path) -> Examples:
    header, *lines = read_lines(path) or [""]
    if not header.startswith("Quality"):
        raise UserError(
            f"{path}:1: expected the header 'Quality, #1 ID, #2 ID, #1 String, #2 String', not {header[:60]!r}."
        )
    rows = [columns(line, 5, f"{path}:{number}") for number, line in enumerate(lines, 2)]
    labels = [_label(row[0], ["0", "1"], f"{path}:{number}") for number, row in enumerate(rows, 2)]
    return Examples([tidy(row[3]) for row in rows], [tidy(row[4]) for row in rows], labels)


def _label(text: str, valid: list[str], where: str) -> int:
    if text.strip() not in valid:
        raise UserError(f"{where}: unknown label {text!r}. Expected one of {', '.join(valid)}.")
    return valid.index(text.strip())


def _two_classes(positive: str, negative: str, published: int) -> Task:
    return Task({"all": (positive, negative)}, _read_two_classes, {"all": published})


TASKS: dict[str, Task] = {
    "MR": _two_classes("MR/rt-polarity.pos", "MR/rt-polarity.neg", 10_662),
    "CR": _two_classes("CR/custrev.pos", "CR/custrev.neg", 3_775),
    # SentEval gives the objective sentences label 1; its folds depend on that.
    "SUBJ": _two_classes("SUBJ/subj.objective", "SUBJ/subj.subjective", 10_000),
    "MPQA": _two_classes("MPQA/mpqa.pos", "MPQA/mpqa.neg", 10_606),
    "SST2": Task(
        {split: (f"SST/binary/sentiment-{split}",) for split in ("train", "dev", "test")},
        _read_sst,
        {"train": 67_349, "dev": 872, "test": 1_821},
    ),
    "TREC": Task(
        {"train": ("TREC/train_5500.label",), "test": ("TREC/TREC_10.label",)},
        _read_trec,
        {"train": 5_452, "test": 500},
    ),
    "MRPC": Task(
        {split: (f"MRPC/msr_paraphrase_{split}.txt",) for split in ("train", "test")},
        _read_mrpc,
        {"train": 4_076, "test": 1_725},
    ),
}


def available(transfer_dir: Path | str, tasks: Iterable[str] | None = None) -> tuple[list[str], list[str]]:
    """Which tasks `transfer_dir` (SentEval's `downstream`) holds.

    Returns:
        Names found and names missing, in the order asked (all of `TASKS` by default). A task of which any file is
        there counts as found, so that `load` says which one it lacks.

    Raises:
        UserError: Unknown task, or no such directory.
    """
    directory = Path(transfer_dir)
    if not directory.is_dir():
        raise UserError(
            f"{directory}: no such directory. Expected SentEval's downstream folder, with MR/, CR/ and so on."
        )
    names = list(TASKS if tasks is None else tasks)
    files = {name: [f for split in _task(name).splits.values() for f in split] for name in names}
    found = [name for name in names if any((directory / file).is_file() for file in files[name])]
    return found, [name for name in names if name not in found]


def load(task: str, transfer_dir: Path | str) -> dict[str, Examples]:
    """Reads the splits of one task, each sorted as SentEval sorts it.

    Raises:
        UserError: Unknown task; a file is missing, empty or not in its format; names file and line.
    """
    spec = _task(task)
    splits = {}
    for split, files in spec.splits.items():
        examples = spec.read(*(Path(transfer_dir) / file for file in files))
        if not examples.a:
            raise UserError(f"{Path(transfer_dir) / files[0]}: no sentences. Is the file complete?")
        splits[split] = _sorted(examples)
    return splits


def check_installed() -> None:
    """Checks for scikit-learn without importing it.

    Raises:
        UserError: It is missing; names the extra that brings it.
    """
    require("sklearn", "eval", "transfer tasks need scikit-learn")


def evaluate(encode: Encode, task: str, transfer_dir: Path | str, *, folds: int = 10) -> Result:
    """Embeds the sentences of one task, each distinct one once, and trains and tests the classifiers.

    Args:
        encode: Strings to `(n, dim)` float.
        task: A name in `TASKS`.
        transfer_dir: SentEval's `downstream` folder.
        folds: Of every cross-validation; SentEval's published protocol has 10.

    Raises:
        UserError: scikit-learn is missing; as `load`; fewer examples of a class than folds; an embedding is missing or
            not finite.
    """
    check_installed()
    splits = load(task, transfer_dir)
    _check_classes(task, splits, folds)
    sentences = [sentence for examples in splits.values() for sentence in examples.a + (examples.b or [])]
    vectors = dict(zip(sentences, embed(encode, sentences, task), strict=True))
    data = {split: (_features(examples, vectors), np.array(examples.labels)) for split, examples in splits.items()}
    outcome = classify(data, folds)
    f1 = None
    if outcome.predictions is not None and splits["test"].b is not None:
        f1 = 100 * _f1(outcome.predictions, data["test"][1])
    sizes = {split: len(examples.a) for split, examples in splits.items()}
    return Result(task, outcome.accuracy, outcome.dev_accuracy, f1, sizes, _note(sizes, TASKS[task].published))


def _task(name: str) -> Task:
    if name not in TASKS:
        raise UserError(f"unknown transfer task '{name}'. {did_you_mean(name, TASKS)}")
    return TASKS[name]


def _sorted(examples: Examples) -> Examples:
    b = examples.b or [""] * len(examples.a)
    keys = [(len(a.split()), len(b.split()), y) for a, b, y in zip(examples.a, b, examples.labels, strict=True)]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return Examples(
        [examples.a[i] for i in order],
        None if examples.b is None else [examples.b[i] for i in order],
        [examples.labels[i] for i in order],
    )


def _check_classes(task: str, splits: dict[str, Examples], folds: int) -> None:
    split = "all" if "all" in splits else "train"
    files = ", ".join(TASKS[task].splits[split])
    counts = np.bincount(splits[split].labels)
    smallest = int(counts[counts > 0].min())
    # What is left of the smallest class in the training part of an outer fold feeds the inner folds.
    left = {"all": smallest - math.ceil(smallest / folds), "train": smallest}[split]
    if np.count_nonzero(counts) < 2 or ("dev" not in splits and left < folds):
        raise UserError(
            f"{task} ({files}): {np.count_nonzero(counts)} class(es), {smallest} examples of the smallest; "
            f"{folds}-fold cross-validation needs at least 2 classes with more examples than that. Is a file cut off?"
        )


def _features(examples: Examples, vectors: dict[str, np.ndarray]) -> np.ndarray:
    u = np.stack([vectors[sentence] for sentence in examples.a]).astype(np.float64)
    if examples.b is None:
        return u
    v = np.stack([vectors[sentence] for sentence in examples.b]).astype(np.float64)
    return np.hstack([np.abs(u - v), u * v])


def _f1(predicted: np.ndarray, gold: np.ndarray) -> float:
    hits = np.sum((predicted == 1) & (gold == 1))
    return float(2 * hits / max(np.sum(predicted == 1) + np.sum(gold == 1), 1))


def _note(sizes: Mapping[str, int], published: Mapping[str, int]) -> str:
    other = [
        f"{split} has {sizes[split]:,} examples, not {published[split]:,}"
        for split in published
        if sizes[split] != published[split]
    ]
    return f"not comparable with published figures: {'; '.join(other)}" if other else ""
