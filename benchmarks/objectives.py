"""Objectives over seeds, each beside plain InfoNCE of the same seed: `python -m benchmarks.objectives`.

Every row is a run of `simcse_tf.train` with one command and one seed, from MiniLM: the encoders of its best and of its
last step, judged on STS-B's development and test set, on STS12, and on the test part of examples/docs_search.py, for
which the docstrings of installed packages are read. Only STS-B's development set selects: the best step, and between
the settings among a table's `choices`. Rows are kept in benchmarks/objectives.jsonl, a line each: the command continues
with those that are missing, the first three seeds of everything before the others. A row takes 3 to 4 minutes on 2
quiet cores, by estimate, and all 221 most of a day. One process makes them all, since starting TensorFlow takes as long
as an evaluation; a row does not depend on those before it.

`--table` prints docs/benchmarks/objectives.md's tables and trains nothing. `--cost` measures instead how long a step of
each objective takes: one step of each in turn, all in one process, on a quiet machine; about 10 minutes.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import docs_search
from benchmarks.measurements import Measurement, over_seeds, paired_difference
from benchmarks.texts import SHARED
from benchmarks.workers import ROOT
from simcse_tf import UserError, cli, quiet, runs, train
from simcse_tf.config import TrainConfig
from simcse_tf.files import read_json, sha256, write_whole

ROWS = Path(__file__).parent / "objectives.jsonl"
COST = Path(__file__).parent / "objectives-cost.json"
SEEDS = (42, 43, 44, 45, 46)
# What has this many seeds comes before further seeds of anything.
_FIRST_SEEDS = 3
_TASKS = ("STSB-dev", "STSB-test", "STS12")
# Figures and what they are called.
_FIGURES = {
    "STSB-dev": "STS-B dev",
    "STSB-test": "STS-B test",
    "STS12": "STS12",
    "recall@1": "docs, recall@1",
    "mrr@10": "docs, MRR@10",
}
# Of those, the ones that selected nothing.
_COMPARED = ("STSB-test", "STS12", "recall@1", "mrr@10")
# The packages whose documentation is searched: in the versions of constraints.txt it is the same on every machine.
_PACKAGES = ("keras", "keras_hub", "numpy", "scipy", "tensorflow")
_THREADS = 2
_PLAIN = "plain InfoNCE"


@dataclass(frozen=True)
class Table:
    """Runs that are compared with each other.

    Attributes:
        title: For people.
        base: The training command of plain InfoNCE, its data a file in --shared or `bundled`.
        choices: Flags of settings beside it; trained with the first seed, to choose by.
        objectives: Flags that are compared with it; trained with every seed.
        before: A command whose run begins with the same encoder.
    """

    title: str
    base: str
    choices: tuple[str, ...] = ()
    objectives: tuple[str, ...] = ()
    before: str = "--preset minilm --pooling avg"

    def command(self, flags: str = "") -> str:
        """The training command with further flags."""
        return f"{self.base} {flags}".rstrip()


_MASKED = "--preset minilm --mask-false-negatives"
# What costs nothing but its own arithmetic.
_FREE = (
    "--directions a2p p2a a2a p2p --joint",
    "--directions a2p p2a",
    "--directions a2p p2a a2a p2p",
    "--logits focal",
    "--logits arccon",
    "--decoupled",
    "--negatives mixed",
    "--add dimensions",
    "--add consistency",
    "--add align_uniform",
    "--loss align_uniform",
    "--learn-temperature",
    "--word-repetition 0.32",
)
_ENCODING = ("--negatives queue", "--negatives off_dropout")
_PAIRS = (
    "--word-repetition 0.32 --negatives queue",
    "--negatives off_dropout:1 --add dimensions",
    "--word-repetition 0.32 --directions a2p p2a a2a p2p --joint",
)
_TEACHER = ("--teacher minilm --teach mask", "--teacher minilm --teach listwise --add consistency")

TABLES = {
    "unsupervised": Table(
        "Unsupervised, mean pooling: 75 steps on Wikipedia sentences",
        f"unsup-bert-base {_MASKED} --pooling avg --temperature 0.1 --max-steps 75 --eval-every 25 "
        "--data wiki_sentences.txt",
        choices=("--temperature 0.05", "--learning-rate 5e-5"),
        objectives=(*_FREE, *_ENCODING, *_PAIRS, "--max-steps 186 --eval-every 62", *_TEACHER),
    ),
    "bundled": Table(
        "The quickstart's bundled sentences, mean pooling",
        "quickstart --temperature 0.1 --learning-rate 3e-5 --epochs 3 --eval-every 26 --data bundled",
        choices=("--temperature 0.05", "--learning-rate 1e-4", "--word-repetition 0.32"),
    ),
    "cls": Table(
        "Unsupervised, [CLS]: 75 steps on Wikipedia sentences",
        f"unsup-bert-base {_MASKED} --max-steps 75 --eval-every 25 --data wiki_sentences.txt",
        choices=("--temperature 0.1",),
        objectives=(
            "--directions a2p p2a a2a p2p --joint",
            "--negatives mixed",
            "--add dimensions",
            "--word-repetition 0.32",
            "--word-repetition 0.32 --negatives queue",
            "--negatives off_dropout:1 --add dimensions",
        ),
        before="--preset minilm --pooling cls",
    ),
    "supervised": Table(
        "Supervised, mean pooling: 46 steps on SNLI triplets",
        f"sup-bert-base {_MASKED} --pooling avg --head none --batch-size 64 --learning-rate 3e-5 --epochs 1 "
        "--eval-every 23 --data nli_triplets.csv",
        choices=("--temperature 0.1",),
        objectives=("--directions a2p p2a a2a p2p --joint", *(flags for flags in _FREE if "--directions" not in flags)),
    ),
}


def main(arguments: list[str]) -> None:
    """Makes the rows that are missing, or prints what there is."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.objectives",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--rows", type=Path, default=ROWS, help="where rows are kept")
    parser.add_argument("--shared", type=Path, default=SHARED, help="the folder of texts and STS data")
    build = ROOT / "build" / "objectives"
    parser.add_argument("--build", type=Path, default=build, help="where documents and the run at work are")
    parser.add_argument("--table", action="store_true", help="print the tables of the rows that are there")
    parser.add_argument("--cost", action="store_true", help="measure the time of a step instead")
    parser.add_argument("--rounds", type=int, default=20, help="of --cost")
    given = parser.parse_args(arguments)
    if given.table:
        print(markdown(read(given.rows), read_cost()))
        return
    if not given.shared.is_dir():
        raise UserError(f"--shared {given.shared}: is not a directory. Expected one with wiki_sentences.txt and sts/.")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:_THREADS])
    if given.cost:
        found = cost(given.shared, given.rounds)
        write_whole(COST, json.dumps(found, indent=1) + "\n")
        print(cost_table(found))
        return
    run, tasks = given.build / "run", planned([TABLES[name] for name in given.tables], given.seeds)
    # What is wrong with a command is found before the first one trains.
    for command in dict.fromkeys(command for command, _ in tasks):
        configuration(command, None, given.shared, run).validate()
    documents = _documents(given.build / "documents")
    measure_missing(
        given.rows,
        tasks,
        sha256(documents)[:12],
        lambda command, seed: measure(command, seed, given.shared, documents, run),
    )


