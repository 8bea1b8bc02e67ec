"""Exported models on disk. Standard library only.

A SavedModel is `NAME/<version>/saved_model.pb`, as TF Serving lays it out; a LiteRT model is one directory.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from simcse_tf.errors import UserError
from simcse_tf.files import read_json_object

MODEL_FILE = "model.tflite"
TOKENIZER_FILE = "tokenizer.json"
ENCODER_FILE = "encoder.json"
# Where TF Serving leaves files of others alone, under a version's directory.
EXTRA = "assets.extra"
# The program that goes with every LiteRT model, and that runs it here.
EMBEDDER = Path(__file__).with_name("embedder.py")


def is_exported(path: Path) -> bool:
    """Whether `path` is an exported model of any format."""
    return is_saved_model(path) or is_litert(path)


def is_litert(path: Path) -> bool:
    """Whether `path` is a LiteRT model, though one of its files may be missing or it may be for MediaPipe alone."""
    files = (MODEL_FILE, EMBEDDER.name, ENCODER_FILE)
    return sum((path / name).is_file() for name in files) > 1 or is_mediapipe(path)


def is_mediapipe(path: Path) -> bool:
    """Whether `path` is a model for MediaPipe: one like LiteRT's, with the vocabulary packed into its file."""
    return zipfile.is_zipfile(path / MODEL_FILE)


def is_saved_model(path: Path) -> bool:
    """Whether `path` is a version of an exported model, or a model with at least one version."""
    return (path / "saved_model.pb").is_file() or latest_version(path) is not None


def model_file(directory: Path) -> Path | None:
    """The file with the graph of the version or the LiteRT model in a directory; None if there is none."""
    return next((directory / name for name in ("saved_model.pb", MODEL_FILE) if (directory / name).is_file()), None)


def about(directory: Path) -> dict[str, Any]:
    """What the encoder in a version's or a LiteRT model's directory says of itself; nothing if it is of version 0.1.0.

    Raises:
        UserError: The file is damaged.
    """
    for file in (directory / EXTRA / ENCODER_FILE, directory / ENCODER_FILE):
        if file.is_file():
            return read_json_object(file)
    return {}


def latest_version(model: Path) -> int | None:
    """The highest numbered version under a model's directory; None if there is none."""
    versions = [int(p.name) for p in model.glob("*") if p.name.isdecimal() and (p / "saved_model.pb").is_file()]
    return max(versions, default=None)


def next_version(model: Path) -> Path:
    """The directory for the next version of a model."""
    taken = [int(p.name) for p in model.glob("*") if p.name.isdecimal()]
    return model / str(max(taken, default=0) + 1)


def version_directory(path: Path) -> Path:
    """The directory that holds `saved_model.pb`: `path` itself, or the newest version under it.

    Raises:
        UserError: There is none.
    """
    if (path / "saved_model.pb").is_file():
        return path
    version = latest_version(path)
    if version is None:
        raise UserError(
            f"{path}: no exported model there, neither a SavedModel nor a LiteRT directory. `simcse-tf export RUN --to "
            f"{path}` writes one."
        )
    return path / str(version)
