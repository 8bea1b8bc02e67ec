"""MODEL on a command line: a SavedModel, a run, a preset or a Hugging Face directory; all give `encode(texts) -> vectors`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from simcse_tf.models import presets
from simcse_tf.serving.versions import is_saved_model, version_directory


class Encodes(Protocol):
    """Anything that turns texts into unit vectors."""

    def encode(self, texts: Sequence[str], *, batch_size: int = 64) -> np.ndarray:
        """`(len(texts), dim)` float32 of unit length, in the order of `texts`."""
        ...


def locate(model: str) -> Callable[[], Encodes]:
    """Finds MODEL and checks it without importing TensorFlow.

    Args:
        model: A SavedModel directory, a run directory, a preset name or a Hugging Face directory.

    Returns:
        A function that loads it.

    Raises:
        UserError: There is no such model, or a file of it is damaged.
    """
    path = Path(model)
    if path.is_dir() and is_saved_model(path):
        directory = version_directory(path)

        def load_client() -> Encodes:
            from simcse_tf.serving.client import Client

            return Client(directory)

        return load_client
    origin = presets.locate(model)

    def load_live() -> Encodes:
        from simcse_tf.models.saved import load_encoder

        return load_encoder(origin)

    return load_live


def load(model: str) -> Encodes:
    """Loads MODEL.

    Args:
        model: As for `locate`.

    Raises:
        UserError: There is no such model, or it cannot be loaded.
    """
    return locate(model)()
