"""Encoders on disk: `save_encoder` as a run saves them, `load_encoder` from any `Origin`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simcse_tf.config import EncoderConfig, HeadInit
from simcse_tf.errors import UserError
from simcse_tf.files import check_new, whole_directory
from simcse_tf.formats import encoder_json, huggingface, keras_hub, sentence_transformers
from simcse_tf.formats.presets import Origin
from simcse_tf.models.encoder import SentenceEncoder


def save_encoder(encoder: SentenceEncoder, directory: Path) -> None:
    """Writes an encoder, all of it or nothing. keras-hub reads the directory as a preset.

    Args:
        encoder: The encoder.
        directory: Must not exist.

    Raises:
        UserError: It exists.
    """
    check_new(directory)
    with whole_directory(directory) as new:
        keras_hub.save(encoder, new)


def load_encoder(
    origin: Origin,
    config: EncoderConfig | None = None,
    *,
    dropout: float = 0.1,
    dtype: str = "float32",
    head_init: HeadInit = "random",
) -> SentenceEncoder:
    """Builds an encoder from what `presets.locate` found.

    Args:
        origin: From `presets.locate`.
        config: Pooling, head and maximum length; by default what the origin says of itself, else [CLS] without a head.
        dropout: Rate for the backbone's dropout layers.
        dtype: A Keras dtype policy name for the backbone; pooling, head and loss are always float32.
        head_init: Where a head starts that the origin has not saved: `random`, or `pooler` for the checkpoint's pooler.

    Raises:
        UserError: The weights cannot be read or do not fit; there is no pooler to start the head from.
    """
    if origin.kind == "huggingface":
        assert origin.directory is not None
        backbone, tokenizer = huggingface.load(origin.directory, dropout=dropout, dtype=dtype)
    else:
        preset = origin.name if origin.directory is None else str(origin.directory.resolve())
        backbone, tokenizer = keras_hub.load(preset, dropout=dropout, dtype=dtype)
    config = config or origin.encoder_config()
    encoder = SentenceEncoder(backbone, tokenizer, config.pooling, config.head, config.max_length)
    if encoder.head is not None:
        weights = _saved_head(origin)
        if weights is None and head_init == "pooler":
            weights = _pooler(origin, backbone)
        if weights is not None:
            encoder.head.set_weights(weights)
    return encoder


def _saved_head(origin: Origin) -> list[np.ndarray] | None:
    """The head of an encoder that a run saved, or of a sentence-transformers directory."""
    if origin.directory is None:
        return None
    return (sentence_transformers if origin.kind == "huggingface" else encoder_json).head(origin.directory)


def _pooler(origin: Origin, backbone) -> list[np.ndarray]:
    if origin.kind == "huggingface":
        assert origin.directory is not None
        return huggingface.pooler(origin.directory)
    if not hasattr(backbone, "pooled_dense"):
        raise UserError(f"`head_init` pooler: the preset {origin.name} has no pooler. Use `head_init` random.")
    return backbone.pooled_dense.get_weights()
