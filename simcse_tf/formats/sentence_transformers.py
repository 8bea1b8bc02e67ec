"""What a sentence-transformers directory adds to Hugging Face's: pooling, head, unit length, length, prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simcse_tf.config import EncoderConfig, Pooling
from simcse_tf.errors import UserError
from simcse_tf.files import read_json, read_json_object, write_json
from simcse_tf.formats import safetensors

if TYPE_CHECKING:
    from simcse_tf.models.encoder import Encoder

# What a directory may do, in this order. Only the last part of a module's type is looked at: the rest has changed
# between versions of the library. The second Dense keeps the first numbers of a vector: the library's own truncate_dim
# is not saved, and cuts after Normalize, so that the length is no longer 1.
_MODULES = ("Transformer", "Pooling", "Dense", "Cut", "Normalize")
_TYPE = "sentence_transformers.models."
# How a Dense module names the activation of SimCSE's head, and that it has none.
_TANH, _NO_ACTIVATION = "torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity"
# Where it keeps its prompts, and under which names those of the two sides of a search, the first of which is taken.
_PROMPTS = "config_sentence_transformers.json"
_SIDES = {"query_prompt": ("query",), "passage_prompt": ("document", "passage", "corpus")}
# Older versions of the library write cls_token and mean_tokens.
_POOLING: dict[str, Pooling] = {"cls": "cls", "cls_token": "cls", "mean": "avg", "mean_tokens": "avg"}
# Where others look in config.json for the sizes that vectors were trained to be cut to.
SIZES = "matryoshka_dimensions"
# Longer than any encoder: what tokenizers without a maximum write.
_NO_MAXIMUM = 1_000_000


def config(directory: Path) -> EncoderConfig | None:
    """What a directory says of pooling, head, maximum length and prompts; None if it does not pool.

    Of its prompts those for queries and documents are taken. A default prompt is not: `encode` puts none by itself.

    Raises:
        UserError: It does something that has no counterpart here.
    """
    modules = _modules(directory)
    if "Pooling" not in modules:
        return None
    pooling = _pooling(modules["Pooling"] / "config.json")
    rest: dict[str, Any] = {"max_length": _max_length(directory), **_prompts(directory)}
    rest["matryoshka"] = read_json_object(directory / "config.json").get(SIZES, ())
    if "Cut" in modules:
        rest["dim"] = _dim(modules["Cut"])
    if any(rest[name] for name in _SIDES):
        _check_includes_prompt(modules["Pooling"] / "config.json")
    if "Dense" in modules:
        _check_head(modules["Dense"] / "config.json")
        return EncoderConfig(pooling=pooling, head="always", **rest)
    if pooling == "cls":
        pooling = "cls_before_pooler"
    return EncoderConfig(pooling=pooling, head="none", **rest)


def head(directory: Path) -> list[np.ndarray] | None:
    """The Dense module's weights: `(dim, dim)` kernel as Keras stores it, `(dim,)` bias; None if there is none.

    Raises:
        UserError: Its weights are missing or incomplete.
    """
    modules = _modules(directory)
    if "Dense" not in modules:
        return None
    path = modules["Dense"] / "model.safetensors"
    if not path.is_file():
        raise UserError(f"{path}: not found. Save the model again with safe_serialization=True.")
    tensors = safetensors.load(path)
    for name in ("linear.weight", "linear.bias"):
        if name not in tensors:
            raise UserError(f"{path}: no tensor '{name}', which SimCSE's head has. Copy it from the model's source.")
    return [tensors["linear.weight"].T.copy(), tensors["linear.bias"]]


def _pooling_mode(encoder: Encoder) -> str:
    """What sentence-transformers calls an encoder's pooling.

    Raises:
        UserError: It has no counterpart.
    """
    modes = {"cls": "cls", "cls_before_pooler": "cls", "avg": "mean"}
    pooling = encoder.config.pooling
    if pooling not in modes:
        raise UserError(
            f"`pooling` {pooling} reads several layers, for which sentence-transformers has no counterpart. Export "
            f"with `pooling` {' or '.join(modes)}, or as a SavedModel, which can do it."
        )
    return modes[pooling]


def write(encoder: Encoder, directory: Path) -> None:
    """Adds modules, maximum length and prompts to a Hugging Face directory that was just written.

    Raises:
        UserError: sentence-transformers cannot pool as the encoder does.
    """
    mode, dim = _pooling_mode(encoder), encoder.backbone.hidden_dim
    write_json(directory / "sentence_bert_config.json", {"max_seq_length": encoder.max_length, "do_lower_case": False})
    modules = {"Transformer": "", "Pooling": "1_Pooling"}
    if encoder.head is not None and encoder.head_at_inference:
        modules["Dense"] = "2_Dense"
    if encoder.is_cut:
        modules["Cut"] = f"{len(modules)}_Dense"
    modules["Normalize"] = f"{len(modules)}_Normalize"
    for folder in modules.values():
        (directory / folder).mkdir(exist_ok=True)
    modes = {"pooling_mode_cls_token": mode == "cls", "pooling_mode_mean_tokens": mode == "mean"}
    write_json(directory / modules["Pooling"] / "config.json", {"word_embedding_dimension": dim, **modes})
    if encoder.head is not None and "Dense" in modules:
        dense = directory / modules["Dense"]
        sizes = {"in_features": dim, "out_features": dim}
        write_json(dense / "config.json", {**sizes, "bias": True, "activation_function": _TANH})
        kernel, bias = encoder.head.get_weights()
        tensors = {"linear.weight": kernel.T, "linear.bias": bias}
        safetensors.save(tensors, dense / "model.safetensors", {"format": "pt"})
    if "Cut" in modules:
        cut = directory / modules["Cut"]
        sizes = {"in_features": dim, "out_features": encoder.dim}
        write_json(cut / "config.json", {**sizes, "bias": False, "activation_function": _NO_ACTIVATION})
        tensors = {"linear.weight": np.eye(encoder.dim, dim, dtype="float32")}
        safetensors.save(tensors, cut / "model.safetensors", {"format": "pt"})
    listed = [
        {"idx": i, "name": str(i), "path": folder, "type": _TYPE + _class_of(kind)}
        for i, (kind, folder) in enumerate(modules.items())
    ]
    write_json(directory / "modules.json", listed)
    if prompts := encoder.config.prompts:
        # Under both names of the second: sentence-transformers has an empty prompt named document of its own, which
        # `encode_document` would take before one named passage.
        named = {**prompts, "document": prompts["passage"]}
        about = {"prompts": named, "default_prompt_name": None, "similarity_fn_name": "cosine"}
        write_json(directory / _PROMPTS, about)


def _modules(directory: Path) -> dict[str, Path]:
    """The modules by kind, and their folders."""
    file = directory / "modules.json"
    if not file.is_file():
        # Models from before modules.json, and copies without it.
        return {"Pooling": directory / "1_Pooling"} if (directory / "1_Pooling" / "config.json").is_file() else {}
    try:
        listed = [(_kind(str(m["type"]), directory / m["path"]), directory / m["path"]) for m in read_json(file)]
    except (KeyError, TypeError) as e:
        raise UserError(
            f"{file}: not a list of modules with type and path. Copy it again from the model's source."
        ) from e
    expected = list(_MODULES)
    for kind, folder in listed:
        if kind not in expected:
            raise UserError(
                f"{file}: the module {_class_of(kind)} in '{folder.name}' is not supported, and without it the "
                "vectors would be different. Supported: Transformer, Pooling, Dense as SimCSE's head, Dense that keeps "
                "the first numbers, Normalize, in this order and each once."
            )
        expected = expected[expected.index(kind) + 1 :]
    modules = dict(listed)
    if {"Dense", "Cut"} & modules.keys() and "Pooling" not in modules:
        raise UserError(f"{file}: the module Dense has no Pooling before it, which is not supported.")
    return modules


def _kind(module_type: str, folder: Path) -> str:
    """What a module does: the last part of its type, or `Cut` of a Dense that keeps the first numbers of a vector."""
    kind = module_type.rpartition(".")[2]
    file = folder / "config.json"
    if kind != "Dense" or not file.is_file():
        return kind
    dense = read_json_object(file)
    cuts = dense.get("activation_function") == _NO_ACTIVATION and dense.get("bias") is False
    return "Cut" if cuts else kind


def _class_of(kind: str) -> str:
    """The library's name for what does that."""
    return "Dense" if kind == "Cut" else kind


