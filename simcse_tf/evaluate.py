"""Scores a sentence encoder: `python -m simcse_tf.evaluate MODEL [--on FILE...] [--sts-dir DIR] [--output FILE]`.

Prints a table; where stdout is not a terminal, or into a file, the same as JSON. `--fetch DIR` downloads the STS sets;
`RUN --report` writes what a training run changed into RUN/report.html and RUN/report.json.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.table import Table

from simcse_tf import cli, loading
from simcse_tf.config import Pooling
from simcse_tf.errors import UserError
from simcse_tf.evaluation import suite
from simcse_tf.evaluation.development import digits
from simcse_tf.evaluation.fetch import fetch

_DESCRIPTION = (
    "Score a sentence encoder on graded pairs, STS and transfer tasks. Prints a table on a terminal, JSON where the "
    "output is redirected. docs/evaluation.md says what the figures mean."
)


@dataclass(frozen=True)
class EvaluateConfig:
    """Flags of the command."""

    # A SavedModel directory, a run directory, a preset name, a Hugging Face directory, or a TF Serving address.
    model: tyro.conf.Positional[str | None] = None
    # Pool in another way than the encoder was saved with.
    pooling: Pooling | None = None
    # Score the first so many numbers of every vector. Default: all, and if the model was trained with --matryoshka
    # every size beside them.
    dim: int | None = None
    # Sets of your own: .csv/.tsv/.jsonl files, or directories in BEIR's layout. Two texts and a score are graded pairs,
    # two and a label (0 or 1) labelled pairs, three triplets, two retrieval; graded:FILE, labelled:FILE, triplets:FILE
    # or retrieval:FILE says it where the columns do not. PAIRS+DOCUMENTS: a second file has more documents to find
    # among.
    on: tuple[str, ...] = ()
    # Names of the text columns of these files, where they are not the usual ones;
    # at least one file must have them.
    columns: tuple[str, ...] = ()
    # SentEval's data directory, the one with STS/ and SICK/. Without this, --on and --transfer-dir: the bundled pairs.
    sts_dir: Path | None = None
    # SentEval's directory with MR/, CR/ and so on.
    transfer_dir: Path | None = None
    # Only these tasks. Default: all that the directories hold. Also 'bundled' and 'tfds:glue/stsb'.
    tasks: tuple[str, ...] = ()
    # Where TensorFlow Datasets keeps its data (by default where it always does).
    tfds_dir: Path | None = None
    # Write JSON here instead of printing it; replaces an older file.
    output: Path | None = None
    # MODEL is a run: write its report.html and report.json.
    report: bool = False
    # Download the STS sets (or those of --tasks) into this directory, and do nothing else.
    fetch: Path | None = None


def main(arguments: list[str]) -> None:
    """The command: checks flags and sets, loads the model, scores it."""
    config = cli.parse(EvaluateConfig, arguments, prog=cli.prog("evaluate"), description=_DESCRIPTION)
    console = cli.console()
    if config.fetch is not None:
        _check_fetch(config)
        fetch(config.fetch, config.tasks or None, say=console.print)
        return
    _check(config)
    assert config.model is not None
    if config.report:
        from simcse_tf.report.report import write_report

        for path in write_report(
            Path(config.model),
            sts_dir=config.sts_dir,
            transfer_dir=config.transfer_dir,
            tasks=config.tasks,
            tfds_dir=config.tfds_dir,
            on=config.on,
            columns=config.columns,
            say=console.print,
        ):
            print(path)
        return

    load = loading.locate(config.model, config.pooling, dim=config.dim)
    chosen = suite.load(
        config.sts_dir,
        config.transfer_dir,
        config.tasks,
        tfds_dir=config.tfds_dir,
        on=config.on,
        columns=config.columns,
    )
    with cli.lean_imports():
        model = load()
    sizes = () if config.dim is not None else getattr(model, "sizes", ())
    judgement = suite.judge(model.encode, chosen, sizes=sizes, say=console.print)
    for shown in tables(judgement):
        console.print(shown)
    asked = {"model": config.model, "pooling": config.pooling, "dim": config.dim}
    result = {**asked, **judgement.to_dict(), "versions": suite.versions()}
    cli.hand_over(result, config.output)


def tables(judgement: suite.Judgement) -> Iterator[Table]:
    """What a person reads: the published tasks, and the sets of one's own."""
    if judgement.sts or judgement.transfer:
        yield _tasks(judgement)
    for each, figures in judgement.on:
        shown = Table("figure", title=f"{each.name}: {each.size}", title_justify="left")
        shown.add_column(each.kind, justify="right")
        for name, value in figures.items():
            label = each.labels[name]
            shown.add_row(label, f"{value:.{digits(label)}f}")
        yield shown
    if judgement.sizes:
        yield _sizes(judgement)


