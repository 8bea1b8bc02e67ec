"""Compares settings over several seeds: `python -m simcse_tf.ablate RECIPE --vary FIELD=VALUE,VALUE --seeds 3 [flags]`.

Every combination of the values is trained once per seed, each run in a process and a directory of its own:
OUTPUT_DIR/temperature=0.05,pooling=cls/seed-42. The same command again skips finished runs and continues one that was
interrupted. Prints mean and standard deviation of each combination as a table, and as JSON, which is also in
OUTPUT_DIR/ablation.json.
"""

from __future__ import annotations

import argparse
import dataclasses
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
from simcse_tf.config import TrainConfig
from simcse_tf.errors import UserError, did_you_mean
from simcse_tf.files import write_whole
from simcse_tf.training.checkpoint import RunDirectory
from simcse_tf.training.plan import plan

_PROG = "python -m simcse_tf.ablate"
# In a run's directory once it has finished: what the training command printed.
_RESULT = "result.json"
# `seed` is what --seeds varies; the others say where files go or hold lists.
_FIXED = ("seed", "output_dir", "export_to", "report", "overwrite", "resume", "columns", "skip_bad_rows")
_VARIABLE = [field.name for field in dataclasses.fields(TrainConfig) if field.name not in _FIXED]
# What is summarised, and with how many digits it is shown. The last step is there because the best one hides a run that
# only got worse.
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
    def directory(self) -> Path:
        """Where the run keeps its files."""
        assert self.config.output_dir is not None
        return self.config.output_dir

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return (self.directory / _RESULT).is_file()


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
    text = json.dumps(summary, indent=2) + "\n"
    if any(run.finished for run in runs):
        write_whole(output_dir / "ablation.json", text)
    print(text, end="")
    if failed:
        directories = "".join(f"\n  {run.directory}" for run in failed)
        raise UserError(
            f"{len(failed)} of {len(runs)} runs failed; each said above why. The table is about the others. The same "
            f"command tries them again:{directories}"
        )


