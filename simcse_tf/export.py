"""Exports an encoder as a SavedModel or for others: `python -m simcse_tf.export RUN --to saved_models/NAME`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from simcse_tf import cli, quiet
from simcse_tf.checks import require
from simcse_tf.config import Pooling, Quantize
from simcse_tf.errors import UserError
from simcse_tf.formats import mediapipe, presets, web
from simcse_tf.formats.served_ops import OLDEST, Target

_DESCRIPTION = "Export an encoder as a SavedModel for TF Serving, or in the format of another library."


@dataclass(frozen=True)
class ExportConfig:
    """Flags of the command."""

    # A run directory, a preset name or a Hugging Face directory.
    run: tyro.conf.Positional[str]
    # The model's directory, into which the next version is written; for the other formats a new directory.
    to: Path
    # savedmodel: for TF Serving and the demo; litert: for processes without TensorFlow;
    # mediapipe: for apps, in the Text Embedder of MediaPipe Tasks; web: a page that runs LiteRT in the browser (needs
    # npm); huggingface: for transformers and sentence-transformers; keras-hub: a preset.
    format: Literal["savedmodel", "litert", "mediapipe", "web", "huggingface", "keras-hub"] = "savedmodel"
    # How a model for LiteRT, MediaPipe or the web stores its weights: float32 (none), float16 (half the size) or int8
    # (a quarter, and the fastest for sentences). Default: none; for the web int8.
    quantize: Quantize | None = None
    # Pool in another way than the encoder was saved with.
    pooling: Pooling | None = None
    # Longest text in tokens; the rest is cut off. Default: what the encoder was saved with.
    max_length: int | None = None
    # What is put before a query, and before a text that a query should find, exactly as it is given; "" for nothing.
    # Default: what the encoder was saved with.
    query_prompt: str | None = None
    passage_prompt: str | None = None
    # Numbers of a vector to keep, the first ones, scaled to unit length again; for encoders that were trained with
    # --matryoshka. Default: what the encoder was saved with, as a rule all.
    dim: int | None = None
    # The oldest tensorflow/serving image that has to load a SavedModel.
    target_serving: Target = OLDEST


def main(arguments: list[str]) -> None:
    """The command: prints the new version's directory."""
    config = cli.parse(ExportConfig, arguments, prog=cli.prog("export"), description=_DESCRIPTION)
    _check(config)
    origin = presets.locate(config.run)
    if config.format == "mediapipe":
        mediapipe.check_origin(origin)
    given = ("pooling", "max_length", "query_prompt", "passage_prompt", "dim")
    encoder_config = origin.encoder_config(**{name: getattr(config, name) for name in given})
    if config.format == "web":
        with cli.phase(cli.console(), "looking for the page's npm packages"):
            web.runtime()

    # TensorFlow is imported from here on; every complaint about flags and files has been made.
    with cli.phase(cli.console(), f"exporting {config.run}"):
        with cli.lean_imports():
            quiet.import_tensorflow()
            from simcse_tf.formats import huggingface, keras_hub, litert, savedmodel
            from simcse_tf.formats.encoders import load_encoder

        encoder = load_encoder(origin, encoder_config)
        if config.format == "savedmodel":
            to = savedmodel.export(encoder, config.to, source=config.run, target=config.target_serving)
        elif config.format in ("litert", "mediapipe"):
            format = litert if config.format == "litert" else mediapipe
            to = format.export(encoder, config.to, source=config.run, quantize=config.quantize or "none")
        elif config.format == "web":
            to = web.export(encoder, config.to, source=config.run, quantize=config.quantize or "int8")
        else:
            format = huggingface if config.format == "huggingface" else keras_hub
            to = format.export(encoder, config.to, source=config.run)
    print(to)


def _check(config: ExportConfig) -> None:
    cli.check_directory(config.to, "--to")
    if config.format != "savedmodel" and config.target_serving != OLDEST:
        raise UserError(f"--target-serving {config.target_serving}: only a SavedModel has one. Omit it.")
    if config.format not in ("litert", "mediapipe", "web") and config.quantize:
        raise UserError(f"--quantize {config.quantize}: only --format litert, mediapipe and web have it. Omit it.")
    if config.format != "savedmodel" and config.to.exists():
        raise UserError(f"--to {config.to}: exists. Delete it, or choose another directory.")
    if config.format in ("litert", "web"):
        require("ai_edge_litert", "litert", f"--format {config.format} needs ai-edge-litert")


if __name__ == "__main__":
    cli.run(main)
