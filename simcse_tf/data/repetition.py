"""Word repetition: a text and a copy in which some tokens stand twice mean the same, but differ in length.

Without it the two views of a sentence are always as long as each other, and a model learns that from their position
embeddings. Source: Wu et al. 2022, "ESimCSE: Enhanced Sample Building Method for Contrastive Learning of Unsupervised
Sentence Embedding", section 3.1, whose sub-word level this is.
"""

from __future__ import annotations

import tensorflow as tf

# No text becomes longer than by so many tokens.
MOST = 9


def repeat_tokens(
    token_ids: tf.Tensor, padding_mask: tf.Tensor, *, rate: float, seed: tf.Tensor, pad_token_id: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Writes some tokens of each text twice.

    Of a text of n tokens, with the first and the last, which are special and stay, k are repeated at places drawn
    without repetition; k is drawn evenly from 0 to min(10, floor(rate n)) - 1.

    Args:
        token_ids: `(n, length)` int32, of known length.
        padding_mask: `(n, length)` int32, 1 for tokens, which stand before the padding.
        rate: As above.
        seed: `(2,)` int, decides all draws.
        pad_token_id: The tokenizer's.

    Returns:
        Both, `(n, length + MOST)` int32.
    """
    rows, length = tf.shape(token_ids)[0], token_ids.shape[1]
    n = tf.reduce_sum(padding_mask, axis=1)
    # 0.29 * 100 is not 28.999...
    most = tf.minimum(MOST + 1, tf.cast(tf.floor(rate * tf.cast(n, tf.float64) + 1e-9), tf.int32))
    seeds = tf.random.split(seed, 2)
    draw = tf.random.stateless_uniform([rows], seeds[0], dtype=tf.float64)
    count = tf.cast(tf.floor(draw * tf.cast(most, tf.float64)), tf.int32)
    # The places with the lowest numbers are chosen, and no special token is.
    place = tf.range(length)[tf.newaxis]
    may_repeat = (place > 0) & (place < n[:, tf.newaxis] - 1)
    numbers = tf.where(may_repeat, tf.random.stateless_uniform([rows, length], seeds[1]), 2.0)
    rank = tf.argsort(tf.argsort(numbers, axis=1, stable=True), axis=1, stable=True)
    chosen = may_repeat & (rank < count[:, tf.newaxis])
    times = padding_mask + tf.cast(chosen, tf.int32)
    repeated = tf.repeat(tf.reshape(token_ids, [-1]), tf.reshape(times, [-1]))
    ragged = tf.RaggedTensor.from_row_lengths(repeated, tf.reduce_sum(times, axis=1), validate=False)
    shape = [None, length + MOST]
    return ragged.to_tensor(pad_token_id, shape=shape), tf.ones_like(ragged).to_tensor(0, shape=shape)
