"""Exports an encoder as a SavedModel or for others: `python -m simcse_tf.export RUN --to saved_models/NAME`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from simcse_tf import cli, quiet
from simcse_tf.config import Pooling
from simcse_tf.errors import UserError
from simcse_tf.formats import presets
from simcse_tf.formats.served_ops import OLDEST, Target
from simcse_tf.serving.versions import is_saved_model

_DESCRIPTION = "Export an encoder as a SavedModel for TF Serving, or in the format of another library."


@dataclass(frozen=True)
class ExportConfig:
    """Flags of the command."""

    # A run directory, a preset name or a Hugging Face directory.
    run: tyro.conf.Positional[str]
    # The model's directory, into which the next version is written; for the other formats a new directory.
    to: Path
    # savedmodel: for TF Serving and the demo; huggingface: for transformers and sentence-transformers; keras-hub: a
    # preset.
    format: Literal["savedmodel", "huggingface", "keras-hub"] = "savedmodel"
    # Pool in another way than the encoder was saved with.
    pooling: Pooling | None = None
    # Longest text in tokens; the rest is cut off. Default: what the encoder was saved with.
    max_length: int | None = None
    # The oldest tensorflow/serving image that has to load a SavedModel.
    target_serving: Target = OLDEST


def main(arguments: list[str]) -> None:
    """The command: prints the new version's directory."""
    config = cli.parse(ExportConfig, arguments, prog=cli.prog("export"), description=_DESCRIPTION)
    _check(config)
    origin = presets.locate(config.run)
    encoder_config = origin.encoder_config(pooling=config.pooling, max_length=config.max_length)

    # TensorFlow is imported from here on; every complaint about flags and files has been made.
    with cli.phase(cli.console(), f"exporting {config.run}"):
        with cli.lean_imports():
            quiet.import_tensorflow()
            from simcse_tf.formats import huggingface, keras_hub, savedmodel
            from simcse_tf.formats.encoders import load_encoder

        encoder = load_encoder(origin, encoder_config)
        if config.format == "savedmodel":
            to = savedmodel.export(encoder, config.to, source=config.run, target=config.target_serving)
        else:
            format = huggingface if config.format == "huggingface" else keras_hub
            to = format.export(encoder, config.to, source=config.run)
    print(to)


def _check(config: ExportConfig) -> None:
    if is_saved_model(Path(config.run)):
        raise UserError(
            f"{config.run}: is an exported model already. Give the run or the preset that it was exported from."
        )
    cli.check_directory(config.to, "--to")
    if config.format != "savedmodel" and config.target_serving != OLDEST:
        raise UserError(f"--target-serving {config.target_serving}: only a SavedModel has one. Omit it.")
    if config.format != "savedmodel" and config.to.exists():
        raise UserError(f"--to {config.to}: exists. Delete it, or choose another directory.")


if __name__ == "__main__":
    cli.run(main)
