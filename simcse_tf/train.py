"""Trains a sentence encoder: `python -m simcse_tf.train [RECIPE] [flags]`."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from simcse_tf import cli, loading, quiet, runs
from simcse_tf.config import ACCUMULATION_IS_ANOTHER_LOSS, LAST, RECIPES, TrainConfig, recipe
from simcse_tf.data import documents, sources
from simcse_tf.errors import UserError
from simcse_tf.evaluation.development import digits
from simcse_tf.evaluation.development_files import BUNDLED, HELD_OUT
from simcse_tf.formats import presets
from simcse_tf.indexing import Indexer
from simcse_tf.report import report
from simcse_tf.serving.exported import is_saved_model
from simcse_tf.training.plan import Plan, plan

# The exit status after SIGTERM, once the state is saved: EX_TEMPFAIL, "try again later".
STOPPED = 75
# Texts that a teacher encodes at once.
_TEACHERS_BATCH = 64
_DESCRIPTION = f"""Train a sentence encoder with SimCSE.

RECIPE (default: quickstart) is where the defaults come from:
{{recipes}}

The defaults shown are those of {{name}}. Exit status: 2 for a mistake in flags or files, 130 after Ctrl-C, {STOPPED} \
after SIGTERM (the state is saved, --resume continues) or when a worker is lost."""


def main(arguments: list[str]) -> None:
    """The command: checks, trains, exports, reports; with `resume` only what has not been done yet."""
    config = parse(arguments)
    for flag, directory in (("--output-dir", config.output_dir), ("--export-to", config.export_to)):
        if directory is not None:
            cli.check_directory(directory, flag)
    checked = plan(config)
    console = cli.console()
    open_teacher = locate_teacher(config, console) if checked.result is None else None
    console.quiet = not checked.cluster.is_chief
    with_report = config.report and _can_report(console)

    result = checked.result
    if result is not None:
        console.print(f"{checked.run.path}: training is complete ({result['steps']} steps)")
    else:
        result = _train(checked, console, shlex.join([*cli.prog("train").split(), *arguments]), open_teacher)
    if result is None or not checked.cluster.is_chief:
        return
    finished = runs.read(checked.run.path)
    console.print(table(finished))
    if finished.mixes:
        console.print(table_of_mixes(finished))
    if result["best_step"] == 0:
        console.print("No step improved on the encoder that training began with: that encoder is kept.")
    elif result.get("keep") == 1:
        console.print("No mix is chosen before the encoder that training began with: that encoder is kept.")

    if config.export_to is not None and not _exported(result, config.export_to):
        result["saved_model"] = _export(checked, console, config.export_to)
        checked.run.write_result(result)
    if with_report and not Path(result.get("report", "")).is_file():
        result["report"] = _report(checked, console)
        checked.run.write_result(result)
    if config.report:  # a grid's runs have none, and nobody reads on there
        for line in _next_steps(result):
            console.print(line, markup=False)
    cli.print_result(result)


def _train(
    checked: Plan, console: Console, command: str, open_teacher: Callable[[], Indexer] | None
) -> dict[str, Any] | None:
    if len(checked.cluster.workers) > 1:
        # To TensorFlow it is an error that one worker is done before another. One that is lost is our own message.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow is imported from here on; every complaint about flags and files has been made.
    with cli.lean_imports():
        quiet.import_tensorflow()
        from simcse_tf.training import loop

    to_continue = f"Give the same flags and --resume to continue the run in {checked.run.path}"
    try:
        return loop.train(checked, console, command=command, open_teacher=open_teacher)
    except KeyboardInterrupt:
        console.print(f"interrupted. {to_continue}")
        sys.exit(130)
    except loop.StoppedError as e:
        # Every worker says so, not only the one that shows progress.
        print(f"stopped: {e} {to_continue}", file=sys.stderr)
        sys.exit(STOPPED)


def locate_teacher(config: TrainConfig, console: Console) -> Callable[[], Indexer] | None:
    """Finds the model that a run learns from, if it learns from one, and checks it without importing TensorFlow.

    Returns:
        A function that loads it.

    Raises:
        UserError: There is no such model, or a file of it is damaged.
    """
    if config.teacher is None:
        return None
    name = config.teacher
    try:
        load = loading.locate(name)
    except UserError as e:
        raise UserError(f"`teacher`: {e}") from e
    return lambda: Indexer(load, name, batch_size=_TEACHERS_BATCH, console=console)


def _exported(result: dict[str, Any], to: Path) -> bool:
    """Whether the version that the run was exported as is still there."""
    version = Path(result.get("saved_model", ""))
    return version.parent == to and is_saved_model(version)


def _export(checked: Plan, console: Console, to: Path) -> str:
    with cli.phase(console, "exporting, and checking the export in a fresh process"):
        with cli.lean_imports():
            quiet.import_tensorflow()
            from simcse_tf.formats import savedmodel
            from simcse_tf.formats.encoders import load_encoder

        run = str(checked.run.path)
        return str(savedmodel.export(load_encoder(presets.locate(run)), to, source=run))


def _can_report(console: Console) -> bool:
    """Whether what a report needs is installed; says before the run what is not, and the run goes on."""
    try:
        report.check_installed()
    except UserError as e:
        console.print(f"No report will be written: {e}", markup=False)
        return False
    return True


def _report(checked: Plan, console: Console) -> str:
    with cli.phase(console, "writing the report, for which the first and the best encoder are compared"):
        with cli.lean_imports():
            quiet.import_tensorflow()
        return str(report.write_report(checked.run.path)[0])


def _next_steps(result: dict[str, Any]) -> Iterator[str]:
    """What can be done with a run now."""
    run = shlex.quote(result["run"])
    yield "next:"
    if "report" in result:
        yield f"  open {shlex.quote(result['report'])} in a browser: what training changed"
    if "saved_model" in result:
        model = Path(result["saved_model"]).parent
        models, model = shlex.quote(str(model.parent)), shlex.quote(str(model))
        yield f"  {cli.prog('demo')} --models {models}    explore the model in a browser"
        yield f"  {cli.prog('encode')} {model} --input FILE --output FILE.npy    encode a file of texts"
        yield f"  serve {model} with TensorFlow Serving: docs/serving.md"
    else:
        yield f"  {cli.prog('export')} {run} --to saved_models/NAME    export it for TensorFlow Serving and the demo"
    yield f"  {cli.prog('evaluate')} {run} --sts-dir DIR    score it on STS tasks (--fetch DIR downloads them)"


def table(run: runs.Run) -> Table:
    """Before and after, side by side, on every development set; the first selected the best step."""
    judge = run.development_sets[0]
    which = "last" if run.config.select_by == LAST else "best"
    rows = Table(title=f"{judge.name}, {which} of {run.steps} steps")
    kept = f", {share:g} kept" if (share := run.best.get("keep")) else ""
    for heading in ("", "before", f"after {run.best['step']} steps{kept}"):
        rows.add_column(heading, justify="right" if heading else "left")
    for each in run.development_sets:
        if each is not judge:
            rows.add_section()
            rows.add_row(each.name)
        for figure, label in each.labels.items():
            name = "dev" if each is judge and figure == each.headline else f"{each.name}/{figure}"
            if name in run.best:
                rows.add_row(label, *(f"{line[name]:.{digits(label)}f}" for line in (run.before, run.best)))
        for size in run.sizes:
            name = runs.figure_at(f"{each.name}/{each.headline}", size)
            label = f"{each.label}, {size} dimensions"
            rows.add_row(label, *(f"{line[name]:.{digits(label)}f}" for line in (run.before, run.best)))
    return rows


def table_of_mixes(run: runs.Run) -> Table:
    """The headline of every development set over the share of the starting weights that is kept."""
    rows = Table(title=f"Mixes of step {run.best['step']} with the starting weights", title_justify="left")
    for heading in ("kept", *(f"{each.name}, {each.label}" for each in run.development_sets), ""):
        rows.add_column(heading, justify="right")
    for line in run.mixes:
        figures = [f"{line[f'{each.name}/{each.headline}']:.2f}" for each in run.development_sets]
        rows.add_row(f"{line['keep']:g}", *figures, "chosen" if line["chosen"] else "")
    return rows


def parse(arguments: list[str]) -> TrainConfig:
    """Flags to configuration; the first argument names the recipe unless it is a flag.

    Raises:
        UserError: No such recipe, or a flag for accumulating gradients.
    """
    name = "quickstart"
    if arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
        if name not in RECIPES and Path(name).is_file():
            raise UserError(f"'{name}' is a file, not a recipe. Did you mean --data {shlex.quote(name)}?")
    for argument in arguments:
        # What other trainers call it: --gradient-accumulation-steps, --accumulate-grad-batches, --grad-accum.
        if re.match(r"--(accumulat|grad(ient)?s?[-_]?accum)", argument):
            raise UserError(f"{argument}: {ACCUMULATION_IS_ANOTHER_LOSS}")
    recipes = "\n".join(f"  {name:<20}{config.preset}, {config.data}" for name, config in RECIPES.items())
    config = cli.parse(
        TrainConfig,
        arguments,
        prog=f"{cli.prog('train')} [RECIPE]",
        description=_DESCRIPTION.format(recipes=recipes, name=name),
        default=recipe(name),
    )
    config = config if config.output_dir else replace(config, output_dir=Path("runs") / name)
    if _given(arguments, "data") and not _given(arguments, "dev") and not _given(arguments, "sts-dir"):
        config = _judged_by_its_data(config)
    return config


def _given(arguments: Sequence[str], flag: str) -> bool:
    return any(re.fullmatch(f"--{flag}(=.*)?", argument.replace("_", "-"), re.DOTALL) for argument in arguments)


def _judged_by_its_data(config: TrainConfig) -> TrainConfig:
    """Of pairs, triplets or documents in files a part is the development set; the bundled pairs stand beside it."""
    # As in `open_source`, a file wins over a name.
    if not os.path.exists(config.data.removeprefix(documents.PREFIX)):
        return config
    # A run that was started without, as version 0.1.0 started all of them, continues without.
    run = config.output_dir
    if config.resume and run and (run / "config.json").is_file() and runs.read_config(run).dev == config.dev:
        return config
    try:
        source = sources.open_source(config.data, columns=config.columns, tfds_dir=config.tfds_dir)
    except UserError:
        return config  # the plan says what is wrong
    return config if source.views == 1 or source.target else replace(config, dev=(HELD_OUT, BUNDLED))


if __name__ == "__main__":
    cli.run(main)