def _sizes(judgement: suite.Judgement) -> Table:
    """The headline of every set at every size that the encoder was trained for."""
    shown = Table("dimensions", title="The first numbers of every vector alone", title_justify="left")
    for name in judgement.headlines:
        shown.add_column(name, justify="right")
    for size, scores in {"all": judgement.headlines, **judgement.sizes}.items():
        shown.add_row(str(size), *(f"{scores[name]:.2f}" for name in judgement.headlines))
    return shown


def _tasks(judgement: suite.Judgement) -> Table:
    """What a person reads: a row per task and subset, then the averages."""
    shown = Table("task", title="Spearman x 100 unless stated otherwise; ↓: lower is better")
    for column in ("pairs", "all", "mean", "wmean", "Pearson (all)"):
        shown.add_column(column, justify="right")
    for name, result in judgement.sts.items():
        figures = [result.all.spearman, result.mean.spearman, result.wmean.spearman, result.all.pearson]
        shown.add_row(name, str(len(result.gold)), *(f"{figure:.2f}" for figure in figures))
        for subset, correlation in result.subsets.items() if len(result.subsets) > 1 else ():
            shown.add_row(f"  {subset}", "", f"{correlation.spearman:.2f}", "", "", f"{correlation.pearson:.2f}")
    shown.add_section()
    if judgement.average is not None:
        shown.add_row("average of the 7", "", f"{judgement.average:.2f}")
    elif judgement.sts:
        lacking = [name for name in suite.AVERAGED if name not in judgement.scores]
        shown.caption = f"No average: it is over the paper's 7 tasks, and {', '.join(lacking)} were not scored."
    if judgement.geometry is not None:
        shown.add_row("alignment ↓", "", f"{judgement.geometry.alignment:.4f}")
        shown.add_row("uniformity ↓", "", f"{judgement.geometry.uniformity:.4f}")
    for name, result in judgement.transfer.items():
        shown.add_row(f"{name} (accuracy)", str(sum(result.examples.values())), f"{result.accuracy:.2f}")
    return shown


def _check(config: EvaluateConfig) -> None:
    if config.model is None:
        raise UserError("MODEL is needed: a SavedModel, a run, a preset such as minilm, or a Hugging Face directory.")
    if config.output is not None and not config.output.parent.is_dir():
        raise UserError(f"--output {config.output}: the directory {config.output.parent} does not exist.")
    if config.output is not None and config.output.is_dir():
        raise UserError(f"--output {config.output}: is a directory. Name a file.")
    if config.report and not (config.output is config.pooling is config.dim is None):
        raise UserError(
            "--report judges a run as it was configured and writes into its directory: omit --output, --pooling and "
            "--dim."
        )


def _check_fetch(config: EvaluateConfig) -> None:
    given = {"MODEL": config.model, "--sts-dir": config.sts_dir, "--transfer-dir": config.transfer_dir}
    given |= {"--output": config.output, "--pooling": config.pooling, "--dim": config.dim}
    given |= {"--report": config.report or None}
    given |= {"--on": config.on or None, "--columns": config.columns or None}
    extra = [name for name, value in given.items() if value is not None]
    if extra:
        raise UserError(f"--fetch only downloads: omit {' and '.join(extra)}, and evaluate in a second command.")


if __name__ == "__main__":
    cli.run(main)
