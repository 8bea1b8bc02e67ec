"""Hugging Face directories, read and written: `config.json`, `model.safetensors` and the tokenizer's files.

keras-hub has converters of its own; these exist because they (1) read a checkpoint whichever prefix its tensors carry
(princeton-nlp's RoBERTa checkpoints have none), (2) keep RoBERTa's token-type vector, which fine-tuning moves away from
zero and keras-hub has no place for, (3) know ELECTRA, and (4) name the tensor that is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from simcse_tf.errors import UserError
from simcse_tf.files import check_new, read_json_object, whole_directory, write_json
from simcse_tf.formats import card, families, fast_tokenizers, safetensors, sentence_transformers
from simcse_tf.formats.families import FAMILIES, TOKENIZER_FILES, Family

if TYPE_CHECKING:
    from simcse_tf.models.backbone import Parts
    from simcse_tf.models.encoder import Encoder

_EXACT_OR_TANH_GELU = ("gelu", "gelu_new", "gelu_pytorch_tanh")
_POSITIONS = "embeddings.position_embeddings.weight"
_TOKEN_TYPES = "embeddings.token_type_embeddings.weight"


# ---- Reading ----


def check_directory(directory: Path) -> Family:
    """Checks, without TensorFlow, that a directory holds everything `load` needs and that its weights are complete.

    Raises:
        UserError: A file is missing or truncated, or the architecture is not of the BERT family.
    """
    file, config = directory / "config.json", _config(directory)
    model_type = str(config.get("model_type"))
    if model_type not in FAMILIES:
        raise UserError(f"{file}: model_type '{model_type}' is not supported; supported: {', '.join(FAMILIES)}.")
    family = FAMILIES[model_type]
    activation = config.get(family.activation, "gelu")
    if activation not in _EXACT_OR_TANH_GELU:
        raise UserError(f"{file}: activation '{activation}' is not supported; keras-hub's backbones use GELU.")
    eps = config.get("layer_norm_eps", family.layer_norm_eps)
    if eps != family.layer_norm_eps:
        raise UserError(
            f"{file}: layer_norm_eps {eps} is not supported; keras-hub's {family.keras_hub}Backbone is fixed at "
            f"{family.layer_norm_eps}."
        )
    for path in safetensors.weights_files(directory):
        safetensors.check_length(path)
    for name in TOKENIZER_FILES[family.tokenizer]:
        if not (directory / name).is_file():
            raise UserError(
                f"{directory}: no {name}, which the {family.keras_hub}Tokenizer needs. Copy it from the model's source."
            )
    _backbone_arguments(family, config, file)
    return family


def dim(directory: Path) -> int:
    """How many numbers the vectors of a directory have that `check_directory` found whole."""
    config = _config(directory)
    return config[FAMILIES[config["model_type"]].sizes["hidden_dim"]]


def num_layers(directory: Path) -> int:
    """How many transformer layers the encoder in a directory has, which `check_directory` has checked."""
    config = _config(directory)
    return config[FAMILIES[config["model_type"]].sizes["num_layers"]]


def load(directory: Path, *, dropout: float, dtype: str) -> tuple[Any, Any]:
    """Builds the keras-hub backbone and tokenizer of a Hugging Face directory.

    Args:
        directory: Has `config.json`, `model.safetensors` (or shards with their index) and the tokenizer's files.
        dropout: Rate for all dropout layers.
        dtype: A Keras dtype policy name, e.g. `float32` or `mixed_bfloat16`.

    Returns:
        `(backbone, tokenizer)`.

    Raises:
        UserError: See `check_directory`; also when a tensor is missing or has another shape than `config.json` says.
    """
    import keras_hub

    family = check_directory(directory)
    arguments = _backbone_arguments(family, _config(directory), directory / "config.json")
    backbone = getattr(keras_hub.models, f"{family.keras_hub}Backbone")(**arguments, dropout=dropout, dtype=dtype)
    with safetensors.Tensors(directory, family.prefix) as tensors:
        for name, variable, kind in _tensor_map(backbone, family):
            value = tensors[name]
            if name == _POSITIONS:
                value = value[family.position_offset :]
                if family.segments == "in_positions":
                    value = value + tensors[_TOKEN_TYPES][:1]
            if kind == "linear":
                value = value.T
            if value.size != int(np.prod(variable.shape)):
                raise UserError(
                    f"{directory}: tensor '{name}' has {value.size} numbers, but config.json asks for "
                    f"{int(np.prod(variable.shape))}. The weights and the config are not of the same model."
                )
            variable.assign(value.reshape(variable.shape))
    return backbone, _tokenizer(directory, family)


def pooler(directory: Path) -> list[np.ndarray]:
    """The pooler of a checkpoint: `(dim, dim)` kernel as Keras stores it, `(dim,)` bias.

    princeton-nlp's SimCSE checkpoints keep their trained MLP head here.

    Raises:
        UserError: The checkpoint has none.
    """
    with safetensors.Tensors(directory, check_directory(directory).prefix) as tensors:
        return [tensors["pooler.dense.weight"].T.copy(), tensors["pooler.dense.bias"]]


def _backbone_arguments(family: Family, config: Mapping[str, Any], file: Path) -> dict[str, Any]:
    arguments = {}
    for argument, key in family.sizes.items():
        if not isinstance(config.get(key), int):
            raise UserError(f"{file}: no whole number {key}. Copy the file again from the model's source.")
        arguments[argument] = config[key]
    arguments["max_sequence_length"] -= family.position_offset
    if family.segments == "table":
        arguments["num_segments"] = config.get("type_vocab_size", 2)
    return arguments


def _tokenizer(directory: Path, family: Family) -> Any:
    import keras_hub

    cls = getattr(keras_hub.models, f"{family.keras_hub}Tokenizer")
    files = [str(directory / name) for name in TOKENIZER_FILES[family.tokenizer]]
    if family.tokenizer == "byte_pairs":
        return cls(vocabulary=files[0], merges=files[1])
    if family.tokenizer == "sentencepiece":
        return cls(proto=files[0])
    settings_file = directory / "tokenizer_config.json"
    settings = read_json_object(settings_file) if settings_file.is_file() else {}
    lowercase = settings.get("do_lower_case", True)
    strip = settings.get("strip_accents")
    # In Hugging Face's tokenizer accents go when the case goes, unless strip_accents says otherwise.
    return cls(files[0], lowercase=lowercase, strip_accents=lowercase if strip is None else strip)


def _config(directory: Path) -> dict[str, Any]:
    file = directory / "config.json"
    if not file.is_file():
        raise UserError(f"{directory}: no config.json, so it is not a model directory.")
    return read_json_object(file)


# ---- Both ----


def _tensor_map(backbone: Any, family: Family) -> Iterator[tuple[str, Any, Literal["linear", "plain"]]]:
    """Pairs every weight of a keras-hub backbone with its Hugging Face name.

    Yields:
        `(name, variable, kind)`; a `linear` weight is stored transposed, `(out, in)`. Poolers are not part of it:
        SimCSE has its own head.
    """
    found = _parts(backbone)
    yield "embeddings.word_embeddings.weight", found.words.embeddings, "plain"
    yield _POSITIONS, found.positions.position_embeddings, "plain"
    if found.segments is not None:
        yield _TOKEN_TYPES, found.segments.embeddings, "plain"
    yield from _named("embeddings.LayerNorm", found.norm)
    if found.projection is not None:
        yield from _named("embeddings_project", found.projection)
    for i, layer in enumerate(found.layers):
        for part, name in family.layer.items():
            yield from _named(name.format(i), getattr(layer, part))


def _parts(backbone: Any) -> Parts:
    from simcse_tf.models.backbone import UnknownBackboneError, parts

    try:
        return parts(backbone)
    except UnknownBackboneError as e:
        raise UserError(
            f"the installed keras-hub builds {type(backbone).__name__} in a way that this package does not know ({e}). "
            "Install the version of keras-hub that simcse-tf requires."
        ) from e


def _named(name: str, layer: Any) -> Iterator[tuple[str, Any, Literal["linear", "plain"]]]:
    if hasattr(layer, "gamma"):
        yield f"{name}.weight", layer.gamma, "plain"
        yield f"{name}.bias", layer.beta, "plain"
    else:
        yield f"{name}.weight", layer.kernel, "linear"
        yield f"{name}.bias", layer.bias, "plain"


# ---- Writing ----


def export(encoder: Encoder, directory: Path, *, source: str = "") -> Path:
    """Writes a directory that transformers and sentence-transformers load: the same embeddings, without TensorFlow.

    keras-hub's BERT and ELECTRA use the tanh form of GELU, so `config.json` says `gelu_pytorch_tanh`, whatever the
    checkpoint said that the weights came from; RoBERTa and DistilBERT use the exact one. A head that is used at
    inference becomes a Dense module, and BERT's and RoBERTa's pooler as well, which is where SimCSE's authors keep it.

    Args:
        encoder: The encoder.
        directory: Must not exist.
        source: Where the encoder comes from, for the model card.

    Returns:
        The directory.

    Raises:
        UserError: The encoder's pooling or architecture has no counterpart there; the directory exists.
    """
    check_new(directory)
    model_type, family = _exportable(encoder.backbone)
    with whole_directory(directory) as new:
        sentence_transformers.write(encoder, new)
        write_json(new / "config.json", _written_config(encoder, model_type, family))
        _write_tokenizer(encoder, family, new)
        safetensors.save(_tensors(encoder, family), new / "model.safetensors", {"format": "pt"})
        card.write(
            encoder,
            new,
            name=directory.name,
            source=source,
            library="sentence-transformers",
            section=_card_section(encoder),
            prompts_added_by="In sentence-transformers `encode_query` and `encode_document` do that.",
        )
    return directory


def _card_section(encoder: Encoder) -> list[str]:
    if not encoder.sizes:
        return []
    return [
        "In sentence-transformers `truncate_dim` cuts after the module Normalize. Have the vectors scaled once more:",
        "",
        f"    model = SentenceTransformer(directory, truncate_dim={encoder.sizes[-1]})",
        "    model.encode(texts, normalize_embeddings=True)",
        "",
    ]


def _exportable(backbone: Any) -> tuple[str, Family]:
    found = families.of_backbone(backbone)
    if found is None:
        known = dict.fromkeys(f.keras_hub for f in FAMILIES.values())
        raise UserError(
            f"there is no Hugging Face export for a {type(backbone).__name__}; there is one for {', '.join(known)}. "
            "Export a SavedModel or a keras-hub preset."
        )
    return found


def _tensors(encoder: Encoder, family: Family) -> dict[str, np.ndarray]:
    """The weights under the names that transformers gives them, in its layouts."""
    backbone, tensors = encoder.backbone, {}
    dim = backbone.hidden_dim
    for name, variable, kind in _tensor_map(backbone, family):
        value = np.asarray(variable, "float32")
        if kind == "linear":
            # The three-dimensional kernels of attention are square when heads and their dimensions are joined.
            value = (value if value.ndim == 2 else value.reshape(dim, dim)).T
        tensors[name] = value.reshape(-1) if name.endswith("bias") else value
    unused = np.zeros((family.position_offset, dim), "float32")
    tensors[_POSITIONS] = np.concatenate([unused, tensors[_POSITIONS]]) if len(unused) else tensors[_POSITIONS]
    if family.segments == "in_positions":
        tensors[_TOKEN_TYPES] = np.zeros((1, dim), "float32")
    dense = encoder.head if encoder.head_at_inference else getattr(backbone, "pooled_dense", None)
    if dense is not None and family.pooler:
        kernel, bias = dense.get_weights()
        tensors |= {"pooler.dense.weight": kernel.T, "pooler.dense.bias": bias}
    return tensors


def _written_config(encoder: Encoder, model_type: str, family: Family) -> dict[str, Any]:
    backbone = encoder.backbone
    activation = _parts(backbone).layers[0].intermediate.activation
    config = {
        "architectures": [f"{family.keras_hub}Model"],
        "model_type": model_type,
        "dtype": "float32",
        **{key: getattr(backbone, argument) for argument, key in family.sizes.items()},
        family.activation: "gelu_pytorch_tanh" if activation.__name__ == "gelu_approximate" else "gelu",
        "layer_norm_eps": family.layer_norm_eps,
    }
    config["max_position_embeddings"] += family.position_offset
    if encoder.sizes:
        config[sentence_transformers.SIZES] = [encoder.dim, *encoder.sizes]
    if family.segments != "none":
        config["type_vocab_size"] = backbone.num_segments if family.segments == "table" else 1
    if family.tokenizer != "wordpiece":
        ours = encoder.tokenizer
        config |= {
            "pad_token_id": ours.pad_token_id,
            "bos_token_id": ours.start_token_id,
            "eos_token_id": ours.end_token_id,
        }
    return config


def _write_wordpiece(encoder: Encoder, new: Path) -> dict[str, str]:
    ours = encoder.tokenizer
    (new / "vocab.txt").write_text("\n".join(ours.vocabulary) + "\n", "utf-8")
    return {
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    }


def _write_byte_pairs(encoder: Encoder, new: Path) -> dict[str, str]:
    ours = encoder.tokenizer
    merges = [rule for rule in ours.merges if not rule.startswith("#version")]
    write_json(new / "vocab.json", dict(ours.vocabulary))
    (new / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", "utf-8")
    return _ROBERTA_TOKENS


def _write_sentencepiece(encoder: Encoder, new: Path) -> dict[str, str]:
    (new / "sentencepiece.bpe.model").write_bytes(encoder.tokenizer.proto)
    return _ROBERTA_TOKENS


def _write_tokenizer(encoder: Encoder, family: Family, new: Path) -> None:
    """Writes what the tokenizer is made from, `tokenizer.json` and its settings."""
    ours = encoder.tokenizer
    special = _TOKENIZER_WRITERS[family.tokenizer](encoder, new)
    fast = fast_tokenizers.fast_tokenizer(ours, max_length=encoder.max_length, special_tokens=set(special.values()))
    fast.save(str(new / "tokenizer.json"))
    settings: dict[str, Any] = {
        # The class that takes tokenizer.json as it is; BertTokenizer and its like keep the vocabulary alone and split
        # texts in their own way.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": encoder.max_length,
    }
    if family.tokenizer == "wordpiece":
        settings |= {"do_lower_case": ours.lowercase, "strip_accents": ours.strip_accents}
    write_json(new / "tokenizer_config.json", settings | special)
    write_json(new / "special_tokens_map.json", special)


_ROBERTA_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
# For each kind of tokenizer: writes what it is made from, returns its special tokens by their role in transformers.
_TOKENIZER_WRITERS: dict[families.TokenizerKind, Callable[[Encoder, Path], dict[str, str]]] = {
    "wordpiece": _write_wordpiece,
    "byte_pairs": _write_byte_pairs,
    "sentencepiece": _write_sentencepiece,
}