def parse(arguments: list[str]) -> tuple[Path, list[Run]]:
    """The grid that a command line asks for, seeds innermost.

    Returns:
        The directory for all of it, and the runs.

    Raises:
        UserError: A field or value that cannot be, a field twice, no seeds.
    """
    parser = argparse.ArgumentParser(
        prog=_PROG,
        usage=f"{_PROG} [RECIPE] [--vary FIELD=VALUE,VALUE]... [--seeds N] [--output-dir DIR] [train's flags]",
        description=__doc__,
        epilog=f"Fields that can vary: {', '.join(_VARIABLE)}. Their values are those of the flags of simcse_tf.train.",
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
        raise UserError("--overwrite and --resume: a grid continues by itself; delete its directory to begin anew.")
    # Without --output-dir, train.parse has named runs/RECIPE.
    assert base.output_dir is not None
    output_dir = own.output_dir or base.output_dir.with_name(f"ablate-{base.output_dir.name}")
    axes, runs = _axes(own.vary), []
    for texts in itertools.product(*axes.values()):
        cell = dict(zip(axes, texts, strict=True))
        values = {name: _value(name, text) for name, text in cell.items()}
        folder = ",".join(f"{name}={urllib.parse.quote(text, safe='')}" for name, text in cell.items()) or "as-it-is"
        for seed in range(base.seed, base.seed + own.seeds):
            directory = output_dir / folder / f"seed-{seed}"
            resume = (directory / "config.json").is_file()
            config = dataclasses.replace(base, **values, seed=seed, output_dir=directory, export_to=None, resume=resume)
            changes = {**cell, "seed": seed, "output-dir": directory, "export-to": None}
            flags = [f"--{name.replace('_', '-')}={value}" for name, value in changes.items()]
            runs.append(Run(cell, config, [*rest, *flags, *["--resume"] * resume]))
    return output_dir, runs


def check(runs: list[Run]) -> None:
    """Finds what is wrong with any run before the first one starts; changes nothing.

    Raises:
        UserError: As `plan`, or a directory holds a run of another configuration.
    """
    planned = set()
    for run in runs:
        run.config.validate()
        RunDirectory(run.directory).check(run.config)
        # The files are the same for every seed.
        if not run.finished and str(run.cell) not in planned:
            planned.add(str(run.cell))
            plan(run.config)


def summarise(runs: list[Run]) -> dict[str, Any]:
    """Mean and standard deviation (of a sample) over the seeds of each combination.

    Returns:
        For JSON: `development_set` and `cells`, each with `values`, `runs` and for every figure `mean`, `std` and `n`.
        `before` is the score before training, `best` that of the kept step, `last` that of the last; `alignment` and
        `uniformity` are the last step's.
    """
    cells, names = [], set()
    for cell, group in itertools.groupby(runs, key=lambda run: run.cell):
        measured = [_figures(run) for run in group if run.finished]
        names |= {figures.pop("development_set") for figures in measured}
        entry: dict[str, Any] = {"values": cell, "runs": measured}
        for name in _FIGURES:
            values = [figures[name] for figures in measured if name in figures]
            entry[name] = {
                "mean": statistics.fmean(values) if values else None,
                "std": statistics.stdev(values) if len(values) > 1 else None,
                "n": len(values),
            }
        cells.append(entry)
    return {"development_set": ", ".join(sorted(names)), "cells": cells}


def table(summary: dict[str, Any]) -> Table:
    """What a person reads: a row per combination."""
    shown = Table(title=f"{summary['development_set']}, Spearman x 100: mean ± standard deviation over seeds")
    for name in summary["cells"][0]["values"]:
        shown.add_column(name)
    for label in (*_FIGURES, "seeds"):
        shown.add_column(label, justify="right")
    for cell in summary["cells"]:
        figures = [_shown(cell[name]["mean"], cell[name]["std"], digits) for name, digits in _FIGURES.items()]
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
            raise UserError(f"--vary {text}: give the number of seeds with --seeds, and the first of them with --seed.")
        if name not in _VARIABLE:
            raise UserError(f"--vary {text}: there is no '{name}' to vary. {did_you_mean(name, _VARIABLE)}")
        if name in axes:
            raise UserError(f"--vary {text}: '{name}' is varied already; put all its values behind one --vary.")
        if len({_value(name, value) for value in axis}) < len(axis):
            raise UserError(f"--vary {text}: a value is there twice.")
        axes[name] = axis
    return axes


def _value(name: str, text: str) -> Any:
    """The value of a field of `TrainConfig`, of the field's type."""
    hint = typing.get_type_hints(TrainConfig)[name]
    choices = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        if text not in choices:
            raise UserError(f"--vary {name}: '{text}' is none of its values. {did_you_mean(text, choices)}")
        return text
    if NoneType in choices and text == "None":
        return None
    kind = next((choice for choice in choices if choice is not NoneType), hint)
    try:
        return kind(text)
    except ValueError:
        expected = "a whole number" if kind is int else "a number"
        raise UserError(f"--vary {name}: '{text}' is not {expected}.") from None


def _train(run: Run, which: str, console: Console) -> bool:
    """Trains one run unless it is finished; False if it failed."""
    name = " ".join([*(f"{field}={text}" for field, text in run.cell.items()), f"seed={run.config.seed}"])
    if run.finished:
        console.print(f"{which}: {name}: finished before")
        return True
    console.print(f"{which}: {name}{': continues' if run.config.resume else ''}")
    # A process of its own: precision, seeds and memory of one run do not reach the next. Its progress is on our stderr.
    # A grid has a table of its own.
    command = [sys.executable, "-m", "simcse_tf.train", *run.flags, "--no-report"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode == 130:
        raise KeyboardInterrupt
    if done.returncode == 0:
        write_whole(run.directory / _RESULT, done.stdout)
    return done.returncode == 0


def _figures(run: Run) -> dict[str, Any]:
    """A finished run's scores, from its metrics: the training command rounds."""
    evaluations = [line for line in RunDirectory(run.directory).metrics() if "dev" in line]
    best = max(evaluations, key=lambda line: line["dev"])
    printed = json.loads((run.directory / _RESULT).read_text("utf-8"))
    return {
        "seed": run.config.seed,
        "directory": str(run.directory),
        "development_set": printed["development_set"],
        "before": evaluations[0]["dev"],
        "best": best["dev"],
        "best_step": best["step"],
        "last": evaluations[-1]["dev"],
        **{name: evaluations[-1][name] for name in ("alignment", "uniformity") if name in evaluations[-1]},
    }


def _shown(mean: float | None, std: float | None, digits: int) -> str:
    if mean is None:
        return "-"
    return f"{mean:.{digits}f}" if std is None else f"{mean:.{digits}f} ± {std:.{digits}f}"


if __name__ == "__main__":
    cli.run(main)
