"""A model on disk, run in this process. The only backend that needs TensorFlow."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from simcse_tf.data.strings import PROMPT_NAMES
from simcse_tf.errors import UserError
from simcse_tf.serving.exported import about, version_directory

# Where tensorflow-text keeps the operations of the tokenizers that are exported. Importing all of it would import Keras
# and twenty other libraries: 100 MiB.
_LIBRARIES = ("_fast_wordpiece_tokenizer", "_normalize_ops", "_regex_split_ops", "_sentencepiece_tokenizer")


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
        import tensorflow as tf

        try:
            self._model = _load(directory)
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


def _load(directory: Path) -> Any:
    import tensorflow as tf

    _register_tokenizers()
    try:
        return tf.saved_model.load(str(directory))
    except RuntimeError as e:
        # The model has an operation of another tokenizer, as those of others may.
        if "Op type not registered" not in str(e):
            raise
    import tensorflow_text  # noqa: F401

    return tf.saved_model.load(str(directory))


def _register_tokenizers() -> None:
    """Makes the operations of the tokenizers known to TensorFlow, as importing tensorflow_text would."""
    import tensorflow as tf

    spec = importlib.util.find_spec("tensorflow_text")
    assert spec is not None
    assert spec.origin is not None
    for name in _LIBRARIES:
        library = Path(spec.origin).parent / "python" / "ops" / f"{name}.so"
        # Where another release keeps it elsewhere, the model's operations are not known.
        if library.is_file():
            tf.load_op_library(str(library))
