"""The architectures that this package knows: one row each, under their `model_type` of Hugging Face."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

TokenizerKind = Literal["wordpiece", "byte_pairs", "sentencepiece"]
# What a tokenizer of each kind is made from.
TOKENIZER_FILES: dict[TokenizerKind, tuple[str, ...]] = {
    "wordpiece": ("vocab.txt",),
    "byte_pairs": ("vocab.json", "merges.txt"),
    "sentencepiece": ("sentencepiece.bpe.model",),
}

# A keras-hub backbone's arguments and what `config.json` calls them.
_SIZES = {
    "vocabulary_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "hidden_dim": "hidden_size",
    "intermediate_dim": "intermediate_size",
    "max_sequence_length": "max_position_embeddings",
}
_DISTILBERT_SIZES = {
    "vocabulary_size": "vocab_size",
    "num_layers": "n_layers",
    "num_heads": "n_heads",
    "hidden_dim": "dim",
    "intermediate_dim": "hidden_dim",
    "max_sequence_length": "max_position_embeddings",
}
_ELECTRA_SIZES = {
    "vocab_size": "vocab_size",
    "embedding_dim": "embedding_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "hidden_dim": "hidden_size",
    "intermediate_dim": "intermediate_size",
    "max_sequence_length": "max_position_embeddings",
}

# The fields of `models.backbone.TransformerLayer` and the tensors of layer {}, without `.weight` and `.bias`.
_LAYER = {
    "query": "encoder.layer.{}.attention.self.query",
    "key": "encoder.layer.{}.attention.self.key",
    "value": "encoder.layer.{}.attention.self.value",
    "attention_output": "encoder.layer.{}.attention.output.dense",
    "attention_norm": "encoder.layer.{}.attention.output.LayerNorm",
    "intermediate": "encoder.layer.{}.intermediate.dense",
    "output": "encoder.layer.{}.output.dense",
    "output_norm": "encoder.layer.{}.output.LayerNorm",
}
_DISTILBERT_LAYER = {
    "query": "transformer.layer.{}.attention.q_lin",
    "key": "transformer.layer.{}.attention.k_lin",
    "value": "transformer.layer.{}.attention.v_lin",
    "attention_output": "transformer.layer.{}.attention.out_lin",
    "attention_norm": "transformer.layer.{}.sa_layer_norm",
    "intermediate": "transformer.layer.{}.ffn.lin1",
    "output": "transformer.layer.{}.ffn.lin2",
    "output_norm": "transformer.layer.{}.output_layer_norm",
}


@dataclass(frozen=True)
class Family:
    """An architecture as Hugging Face and keras-hub store it. The defaults are BERT's."""

    # How keras-hub's classes begin: `BertBackbone`, `BertTokenizer`.
    keras_hub: str
    # keras-hub's folder of it, which holds the table of presets.
    folder: str
    # Of the tensors of a checkpoint that was saved with a task head.
    prefix: str
    tokenizer: TokenizerKind
    # Fixed in keras-hub's backbones.
    layer_norm_eps: float = 1e-12
    # Rows of the checkpoint's table of positions that no token uses. RoBERTa counts positions from its padding index
    # (1) plus one.
    position_offset: int = 0
    # Where token types are: in a table of the backbone; in the table of positions, to which the only vector of the
    # checkpoint is added, because keras-hub has no place for it; nowhere.
    segments: Literal["table", "in_positions", "none"] = "table"
    # Whether Hugging Face's model has `pooler.dense`, where SimCSE's authors keep the head.
    pooler: bool = True
    # What `config.json` calls the activation.
    activation: str = "hidden_act"
    sizes: Mapping[str, str] = field(default_factory=lambda: _SIZES)
    layer: Mapping[str, str] = field(default_factory=lambda: _LAYER)


FAMILIES: dict[str, Family] = {
    "bert": Family("Bert", "bert", "bert.", "wordpiece"),
    "electra": Family("Electra", "electra", "electra.", "wordpiece", pooler=False, sizes=_ELECTRA_SIZES),
    "distilbert": Family(
        "DistilBert",
        "distil_bert",
        "distilbert.",
        "wordpiece",
        segments="none",
        pooler=False,
        activation="activation",
        sizes=_DISTILBERT_SIZES,
        layer=_DISTILBERT_LAYER,
    ),
    "roberta": Family("Roberta", "roberta", "roberta.", "byte_pairs", 1e-5, position_offset=2, segments="in_positions"),
    "xlm-roberta": Family(
        "XLMRoberta",
        "xlm_roberta",
        "roberta.",
        "sentencepiece",
        1e-5,
        position_offset=2,
        segments="in_positions",
    ),
}


def of_backbone(backbone: object) -> tuple[str, Family] | None:
    """The first row of a keras-hub backbone's class: its `model_type` and the row; None for other architectures."""
    name = type(backbone).__name__
    return next(((model_type, f) for model_type, f in FAMILIES.items() if f"{f.keras_hub}Backbone" == name), None)
