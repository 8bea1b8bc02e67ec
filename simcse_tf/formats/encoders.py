"""Encoders on disk: a keras-hub preset with `encoder.json` (pooler, head, length) and the head's weights beside it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from simcse_tf.config import EncoderConfig, HeadInit
from simcse_tf.errors import UserError
from simcse_tf.files import whole_directory
from simcse_tf.formats import huggingface, presets, sentence_transformers
from simcse_tf.models.encoder import SentenceEncoder


def save_encoder(encoder: SentenceEncoder, directory: Path) -> None:
    """Writes an encoder, all of it or nothing. keras-hub reads the directory as a preset.

    Args:
        encoder: The encoder.
        directory: Must not exist.
    """
    with whole_directory(directory) as new:
        encoder.backbone.save_to_preset(str(new))
        encoder.tokenizer.save_to_preset(str(new))
        if encoder.head is not None:
            from safetensors.numpy import save_file

            kernel, bias = encoder.head.get_weights()
            save_file({"kernel": kernel, "bias": bias}, new / presets.HEAD_FILE)
        checked = [name for name in (presets.WEIGHTS_FILE, presets.HEAD_FILE) if (new / name).is_file()]
        about = dataclasses.asdict(encoder.config) | {"sha256": {name: presets.sha256(new / name) for name in checked}}
        (new / presets.ENCODER_FILE).write_text(json.dumps(about, indent=2) + "\n", "utf-8")


def load_encoder(
    origin: presets.Origin,
    config: EncoderConfig | None = None,
    *,
    dropout: float = 0.1,
    dtype: str = "float32",
    head_init: HeadInit = "random",
) -> SentenceEncoder:
    """Builds an encoder from a located preset.

    Args:
        origin: From `presets.locate`.
        config: Pooler, head and maximum length; by default what the origin says of itself, else [CLS] without a head.
        dropout: Rate for the backbone's dropout layers.
        dtype: A Keras dtype policy name for the backbone; pooling, head and loss are always float32.
        head_init: Where a head starts that the origin has not saved: `random`, or `pooler` for the checkpoint's pooler.

    Raises:
        UserError: The weights cannot be read or do not fit; no pooler to start the head from.
    """
    backbone, tokenizer = presets.load(origin, dropout=dropout, dtype=dtype)
    config = config or origin.config or EncoderConfig(head="none")
    encoder = SentenceEncoder(backbone, tokenizer, config.pooling, config.head, config.max_length)
    if encoder.head is None:
        return encoder
    if origin.has_head:
        from safetensors.numpy import load_file

        assert origin.directory is not None
        head = load_file(origin.directory / presets.HEAD_FILE)
        encoder.head.set_weights([head["kernel"], head["bias"]])
    elif (dense := _dense(origin)) is not None:
        encoder.head.set_weights(dense)
    elif head_init == "pooler":
        encoder.head.set_weights(_pooler(origin, backbone))
    return encoder


def _dense(origin: presets.Origin) -> list[np.ndarray] | None:
    """The head of a sentence-transformers directory."""
    if origin.kind != "huggingface" or origin.directory is None:
        return None
    return sentence_transformers.head(origin.directory)


def _pooler(origin: presets.Origin, backbone) -> list[np.ndarray]:
    if origin.kind == "huggingface":
        assert origin.directory is not None
        return list(huggingface.pooler(origin.directory))
    if not hasattr(backbone, "pooled_dense"):
        raise UserError(f"--head-init pooler: preset '{origin.name}' has no pooler. Use --head-init random.")
    return backbone.pooled_dense.get_weights()
