"""The model card: what an exported encoder is, where it comes from and what it scored. Written with every export."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simcse_tf import __version__

if TYPE_CHECKING:
    from simcse_tf.models.encoder import SentenceEncoder

CARD_FILE = "README.md"
_PACKAGES = ("tensorflow", "tensorflow-text", "keras", "keras-hub")
# Licences of the weights that training may start from, as far as this package knows them.
_LICENCES = {"minilm": ("apache-2.0", "sentence-transformers/all-MiniLM-L6-v2, Apache-2.0")}
_RECIPE = (
    "preset",
    "data",
    "loss",
    "temperature",
    "batch_size",
    "learning_rate",
    "max_length",
    "dropout",
    "epochs",
    "max_steps",
    "seed",
)


def write(encoder: SentenceEncoder, directory: Path, *, name: str, source: str) -> None:
    """Writes `README.md` into an exported directory.

    Args:
        encoder: What was exported.
        directory: Where the card goes.
        name: The model's name.
        source: What was exported: a run directory, whose recipe and scores are told, or a preset's name or directory.
    """
    run = Path(source)
    config = _json(run / "config.json") if (run / "metrics.jsonl").is_file() else {}
    start = Path(config.get("preset", source)).name
    licence, origin = _LICENCES.get(start, (None, f"{start}, whose licence this package does not know"))
    lines = [
        "---",
        "library_name: sentence-transformers",
        "pipeline_tag: sentence-similarity",
        *([f"license: {licence}"] if licence else []),
        "tags: [sentence-embeddings, simcse, keras]",
        "---",
        f"# {name}",
        "",
        f"Turns sentences into vectors of {encoder.dim} numbers and unit length, whose dot product says how much two",
        "sentences mean the same. Made with simcse_tf: SimCSE (Gao et al., EMNLP 2021) for Keras 3 and TensorFlow.",
        "",
        "## Encoder",
        "",
        *_table("property", "value", _encoder_rows(encoder)),
        "",
        "## Recipe",
        "",
        *(_recipe(config) if config else [f"Not trained here: `{start}` as it is."]),
        "",
        "## Scores",
        "",
        *(_scores(run) if config else ["None measured at export. `python -m simcse_tf.evaluate` measures them."]),
        "",
        "## Versions",
        "",
        *_table("package", "version", _version_rows()),
        "",
        "## Licence",
        "",
        f"The weights are derived from {origin}. Data that they were trained on may have terms of its own.",
    ]
    (directory / CARD_FILE).write_text("\n".join(lines) + "\n", "utf-8")


def _encoder_rows(encoder: SentenceEncoder) -> list[tuple[str, Any]]:
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


def _recipe(config: dict[str, Any]) -> list[str]:
    return _table("field", "value", [(name, config[name]) for name in _RECIPE if config.get(name) is not None])


def _scores(run: Path) -> list[str]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    evaluations = [line for line in lines if "dev" in line]
    if not evaluations:
        return ["The run was not evaluated."]
    first, best = evaluations[0], max(evaluations, key=lambda line: line["dev"])
    return [
        "On the development set, one seed:",
        "",
        *_table(
            "encoder",
            "Spearman x 100",
            [("before training", f"{first['dev']:.2f}"), (f"step {best['step']} (this model)", f"{best['dev']:.2f}")],
        ),
    ]


def _version_rows() -> list[tuple[str, Any]]:
    return [("simcse_tf", __version__), *((p, importlib.metadata.version(p)) for p in _PACKAGES)]


def _table(name: str, value: str, rows: list[tuple[str, Any]]) -> list[str]:
    """A table under two headings."""
    return [f"| {name} | {value} |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)]


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8"))
