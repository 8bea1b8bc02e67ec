"""The tables of objectives and of small vectors: which rows there are, what is said of them. Trains nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks import objectives, small_vectors
from benchmarks.measurements import over_seeds, paired_difference
from simcse_tf import UserError
from simcse_tf.serving import compact

TABLE = objectives.Table("A table", "unsup-bert-base", choices=("--temperature 0.1",), objectives=("--decoupled",))
FIGURES = ("STSB-dev", "STSB-test", "STS12", "recall@1", "mrr@10")


def row(command, seed, score, last=None):
    figures = {"best": dict.fromkeys(FIGURES, score), "last": dict.fromkeys(FIGURES, score if last is None else last)}
    return {"command": command, "seed": seed, "documents": "abc"} | figures


def test_rows_come_in_the_order_of_what_they_are_worth():
    assert objectives.planned([TABLE], [1, 2, 3, 4]) == [
        (TABLE.before, None),
        *[("unsup-bert-base", seed) for seed in (1, 2, 3)],
        ("unsup-bert-base --temperature 0.1", 1),
        *[("unsup-bert-base --decoupled", seed) for seed in (1, 2, 3)],
        ("unsup-bert-base", 4),
        ("unsup-bert-base --decoupled", 4),
    ]


@pytest.mark.parametrize("name", objectives.TABLES)
def test_a_row_trains_its_command_on_the_data_that_is_here(name, tmp_path):
    config = objectives.configuration(objectives.TABLES[name].base, 7, Path("shared"), tmp_path)
    config.validate()
    assert config.data in ("bundled", "shared/wiki_sentences.txt", "shared/nli_triplets.csv")
    assert (config.seed, config.sts_dir, config.output_dir) == (7, Path("shared/sts"), tmp_path)
    assert config.temperature == (0.1 if name in ("unsupervised", "bundled") else 0.05)


def test_an_interrupted_command_continues_with_the_rows_that_are_missing(tmp_path):
    path, tasks, made = tmp_path / "rows.jsonl", objectives.planned([TABLE], [1, 2]), []

    def measure(command, seed):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append((command, seed))
        return {"best": {}}

    with pytest.raises(KeyboardInterrupt):
        objectives.measure_missing(path, tasks, "abc", measure)
    assert [(each["command"], each["seed"]) for each in objectives.read(path)] == tasks[:2]
    rest = iter(tasks[2:])
    objectives.measure_missing(path, tasks, "abc", lambda *task: {"best": {}} if task == next(rest) else None)
    assert [(each["command"], each["seed"]) for each in objectives.read(path)] == tasks
    objectives.measure_missing(path, tasks, "abc", lambda *task: pytest.fail(f"{task} is there"))


def test_rows_that_search_other_documents_are_not_continued(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row("unsup-bert-base", 1, 0.0)) + "\n", "utf-8")
    with pytest.raises(UserError, match=r"rows\.jsonl.*\(abc\).*\(def\).*--rows"):
        objectives.measure_missing(path, [], "def", lambda command, seed: {})


def test_the_paired_difference_is_scipys():
    rng = np.random.default_rng(0)
    baseline = rng.normal(80, 1, 5)
    figures = baseline + rng.normal(0.3, 0.2, 5)
    found = paired_difference(figures.tolist(), baseline.tolist())
    expected = stats.ttest_rel(figures, baseline)
    assert found.mean == pytest.approx(np.mean(figures - baseline))
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.is_none == (expected.pvalue > 0.05)


def test_one_pair_has_no_interval_and_shows_neither_difference_nor_none():
    found = paired_difference([2.0], [1.5])
    assert (found.mean, found.interval, found.is_none) == (0.5, None, False)


def test_the_deviation_is_that_of_a_sample():
    assert over_seeds([1.0, 2.0, 3.0]) == "2.00 ± 1.00"
    assert over_seeds([1.0]) == "1.00"


@pytest.fixture
def shown(monkeypatch):
    """The lines that are made of rows."""
    monkeypatch.setattr(objectives, "TABLES", {"a": TABLE})
    return lambda rows: objectives.markdown(rows, None).splitlines()


def test_the_table_has_means_with_deviations_of_the_best_and_the_last_step(shown):
    before = {"command": TABLE.before, "seed": None, "documents": "abc", "best": dict.fromkeys(FIGURES, 70.0)}
    lines = shown([before, *(row("unsup-bert-base", seed, 80 + seed, last=79 + seed) for seed in (1, 2, 3))])
    assert f"| before training | |{' 70.00 |' * 5} | |" in lines
    assert f"| plain InfoNCE | 3 |{' 82.00 ± 1.00 |' * 5}{' 81.00 ± 1.00 |' * 2}" in lines
    assert not any("against plain" in line for line in lines)


@pytest.mark.parametrize(
    ("gains", "seeds", "cell"),
    [
        ((1.0, 1.1, 0.9), 3, "**+1.00 (+0.75 to +1.25)**"),
        ((1.0, -1.0, 0.3), 3, "+0.10 (-2.42 to +2.62), no difference"),
        ((0.4,), 1, "+0.40, one seed"),
    ],
    ids=["won", "nothing", "one"],
)
def test_differences_are_between_rows_of_the_same_seed(shown, gains, seeds, cell):
    rows = [row("unsup-bert-base", seed, 10.0 * seed) for seed in range(4)]
    rows += [row("unsup-bert-base --decoupled", seed, 10.0 * seed + gain) for seed, gain in enumerate(gains)]
    assert f"| `--decoupled` | {seeds} |" + f" {cell} |" * 4 in shown(rows)


def test_a_step_costs_what_it_takes_beside_plain_infonce_in_the_same_round():
    lines = objectives.cost_table({"rounds": {"plain InfoNCE": [1.0, 2.0, 4.0], "`--decoupled`": [1.1, 2.2, 4.4]}})
    assert lines.splitlines()[2:] == ["| plain InfoNCE | 2.00 | 1.000 |", "| `--decoupled` | 2.20 | 1.100 |"]


def test_sizes_and_bits_are_compared_over_seeds():
    def row(command, seed, *scores):
        cells = {
            f"{dim}:{bits}": {"STSB-dev": score, "recall@10": 0.5, "ms": 1.0}
            for dim, score in zip((30, 10), scores, strict=True)
            for bits in (32, 8, 1)
        }
        return {"command": command, "seed": seed, "cells": cells}

    rows = [row("a", None, 80, 70), row("a", 1, 84, 63), row("a", 2, 88, 66), row("b", 2, 87, 87), row("b", 1, 83, 83)]
    lines = small_vectors.markdown(rows, "a", "b", [30, 10]).splitlines()
    assert lines[2] == (
        "| 30 | 32 | 120 | 1.0 | 80.00 | 86.00 ± 2.83 | 85.00 ± 2.83 | 50.00 | 50.00 ± 0.00 | 50.00 ± 0.00 |"
    )
    assert [line.split(" | ")[:3] for line in lines[3:8]] == [
        ["| 30", "8", "30"],
        ["| 30", "1", "3"],
        ["| 10", "32", "40"],
        ["| 10", "8", "10"],
        ["| 10", "1", "1"],
    ]
    assert "- plain: 10 of 30 numbers keep 75.00 ± 0.00 % of STS-B dev" in lines
    assert lines[-1] == "- Matryoshka against plain, all numbers, 2 seeds: -1.00 (-1.00 to -1.00)"


def test_an_index_of_whole_vectors_finds_what_is_nearest():
    pytest.importorskip("faiss")
    vectors = np.random.default_rng(0).normal(size=(300, 16)).astype("float32")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    exact = np.argsort(-(vectors[:60] @ vectors.T), axis=1)[:, :10]
    assert small_vectors.search(vectors, 32, vectors[:60], exact)["recall@10"] == 1
    assert small_vectors.search(compact.shortened(vectors, 4), 1, vectors[:60], exact)["recall@10"] < 0.9
