"""Graded sentence pairs: SentEval's file formats, our own, and TensorFlow Datasets' STS-B."""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from simcse_tf.data import tfds
from simcse_tf.errors import UserError
from simcse_tf.evaluation.reading import columns, read_lines, tidy


@dataclass(frozen=True, eq=False)
class Pairs:
    """Sentence pairs with the grades that people gave them.

    Attributes:
        name: The task's name, as in `TASKS`; of other pairs that of their file.
        a: The first sentence of each of the `n` pairs.
        b: The second sentence of each.
        gold: `(n,)` float, the grades.
        subsets: Which pairs are in which subset; together they cover every pair.
        source: Where the pairs were loaded from.
    """

    name: str
    a: list[str]
    b: list[str]
    gold: np.ndarray
    subsets: dict[str, slice]
    source: str


class Row(NamedTuple):
    """One pair as read: `where` (file and line) is for error messages, `grade` is not checked yet."""

    where: str
    grade: str
    a: str
    b: str


def read_semeval(inputs: Path, golds: Path) -> list[Row]:
    """SemEval's two files: tab-separated sentences, and their grades line by line, blank where nobody graded.

    Raises:
        UserError: The files differ in length, or a graded line has fewer than two columns.
    """
    sentences, grades = read_lines(inputs), read_lines(golds)
    if len(sentences) != len(grades):
        raise UserError(
            f"{golds}: {len(grades)} lines, but {inputs.name} beside it has {len(sentences)}, "
            "and each line grades the same line there. Get both files again."
        )
    rows = []
    for number, (sentence, grade) in enumerate(zip(sentences, grades, strict=True), 1):
        if grade.strip():
            a, b = columns(sentence, 2, f"{inputs}:{number}")[:2]
            rows.append(Row(f"{golds}:{number}", grade, a, b))
    return rows


def read_benchmark(path: Path) -> list[Row]:
    """STS-B's file: no header, tab-separated, unquoted, grade in column 5, sentences in 6 and 7.

    Raises:
        UserError: A line has fewer columns.
    """
    lines = [(f"{path}:{number}", line) for number, line in enumerate(read_lines(path), 1)]
    return [Row(where, *columns(line, 7, where)[4:7]) for where, line in lines]


def read_table(path: Path, grade: str, a: str, b: str) -> list[Row]:
    """A tab-separated, unquoted file whose header has the three named columns.

    Raises:
        UserError: The header lacks a column, or a line has fewer columns than the header.
    """
    header, *lines = read_lines(path) or [""]
    names = header.split("\t")
    for name in (grade, a, b):
        if name not in names:
            raise UserError(f"{path}:1: the header has no column '{name}', it has {names}. Is it another file?")
    rows = []
    for number, line in enumerate(lines, 2):
        cells = columns(line, len(names), f"{path}:{number}")
        rows.append(Row(f"{path}:{number}", *(cells[names.index(name)] for name in (grade, a, b))))
    return rows


def read_sick(path: Path) -> list[Row]:
    """SICK's annotated file; raises as `read_table`."""
    return read_table(path, "relatedness_score", "sentence_A", "sentence_B")


def read_pairs(path: Path | str, name: str | None = None) -> Pairs:
    """Reads tab-separated pairs with the header `score sentence1 sentence2`, graded 0 to 5.

    Args:
        path: The file.
        name: What scores of these pairs are called; the file's name without its suffix if not given.

    Raises:
        UserError: The file is not that; names it and the line.
    """
    name = name or Path(path).stem
    return from_rows(name, {name: read_table(Path(path), "score", "sentence1", "sentence2")}, source=str(path))


def bundled() -> Pairs:
    """The pairs written for this project: a smoke test, not a benchmark."""
    with importlib.resources.as_file(importlib.resources.files("simcse_tf.data.corpora") / "pairs.tsv") as path:
        return read_pairs(path, "bundled")


def from_tfds(tfds_dir: Path | str | None = None) -> Pairs:
    """STS-B's development set as TensorFlow Datasets has it (`glue/stsb`, validation).

    Args:
        tfds_dir: Where TFDS keeps its data; its own default if not given.

    Raises:
        UserError: TFDS is not installed; the set is not there, and there is no network to get it from.
    """
    where = "tfds:glue/stsb, validation"
    found = tfds.examples(
        "glue/stsb",
        "validation",
        ("sentence1", "sentence2"),
        label="label",
        tfds_dir=tfds_dir,
        offline="Without a network, set `sts_dir` to SentEval's files, or judge by the bundled pairs",
    )
    rows = [
        # float32: 4.2 is 4.2 again, as in the file that TFDS read.
        Row(f"{where}, example {i}", str(np.float32(grade)), a.decode(), b.decode())
        for i, (a, b, grade) in enumerate(found)
    ]
    return from_rows("STSB-dev", {"dev": rows}, source=where)


def from_rows(name: str, subsets: dict[str, list[Row]], *, source: str, lowest: float = 0.0) -> Pairs:
    """Checks the grades of all rows, tidies their whitespace and lays the subsets end to end.

    Raises:
        UserError: No rows, or a grade that is not a number from `lowest` to 5; names file and line.
    """
    rows, slices = [], {}
    for subset, found in subsets.items():
        slices[subset] = slice(len(rows), len(rows) + len(found))
        rows += found
    if not rows:
        raise UserError(f"{source}: no graded pairs.")
    gold = np.array([_grade(row, lowest) for row in rows])
    return Pairs(name, [tidy(row.a) for row in rows], [tidy(row.b) for row in rows], gold, slices, source)


def _grade(row: Row, lowest: float) -> float:
    try:
        grade = float(row.grade)
    except ValueError:
        raise UserError(f"{row.where}: the score {row.grade!r} is not a number. Expected {lowest:g} to 5.") from None
    if not lowest <= grade <= 5:
        raise UserError(f"{row.where}: the score {row.grade} is out of range. Expected {lowest:g} to 5.")
    return grade
