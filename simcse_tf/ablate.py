"""Compares settings over several seeds: `python -m simcse_tf.ablate RECIPE --vary FIELD=VALUE,VALUE --seeds 3 [flags]`.

Every combination of the values is trained once per seed, each run in a process and a directory of its own:
OUTPUT_DIR/temperature=0.05,pooling=cls/seed-42. The same command again skips finished runs and continues one that was
interrupted. Prints mean and standard deviation of each combination as a table; where stdout is not a terminal, and in
OUTPUT_DIR/ablation.json, the same as JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import itertools
import json
import statistics
import subprocess
import sys
import typing
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from rich.console import Console
from rich.table import Table

from simcse_tf import cli, train
from simcse_tf import runs as run_directories
from simcse_tf.config import TrainConfig
from simcse_tf.errors import UserError, did_you_mean
from simcse_tf.files import write_whole
from simcse_tf.training.checkpoint import RunDirectory
from simcse_tf.training.plan import plan

# `seed` is what --seeds varies; the others say where files go or hold lists. A list of one can vary.
_FIXED = (
    *("seed", "output_dir", "export_to", "report", "overwrite", "resume", "skip_bad_rows"),
    *("columns", "dev", "select_by", "watch", "directions", "matryoshka", "matryoshka_weights"),
)
_VARIABLE = [field.name for field in dataclasses.fields(TrainConfig) if field.name not in _FIXED]
# What is summarised, and the digits shown. The last step is included because the best one hides a run that only got
# worse.
_FIGURES = {"before": 2, "best": 2, "last": 2, "alignment": 3, "uniformity": 3}


@dataclass(frozen=True)
class Run:
    """One combination of values under one seed.

    Attributes:
        cell: Field to value, as the user wrote it.
        config: What is trained.
        flags: The same for the training command.
    """

    cell: dict[str, str]
    config: TrainConfig
    flags: list[str]

    @property
    def directory(self) -> RunDirectory:
        """Where the run keeps its files."""
        assert self.config.output_dir is not None
        return RunDirectory(self.config.output_dir)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.directory.result() is not None


def main(arguments: list[str]) -> None:
    """The command: checks the whole grid, trains what is missing, summarises."""
    output_dir, runs = parse(arguments)
    check(runs)
    console = cli.console()
    failed = [run for number, run in enumerate(runs, 1) if not _train(run, f"run {number} of {len(runs)}", console)]
    summary = summarise(runs)
    if not console.is_terminal:
        console.width = 160  # a file has room for the table
    console.print(table(summary))
    if any(run.finished for run in runs):
        write_whole(output_dir / "ablation.json", json.dumps(summary, indent=2) + "\n")
    cli.print_result(summary)
    if failed:
        directories = "".join(f"\n  {run.directory.path}" for run in failed)
        raise UserError(
            f"{len(failed)} of {len(runs)} runs failed, for the reasons printed above. The table covers the others. "
            f"The same command tries the failed ones again:{directories}"
        )


def parse(arguments: list[str]) -> tuple[Path, list[Run]]:
    """The grid that a command line asks for, seeds innermost.

    Returns:
        The directory for all of it, and the runs.

    Raises:
        UserError: An unknown field, a value that the field cannot have, a field or value given twice, no seeds.
    """
    called = cli.prog("ablate")
    parser = argparse.ArgumentParser(
        prog=called,
        usage=f"{called} [RECIPE] [--vary FIELD=VALUE,VALUE]... [--seeds N] [--output-dir DIR] [train's flags]",
        description=__doc__,
        epilog=f"Fields that can vary: {', '.join(_VARIABLE)}. Their values are those of train's flags; switches are "
        "True or False.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--vary", action="append", default=[], metavar="FIELD=VALUE,VALUE", help="once for every field")
    parser.add_argument("--seeds", type=int, default=3, help="runs per combination: seeds --seed, --seed + 1, ... (3)")
    parser.add_argument("--output-dir", type=Path, help="the directory of all runs (runs/ablate-RECIPE)")
    own, rest = parser.parse_known_args(arguments)
    base = train.parse(rest)
    if own.seeds < 1:
        raise UserError(f"--seeds {own.seeds}: must be at least 1.")
    if base.overwrite or base.resume:
        raise UserError("--overwrite and --resume: a grid continues by itself; delete its directory to start anew.")
    # Without --output-dir, train.parse has named runs/RECIPE.
    assert base.output_dir is not None
    output_dir = own.output_dir or base.output_dir.with_name(f"ablate-{base.output_dir.name}")
    axes, runs = _axes(own.vary), []
    for texts in itertools.product(*axes.values()):
        cell = dict(zip(axes, texts, strict=True))
        varied = [flag for name, text in cell.items() for flag in _flags(name, text)]
        folder = ",".join(f"{name}={urllib.parse.quote(text, safe='')}" for name, text in cell.items()) or "as-it-is"
        for seed in range(base.seed, base.seed + own.seeds):
            directory = output_dir / folder / f"seed-{seed}"
            # A grid has a table of its own: nothing is exported or reported.
            fixed = [f"--seed={seed}", f"--output-dir={directory}", "--export-to=None", "--no-report", "--resume"]
            flags = [*rest, *varied, *fixed]
            runs.append(Run(cell, train.parse(flags), flags))
    return output_dir, runs


def check(runs: list[Run]) -> None:
    """Finds what is wrong with any run before the first one starts; changes nothing.

    Raises:
        UserError: As `plan`, or a directory holds a run of another configuration.
    """
    planned = set()
    for run in runs:
        run.config.validate()
        run.directory.check(run.config)
        # The files are the same for every seed.
        if not run.finished and str(run.cell) not in planned:
            planned.add(str(run.cell))
            plan(run.config)
            train.locate_teacher(run.config, cli.console())


def summarise(runs: list[Run]) -> dict[str, Any]:
    """Mean and standard deviation (of a sample) over the seeds of each combination.

    Returns:
        For JSON: `development_set`, `figure` (what `before`, `best` and `last` are) and `cells`, each with `values`,
        `runs` and for every figure `mean`, `std` and `n`. `before` is the score before
        training, `best` that of the kept step, `last` that of the last; `alignment` and `uniformity` are the last
        step's; with `matryoshka`, `best_dim_128` is that of the kept step's vectors cut to 128 numbers.
    """
    cells, names, labels = [], set(), set()
    for cell, group in itertools.groupby(runs, key=lambda run: run.cell):
        measured = [_figures(run) for run in group if run.finished]
        names |= {figures.pop("development_set") for figures in measured}
        labels |= {figures.pop("label") for figures in measured}
        entry: dict[str, Any] = {"values": cell, "runs": measured}
        for name in (*_FIGURES, *_of_sizes(measured)):
            values = [figures[name] for figures in measured if name in figures]
            entry[name] = {
                "mean": statistics.fmean(values) if values else None,
                "std": statistics.stdev(values) if len(values) > 1 else None,
                "n": len(values),
            }
        cells.append(entry)
    return {"development_set": ", ".join(sorted(names)), "figure": ", ".join(sorted(labels)), "cells": cells}


def table(summary: dict[str, Any]) -> Table:
    """What a person reads: a row per combination."""
    shown = Table(title=f"{summary['development_set']}, {summary['figure']}: mean ± standard deviation over seeds")
    # Alignment and uniformity are measured on graded pairs alone.
    measured = {
        name: digits
        for name, digits in _FIGURES.items()
        if name in ("before", "best", "last") or any(cell[name]["n"] for cell in summary["cells"])
    }
    measured |= dict.fromkeys(_of_sizes(summary["cells"]), 2)
    for name in summary["cells"][0]["values"]:
        shown.add_column(name)
    for label in (*measured, "seeds"):
        shown.add_column(label, justify="right")
    for cell in summary["cells"]:
        figures = [
            _shown(cell[name]["mean"], cell[name]["std"], digits) if name in cell else "-"
            for name, digits in measured.items()
        ]
        shown.add_row(*cell["values"].values(), *figures, str(len(cell["runs"])))
    return shown


def _axes(vary: list[str]) -> dict[str, list[str]]:
    """`["a=1,2", "b=x"]` as `{"a": ["1", "2"], "b": ["x"]}`."""
    axes: dict[str, list[str]] = {}
    for text in vary:
        flag, equals, values = text.partition("=")
        name = flag.strip().removeprefix("--").replace("-", "_")
        axis = [value.strip() for value in values.split(",")]
        if not equals or not all(axis):
            raise UserError(f"--vary {text}: expected FIELD=VALUE,VALUE, for example temperature=0.01,0.05.")
        if name == "seed":
            raise UserError(f"--vary {text}: give the number of seeds with --seeds, and the first with --seed.")
        if name not in _VARIABLE:
            raise UserError(f"--vary {text}: there is no '{name}' to vary. {did_you_mean(name, _VARIABLE)}")
        if name in axes:
            raise UserError(f"--vary {text}: '{name}' is varied already; give all its values in one --vary.")
        if len({_value(name, value) for value in axis}) < len(axis):
            raise UserError(f"--vary {text}: a value is given twice.")
        axes[name] = axis
    return axes


def _flags(name: str, text: str) -> list[str]:
    """How the training command is given a value of a field."""
    flag = name.replace("_", "-")
    if typing.get_type_hints(TrainConfig)[name] is not bool:
        return [f"--{flag}={text}"]
    if text not in ("True", "False"):
        raise UserError(f"--vary {name}: '{text}' is not one of its values. Valid: True, False.")
    return [f"--{flag}" if text == "True" else f"--no-{flag}"]


def _value(name: str, text: str) -> Any:
    """The value of a field of `TrainConfig` that the training command makes of a text."""
    hint = typing.get_type_hints(TrainConfig)[name]
    kinds = [kind for kind in typing.get_args(hint) or (hint,) if kind is not NoneType]
    if typing.get_origin(hint) is typing.Literal and text not in kinds:
        raise UserError(f"--vary {name}: '{text}' is not one of its values. {did_you_mean(text, kinds)}")
    flags = _flags(name, text)
    try:
        # What the parser prints is about a flag that the user has not written.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return getattr(train.parse(flags), name)
    except SystemExit:
        expected = {int: "a whole number", float: "a number"}.get(kinds[0], f"a {kinds[0].__name__}")
        raise UserError(f"--vary {name}: '{text}' is not {expected}.") from None


def _train(run: Run, which: str, console: Console) -> bool:
    """Trains one run unless it is finished; False if it failed."""
    name = " ".join([*(f"{field}={text}" for field, text in run.cell.items()), f"seed={run.config.seed}"])
    if run.finished:
        console.print(f"{which}: {name}: finished before")
        return True
    begun = (run.directory.path / "config.json").is_file()
    console.print(f"{which}: {name}{': continues' if begun else ''}")
    # A process of its own: precision, seeds and memory of one run do not reach the next. Its progress is on our stderr.
    command = [sys.executable, "-m", "simcse_tf.train", *run.flags]
    status = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
    if status == 130:
        raise KeyboardInterrupt
    return status == 0


def _figures(run: Run) -> dict[str, Any]:
    """A finished run's scores, from its metrics: `result.json` has them rounded."""
    scores, result = run_directories.read(run.directory.path), run.directory.result()
    assert result is not None
    last = scores.evaluations[-1]
    return {
        "seed": run.config.seed,
        "directory": str(run.directory.path),
        "development_set": result["development_set"],
        "label": scores.development_sets[0].label,
        "before": scores.before["dev"],
        "best": scores.best["dev"],
        "best_step": scores.best["step"],
        "last": last["dev"],
        **{name: last[name] for name in ("alignment", "uniformity") if name in last},
        **{
            run_directories.figure_at("best", size): scores.best[run_directories.figure_at("dev", size)]
            for size in scores.sizes
        },
    }


def _of_sizes(entries: list[dict[str, Any]]) -> list[str]:
    """The figures of vectors' first numbers that any entry has, in order."""
    return list(dict.fromkeys(name for entry in entries for name in entry if name.startswith("best_dim_")))


def _shown(mean: float | None, std: float | None, digits: int) -> str:
    if mean is None:
        return "-"
    return f"{mean:.{digits}f}" if std is None else f"{mean:.{digits}f} ± {std:.{digits}f}"


if __name__ == "__main__":
    cli.run(main)
