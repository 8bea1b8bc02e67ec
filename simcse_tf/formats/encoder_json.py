"""What an encoder adds to a keras-hub preset: `encoder.json` (pooling, head, length, prompts), the head's weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simcse_tf.config import EncoderConfig
from simcse_tf.errors import UserError
from simcse_tf.files import read_json, sha256, write_json
from simcse_tf.formats import safetensors

if TYPE_CHECKING:
    from simcse_tf.models.encoder import Encoder

_FILE = "encoder.json"
_HEAD = "head.safetensors"
_CHECKED = ("model.weights.h5", _HEAD)


def write(encoder: Encoder, directory: Path) -> None:
    """Writes both files into a keras-hub preset that was just saved."""
    if encoder.head is not None:
        kernel, bias = encoder.head.get_weights()
        safetensors.save({"kernel": kernel, "bias": bias}, directory / _HEAD)
    checksums = {name: sha256(directory / name) for name in _CHECKED if (directory / name).is_file()}
    write_json(directory / _FILE, encoder.config.to_dict() | {"sha256": checksums})


def config(directory: Path) -> EncoderConfig | None:
    """What a preset directory says of pooling, head, maximum length and prompts; None if it has no `encoder.json`.

    Raises:
        UserError: `encoder.json` or a file of weights is damaged.
    """
    file = directory / _FILE
    if not file.is_file():
        return None
    about = read_json(file)
    try:
        found = EncoderConfig.from_dict(about)
        checksums = dict(about["sha256"])
    except (ValueError, KeyError, TypeError) as e:
        raise UserError(
            f"{file}: cannot be read ({type(e).__name__}: {e}). It was edited, or written by another version; save "
            "the encoder again."
        ) from e
    for name, expected in checksums.items():
        actual = sha256(directory / name) if (directory / name).is_file() else "no file"
        if actual != expected:
            raise UserError(
                f"{directory / name}: wrong SHA-256 checksum: {actual}, expected {expected}. The file is damaged; copy "
                "the directory again, or save the encoder again."
            )
    return found


def head(directory: Path) -> list[np.ndarray] | None:
    """The head's weights: `(dim, dim)` kernel, `(dim,)` bias; None if none was saved."""
    if not (directory / _HEAD).is_file():
        return None
    tensors = safetensors.load(directory / _HEAD)
    return [tensors["kernel"], tensors["bias"]]