def _dim(folder: Path) -> int:
    """How many numbers a Dense module keeps that is to keep the first of them.

    Raises:
        UserError: It does something else.
    """
    path = folder / "model.safetensors"
    weight = safetensors.load(path).get("linear.weight") if path.is_file() else None
    if weight is None or weight.ndim != 2 or not np.array_equal(weight, np.eye(*weight.shape)):
        raise UserError(
            f"{folder / 'config.json'}: this Dense module is neither SimCSE's head nor one that keeps the first "
            "numbers of a vector as they are, so it is not supported."
        )
    return len(weight)


def _check_head(file: Path) -> None:
    """Checks that a Dense module computes what SimCSE's head computes."""
    dense = read_json_object(file)
    where = dense.get("module_input_name") or "sentence_embedding"
    if (
        dense.get("activation_function") != _TANH
        or dense.get("in_features") != dense.get("out_features")
        or dense.get("bias", True) is not True
        or where != "sentence_embedding"
    ):
        raise UserError(
            f"{file}: this Dense module is not SimCSE's head, which maps the sentence vector to one of the same length "
            f"with a bias and the activation {_TANH}."
        )


def _pooling(file: Path) -> Pooling:
    settings = read_json_object(file)
    if "pooling_mode" in settings:
        modes = settings["pooling_mode"]
        modes = {modes} if isinstance(modes, str) else set(modes)
    else:
        modes = {k.removeprefix("pooling_mode_") for k, v in settings.items() if v is True} - {"include_prompt"}
    pooling = _POOLING.get(modes.pop()) if len(modes) == 1 else None
    if pooling is None:
        raise UserError(f"{file}: {settings} is not supported; supported: pooling by mean or cls.")
    return pooling


def _prompts(directory: Path) -> dict[str, str]:
    """The prompts by the names of their settings, empty where there are none."""
    file = directory / _PROMPTS
    named = (read_json_object(file).get("prompts") or {}) if file.is_file() else {}
    if not isinstance(named, dict) or not all(isinstance(prompt, str) for prompt in named.values()):
        raise UserError(f"{file}: prompts: expected an object of strings. Copy it again from the model's source.")
    return {setting: next((named[name] for name in names if named.get(name)), "") for setting, names in _SIDES.items()}


def _check_includes_prompt(pooling: Path) -> None:
    """Checks that a prompt's tokens are pooled as those of the text are."""
    if read_json_object(pooling).get("include_prompt", True) is not True:
        raise UserError(
            f"{pooling}: include_prompt is false: the tokens of prompts are left out of the pooling, which is not "
            f"supported. To use the model without its prompts, delete them from {_PROMPTS}."
        )


def _max_length(directory: Path) -> int | None:
    for name, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        if (directory / name).is_file():
            length = read_json_object(directory / name).get(key)
            if length is not None and length < _NO_MAXIMUM:
                return int(length)
    return None
