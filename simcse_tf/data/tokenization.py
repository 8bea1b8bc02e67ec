"""Strings to token ids, inside the TensorFlow graph, so that the tokenizer travels with the SavedModel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from simcse_tf.data.bpe import BYTES_PER_TOKEN, byte_pairs
from simcse_tf.errors import UserError


def is_byte_level(tokenizer: Any) -> bool:
    """Whether a keras-hub tokenizer is a byte-level BPE, as RoBERTa's is."""
    return hasattr(tokenizer, "merges")


def with_prompt(prompt: str | tf.Tensor, text: tf.Tensor) -> tf.Tensor:
    """Puts a prompt before texts, before anything else is done to them: `(n,)` string.

    Args:
        prompt: One for all texts, or `(n,)` string, one for each.
        text: `(n,)` string.
    """
    return tf.strings.join([prompt, text])


def check_prompts(prompts: Mapping[str, str], tokenizer: Any, *, max_length: int) -> None:
    """Checks that prompts leave room for a token of text.

    Args:
        prompts: `query` and `passage`, or none.
        tokenizer: As for `tokenize`.
        max_length: Most tokens per text, special tokens included.

    Raises:
        UserError: One does not.
    """
    if not prompts:
        return

    # In tf.data: TensorFlow warns of a program that makes one tf.function after the other.
    @tf.autograph.experimental.do_not_convert
    def count(text: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tokenize(tokenizer, text, max_length=max_length)["padding_mask"], axis=1)

    lengths = next(iter(tf.data.Dataset.from_tensors(tf.constant(list(prompts.values()))).map(count))).numpy()
    for (name, prompt), length in zip(prompts.items(), lengths, strict=True):
        if length >= max_length:
            raise UserError(
                f"`{name}_prompt` {prompt!r:.80}: leaves no room for a text within `max_length` {max_length}. Shorten "
                "it, or raise `max_length`."
            )


def tokenize(tokenizer: Any, text: tf.Tensor, *, max_length: int, pad_to: int | None = None) -> dict[str, tf.Tensor]:
    """Turns texts into the encoder's input. Long texts lose their end, never [CLS] or [SEP]; `[SEP]` in a text is text.

    Only call it in a `tf.function` or in `tf.data`: keras-hub's tokenizers take a slow Python path elsewhere.

    The special tokens are added by hand: keras-hub's `MultiSegmentPacker` would put an operation into the graph
    (RoundRobinTrim) that older TF Serving images do not have.

    Args:
        tokenizer: A keras-hub tokenizer with `start_token_id`, `end_token_id` and `pad_token_id`.
        text: `(n,)` string. Bytes that are not UTF-8 become U+FFFD; NULs are left out, and by BERT's rules for
            WordPiece all control characters and U+FFFD as well.
        max_length: Most tokens per text, special tokens included.
        pad_to: Pad every text to this many tokens (for XLA, which wants one shape); otherwise to the longest of the
            batch.

    Returns:
        `token_ids` and `padding_mask` (1 for tokens, 0 for padding), both `(n, length)` int32.
    """
    most = max_length - 2
    byte_level = is_byte_level(tokenizer)
    if byte_level:
        text = tf.strings.substr(text, 0, most * BYTES_PER_TOKEN)
    text = tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", errors="replace")
    # tf-text would take it for the end of the text.
    text = tf.strings.regex_replace(text, r"\x{00}", "")
    if byte_level:
        if tokenizer.add_prefix_space:
            text = tf.strings.join([" ", text])
        unknown = tokenizer.vocabulary.get("<unk>", tokenizer.pad_token_id)
        ids = byte_pairs(text, tokenizer.vocabulary, tokenizer.merges, most=most, unknown=unknown)
    else:
        if hasattr(tokenizer, "strip_accents"):
            # BERT's cleaning, which keras-hub leaves out: without it "150\u00a0km" is one unknown word.
            text = tf.strings.regex_replace(text, r"[\p{Zs}\t\n\r]", " ")
            text = tf.strings.regex_replace(text, r"[\p{C}\x{FFFD}]", "")
        # Linear in the length: 100,000 characters take 0.1 s at most. Bytes cannot be cut off before: a word without
        # end is one token, and blanks are none.
        ids = tf.cast(tokenizer(text), tf.int32)
    ids = ids[:, :most]
    n = ids.nrows()
    start = tf.fill([n, 1], tf.constant(tokenizer.start_token_id, tf.int32))
    end = tf.fill([n, 1], tf.constant(tokenizer.end_token_id, tf.int32))
    ids = tf.concat([start, ids, end], axis=1)
    # Every text has two tokens; a batch of no text has two columns as well, because [CLS] will be asked for.
    shape = tf.stack([-1, tf.maximum(ids.bounding_shape(1), 2)]) if pad_to is None else [None, pad_to]
    return {
        "token_ids": ids.to_tensor(tokenizer.pad_token_id, shape=shape),
        "padding_mask": tf.ones_like(ids).to_tensor(0, shape=shape),
    }