# ---- Which rows there are ----


def planned(tables: Sequence[Table], seeds: Sequence[int]) -> list[tuple[str, int | None]]:
    """Commands with their seeds, in the order in which they are made; without a seed, the encoder before training."""
    found: list[tuple[str, int | None]] = [(table.before, None) for table in tables]
    for some, choosing in ((seeds[:_FIRST_SEEDS], True), (seeds[_FIRST_SEEDS:], False)):
        for table in tables:
            found += [(table.base, seed) for seed in some]
            found += [(table.command(flags), seeds[0]) for flags in table.choices if choosing]
            found += [(table.command(flags), seed) for flags in table.objectives for seed in some]
    return found


def read(path: Path) -> list[dict[str, Any]]:
    """The rows that are kept in a file; none if there is no file yet."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def measure_missing(
    path: Path,
    tasks: Iterable[tuple[str, int | None]],
    documents: str,
    measure: Callable[[str, int | None], dict[str, Any]],
) -> None:
    """Adds the rows that a file lacks, one by one.

    Args:
        path: The file.
        tasks: From `planned`.
        documents: The fingerprint of what is searched.
        measure: Makes the row of a command and a seed.

    Raises:
        UserError: Rows of the file were judged on other documents.
    """
    rows = read(path)
    if other := {row["documents"] for row in rows} - {documents}:
        raise UserError(
            f"{path}: its rows search other documents ({', '.join(sorted(other))}) than there are here ({documents}). "
            f"Install {', '.join(_PACKAGES)} in the versions of constraints.txt, or begin another file with --rows."
        )
    done = {(row["command"], row["seed"]) for row in rows}
    missing = [task for task in tasks if task not in done]
    took: list[float] = []
    for i, (command, seed) in enumerate(missing):
        left = f", about {median(took) * (len(missing) - i) / 3600:.1f} h left" if took else ""
        which = "before training" if seed is None else f"seed {seed}"
        print(f"row {i + 1} of {len(missing)}{left}: {command}, {which}", file=sys.stderr, flush=True)
        began = time.monotonic()
        rows.append({"command": command, "seed": seed, "documents": documents, **measure(command, seed)})
        took.append(time.monotonic() - began)
        write_whole(path, "".join(json.dumps(row) + "\n" for row in rows))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)


# ---- A row ----


def measure(command: str, seed: int | None, shared: Path, documents: Path, to: Path) -> dict[str, Any]:
    """Trains once; the figures of the best and of the last step, or without a seed those before training."""
    with cli.lean_imports():
        quiet.import_tensorflow()
    import keras

    from simcse_tf import SentenceEncoder
    from simcse_tf.formats import presets
    from simcse_tf.training import keep

    def judge(encoder: SentenceEncoder, **known: float) -> dict[str, float]:
        tasks = [name for name in _TASKS if name not in known]
        found = docs_search.scores(encoder, documents, shared / "sts", tasks) | known
        return {name: round(found[name], 4) for name in _FIGURES}

    began, config = time.process_time(), configuration(command, seed, shared, to)
    if seed is None:
        row: dict[str, Any] = {"best": judge(keep.starting_encoder(presets.locate(config.preset), config))}
    else:
        model, _ = docs_search.trained(config)
        run = runs.read(to)
        best, last = run.best, run.evaluations[-1]
        row = {"steps": run.steps, "best_step": best["step"]}
        row["last"] = judge(model.encoder, **{"STSB-dev": last["dev"]})
        del model
        row["best"] = row["last"]
        if best["step"] < run.steps:
            row["best"] = judge(SentenceEncoder.from_preset(str(to)), **{"STSB-dev": best["dev"]})
    # The next row begins with the memory of this one.
    keras.backend.clear_session()
    gc.collect()
    return row | {"cpu_seconds": round(time.process_time() - began)}


def configuration(command: str, seed: int | None, shared: Path, to: Path) -> TrainConfig:
    """What a row's command trains here."""
    config = train.parse(command.split())
    return replace(
        config,
        data=config.data if config.data == "bundled" else str(shared / config.data),
        seed=config.seed if seed is None else seed,
        sts_dir=shared / "sts",
        output_dir=to,
        export_to=None,
        report=False,
        overwrite=True,
    )


