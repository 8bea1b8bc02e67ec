"""Doors to the other ecosystems: a Hugging Face / sentence-transformers directory, and a keras-hub preset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from simcse_tf.errors import UserError
from simcse_tf.files import whole_directory
from simcse_tf.formats import card, huggingface, presets, sentence_transformers
from simcse_tf.formats.encoders import save_encoder
from simcse_tf.models.encoder import SentenceEncoder

# What sentence-transformers and keras-hub call the poolers that they have too.
_SENTENCE_TRANSFORMERS_POOLING = {"cls": "cls", "cls_before_pooler": "cls", "avg": "mean"}
_MODULES = "sentence_transformers.models."
_WORDPIECE = ("bert", "distilbert", "electra")


def to_huggingface(encoder: SentenceEncoder, directory: Path, *, source: str = "") -> Path:
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
    from safetensors.numpy import save_file

    model_type = _model_type(encoder)
    pooling = _pooling(encoder, "sentence-transformers")
    with _new(directory) as new:
        save_file(_tensors(encoder, model_type), new / "model.safetensors", metadata={"format": "pt"})
        _write_json(new / "config.json", _config(encoder.backbone, model_type))
        _write_tokenizer(encoder, model_type, new)
        _write_json(new / "sentence_bert_config.json", {"max_seq_length": encoder.max_length, "do_lower_case": False})
        _write_modules(encoder, pooling, new)
        card.write(encoder, new, name=directory.name, source=source)
    return directory


def to_keras_hub(encoder: SentenceEncoder, directory: Path, *, source: str = "") -> Path:
    """Writes a keras-hub preset, which `keras_hub.models.TextEmbedder.from_preset` loads where keras-hub has one.

    keras-hub has a text embedder for BERT and XLM-RoBERTa, which pools by [CLS] or mean, without a head. Other encoders
    become a preset of backbone and tokenizer. Every command here takes either. A text embedder tokenises by keras-hub's
    rules, which know no Unicode blanks: a text with such has other tokens there.

    Args:
        encoder: The encoder.
        directory: Must not exist.
        source: Where the encoder comes from, for the model card.

    Returns:
        The directory.

    Raises:
        UserError: The directory exists or cannot be written.
    """
    import keras_hub

    if directory.exists():
        raise _exists(directory)
    save_encoder(encoder, directory)
    family = type(encoder.backbone).__name__.removesuffix("Backbone")
    embedder_class = getattr(keras_hub.models, f"{family}TextEmbedder", None)
    pooling = _SENTENCE_TRANSFORMERS_POOLING.get(encoder.config.pooling)
    if embedder_class is not None and pooling is not None and not encoder.head_at_inference:
        preprocessor_class = getattr(keras_hub.models, f"{family}TextEmbedderPreprocessor")
        preprocessor = preprocessor_class(encoder.tokenizer, sequence_length=encoder.max_length)
        embedder = embedder_class(encoder.backbone, preprocessor, pooling_mode=pooling, normalize=True)
        encoder_file = (directory / presets.ENCODER_FILE).read_text("utf-8")
        embedder.save_to_preset(str(directory))
        # The backbone's weights were written again: their checksum too.
        about = json.loads(encoder_file)
        about["sha256"] = {name: presets.sha256(directory / name) for name in about["sha256"]}
        _write_json(directory / presets.ENCODER_FILE, about)
    card.write(encoder, directory, name=directory.name, source=source)
    return directory


def _model_type(encoder: SentenceEncoder) -> str:
    name = type(encoder.backbone).__name__
    for model_type in (*_WORDPIECE, "roberta"):
        if huggingface.FAMILIES[model_type].backbone == name:
            return model_type
    raise UserError(
        f"--format huggingface: no export for a {name}; there is one for BERT, DistilBERT, ELECTRA, RoBERTa."
    )


def _pooling(encoder: SentenceEncoder, where: str) -> str:
    pooling = encoder.config.pooling
    if pooling not in _SENTENCE_TRANSFORMERS_POOLING:
        raise UserError(
            f"pooling '{pooling}' reads several layers, for which {where} has no counterpart. Export with --pooling "
            f"{' or '.join(_SENTENCE_TRANSFORMERS_POOLING)}, or as a SavedModel (--format savedmodel), which can do it."
        )
    return _SENTENCE_TRANSFORMERS_POOLING[pooling]


def _tensors(encoder: SentenceEncoder, model_type: str) -> dict[str, np.ndarray]:
    """The weights under the names that transformers gives them, in its layouts."""
    backbone, tensors = encoder.backbone, {}
    for name, variable, kind in huggingface.tensor_map(backbone):
        value = np.asarray(variable, "float32")
        if kind == "linear":
            # The three-dimensional kernels of attention are square when heads and their dimensions are joined.
            value = (value if value.ndim == 2 else value.reshape(backbone.hidden_dim, backbone.hidden_dim)).T
        tensors[name] = np.ascontiguousarray(value.reshape(-1) if name.endswith("bias") else value)
    dim = backbone.hidden_dim
    if model_type == "roberta":
        # Positions begin at 2 there. The vector of its only token type is in the positions already.
        positions = "embeddings.position_embeddings.weight"
        tensors[positions] = np.concatenate(
            [np.zeros((huggingface.ROBERTA_POSITION_OFFSET, dim), "float32"), tensors[positions]]
        )
        tensors["embeddings.token_type_embeddings.weight"] = np.zeros((1, dim), "float32")
    pooler = encoder.head if encoder.head_at_inference else getattr(backbone, "pooled_dense", None)
    if pooler is not None and model_type in ("bert", "roberta"):
        kernel, bias = pooler.get_weights()
        tensors |= {"pooler.dense.weight": np.ascontiguousarray(kernel.T), "pooler.dense.bias": bias}
    return tensors


def _config(backbone: Any, model_type: str) -> dict[str, Any]:
    sizes = {
        "vocab_size": backbone.token_embedding.input_dim,
        "max_position_embeddings": backbone.max_sequence_length,
        "model_type": model_type,
        "dtype": "float32",
    }
    if model_type == "distilbert":
        return sizes | {
            "architectures": ["DistilBertModel"],
            "n_layers": backbone.num_layers,
            "n_heads": backbone.num_heads,
            "dim": backbone.hidden_dim,
            "hidden_dim": backbone.intermediate_dim,
            "activation": "gelu",
        }
    config = sizes | {
        "architectures": [{"bert": "BertModel", "electra": "ElectraModel", "roberta": "RobertaModel"}[model_type]],
        "num_hidden_layers": backbone.num_layers,
        "num_attention_heads": backbone.num_heads,
        "hidden_size": backbone.hidden_dim,
        "intermediate_size": backbone.intermediate_dim,
        "layer_norm_eps": huggingface.FAMILIES[model_type].layer_norm_eps,
    }
    if model_type == "roberta":
        config["max_position_embeddings"] += huggingface.ROBERTA_POSITION_OFFSET
        return config | {
            "hidden_act": "gelu",
            "type_vocab_size": 1,
            "pad_token_id": 1,
            "bos_token_id": 0,
            "eos_token_id": 2,
        }
    if model_type == "electra":
        config["embedding_size"] = backbone.embedding_dim
    return config | {"hidden_act": "gelu_pytorch_tanh", "type_vocab_size": backbone.num_segments}


def _write_tokenizer(encoder: SentenceEncoder, model_type: str, new: Path) -> None:
    """Writes the vocabulary as the family's own files, and `tokenizer.json`, which the fast tokenizers read."""
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers, processors

    ours = encoder.tokenizer
    settings: dict[str, Any] = {"model_max_length": encoder.max_length}
    if model_type in _WORDPIECE:
        vocabulary = list(ours.vocabulary)
        (new / "vocab.txt").write_text("\n".join(vocabulary) + "\n", "utf-8")
        words = models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]")
        fast = tokenizers.Tokenizer(words)
        fast.normalizer = normalizers.BertNormalizer(lowercase=ours.lowercase, strip_accents=ours.strip_accents)
        fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        fast.post_processor = processors.BertProcessing(("[SEP]", ours.sep_token_id), ("[CLS]", ours.cls_token_id))
        special = {
            "unk_token": "[UNK]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "cls_token": "[CLS]",
            "mask_token": "[MASK]",
        }
        settings |= {"do_lower_case": ours.lowercase, "strip_accents": ours.strip_accents}
        settings["tokenizer_class"] = "BertTokenizer"
    else:
        merges = [rule for rule in ours.merges if not rule.startswith("#version")]
        _write_json(new / "vocab.json", dict(ours.vocabulary))
        (new / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", "utf-8")
        fast = tokenizers.Tokenizer(models.BPE.from_file(str(new / "vocab.json"), str(new / "merges.txt")))
        fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=ours.add_prefix_space)
        fast.post_processor = processors.RobertaProcessing(
            ("</s>", ours.end_token_id), ("<s>", ours.start_token_id), add_prefix_space=ours.add_prefix_space
        )
        special = {
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "sep_token": "</s>",
            "pad_token": "<pad>",
        }
        special |= {"cls_token": "<s>", "mask_token": "<mask>"}
        settings |= {"add_prefix_space": ours.add_prefix_space, "tokenizer_class": "RobertaTokenizer"}
    fast.add_special_tokens(sorted({token for token in special.values() if fast.token_to_id(token) is not None}))
    fast.save(str(new / "tokenizer.json"))
    _write_json(new / "tokenizer_config.json", settings | special)
    _write_json(new / "special_tokens_map.json", special)


