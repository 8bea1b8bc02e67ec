"""SimCSE for Keras 3 and TensorFlow: contrastive sentence embeddings, from text to a served model.

In short::

    import simcse_tf

    model = simcse_tf.load("saved_models/quickstart")
    model.encode(["A man plays the guitar.", "Someone makes music."])
    model.similarity("A man plays the guitar.", "Someone makes music.")
    model.build_index("sentences.txt")
    model.search("Who plays music?")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simcse_tf.serving.client import Client

__version__ = "0.1.0"


def load(model: str | Path) -> Client:
    """Loads a sentence encoder, wherever it is.

    Args:
        model: A SavedModel directory, the address of a model in TF Serving (`http://host:8501/v1/models/NAME`,
            `grpc://host:8500/NAME`), a run directory, a preset name (`minilm`) or a Hugging Face directory.

    Returns:
        An object with `encode`, `similarity`, `build_index`, `load_index` and `search`.

    Raises:
        simcse_tf.errors.UserError: There is no such model, or it cannot be loaded.
    """
    # Importing the package must stay cheap: every command does it before it reads its flags.
    from simcse_tf.loading import load_client

    return load_client(str(model))
