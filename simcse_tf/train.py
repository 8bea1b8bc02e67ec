"""Trains a sentence encoder: `python -m simcse_tf.train [RECIPE] [flags]`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from simcse_tf import cli
from simcse_tf.config import RECIPES, TrainConfig, recipe
from simcse_tf.training.plan import plan

if TYPE_CHECKING:
    from simcse_tf.training.loop import Outcome

_PROG = "python -m simcse_tf.train"
_DESCRIPTION = (
    f"Train a sentence encoder with SimCSE. Usage: {_PROG} [RECIPE] [flags]. RECIPE is one of {', '.join(RECIPES)}; "
    "without one it is quickstart. The defaults below are the recipe's."
)


def main(arguments: list[str]) -> None:
    """The command: checks, trains, exports, and says what it measured."""
    checked = plan(parse(arguments))

    # TensorFlow is imported from here on; every complaint about flags and files has been made.
    from simcse_tf.training import loop

    console = cli.console()
    try:
        outcome = loop.train(checked, console)
    except KeyboardInterrupt:
        console.print(f"stopped; give the same flags and --resume to continue the run in {checked.run.path}")
        raise
    console.print(table(outcome))
    if outcome.best_step == 0:
        console.print("no step improved on the encoder that training began with: that one is kept.")
    result = {
        "run": str(outcome.run),
        "steps": outcome.steps,
        "development_set": outcome.development_set,
        "spearman_before": round(outcome.before["dev"], 2),
        "spearman_after": round(outcome.after["dev"], 2),
        "best_step": outcome.best_step,
    }
    if checked.config.export_to is not None:
        from simcse_tf.serving import savedmodel

        console.print("exporting, and checking the export in a fresh process")
        best, to = loop.best_encoder(outcome), checked.config.export_to
        result["saved_model"] = str(savedmodel.export(best, to, source=str(outcome.run)))
    if checked.config.report:
        from simcse_tf.evaluation.report import write_report

        result["report"] = str(write_report(outcome.run, say=console.print)[0])
    print(json.dumps(result, indent=2))


def table(outcome: Outcome) -> Table:
    """Before and after, side by side."""
    rows = Table(title=f"{outcome.development_set}, best of {outcome.steps} steps")
    for heading in ("", "before", f"after {outcome.best_step} steps"):
        rows.add_column(heading, justify="right" if heading else "left")
    labels = {
        "dev": "Spearman x 100",
        "alignment": "alignment (lower is better)",
        "uniformity": "uniformity (lower is better)",
    }
    for name, label in labels.items():
        rows.add_row(label, f"{outcome.before[name]:.2f}", f"{outcome.after[name]:.2f}")
    return rows


def parse(arguments: list[str]) -> TrainConfig:
    """Flags to configuration; the first argument names the recipe unless it is a flag."""
    name = "quickstart"
    if arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
    config = cli.parse(TrainConfig, arguments, prog=_PROG, description=_DESCRIPTION, default=recipe(name))
    return config if config.output_dir else replace(config, output_dir=Path("runs") / name)


if __name__ == "__main__":
    cli.run(main)
