"""The model card of an exported encoder: what it is, where it comes from and what it scored."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simcse_tf import __version__, runs
from simcse_tf.config import Quantize, TrainConfig

if TYPE_CHECKING:
    from simcse_tf.models.encoder import Encoder

CARD_FILE = "README.md"
_PACKAGES = ("tensorflow", "tensorflow-text", "keras", "keras-hub")
# How the formats of LiteRT store weights.
WEIGHTS: dict[Quantize, str] = {"none": "float32", "float16": "float16", "int8": "int8, one scale per row"}
LITERT_PACKAGES = ("tensorflow", "keras", "keras-hub", "ai-edge-litert", "tokenizers")
# Licences of the weights that training may start from, as far as this package knows them.
_LICENCES = {"minilm": ("apache-2.0", "sentence-transformers/all-MiniLM-L6-v2, Apache-2.0")}
_NO_SCORES = "Not measured at export. `python -m simcse_tf.evaluate` measures it."
_RECIPE = (
    "preset",
    "data",
    "loss",
    "temperature",
    "matryoshka",
    "batch_size",
    "learning_rate",
    "max_length",
    "dropout",
    "epochs",
    "max_steps",
    "keep",
    "seed",
)


def write(
    encoder: Encoder,
    directory: Path,
    *,
    name: str,
    source: str,
    library: str | None = None,
    section: Sequence[str] = (),
    packages: Sequence[str] = _PACKAGES,
    prompts_added_by: str = "Nothing here does that: it is up to the program that calls the model.",
) -> None:
    """Writes `README.md` into an exported directory.

    Args:
        encoder: What was exported.
        directory: Where the card goes.
        name: The model's name.
        source: What was exported: a run directory, whose recipe and scores are listed, or a preset's name or directory;
            empty if that is not known, as of an encoder that was trained from Python.
        library: The library that loads the directory, as Hugging Face's hub calls it; None if the hub has no name for
            it.
        section: Lines on what only this format has.
        packages: Those whose versions are listed.
        prompts_added_by: What puts the encoder's prompts before texts, if it has any.
    """
    run = runs.read(Path(source)) if source and runs.is_run(Path(source)) else None
    start = Path(run.config.preset if run else source).name
    unknown = f"{start}, whose licence this package does not know" if start else "weights that were not named at export"
    licence, origin = _LICENCES.get(start, (None, unknown))
    not_trained = f"Not trained here: `{start}` as it is." if start else "Exported from Python, without its recipe."
    lines = [
        "---",
        *([f"library_name: {library}"] if library else []),
        "pipeline_tag: sentence-similarity",
        *([f"license: {licence}"] if licence else []),
        "tags: [sentence-embeddings, simcse]",
        "---",
        f"# {name}",
        "",
        f"Turns sentences into vectors of {encoder.dim} numbers and unit length, whose dot product says how close two",
        "sentences are in meaning. Made with simcse_tf: SimCSE (Gao et al., EMNLP 2021) for Keras 3 and TensorFlow.",
        "",
        "## Encoder",
        "",
        *table("property", "value", _encoder_rows(encoder)),
        "",
        *_prompts(encoder, prompts_added_by),
        *_sizes(encoder),
        *section,
        "## Recipe",
        "",
        *(_recipe(run.config) if run else [not_trained]),
        "",
        "## Scores",
        "",
        *(_scores(encoder, run) if run else [_NO_SCORES]),
        "",
        "## Versions",
        "",
        *table("package", "version", _version_rows(packages)),
        "",
        "## Licence",
        "",
        f"The weights are derived from {origin}. Data that they were trained on may have terms of its own.",
    ]
    (directory / CARD_FILE).write_text("\n".join(lines) + "\n", "utf-8")


def provenance(source: str) -> dict[str, Any]:
    """What an exported model says of its origin: its `source`, and what that was `trained_from` if it is a run.

    Args:
        source: As `write` takes it.
    """
    said: dict[str, Any] = {"source": source} if source else {}
    if source and runs.is_run(Path(source)):
        began = runs.read_config(Path(source))
        said["trained_from"] = {"preset": began.preset, "pooling": began.pooling}
    return said


def _encoder_rows(encoder: Encoder) -> list[tuple[str, Any]]:
    backbone = encoder.backbone
    head = "dense layer and tanh" if encoder.head_at_inference else "none at inference"
    return [
        ("architecture", type(backbone).__name__),
        ("layers", backbone.num_layers),
        ("parameters", f"{backbone.count_params():,}"),
        ("pooling", encoder.config.pooling),
        ("head", head),
        ("longest text", f"{encoder.max_length} tokens, the rest is cut off"),
    ]


def _prompts(encoder: Encoder, added_by: str) -> list[str]:
    prompts = encoder.config.prompts
    if not prompts:
        return []
    return [
        "## Prompts",
        "",
        "For search, put the first before every query and the second before every text that queries should find:",
        "",
        *(f"    {json.dumps(prompt, ensure_ascii=False)}" for prompt in prompts.values()),
        "",
        added_by,
        "",
    ]


def _sizes(encoder: Encoder) -> list[str]:
    if not encoder.is_cut and not encoder.sizes:
        return []
    lines = ["## Size of the vectors", ""]
    if encoder.is_cut:
        lines += [
            f"These are the first {encoder.dim} of {encoder.backbone.hidden_dim} numbers, scaled to unit length again.",
            "",
        ]
    if encoder.sizes:
        lines += [
            f"Trained to be cut to the first {_listed(encoder.sizes)} numbers (Matryoshka). Scale what is left to unit",
            "length again: `v[:d] / norm(v[:d])`. Cut the vectors of queries and of documents alike.",
            "",
        ]
    return lines


def _listed(sizes: Sequence[int]) -> str:
    *most, last = map(str, sizes)
    return f"{', '.join(most)} or {last}" if most else last


def _recipe(config: TrainConfig) -> list[str]:
    values = [(name, getattr(config, name)) for name in _RECIPE]
    return table("field", "value", [(name, value) for name, value in values if value not in (None, ())])


def _scores(encoder: Encoder, run: runs.Run) -> list[str]:
    if not run.evaluations:
        return ["The run was not evaluated."]
    # A run evaluates at the maximum length that is an encoder's default.
    measured = _way(run.config.pooling, run.config.head, min(encoder.backbone.max_sequence_length, 512))
    now = _way(encoder.config.pooling, encoder.config.head, encoder.max_length)
    # A run evaluates all numbers of its vectors, and the sizes that it was trained for.
    dev = runs.figure_at("dev", encoder.dim) if encoder.dim in run.sizes else "dev"
    if encoder.is_cut and dev == "dev":
        measured, now = f"{measured}, all numbers", f"{now}, {encoder.dim} numbers"
    note = [] if now == measured else ["", f"Measured with {measured}. This model, with {now}, was not measured."]
    step = f"step {run.best['step']}"
    if share := run.best.get("keep"):
        step += f", {share:g} of the starting weights kept"
    return [
        f"On the development set {run.development_sets[0].name}, one seed:",
        "",
        *table(
            "encoder",
            run.development_sets[0].label,
            [
                ("before training", f"{run.before[dev]:.2f}"),
                (f"{step}{'' if note else ' (this model)'}", f"{run.best[dev]:.2f}"),
                *(
                    (f"{step}, cut to {size} numbers", f"{run.best[runs.figure_at('dev', size)]:.2f}")
                    for size in run.sizes
                    if size < encoder.dim
                ),
            ],
        ),
        *note,
    ]


def _way(pooling: str, head: str, max_length: int) -> str:
    """How an encoder makes vectors at inference; equal for encoders with the same weights and the same vectors."""
    name = "cls" if pooling == "cls_before_pooler" else pooling
    with_head = head == "always" and pooling != "cls_before_pooler"
    return f"pooling {name}, {'the head' if with_head else 'no head'} and at most {max_length} tokens"


def _version_rows(packages: Sequence[str]) -> list[tuple[str, Any]]:
    return [("simcse_tf", __version__), *((p, importlib.metadata.version(p)) for p in packages)]


def table(name: str, value: str, rows: list[tuple[str, Any]]) -> list[str]:
    """A table under two headings."""
    return [f"| {name} | {value} |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)]
