"""Strings to token ids, inside the TensorFlow graph, so that the tokenizer travels with the SavedModel."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def tokenize(tokenizer: Any, text: tf.Tensor, *, max_length: int, pad_to: int | None = None) -> dict[str, tf.Tensor]:
    """Turns texts into the encoder's input. Long texts lose their end, never [CLS] or [SEP].

    Only call it in a `tf.function` or in `tf.data`: keras-hub's tokenizers take a slow Python path elsewhere.

    The special tokens are added by hand: keras-hub's `MultiSegmentPacker` would put an operation into the graph
    (RoundRobinTrim) that older TF Serving images do not have.

    Args:
        tokenizer: A keras-hub tokenizer with `start_token_id`, `end_token_id` and `pad_token_id`.
        text: `(n,)` string. Bytes that are no UTF-8 are replaced by U+FFFD.
        max_length: Most tokens per text, special tokens included.
        pad_to: Pad every text to this many tokens (for XLA, which wants one shape); otherwise to the longest of the
            batch.

    Returns:
        `token_ids` and `padding_mask` (1 for tokens, 0 for padding), both `(n, length)` int32.
    """
    text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
    ids = tf.cast(tokenizer(text), tf.int32)[:, : max_length - 2]
    n = ids.nrows()
    start = tf.fill([n, 1], tf.constant(tokenizer.start_token_id, tf.int32))
    end = tf.fill([n, 1], tf.constant(tokenizer.end_token_id, tf.int32))
    ids = tf.concat([start, ids, end], axis=1)
    shape = None if pad_to is None else [None, pad_to]
    return {
        "token_ids": ids.to_tensor(tokenizer.pad_token_id, shape=shape),
        "padding_mask": tf.ones_like(ids).to_tensor(0, shape=shape),
    }