def _write_modules(encoder: SentenceEncoder, pooling: str, new: Path) -> None:
    """Writes what sentence-transformers does after the encoder: pooling, the head, unit length."""
    from safetensors.numpy import save_file

    dim = encoder.dim
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    (new / "1_Pooling").mkdir()
    modes = {f"pooling_mode_{mode}_token{'s' * (mode == 'mean')}": mode == pooling for mode in ("cls", "mean")}
    _write_json(new / "1_Pooling" / "config.json", {"word_embedding_dimension": dim, **modes})
    if encoder.head_at_inference and encoder.head is not None:
        modules.append(("2_Dense", "Dense"))
        (new / "2_Dense").mkdir()
        activation = {"bias": True, "activation_function": sentence_transformers.TANH}
        _write_json(new / "2_Dense" / "config.json", {"in_features": dim, "out_features": dim, **activation})
        kernel, bias = encoder.head.get_weights()
        save_file(
            {"linear.weight": np.ascontiguousarray(kernel.T), "linear.bias": bias},
            new / "2_Dense" / "model.safetensors",
            metadata={"format": "pt"},
        )
    modules.append((f"{len(modules)}_Normalize", "Normalize"))
    (new / modules[-1][0]).mkdir()
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": _MODULES + kind} for i, (path, kind) in enumerate(modules)
    ]
    _write_json(new / "modules.json", listed)


def _new(directory: Path):
    if directory.exists():
        raise _exists(directory)
    return whole_directory(directory)


def _exists(directory: Path) -> UserError:
    return UserError(f"--to {directory}: exists. Delete it, or choose another name.")


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")
