"""Byte-level BPE, RoBERTa's tokenizer, inside the TensorFlow graph and without state.

keras-hub has one. In a graph it merges a single pair of each word per round, so that its time grows with the square of
the longest word (16,000 letters without a space: 28 s), and it keeps every word that it has met in a table, which
grows until the server runs out of memory. This one merges all occurrences of a pair at a time, for a bounded number of
rounds, and its tables are constants of the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_text as tf_text

from simcse_tf.errors import UserError

# Bytes of a text that are read per token wanted. Tokens have 4 or 5 bytes on average, the longest a hundred: only a
# text that begins with pages of rulers or blanks loses words that would have fitted.
BYTES_PER_TOKEN = 16
# A round merges one pair of each word, everywhere in it: words of up to 513 bytes are always merged to the end, and so
# is anything in a language. What is longer stays in smaller pieces.
_ROUNDS = 512

# GPT-2's pattern has a lookahead, `\s+(?!\S)`, which RE2 does not: the last blank before a word belongs to the word. A
# mark before that blank does the same. It is a code point that Unicode keeps free for such uses.
_MARK = "\U0010ffff"
_BLANK = r"[\t-\r \x{85}\p{Z}]"
_NOT_BLANK = r"[^\t-\r \x{85}\p{Z}]"
_WORD = (
    r"'s|'t|'re|'ve|'m|'ll|'d"
    r"| ?\p{L}+"
    r"| ?\p{N}+"
    r"| ?[^\t-\r \x{85}\p{Z}\p{L}\p{N}\x{10FFFF}]+"
    rf"|{_BLANK}+"
)
_NONE = np.iinfo("int32").max


class _Tables(NamedTuple):
    # (256,) the token of each byte.
    bytes: np.ndarray
    # Pairs of tokens that merge, as left * size + right, ascending; ends with a pair that does not exist.
    pairs: np.ndarray
    # Their ranks: the lowest merges first.
    ranks: np.ndarray
    # The tokens that they merge into.
    merged: np.ndarray
    # A number above all tokens.
    size: int


def byte_pairs(
    text: tf.Tensor, vocabulary: Mapping[str, int], merges: Sequence[str], *, most: int, unknown: int
) -> tf.RaggedTensor:
    """Turns texts into byte-level BPE tokens. Special tokens in a text are taken for text.

    Args:
        text: `(n,)` string, UTF-8.
        vocabulary: Token to id; bytes are spelt as GPT-2 spells them.
        merges: `"left right"`, the first are merged first.
        most: Most tokens per text; the rest may be missing from the answer.
        unknown: The id for a byte that the vocabulary has no token for.

    Returns:
        `(n, tokens)` int32, ragged.

    Raises:
        UserError: A merge is about tokens that the vocabulary does not have.
    """
    tables = _tables(vocabulary, merges, unknown)
    text = tf.strings.regex_replace(text, _MARK, "\N{REPLACEMENT CHARACTER}")
    text = tf.strings.regex_replace(text, f"({_BLANK})({_NOT_BLANK})", _MARK + r"\1\2")
    # A word gives at least one token.
    words = tf_text.regex_split(text, f"{_MARK}|{_WORD}", _WORD)[:, :most]
    different, where = tf.unique(words.values)
    tokens = tf.gather(_merge(different, tables), where)
    return tf.RaggedTensor.from_row_splits(tokens, words.row_splits).merge_dims(1, 2)


def _merge(words: tf.Tensor, tables: _Tables) -> tf.RaggedTensor:
    """`(words,)` strings to `(words, tokens)`: all tokens lie in one vector, beside the number of their word."""
    count = tf.size(words)
    content = tf.io.decode_raw(tf.strings.reduce_join(words), tf.uint8)
    token = tf.gather(tf.constant(tables.bytes), tf.cast(content, tf.int32))
    word = tf.repeat(tf.range(count), tf.strings.length(words))
    pairs, ranks, merged = (tf.constant(x) for x in (tables.pairs, tables.ranks, tables.merged))

    def merge_best(token, word, _):
        pair = token[:-1] * tables.size + token[1:]
        entry = tf.searchsorted(pairs, pair)
        exists = (word[:-1] == word[1:]) & (tf.gather(pairs, entry) == pair)
        rank = tf.where(exists, tf.gather(ranks, entry), _NONE)
        best = tf.math.unsorted_segment_min(rank, word[:-1], count)
        merge = exists & (rank == tf.gather(best, word[:-1]))
        # In a run such as "aaaa" every second pair merges.
        place = tf.range(tf.size(merge))
        first = merge & ~tf.concat([[False], merge[:-1]], axis=0)
        begin = tf.concat([[0], tf.boolean_mask(place, first)], axis=0)
        merge &= (place - tf.gather(begin, tf.cumsum(tf.cast(first, tf.int32)))) % 2 == 0

        token = tf.where(tf.pad(merge, [[0, 1]]), tf.pad(tf.gather(merged, entry), [[0, 1]]), token)
        keep = tf.concat([[True], ~merge], axis=0)
        return tf.boolean_mask(token, keep), tf.boolean_mask(word, keep), tf.reduce_any(merge)

    vector = tf.TensorShape([None])
    token, word, _ = tf.while_loop(
        lambda token, word, merged_any: merged_any,
        merge_best,
        (token, word, tf.size(token) > 0),
        shape_invariants=(vector, vector, tf.TensorShape([])),
        maximum_iterations=_ROUNDS,
    )
    rows = tf.cast(word, tf.int64)
    return tf.RaggedTensor.from_value_rowids(tf.cast(token, tf.int32), rows, nrows=tf.cast(count, tf.int64))


def _tables(vocabulary: Mapping[str, int], merges: Sequence[str], unknown: int) -> _Tables:
    size = max(vocabulary.values()) + 1
    rules = {}
    for rank, rule in enumerate(r for r in merges if not r.startswith("#version")):
        left, right = rule.split(" ")
        try:
            rules[vocabulary[left] * size + vocabulary[right]] = rank, vocabulary[left + right]
        except KeyError as e:
            raise UserError(
                f"merges.txt has the rule '{rule}', but the vocabulary has no token {e}. They are from "
                "different models."
            ) from e
    pairs = sorted(rules)
    return _Tables(
        bytes=np.array([vocabulary.get(character, unknown) for character in byte_characters()], "int64"),
        pairs=np.array([*pairs, np.iinfo("int64").max], "int64"),
        ranks=np.array([*(rules[p][0] for p in pairs), _NONE], "int32"),
        merged=np.array([*(rules[p][1] for p in pairs), 0], "int64"),
        size=size,
    )


def byte_characters() -> list[str]:
    """How GPT-2 spells each of the 256 bytes: printable ones as they are, the others as U+0100 and on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("\u00a1"), ord("\u00ac") + 1), *range(ord("\u00ae"), 256)]
    others = (b for b in range(256) if b not in printable)
    spelling = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}
    return [spelling[b] for b in range(256)]
