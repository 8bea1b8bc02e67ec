"""Hugging Face directories of the BERT family, read into keras-hub backbones and tokenizers.

keras-hub has converters of its own; this one exists because it (1) reads a checkpoint whichever prefix its tensors
carry (princeton-nlp's RoBERTa checkpoints have none), (2) keeps RoBERTa's token-type vector, which fine-tuning moves
away from zero and keras-hub has no place for, (3) knows ELECTRA, and (4) names the tensor that is missing. One table,
`tensor_map`, says which tensor belongs to which variable.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from simcse_tf.errors import UserError
from simcse_tf.formats import safetensors

# RoBERTa's position table begins with rows that no position uses: its padding index is 1, positions start at 2.
ROBERTA_POSITION_OFFSET = 2
_EXACT_OR_TANH_GELU = ("gelu", "gelu_new", "gelu_pytorch_tanh")


@dataclass(frozen=True)
class Family:
    """A `model_type` of Hugging Face and what keras-hub calls it."""

    backbone: str
    tokenizer: str
    # Prefix that the tensors carry when the checkpoint was saved with a task head.
    prefix: str
    layer_norm_eps: float


FAMILIES = {
    "bert": Family("BertBackbone", "BertTokenizer", "bert.", 1e-12),
    "distilbert": Family("DistilBertBackbone", "DistilBertTokenizer", "distilbert.", 1e-12),
    "electra": Family("ElectraBackbone", "ElectraTokenizer", "electra.", 1e-12),
    "roberta": Family("RobertaBackbone", "RobertaTokenizer", "roberta.", 1e-5),
    "xlm-roberta": Family("XLMRobertaBackbone", "XLMRobertaTokenizer", "roberta.", 1e-5),
}


def check_directory(directory: Path) -> Family:
    """Checks, without TensorFlow, that a directory holds everything `load` needs and that no weights file is cut short.

    Raises:
        UserError: A file is missing or truncated, or the architecture is not of the BERT family.
    """
    config = _config(directory)
    model_type = str(config.get("model_type"))
    if model_type not in FAMILIES:
        raise UserError(
            f"{directory / 'config.json'}: model_type '{model_type}' is not supported; supported: {', '.join(FAMILIES)}"
        )
    family = FAMILIES[model_type]
    activation = config.get("hidden_act", config.get("activation", "gelu"))
    if activation not in _EXACT_OR_TANH_GELU:
        raise UserError(
            f"{directory / 'config.json'}: activation '{activation}' is not supported; keras-hub's backbones use GELU."
        )
    eps = config.get("layer_norm_eps", family.layer_norm_eps)
    if eps != family.layer_norm_eps:
        raise UserError(
            f"{directory / 'config.json'}: layer_norm_eps {eps} is not supported; keras-hub's {family.backbone} is "
            f"fixed at {family.layer_norm_eps}."
        )
    for path in safetensors.weights_files(directory):
        safetensors.check_length(path)
    for name in _TOKENIZER_FILES[family.tokenizer]:
        if not (directory / name).is_file():
            raise UserError(
                f"{directory}: no {name}, which the {family.tokenizer} needs. Copy it from the model's source."
            )
    return family


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
    config = _config(directory)
    backbone = getattr(keras_hub.models, family.backbone)(**_backbone_arguments(config), dropout=dropout, dtype=dtype)
    with safetensors.Tensors(directory, family.prefix) as tensors:
        for name, variable, kind in tensor_map(backbone):
            value = tensors[name]
            if name == "embeddings.position_embeddings.weight" and family.prefix == "roberta.":
                # RoBERTa has one token type: its vector is added at every position, so it can live in the positions.
                value = value[ROBERTA_POSITION_OFFSET:] + tensors["embeddings.token_type_embeddings.weight"][:1]
            if kind == "linear":
                value = value.T
            if value.size != int(np.prod(variable.shape)):
                raise UserError(
                    f"{directory}: tensor '{name}' has {value.size} numbers, but config.json asks for "
                    f"{int(np.prod(variable.shape))}. The weights and the config are not of the same model."
                )
            variable.assign(value.reshape(variable.shape))
    return backbone, _tokenizer(directory, family)


def pooler(directory: Path) -> tuple[np.ndarray, np.ndarray]:
    """The pooler of a checkpoint: `(dim, dim)` kernel as Keras keeps it, `(dim,)` bias.

    princeton-nlp's SimCSE checkpoints keep their trained MLP head here.

    Raises:
        UserError: The checkpoint has none.
    """
    with safetensors.Tensors(directory, FAMILIES[str(_config(directory)["model_type"])].prefix) as tensors:
        return tensors["pooler.dense.weight"].T.copy(), tensors["pooler.dense.bias"]


def tensor_map(backbone: Any) -> Iterator[tuple[str, Any, Literal["linear", "plain"]]]:
    """Pairs every weight of a keras-hub backbone with its Hugging Face name.

    Args:
        backbone: A BERT, DistilBERT, ELECTRA, RoBERTa or XLM-RoBERTa backbone of keras-hub.

    Yields:
        `(name, variable, kind)`; a `linear` weight is stored transposed, `(out, in)`. Poolers are not part of it:
        SimCSE has its own head.
    """
    distil = type(backbone).__name__ == "DistilBertBackbone"
    positions = (
        backbone.get_layer("position_embedding")
        if hasattr(backbone, "segment_embedding")
        else backbone.embeddings.position_embedding
    )
    yield "embeddings.word_embeddings.weight", backbone.token_embedding.embeddings, "plain"
    yield "embeddings.position_embeddings.weight", positions.position_embeddings, "plain"
    if hasattr(backbone, "segment_embedding"):
        yield "embeddings.token_type_embeddings.weight", backbone.segment_embedding.embeddings, "plain"
    yield from _layer_norm("embeddings.LayerNorm", backbone.embeddings_layer_norm)
    if getattr(backbone, "embeddings_projection", None) is not None:
        yield from _dense("embeddings_project", backbone.embeddings_projection)
    names = _DISTILBERT_LAYER if distil else _BERT_LAYER
    for i, layer in enumerate(backbone.transformer_layers):
        at = names["prefix"].format(i)
        attention = layer._self_attention_layer
        yield from _dense(at + names["query"], attention.query_dense)
        yield from _dense(at + names["key"], attention.key_dense)
        yield from _dense(at + names["value"], attention.value_dense)
        yield from _dense(at + names["attention_output"], attention.output_dense)
        yield from _layer_norm(at + names["attention_norm"], layer._self_attention_layer_norm)
        yield from _dense(at + names["intermediate"], layer._feedforward_intermediate_dense)
        yield from _dense(at + names["output"], layer._feedforward_output_dense)
        yield from _layer_norm(at + names["output_norm"], layer._feedforward_layer_norm)


_BERT_LAYER = {
    "prefix": "encoder.layer.{}.",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "output_norm": "output.LayerNorm",
}
_DISTILBERT_LAYER = {
    "prefix": "transformer.layer.{}.",
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "attention_output": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "intermediate": "ffn.lin1",
    "output": "ffn.lin2",
    "output_norm": "output_layer_norm",
}
_TOKENIZER_FILES = {
    "BertTokenizer": ("vocab.txt",),
    "DistilBertTokenizer": ("vocab.txt",),
    "ElectraTokenizer": ("vocab.txt",),
    "RobertaTokenizer": ("vocab.json", "merges.txt"),
    "XLMRobertaTokenizer": ("sentencepiece.bpe.model",),
}


def _dense(name: str, layer: Any) -> Iterator[tuple[str, Any, Literal["linear", "plain"]]]:
    yield f"{name}.weight", layer.kernel, "linear"
    yield f"{name}.bias", layer.bias, "plain"


def _layer_norm(name: str, layer: Any) -> Iterator[tuple[str, Any, Literal["linear", "plain"]]]:
    yield f"{name}.weight", layer.gamma, "plain"
    yield f"{name}.bias", layer.beta, "plain"


def _backbone_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    if config["model_type"] == "distilbert":
        return {
            "vocabulary_size": config["vocab_size"],
            "num_layers": config["n_layers"],
            "num_heads": config["n_heads"],
            "hidden_dim": config["dim"],
            "intermediate_dim": config["hidden_dim"],
            "max_sequence_length": config["max_position_embeddings"],
        }
    arguments = {
        "vocabulary_size": config["vocab_size"],
        "num_layers": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "hidden_dim": config["hidden_size"],
        "intermediate_dim": config["intermediate_size"],
        "max_sequence_length": config["max_position_embeddings"],
    }
    if config["model_type"] in ("roberta", "xlm-roberta"):
        arguments["max_sequence_length"] -= ROBERTA_POSITION_OFFSET
    else:
        arguments["num_segments"] = config.get("type_vocab_size", 2)
    if config["model_type"] == "electra":
        arguments["vocab_size"] = arguments.pop("vocabulary_size")
        arguments["embedding_dim"] = config["embedding_size"]
    return arguments


def _tokenizer(directory: Path, family: Family) -> Any:
    import keras_hub

    cls = getattr(keras_hub.models, family.tokenizer)
    files = [str(directory / name) for name in _TOKENIZER_FILES[family.tokenizer]]
    if family.tokenizer == "RobertaTokenizer":
        return cls(vocabulary=files[0], merges=files[1])
    if family.tokenizer == "XLMRobertaTokenizer":
        return cls(proto=files[0])
    settings_file = directory / "tokenizer_config.json"
    settings = _json(settings_file) if settings_file.is_file() else {}
    lowercase = settings.get("do_lower_case", True)
    strip = settings.get("strip_accents")
    # In Hugging Face's tokenizer accents go when the case goes, unless it is told otherwise.
    return cls(files[0], lowercase=lowercase, strip_accents=lowercase if strip is None else strip)


def _config(directory: Path) -> dict[str, Any]:
    if not (directory / "config.json").is_file():
        raise UserError(f"{directory}: no config.json, so it is not a model directory.")
    return _json(directory / "config.json")


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as e:
        raise UserError(f"{path}: not JSON ({e}). Copy it again from the model's source.") from e
