"""MODEL on a command line: an exported model, a run, a preset, a Hugging Face directory or a server's address.

All of them give `encode(texts) -> vectors`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from simcse_tf import quiet
from simcse_tf.config import Pooling
from simcse_tf.data.strings import PromptName, check_prompt_name
from simcse_tf.errors import UserError
from simcse_tf.serving.compact import Dtype, check_dim
from simcse_tf.serving.exported import about, is_exported, is_litert, version_directory

if TYPE_CHECKING:
    from simcse_tf.serving.client import Client

_ADDRESSES = ("http://", "https://", "grpc://")


class Encodes(Protocol):
    """Anything that turns texts into unit vectors."""

    @property
    def prompt_names(self) -> tuple[str, ...]:
        """The names of its prompts, `query` and `passage`, if it has any."""
        ...

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes below its own that its vectors were trained to be cut to, if any."""
        ...

    def encode(
        self,
        texts: Sequence[str],
        *,
        batch_size: int = 64,
        prompt_name: PromptName | None = None,
        dtype: Dtype = "float32",
    ) -> np.ndarray:
        """`(len(texts), dim)` of unit length, in the order of `texts`, each with that prompt before it."""
        ...


def locate(
    model: str, pooling: Pooling | None = None, *, prompt_name: PromptName | None = None, dim: int | None = None
) -> Callable[[], Encodes]:
    """Finds MODEL and checks it without importing TensorFlow.

    Args:
        model: A SavedModel or LiteRT directory, a run directory, a preset name, a Hugging Face directory, or the
            address of a model in TF Serving (`http://`, `https://`, `grpc://`).
        pooling: Pool in another way than the encoder was saved with; an exported model cannot.
        prompt_name: A prompt that the model must have; of an exported model only its `encode` knows.
        dim: How many numbers of its vectors to keep, scaled to unit length again.

    Returns:
        A function that loads it, or raises a `UserError` if it cannot be loaded.

    Raises:
        UserError: There is no such model, a file of it is damaged, it cannot pool in another way, it has no prompts, or
            its vectors have fewer numbers than `dim`.
    """
    path = Path(model)
    served = model.startswith(_ADDRESSES)
    if served or (path.is_dir() and is_exported(path)):
        where = model if served or is_litert(path) else version_directory(path)
        if pooling is not None:
            raise UserError(
                f"`pooling` {pooling}: {model} is an exported model, whose pooler is fixed. Omit `pooling`, or give "
                "the run or the preset that it was exported from."
            )
        if dim is not None:
            # Of an address, and of an export by version 0.1.0, the client will know.
            check_dim(dim, None if served else about(Path(where)).get("dim"))

        def load_exported() -> Encodes:
            from simcse_tf.serving.client import Client

            return Client(where, dim=dim)

        return load_exported
    # Not at the top: a process that asks an exported model needs none of it.
    from simcse_tf.formats import presets

    origin = presets.locate(model)
    config = origin.encoder_config(pooling=pooling, dim=dim)
    if prompt_name is not None:
        check_prompt_name(prompt_name, config.prompts)

    def load_live() -> Encodes:
        quiet.import_tensorflow()
        from simcse_tf.formats.encoders import load_encoder

        return load_encoder(origin, config)

    return load_live


def load(model: str, pooling: Pooling | None = None) -> Encodes:
    """Finds and loads MODEL: `locate(model, pooling)()`."""
    return locate(model, pooling)()


def load_client(model: str | Path, *, dim: int | None = None) -> Client:
    """Loads a sentence encoder, wherever it is: `simcse_tf.load`.

    Args:
        model: A SavedModel or LiteRT directory, the address of a served model (`http://host:8501/v1/models/NAME`,
            `grpc://host:8500/NAME`), a run directory, a preset name (`minilm`), a keras-hub preset directory or a
            Hugging Face directory.
        dim: How many numbers of each vector to keep, the first ones, scaled to unit length again. None: all.

    Returns:
        An object with `encode`, `similarity`, `build_index`, `load_index` and `search`.

    Raises:
        UserError: There is no such model, it cannot be loaded, or its vectors have fewer numbers than `dim`.
    """
    from simcse_tf.serving.client import Client

    encoder = locate(str(model), dim=dim)()
    return encoder if isinstance(encoder, Client) else Client(_Live(str(model), encoder))


class _Live:
    """An encoder in this process, as the client wants its backends."""

    def __init__(self, name: str, encoder: Encodes):
        self.name = name
        self.prompt_names = encoder.prompt_names
        self.sizes = encoder.sizes
        self._encoder = encoder

    def encode_batch(self, texts: list[str], prompt_name: PromptName | None = None) -> np.ndarray:
        """`(len(texts), dim)` float32 of unit length."""
        return self._encoder.encode(texts, batch_size=len(texts), prompt_name=prompt_name)
