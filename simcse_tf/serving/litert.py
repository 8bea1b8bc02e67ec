"""A model in LiteRT's format, run in this process. Needs no TensorFlow."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from simcse_tf.checks import require
from simcse_tf.errors import UserError
from simcse_tf.serving.exported import about, is_mediapipe


class LiteRTBackend:
    """An encoder in LiteRT's format: one interpreter per core, each made when it is first needed.

    Args:
        directory: The exported directory.

    Raises:
        UserError: ai-edge-litert is missing, or so is a file, or one is damaged or of another model, or the model is
            for MediaPipe.
    """

    def __init__(self, directory: Path):
        if is_mediapipe(directory):
            raise UserError(
                f"{directory}: is a model for MediaPipe, which only MediaPipe's Text Embedder runs. Export the encoder "
                "again, with `format` litert."
            )
        require("ai_edge_litert", "litert", f"{directory}: a LiteRT model needs ai-edge-litert")
        from simcse_tf.serving.embedder import Embedder

        self.name = str(directory)
        try:
            self._embedder = Embedder(directory)
        except ValueError as e:
            raise UserError(str(e)) from e
        self.prompt_names = self._embedder.prompt_names
        self.sizes = tuple(about(directory).get("matryoshka", ()))

    def encode_batch(self, texts: list[str], prompt_name: str | None = None) -> np.ndarray:
        """`(len(texts), dim)` float32 of unit length.

        Raises:
            UserError: The directory was replaced since it was loaded.
        """
        try:
            return self._embedder.encode(texts, prompt_name=prompt_name)
        except ValueError as e:
            raise UserError(str(e)) from e
