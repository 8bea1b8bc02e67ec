"""Safetensors files: writing them, whether they are complete, and the tensors of a Hugging Face directory by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from simcse_tf.errors import UserError
from simcse_tf.files import read_json


def save(tensors: Mapping[str, np.ndarray], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Writes tensors with the permissions of any new file; safetensors' own writer leaves them to the owner alone.

    Args:
        tensors: By name, of any layout.
        path: The file.
        metadata: Texts for its header.
    """
    from safetensors.numpy import save_file

    # The permissions that the umask allows are those of a file that was just made.
    path.touch()
    mode = path.stat().st_mode
    save_file({name: np.asarray(value, order="C") for name, value in tensors.items()}, path, metadata=metadata)
    path.chmod(mode)


def load(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file by name."""
    from safetensors.numpy import load_file

    return load_file(path)


def weights_files(directory: Path) -> list[Path]:
    """The weights: `model.safetensors`, or the shards that its index names.

    Raises:
        UserError: One is missing.
    """
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        try:
            paths = [directory / shard for shard in sorted(set(read_json(index)["weight_map"].values()))]
        except (KeyError, TypeError, AttributeError) as e:
            raise UserError(f"{index}: no weight_map of tensors to files. Download it again.") from e
    else:
        paths = [directory / "model.safetensors"]
    for path in paths:
        if not path.is_file():
            only = " The directory has pytorch_model.bin alone." if (directory / "pytorch_model.bin").is_file() else ""
            raise UserError(
                f"{path}: not found.{only} Save the model with save_pretrained(..., safe_serialization=True), or "
                "download its safetensors files."
            )
    return paths


def check_length(path: Path) -> None:
    """Checks a safetensors file's length: 8 bytes of header length, a JSON header with offsets, then the numbers.

    Raises:
        UserError: The file is shorter or longer than its header says, or the header is damaged.
    """
    size = path.stat().st_size
    with path.open("rb") as f:
        header_length = int.from_bytes(f.read(8), "little")
        if size < 8 or header_length > size - 8:
            raise UserError(f"{path}: cut short or not a safetensors file ({size} bytes). Download it again.")
        try:
            header = json.loads(f.read(header_length))
            end = max((t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"), default=0)
        except (ValueError, KeyError, TypeError) as e:
            raise UserError(f"{path}: damaged safetensors header ({e}). Download it again.") from e
    if size != 8 + header_length + end:
        raise UserError(
            f"{path}: has {size} bytes where its header promises {8 + header_length + end}. Download it again."
        )


class Tensors:
    """The tensors of a directory by name, whatever prefix or LayerNorm spelling the checkpoint uses."""

    def __init__(self, directory: Path, prefix: str):
        self._directory = directory
        self._prefix = prefix

    def __enter__(self) -> Tensors:
        from safetensors import safe_open

        self._files = [safe_open(path, framework="np") for path in weights_files(self._directory)]
        self._where = {name: file for file in self._files for name in file.keys()}  # noqa: SIM118 (no mapping)
        return self

    def __exit__(self, *exc: object) -> None:
        self._where, self._files = {}, []

    def __getitem__(self, name: str) -> np.ndarray:
        # Checkpoints converted from TensorFlow spell LayerNorm's weights gamma and beta.
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        for candidate in (name, self._prefix + name, old, self._prefix + old):
            if candidate in self._where:
                return np.asarray(self._where[candidate].get_tensor(candidate), "float32")
        raise UserError(
            f"{self._directory}: the weights have no tensor '{name}' (nor '{self._prefix}{name}'). "
            "Is it a checkpoint of the encoder that config.json describes?"
        )
