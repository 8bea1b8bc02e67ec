"""Embeddings from an exported model. Imports neither Keras nor the trainer: TensorFlow and its text operations suffice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from simcse_tf.errors import UserError
from simcse_tf.serving.versions import version_directory


class Client:
    """A SavedModel on disk.

    Args:
        model: The model's directory (`saved_models/quickstart`, its newest version is taken) or one version's
            (`saved_models/quickstart/1`).

    Raises:
        UserError: There is no SavedModel, or it is not one of this package.
    """

    def __init__(self, model: str | Path):
        directory = version_directory(Path(model))
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
        self._serve = signature
        self.dim = int(signature.structured_outputs["embedding"].shape[-1])

    def encode(self, texts: Sequence[str], *, batch_size: int = 64) -> np.ndarray:
        """Encodes texts.

        Args:
            texts: Any number of texts.
            batch_size: Texts per call of the model; texts of like length go together.

        Returns:
            `(len(texts), dim)` float32 of unit length, in the order of `texts`.
        """
        import tensorflow as tf

        vectors = np.zeros((len(texts), self.dim), "float32")
        by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(texts), batch_size):
            rows = by_length[start : start + batch_size]
            vectors[rows] = self._serve(text=tf.constant([texts[i] for i in rows]))["embedding"]
        return vectors

    def similarity(self, a: Sequence[str], b: Sequence[str]) -> np.ndarray:
        """Cosine similarities of all of `a` with all of `b`: `(len(a), len(b))` float32."""
        return self.encode(a) @ self.encode(b).T
