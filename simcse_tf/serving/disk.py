"""A model on disk, run in this process. The only backend that needs TensorFlow."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simcse_tf.data.strings import PROMPT_NAMES
from simcse_tf.errors import UserError
from simcse_tf.serving.exported import about, version_directory


class DiskBackend:
    """A SavedModel on disk.

    Args:
        path: The model's directory (`saved_models/quickstart`, its newest version is taken) or one version's
            (`saved_models/quickstart/1`).

    Raises:
        UserError: There is no SavedModel, or this package did not export it.
    """

    def __init__(self, path: Path):
        directory = version_directory(path)
        self.name = str(directory)
        # Registers the tokenizer's operations.
        import tensorflow as tf
        import tensorflow_text  # noqa: F401

        try:
            self._model = tf.saved_model.load(str(directory))
        except (OSError, ValueError, tf.errors.OpError) as e:
            raise UserError(f"{directory}: cannot be loaded: {e}") from e
        signature = self._model.signatures.get("serving_default")
        if signature is None or set(signature.structured_outputs) != {"embedding"}:
            raise UserError(f"{directory}: its signature is not text -> embedding; was it exported by simcse_tf?")
        self.prompt_names = tuple(name for name in PROMPT_NAMES if name in self._model.signatures)
        self.sizes = tuple(about(directory).get("matryoshka", ()))

    def encode_batch(self, texts: list[str], prompt_name: str | None = None) -> np.ndarray:
        """`(len(texts), dim)` float32 of unit length."""
        import tensorflow as tf

        serve = self._model.signatures[prompt_name or "serving_default"]
        return serve(text=tf.constant(texts, tf.string, shape=[len(texts)]))["embedding"].numpy()
