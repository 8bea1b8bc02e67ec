"""From token vectors to one vector per sentence. Adding a pooler is one function and one line in `POOLERS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf


def first_token(hidden: Sequence[tf.Tensor], padding_mask: tf.Tensor) -> tf.Tensor:
    """The vector of [CLS].

    Args:
        hidden: One tensor `(n, length, dim)`.
        padding_mask: `(n, length)`; not needed, every text begins with [CLS].

    Returns:
        `(n, dim)`.
    """
    del padding_mask
    return hidden[0][:, 0]


def masked_mean(hidden: Sequence[tf.Tensor], padding_mask: tf.Tensor) -> tf.Tensor:
    """The mean over the layers given and over the tokens that are not padding ([CLS] and [SEP] count).

    Args:
        hidden: Tensors `(n, length, dim)`.
        padding_mask: `(n, length)`, 1 for tokens and 0 for padding.

    Returns:
        `(n, dim)`.
    """
    mean = tf.add_n(list(hidden)) / len(hidden)
    weights = tf.cast(padding_mask, mean.dtype)[:, :, tf.newaxis]
    return tf.reduce_sum(mean * weights, axis=1) / tf.reduce_sum(weights, axis=1)


@dataclass(frozen=True)
class Pooler:
    """Which layers a pooler reads, and what it makes of them."""

    # Transformer layers whose outputs are read; -1 is the last.
    layers: tuple[int, ...]
    pool: Callable[[Sequence[tf.Tensor], tf.Tensor], tf.Tensor]
    # Whether it reads the first token alone, of one layer: the others need not be computed there.
    first_only: bool = False


# As in SimCSE (Gao et al. 2021, table 6); "first" is the output of the first transformer layer, as in its released
# code.
POOLERS: dict[str, Pooler] = {
    "cls": Pooler((-1,), first_token, first_only=True),
    "cls_before_pooler": Pooler((-1,), first_token, first_only=True),
    "avg": Pooler((-1,), masked_mean),
    "avg_top2": Pooler((-2, -1), masked_mean),
    "avg_first_last": Pooler((0, -1), masked_mean),
}