def _documents(to: Path) -> Path:
    """The test part of the example's corpus, made once."""
    if not (to / "test.csv").is_file():
        installed = Path(sysconfig.get_path("purelib"))
        docs_search.load_example().write_corpus([installed / name for name in _PACKAGES], to)
    return to / "test.csv"


# ---- What a step costs ----


def cost(shared: Path, rounds: int) -> dict[str, Any]:
    """Seconds of whole training steps, one of each objective in turn on the same batch; the first two do not count."""
    with cli.lean_imports():
        quiet.import_tensorflow()
    import tensorflow as tf

    from simcse_tf.data import pipeline, sources
    from simcse_tf.formats import presets
    from simcse_tf.training import compute, keep, loop

    table, steps = TABLES["unsupervised"], {}
    compute.keep_freed_memory()
    for flags in ("", *_FREE, *_ENCODING):
        config = configuration(table.command(flags), SEEDS[0], shared, Path())
        encoder = keep.starting_encoder(presets.locate(config.preset), config)
        model = loop.simcse(encoder, config)
        model.compile(optimizer=loop.optimizer(config, rounds, tf.distribute.get_strategy()))
        model.make_train_function()
        feed = pipeline.Feed(sources.open_source(config.data), batch_size=config.batch_size, seed=config.seed)
        batches = pipeline.token_batches(
            feed, encoder.tokenizer, max_length=config.max_length, repetition=loop.repetition(config, 0)
        )
        steps[_shown(flags)] = (model.train_function, iter(batches))
    measured = Measurement("objectives_step", "A step of training", "s", False)
    for i in range(rounds + 2):
        for name, (step, batches) in steps.items():
            began = time.perf_counter()
            float(step(batches)["loss"])
            if i > 1:
                measured.add(name, time.perf_counter() - began)
        print(f"round {i + 1} of {rounds + 2}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    return {"rounds": measured.rounds, "load_after": round(os.getloadavg()[0], 2)}


def read_cost() -> dict[str, Any] | None:
    """What `cost` found, if it was ever measured."""
    return read_json(COST) if COST.is_file() else None


def cost_table(found: dict[str, Any]) -> str:
    """Markdown: the median step, and its median ratio to plain InfoNCE's of the same round."""
    measured = Measurement("", "", "s", False, found["rounds"])
    lines = ["| flags | s a step | times plain InfoNCE |", "|---|---:|---:|"]
    lines += [
        f"| {name} | {seconds:.2f} | {measured.ratio(name, _PLAIN):.3f} |"
        for name, seconds in measured.medians().items()
    ]
    return "\n".join(lines)


# ---- What follows from the rows ----


def markdown(rows: Sequence[dict[str, Any]], costs: dict[str, Any] | None) -> str:
    """The tables of the documentation: scores over seeds, then differences to plain InfoNCE."""
    by_task = {(row["command"], row["seed"]): row for row in rows}
    parts = []
    for table in TABLES.values():
        found = {flags: _of(by_task, table.command(flags)) for flags in ("", *table.choices, *table.objectives)}
        found = {flags: of_seeds for flags, of_seeds in found.items() if of_seeds}
        if found:
            parts += [f"### {table.title}", f"`simcse-tf train {table.base}`", _scores(table, by_task, found)]
            if "" in found and len(found) > 1:
                parts.append(_differences(found))
    if costs is not None:
        parts += ["### What a step costs", cost_table(costs)]
    return "\n\n".join(parts)


def _of(by_task: dict[Any, dict[str, Any]], command: str) -> dict[int, dict[str, Any]]:
    """A command's rows by seed, in order."""
    found = {seed: row for (each, seed), row in by_task.items() if each == command and seed is not None}
    return dict(sorted(found.items()))


def _scores(table: Table, by_task: dict[Any, dict[str, Any]], found: dict[str, dict[int, dict[str, Any]]]) -> str:
    lines = [
        f"| flags | seeds | {' | '.join(_FIGURES.values())} | last step: STS-B test | last step: STS12 |",
        "|---|---:|" + "---:|" * (len(_FIGURES) + 2),
    ]
    before = by_task.get((table.before, None))
    if before is not None:
        cells = [f"{before['best'][name]:.2f}" for name in _FIGURES]
        lines.append(f"| before training | | {' | '.join(cells)} | | |")
    for flags, of_seeds in found.items():
        cells = [over_seeds([row["best"][name] for row in of_seeds.values()]) for name in _FIGURES]
        cells += [over_seeds([row["last"][name] for row in of_seeds.values()]) for name in ("STSB-test", "STS12")]
        lines.append(f"| {_shown(flags)} | {len(of_seeds)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _differences(found: dict[str, dict[int, dict[str, Any]]]) -> str:
    names = " | ".join(_FIGURES[name] for name in _COMPARED)
    lines = [f"| best step, against plain InfoNCE | seeds | {names} |", "|---|---:|" + "---|" * len(_COMPARED)]
    plain = found[""]
    for flags, of_seeds in found.items():
        seeds = [seed for seed in of_seeds if seed in plain]
        if flags and seeds:
            cells = [_difference([of_seeds[s] for s in seeds], [plain[s] for s in seeds], name) for name in _COMPARED]
            lines.append(f"| {_shown(flags)} | {len(seeds)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _difference(rows: Sequence[dict[str, Any]], plain: Sequence[dict[str, Any]], name: str) -> str:
    found = paired_difference(*([row["best"][name] for row in each] for each in (rows, plain)))
    if found.interval is None:
        return f"{found.mean:+.2f}, one seed"
    low, high = found.interval
    shown = f"{found.mean:+.2f} ({low:+.2f} to {high:+.2f})"
    return f"{shown}, no difference" if found.is_none else f"**{shown}**"


def _shown(flags: str) -> str:
    return f"`{flags}`" if flags else _PLAIN


if __name__ == "__main__":
    cli.run(main)
