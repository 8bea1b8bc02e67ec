"""Trains a sentence encoder: `python -m simcse_tf.train [RECIPE] [flags]`."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from simcse_tf import cli
from simcse_tf.config import ACCUMULATION_IS_ANOTHER_LOSS, RECIPES, TrainConfig, recipe
from simcse_tf.errors import UserError
from simcse_tf.training.plan import plan

if TYPE_CHECKING:
    from simcse_tf.training.loop import Outcome

# The exit status after SIGTERM, once the state is saved: EX_TEMPFAIL, "try again later".
STOPPED = 75
_PROG = "python -m simcse_tf.train"
_DESCRIPTION = (
    f"Train a sentence encoder with SimCSE. Usage: {_PROG} [RECIPE] [flags]. RECIPE is one of {', '.join(RECIPES)}; "
    "without one it is quickstart. The defaults below are the recipe's. Exit status: 2 for a mistake in flags or files,"
    f" 130 after Ctrl-C, {STOPPED} after SIGTERM (the state is saved, --resume continues) or when a worker is gone."
)


def main(arguments: list[str]) -> None:
    """The command: checks, trains, exports, and says what it measured."""
    checked = plan(parse(arguments))

    # TensorFlow is imported from here on; every complaint about flags and files has been made.
    with cli.lean_imports():
        from simcse_tf.training import loop

    console = cli.console()
    console.quiet = not checked.cluster.is_chief
    to_continue = f"Give the same flags and --resume to continue the run in {checked.run.path}"
    try:
        outcome = loop.train(checked, console)
    except KeyboardInterrupt:
        console.print(f"stopped. {to_continue}")
        raise
    except loop.StoppedError as e:
        # From every worker, unlike progress.
        print(f"stopped: {e} {to_continue}", file=sys.stderr)
        sys.exit(STOPPED)
    if outcome is None:
        return
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
        from simcse_tf.formats import savedmodel

        console.print("exporting, and checking the export in a fresh process")
        best, to = loop.best_encoder(outcome), checked.config.export_to
        result["saved_model"] = str(savedmodel.export(best, to, source=str(outcome.run)))
    if checked.config.report:
        from simcse_tf.report.report import write_report

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
    """Flags to configuration; the first argument names the recipe unless it is a flag.

    Raises:
        UserError: No such recipe, or a flag for accumulating gradients.
    """
    name = "quickstart"
    if arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
    for argument in arguments:
        # What other trainers call it: --gradient-accumulation-steps, --accumulate-grad-batches, --grad-accum.
        if re.match(r"--(accumulat|grad(ient)?s?[-_]?accum)", argument):
            raise UserError(f"{argument}: {ACCUMULATION_IS_ANOTHER_LOSS}")
    config = cli.parse(TrainConfig, arguments, prog=_PROG, description=_DESCRIPTION, default=recipe(name))
    return config if config.output_dir else replace(config, output_dir=Path("runs") / name)


if __name__ == "__main__":
    cli.run(main)
