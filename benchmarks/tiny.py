"""A tiny BERT with a vocabulary of its own and sentences in its words: what a check of exactness needs, no download."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

# One word a place; a sentence takes one of each.
_PLACES = (
    ("a", "the"),
    ("old", "small", "red"),
    ("man", "woman", "child", "dog", "cat", "bird"),
    ("plays", "reads", "rides", "sees", "paints"),
    ("near", "in", "under", "behind"),
    ("a", "the"),
    ("boat", "house", "river", "tree", "guitar", "book"),
    (".",),
)
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(w for words in _PLACES for w in words)]


def make_preset(
    directory: Path,
    vocabulary: Sequence[str] = VOCABULARY,
    *,
    layers: int = 3,
    dim: int = 32,
    positions: int = 32,
) -> None:
    """Writes a keras-hub preset of a BERT with two heads and random weights. Imports TensorFlow.

    Args:
        directory: Where; must not exist.
        vocabulary: WordPiece, special tokens first.
        layers: Of the encoder.
        dim: Of a token's vector; twice as many between the dense layers.
        positions: Longest text in tokens.
    """
    import keras
    import keras_hub

    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=len(vocabulary),
        num_layers=layers,
        num_heads=2,
        hidden_dim=dim,
        intermediate_dim=2 * dim,
        max_sequence_length=positions,
    )
    # Fresh weights are so small that every sentence looks the same: spread them.
    for variable in backbone.trainable_variables:
        if variable.path.endswith(("kernel", "embeddings")):
            variable.assign(variable * 10)
    backbone.save_to_preset(str(directory))
    keras_hub.models.BertTokenizer(list(vocabulary), lowercase=True).save_to_preset(str(directory))


def sentences(count: int) -> list[str]:
    """So many sentences, the same every time; a few may be equal."""
    choose = random.Random(0).choice
    return [" ".join(choose(words) for words in _PLACES) for _ in range(count)]


def write_sentences(path: Path, count: int) -> None:
    """Writes `sentences(count)`, one a line."""
    path.write_text("".join(s + "\n" for s in sentences(count)), "utf-8")
