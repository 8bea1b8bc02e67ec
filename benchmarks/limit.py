"""The arithmetic limit: how long the matrix products of the real tokens would take at this machine's measured rate.

Counted: the matrix products of the encoder (a product of m x k by k x n is 2mkn operations), over real tokens alone,
attention over each text's real length; where [CLS] is all that is pooled, in the last layer only what [CLS] needs; the
head and the similarities of the loss. The backward pass counts twice the forward pass. Not counted, because free of
them would be ideal: embeddings, softmax, LayerNorm, GELU, dropout, the optimizer, tokenisation, padding.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path


def encoder_operations(lengths: Sequence[int], config: dict[str, int], *, cls_only: bool) -> int:
    """Operations of one forward pass over texts of these lengths in tokens.

    Args:
        lengths: Real tokens per text, [CLS] and [SEP] included.
        config: Hugging Face's `config.json`.
        cls_only: Whether the last layer is needed for [CLS] alone.
    """
    dim, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    projection = 2 * dim * dim
    feed_forward = 4 * dim * inner

    def layer(tokens: int, queries: int) -> int:
        # Keys and values of all tokens; queries, output projection and feed-forward of those that are asked for;
        # the scores and the weighted sums.
        return 2 * tokens * projection + queries * (2 * projection + feed_forward) + 4 * tokens * queries * dim

    total = 0
    for n in lengths:
        total += (layers - 1) * layer(n, n) + layer(n, 1 if cls_only else n)
    return total


def step_operations(views: Sequence[Sequence[int]], config: dict[str, int]) -> int:
    """Operations of a training step, forward and backward.

    Args:
        views: The texts' lengths, a list per view (anchors, positives, hard negatives).
        config: Hugging Face's `config.json`.
    """
    dim = config["hidden_size"]
    lengths = [n for view in views for n in view]
    head = 2 * dim * dim * len(lengths)
    similarities = 2 * dim * len(views[0]) * (len(lengths) - len(views[0]))
    return 3 * (encoder_operations(lengths, config, cls_only=True) + head + similarities)


class Counter:
    """Counts the operations of texts.

    Args:
        model: A Hugging Face directory.
    """

    def __init__(self, model: Path):
        # In the benchmark's environment; it is small, so that this process stays small.
        from tokenizers import Tokenizer

        self._config = json.loads((model / "config.json").read_text("utf-8"))
        self._tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        self._tokenizer.no_padding()

    def encoding(self, texts: list[str], max_length: int) -> int:
        """Operations of encoding the texts with mean pooling."""
        return encoder_operations(self._lengths(texts, max_length), self._config, cls_only=False)

    def step(self, rows: list[list[str]], max_length: int) -> int:
        """Operations of a training step over rows of 1 text (encoded twice) or 3."""
        views = [list(view) for view in zip(*rows, strict=True)]
        if len(views) == 1:
            views *= 2
        return step_operations([self._lengths(view, max_length) for view in views], self._config)

    def _lengths(self, texts: list[str], max_length: int) -> list[int]:
        self._tokenizer.enable_truncation(max_length)
        return [len(tokens.ids) for tokens in self._tokenizer.encode_batch(texts)]
