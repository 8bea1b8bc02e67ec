"""Hugging Face directories with tiny random weights, written from the published layouts without the library."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.conftest import SENTENCES, VOCABULARY

DIM, HEADS, LAYERS, FEEDFORWARD, POSITIONS = 8, 2, 2, 12, 20
PREFIXES = {
    "bert": "bert.",
    "electra": "electra.",
    "distilbert": "distilbert.",
    "roberta": "roberta.",
    "xlm-roberta": "roberta.",
}
ROBERTAS = ("roberta", "xlm-roberta")


def write(directory: Path, model_type: str, *, prefix: bool = True, old_names: bool = False) -> Path:
    """Writes config, weights and tokenizer of a model type of `PREFIXES`."""
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = len(VOCABULARY)
    weights = _distilbert(vocabulary) if model_type == "distilbert" else _bert(model_type, vocabulary)
    if old_names:
        weights = {
            k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
            for k, v in weights.items()
        }
    if prefix:
        weights = {PREFIXES[model_type] + k: v for k, v in weights.items()}
    # What real checkpoints carry and nobody needs.
    weights["cls.predictions.bias"] = np.zeros(vocabulary, "float32")
    save_file(weights, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(_config(model_type, vocabulary)), "utf-8")
    if model_type == "roberta":
        _write_bpe(directory)
    elif model_type == "xlm-roberta":
        _write_sentencepiece(directory)
    else:
        (directory / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", "utf-8")
        (directory / "tokenizer_config.json").write_text('{"do_lower_case": true}', "utf-8")
    return directory


def _config(model_type, vocabulary):
    if model_type == "distilbert":
        return {
            "architectures": ["DistilBertForMaskedLM"],
            "model_type": "distilbert",
            "vocab_size": vocabulary,
            "n_layers": LAYERS,
            "n_heads": HEADS,
            "dim": DIM,
            "hidden_dim": FEEDFORWARD,
            "max_position_embeddings": POSITIONS,
            "activation": "gelu",
            "dropout": 0.1,
        }
    config = {
        "architectures": ["BertModel"],
        "model_type": model_type,
        "vocab_size": vocabulary,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "hidden_size": DIM,
        "intermediate_size": FEEDFORWARD,
        "max_position_embeddings": POSITIONS,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "layer_norm_eps": 1e-12,
        "type_vocab_size": 2,
    }
    if model_type == "electra":
        config["embedding_size"] = 6
    if model_type in ROBERTAS:
        config |= {
            "layer_norm_eps": 1e-5,
            "type_vocab_size": 1,
            "pad_token_id": 1,
            "bos_token_id": 0,
            "eos_token_id": 2,
        }
    return config


def _random(*shape):
    return _random.rng.normal(scale=0.5, size=shape).astype("float32")


_random.rng = np.random.default_rng(7)


def _linear(name, inputs, outputs):
    return {f"{name}.weight": _random(outputs, inputs), f"{name}.bias": _random(outputs)}


def _norm(name, dim):
    return {f"{name}.weight": 1 + _random(dim), f"{name}.bias": _random(dim)}


def _bert(model_type, vocabulary):
    width = 6 if model_type == "electra" else DIM
    weights = {
        "embeddings.word_embeddings.weight": _random(vocabulary, width),
        "embeddings.position_embeddings.weight": _random(POSITIONS, width),
        "embeddings.token_type_embeddings.weight": _random(1 if model_type in ROBERTAS else 2, width),
        **_norm("embeddings.LayerNorm", width),
    }
    if model_type == "electra":
        weights |= _linear("embeddings_project", width, DIM)
    else:
        weights |= _linear("pooler.dense", DIM, DIM)
    for i in range(LAYERS):
        at = f"encoder.layer.{i}"
        for name in ("query", "key", "value"):
            weights |= _linear(f"{at}.attention.self.{name}", DIM, DIM)
        weights |= _linear(f"{at}.attention.output.dense", DIM, DIM)
        weights |= _norm(f"{at}.attention.output.LayerNorm", DIM)
        weights |= _linear(f"{at}.intermediate.dense", DIM, FEEDFORWARD)
        weights |= _linear(f"{at}.output.dense", FEEDFORWARD, DIM)
        weights |= _norm(f"{at}.output.LayerNorm", DIM)
    return weights


def _distilbert(vocabulary):
    weights = {
        "embeddings.word_embeddings.weight": _random(vocabulary, DIM),
        "embeddings.position_embeddings.weight": _random(POSITIONS, DIM),
        **_norm("embeddings.LayerNorm", DIM),
    }
    for i in range(LAYERS):
        at = f"transformer.layer.{i}"
        for name in ("q_lin", "k_lin", "v_lin", "out_lin"):
            weights |= _linear(f"{at}.attention.{name}", DIM, DIM)
        weights |= _norm(f"{at}.sa_layer_norm", DIM)
        weights |= _linear(f"{at}.ffn.lin1", DIM, FEEDFORWARD)
        weights |= _linear(f"{at}.ffn.lin2", FEEDFORWARD, DIM)
        weights |= _norm(f"{at}.output_layer_norm", DIM)
    return weights


def _write_sentencepiece(directory):
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_writer=model,
        vocab_size=40,
        hard_vocab_limit=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        minloglevel=2,
    )
    (directory / "sentencepiece.bpe.model").write_bytes(model.getvalue())


def _write_bpe(directory):
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *"abcdefghijklmnopqrstuvwxyz.,?!", "\u0120"]
    tokens += ["\u0120a", "\u0120t", "he", "\u0120the", "\u0120d", "o", "og", "\u0120dog"]
    tokens = list(dict.fromkeys(tokens))
    tokens += [f"<unused{i}>" for i in range(len(VOCABULARY) - len(tokens))]
    (directory / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}), "utf-8")
    merges = ["#version: 0.2", "\u0120 a", "\u0120 t", "h e", "\u0120t he", "\u0120 d", "o g", "\u0120d og"]
    (directory / "merges.txt").write_text("\n".join(merges) + "\n", "utf-8")
