"""Texts as Python programs hold them, for `fit`: lists, arrays and tf.data of sentences, pairs and triplets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from simcse_tf.errors import UserError

_EXPECTED = (
    "Expected sentences, ['...', ...]; pairs, [('anchor', 'positive'), ...]; or triplets, "
    "[('anchor', 'positive', 'hard negative'), ...]."
)


def rows(texts: Any) -> np.ndarray | None:
    """Lists and arrays of texts as an array of strings.

    Args:
        texts: Anything.

    Returns:
        `(n, views)` of bytes, views 1, 2 or 3; None for what is neither a list, a tuple nor an array of strings.

    Raises:
        UserError: A single string, an empty list, or a row that is not 1, 2 or 3 strings like the rows before it; the
            message names the row.
    """
    if isinstance(texts, str | bytes):
        raise UserError(f"a single string where a list was expected: {texts!r:.60}. {_EXPECTED}")
    if hasattr(texts, "__array__") and not isinstance(texts, np.ndarray):
        texts = np.asarray(texts)
    if isinstance(texts, np.ndarray):
        if texts.dtype.kind not in "OUS" or texts.ndim not in (1, 2):
            return None
        texts = texts.tolist()
    if not isinstance(texts, list | tuple):
        return None
    if not texts:
        raise UserError(f"there are no texts: the list is empty. {_EXPECTED}")
    if getattr(texts[0], "shape", ()):  # arrays of a model's inputs, which Keras takes as a list
        return None
    views = len(texts[0]) if _is_row(texts[0]) else 1
    found = [_row(i, row, views) for i, row in enumerate(texts)]
    return np.array(found, dtype=object)


def _is_row(row: Any) -> bool:
    return isinstance(row, list | tuple) and len(row) > 0 and all(isinstance(text, str | bytes) for text in row)


def _row(i: int, row: Any, views: int) -> list[bytes]:
    cells = [row] if isinstance(row, str | bytes) else row
    if not _is_row(cells):
        raise UserError(f"row {i} is not text: {row!r:.80}. {_EXPECTED}")
    if len(cells) > 3:
        raise UserError(
            f"row {i} has {len(cells)} texts, of at most 3. Columns become rows by list(zip(anchors, positives))."
            f" {_EXPECTED}"
        )
    if len(cells) != views:
        raise UserError(f"row {i} has {len(cells)} texts, row 0 has {views}. {_EXPECTED}")
    return [text.encode("utf-8", "replace") if isinstance(text, str) else text for text in cells]


def string_batches(dataset: tf.data.Dataset) -> tf.data.Dataset | None:
    """A data set of batches of texts as one of `(batch, views)` strings.

    Args:
        dataset: Elements are `(batch,)` strings, `(batch, views)` strings, or a tuple of `(batch,)` strings, one for
            each view.

    Returns:
        None where the elements are not strings.

    Raises:
        UserError: The elements are single texts, or have more than 3 views.
    """
    spec = dataset.element_spec
    columns: Sequence[Any] = spec if isinstance(spec, tuple | list) else (spec,)
    if not all(isinstance(column, tf.TensorSpec) and column.dtype == tf.string for column in columns):
        return None
    ranks = {column.shape.rank for column in columns}
    if ranks == {0}:
        raise UserError("the data set gives single texts: batch it, dataset.batch(64, drop_remainder=True).")
    if len(columns) > 1 and ranks == {1}:
        views = len(columns)
        dataset = dataset.map(lambda *columns: tf.stack(columns, axis=1))
    elif ranks == {1}:
        views = 1
        dataset = dataset.map(lambda texts: texts[:, tf.newaxis])
    else:
        views = columns[0].shape[1] if ranks == {2} and len(columns) == 1 else None
    if views not in (1, 2, 3):
        raise UserError(
            f"the data set's elements are {spec}. Expected (batch,) strings, (batch, views) strings with 1, 2 or 3 "
            "views, or a tuple of 2 or 3 tensors of (batch,) strings."
        )
    return dataset


def batched(
    rows: np.ndarray, batch_size: int, *, drop_remainder: bool = False, shuffle_seed: int | None = None
) -> tf.data.Dataset:
    """Cuts rows into batches.

    Args:
        rows: `(n, views)`, from `rows`.
        batch_size: Rows in a batch.
        drop_remainder: Leave out the rest that fills no batch.
        shuffle_seed: Go through the rows without end, in another order each time. With the epoch's number it decides
            the order: the same on every worker, and however TensorFlow iterates over the data.

    Returns:
        Elements are `(batch_size, views)` strings.
    """
    texts = tf.constant(rows, tf.string)
    if shuffle_seed is None:
        return tf.data.Dataset.from_tensor_slices(texts).batch(batch_size, drop_remainder=drop_remainder)

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(len(rows)), seed=tf.stack([shuffle_seed, number]))
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size, drop_remainder=drop_remainder)

    batches = tf.data.Dataset.range(np.iinfo("int64").max).flat_map(epoch)
    return batches.map(lambda places: tf.gather(texts, places))
