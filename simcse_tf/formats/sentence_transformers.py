"""What a sentence-transformers directory adds to Hugging Face's: pooling, a Dense module, the maximum length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from simcse_tf.config import EncoderConfig, Pooling
from simcse_tf.errors import UserError

# How a Dense module names the activation of SimCSE's head.
TANH = "torch.nn.modules.activation.Tanh"
# Older versions of the library said cls_token and mean_tokens.
_POOLING: dict[str, Pooling] = {"cls": "cls", "cls_token": "cls", "mean": "avg", "mean_tokens": "avg"}
# Longer than any encoder: what tokenizers write that know no maximum.
_NO_MAXIMUM = 1_000_000


def config(directory: Path) -> EncoderConfig | None:
    """What a directory says of pooling, head and maximum length; None if it is not one of sentence-transformers.

    Raises:
        UserError: It does something after the encoder that there is no counterpart for.
    """
    modules = _modules(directory)
    if "Pooling" not in modules:
        return None
    pooling = _pooling(modules["Pooling"] / "config.json")
    if "Dense" in modules:
        dense = _json(modules["Dense"] / "config.json")
        if dense.get("activation_function") != TANH or dense["in_features"] != dense["out_features"]:
            raise UserError(
                f"{modules['Dense'] / 'config.json'}: this Dense module is not SimCSE's head, which has as many "
                f"outputs as inputs and the activation {TANH}."
            )
        return EncoderConfig(pooling=pooling, head="always", max_length=_max_length(directory))
    if pooling == "cls":
        pooling = "cls_before_pooler"
    return EncoderConfig(pooling=pooling, head="none", max_length=_max_length(directory))


def head(directory: Path) -> list[np.ndarray] | None:
    """The Dense module's weights: `(dim, dim)` kernel as Keras keeps it, `(dim,)` bias; None if there is none.

    Raises:
        UserError: Its file of weights is missing.
    """
    from safetensors.numpy import load_file

    modules = _modules(directory)
    if "Dense" not in modules:
        return None
    path = modules["Dense"] / "model.safetensors"
    if not path.is_file():
        raise UserError(f"{path}: not found. Save the model again with safe_serialization=True.")
    tensors = load_file(path)
    return [tensors["linear.weight"].T.copy(), tensors["linear.bias"]]


def _modules(directory: Path) -> dict[str, Path]:
    """The last part of each module's type, and its folder; their modules have moved between versions of the library."""
    file = directory / "modules.json"
    if not file.is_file():
        # Models from before modules.json, and copies without it.
        return {"Pooling": directory / "1_Pooling"} if (directory / "1_Pooling" / "config.json").is_file() else {}
    return {module["type"].rpartition(".")[2]: directory / module["path"] for module in _json(file)}


def _pooling(file: Path) -> Pooling:
    settings = _json(file)
    if "pooling_mode" in settings:
        modes = settings["pooling_mode"]
        modes = {modes} if isinstance(modes, str) else set(modes)
    else:
        modes = {k.removeprefix("pooling_mode_") for k, v in settings.items() if v is True} - {"include_prompt"}
    pooling = _POOLING.get(modes.pop()) if len(modes) == 1 else None
    if pooling is None:
        raise UserError(f"{file}: {settings} is not supported; supported: pooling by mean or cls.")
    return pooling


def _max_length(directory: Path) -> int | None:
    for name, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        if (directory / name).is_file():
            length = _json(directory / name).get(key)
            if length is not None and length < _NO_MAXIMUM:
                return int(length)
    return None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as e:
        raise UserError(f"{path}: cannot be read ({e}). Copy it again from the model's source.") from e
