"""Everything about a run that can be found out, or found wrong, before TensorFlow is imported. Writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simcse_tf.config import LAST, TrainConfig, choose_layers
from simcse_tf.data import held_out, sources, watched
from simcse_tf.data.rows import Row
from simcse_tf.errors import UserError
from simcse_tf.evaluation import development_files
from simcse_tf.evaluation.development import DevelopmentSet
from simcse_tf.evaluation.retrieval import Retrieval
from simcse_tf.formats import presets
from simcse_tf.runs import Watched
from simcse_tf.training import cluster, fingerprint
from simcse_tf.training.checkpoint import RunDirectory

# Rows. A run of `max_steps` need not count its rows: later ones are checked when training reads them, so that the first
# step does not wait for the last of hundreds of millions.
_CHECKED = 2_000_000


@dataclass(frozen=True)
class Plan:
    """A run that may begin."""

    config: TrainConfig
    cluster: cluster.Cluster
    run: RunDirectory
    origin: presets.Origin
    source: sources.Source
    # None where only TensorFlow Datasets knows.
    scan: sources.Scan | None
    # The first is the one by which the best encoder is selected.
    development_sets: tuple[DevelopmentSet, ...]
    # The rows that are held out of `source`, if any are to be.
    held_out: held_out.HeldOut | None
    # The texts that are encoded at every evaluation, if any are to be.
    watched: Watched | None
    # What an earlier command came to, if this one resumes a run whose training is complete.
    result: dict[str, Any] | None


def plan(config: TrainConfig) -> Plan:
    """Checks a configuration against itself and against the files that it names.

    Raises:
        UserError: A setting, TF_CONFIG, the preset, the data, the development set or the output directory is at fault.
    """
    config.validate()
    own = cluster.of_this_process(config.strategy)
    if config.output_dir is None:
        raise UserError("`output_dir` is needed: where should the run keep its files?")
    run = RunDirectory(config.output_dir)
    # All workers must agree on whether there is anything left to do; otherwise only the chief uses the directory.
    uses_directory = own.is_chief or config.resume
    if uses_directory:
        run.check(config)
    origin = presets.locate(config.preset)
    if origin.dim is not None:
        check_sizes(config, origin.dim)
    if config.layers and (of := presets.num_layers(origin)) is not None:
        choose_layers(config.layers, of, config.preset)
    source = sources.open_source(
        config.data,
        columns=config.columns,
        tfds_dir=config.tfds_dir,
        crop_sentences=config.crop_sentences,
        crop_overlap=config.crop_overlap,
    )
    _check_objective(config, source)
    _check_crops(config, source)
    _check_teacher(config, source)
    held = None
    if development_files.HELD_OUT in config.dev:
        _check_can_hold_out(config, source)
        held = held_out.hold_out(source, skip_bad_rows=config.skip_bad_rows, batch_size=config.batch_size)
        if held.problem and config.dev == (development_files.HELD_OUT,):
            raise UserError(
                f"`dev` held-out: no part of `data` {config.data} can be held out: {held.problem}. Name another "
                "development set, such as bundled."
            )
        source = held.training
    development_sets = find_development_sets(config, held.rows if held else ())
    watching = watched.read(config.watch, config.columns) if config.watch else None
    scan = None if source.needs_tensorflow else scan_rows(config, source)
    if uses_directory:
        known = () if any(each.needs_tensorflow for each in development_sets) else development_sets
        run.check_data(config, fingerprints(config, scan, known, held, watching))
    result = run.result() if config.resume else None
    return Plan(config, own, run, origin, source, scan, development_sets, held, watching, result)


def find_development_sets(config: TrainConfig, held: Sequence[Row]) -> tuple[DevelopmentSet, ...]:
    """What a run is judged on; the set by which its best encoder is selected comes first.

    Args:
        config: The run's.
        held: Rows that are held out of the training data: their anchors should find their positives.

    Raises:
        UserError: As `development_files.find`.
    """
    return development_files.find(
        config.dev,
        sts_dir=config.sts_dir,
        tfds_dir=config.tfds_dir,
        columns=config.columns,
        select_by=None if config.select_by == LAST else config.select_by,
        held_out=Retrieval.from_pairs(development_files.HELD_OUT, f"{config.data}, held out", held) if held else None,
    )


def fingerprints(
    config: TrainConfig,
    scan: sources.Scan | None,
    development_sets: Sequence[DevelopmentSet] = (),
    held: held_out.HeldOut | None = None,
    watching: Watched | None = None,
) -> dict[str, str]:
    """The fingerprints that are known before there is an encoder, by the names in `fingerprint.MEANING`.

    Args:
        config: The run's.
        scan: Of its rows, if they were read.
        development_sets: All of them, if they are read.
        held: The rows that are held out, if any are.
        watching: The texts that are watched, if any are.
    """
    known = {}
    if held is not None and held.test:
        known["test_rows"] = fingerprint.of_text("\n".join(map("\0".join, held.test)))
    if scan is not None:
        # Of rows that are read but were not scanned, the size of their file says something.
        path = Path(config.data)
        unseen = scan.rows >= _CHECKED and not scan.complete and path.is_file()
        size = f"{path.stat().st_size} bytes, " if unseen else ""
        known["rows"] = f"{size}{scan.rows} rows, {scan.fingerprint}"
    if development_sets:
        known["development_set"] = fingerprint.of_development_sets(development_sets)
    if watching is not None:
        known["watched"] = fingerprint.of_text(watching.to_json())
    return known


def scan_rows(config: TrainConfig, source: sources.Source) -> sources.Scan:
    """Reads the rows that the run will read, so that a bad one stops it now and not in an hour.

    Raises:
        UserError: A bad row, or fewer rows than one batch.
    """
    # A run of so many steps reads no further than that, but for what its shuffle buffer holds.
    at_most = None
    if config.max_steps is not None:
        at_most = config.max_steps * config.batch_size + config.shuffle_buffer
        # A teacher reads all of them before the first step.
        at_most = at_most if config.teacher is not None else min(at_most, _CHECKED)
    scan = sources.scan(source, at_most=at_most, skip_bad_rows=config.skip_bad_rows)
    if scan.rows < config.batch_size:
        skipped = f" ({scan.bad} bad ones skipped)" if scan.bad else ""
        raise UserError(
            f"`data` {config.data}: {scan.rows} usable rows{skipped}, fewer than one batch of {config.batch_size}. "
            "Give more data or a smaller `batch_size`."
        )
    return scan


def total_steps(config: TrainConfig, scan: sources.Scan) -> int:
    """How many steps the run has: the learning rate reaches 0 there. An epoch drops the rest that fills no batch."""
    if config.max_steps is not None:
        return config.max_steps
    return config.epochs * (scan.rows // config.batch_size)


def check_sizes(config: TrainConfig, dim: int) -> None:
    """Checks the sizes of Matryoshka training against how many numbers the encoder's vectors have.

    Raises:
        UserError: One is larger, or these are not among them, so that nothing would train the last ones.
    """
    sizes = " ".join(map(str, config.matryoshka))
    if config.matryoshka and max(config.matryoshka) > dim:
        raise UserError(f"`matryoshka` {sizes}: the vectors of `preset` {config.preset} have only {dim} numbers.")
    if config.matryoshka and dim not in config.matryoshka:
        raise UserError(
            f"`matryoshka` {sizes}: nothing would train the numbers after the first {max(config.matryoshka)}. Add "
            f"{dim}, the size of `preset` {config.preset}."
        )


def _check_can_hold_out(config: TrainConfig, source: sources.Source) -> None:
    reason = None
    if source.target:
        reason = f"has {source.target}s: its rows are not questions with an answer to be found"
    elif source.views == 1:
        reason = "has single sentences, not questions with an answer to be found"
    elif source.needs_tensorflow:
        reason = "cannot be split: only TensorFlow Datasets can read it"
    if reason:
        raise UserError(
            f"`dev` held-out: `data` {config.data} {reason}. Name another development set, such as bundled."
        )


def _check_objective(config: TrainConfig, source: sources.Source) -> None:
    columns = f" (columns {', '.join(source.columns)})" if source.columns else ""
    if source.target == "score" and config.loss != "cosent":
        texts = " ".join(source.columns[:2])
        raise UserError(
            f"`loss` {config.loss} has no use for scores, but `data` {config.data} has graded pairs{columns}. Use "
            f"`loss` cosent; or, to take every pair for anchor and positive, set `columns` {texts}."
        )
    if config.loss == "cosent" and source.target != "score":
        has = "texts with labels" if source.target else f"{_texts(source)} and no score"
        raise UserError(
            f"`loss` cosent needs two texts and a score in every row, but `data` {config.data} has {has}{columns}. "
            "Name the three with `columns`, such as sentence1 sentence2 score; or use `loss` infonce."
        )
    if source.target == "label" and config.loss == "align_uniform":
        raise UserError(
            f"`loss` align_uniform has no use for labels, but `data` {config.data} has texts with labels{columns}. Use "
            "`loss` infonce; or, to train on the texts alone, name their column with `columns`."
        )
    if source.target == "label" and "queue" in config.numbers("negatives"):
        raise UserError(
            f"`negatives` queue: `data` {config.data} has texts with labels{columns}, and of texts of earlier batches "
            "the labels are not kept. Omit queue, or name the column of the texts alone with `columns`."
        )
    if "off_dropout" in config.numbers("negatives") and (source.views > 1 or source.target):
        has = "texts with labels" if source.target else _texts(source)
        raise UserError(
            f"`negatives` off_dropout needs single sentences, of which dropout alone makes pairs, but `data` "
            f"{config.data} has {has}{columns}. Omit it, or name the column of the sentences with `columns`."
        )
    if source.views > 2:
        return
    has = f"has {'texts with labels' if source.target else _texts(source)} and no hard negatives"
    if config.loss == "triplet":
        raise UserError(
            f"`loss` triplet needs anchor, positive and hard negative, but `data` {config.data} {has}. Use `loss` "
            "infonce, or data such as bundled:triplets, nli_for_simcse or tfds:snli+multi_nli."
        )
    if config.hard_negative_weight != 0:
        raise UserError(
            f"`hard_negative_weight` {config.hard_negative_weight:g}: `data` {config.data} {has}. Omit it, or use data "
            "such as bundled:triplets, nli_for_simcse or tfds:snli+multi_nli."
        )


def _check_crops(config: TrainConfig, source: sources.Source) -> None:
    for field in ("crop_sentences", "crop_overlap"):
        if not source.crops and getattr(config, field) != getattr(TrainConfig, field):
            raise UserError(
                f"`{field}` {getattr(config, field)}: crops are taken of documents, which `data` {config.data} is not. "
                f"Name a folder of .txt and .md files, or documents:FILE for a file with one on each line."
            )


def _check_teacher(config: TrainConfig, source: sources.Source) -> None:
    if config.teacher is None:
        return
    if source.draw is not None:
        drawn = "the crops of its documents" if source.crops else "the pairs of its classes"
        raise UserError(
            f"`teacher` {config.teacher}: reads every row once, before the first step, but the rows of `data` "
            f"{config.data} differ from epoch to epoch: {drawn} are drawn anew. Use sentences, pairs or triplets."
        )
    if config.translations and source.views != 2:
        raise UserError(
            f"`translations`: needs a text and its translation in every row, but `data` {config.data} has "
            f"{_texts(source)}. Name the two with `columns`."
        )


def _texts(source: sources.Source) -> str:
    if source.crops:
        return "documents"
    return f"{source.views} text column{'s' * (source.views > 1)}"
