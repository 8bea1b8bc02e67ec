"""Texts as Python programs hold them, for `fit`: lists, arrays and tf.data of sentences, pairs and so on."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import tensorflow as tf

from simcse_tf.data import targets
from simcse_tf.data.rows import Reject
from simcse_tf.data.rows import Rows as Reading
from simcse_tf.data.sources import Source
from simcse_tf.errors import UserError

_EXPECTED = (
    "Expected sentences, ['...', ...]; pairs, [('anchor', 'positive'), ...], also with hard negatives behind them; "
    "texts with the numbers of their classes, [('...', 3), ...]; or pairs with scores, [('...', '...', 0.8), ...]."
)


@dataclass(frozen=True)
class Rows:
    """Rows in memory.

    Attributes:
        texts: `(n, views)` of bytes.
        targets: `(n,)` int64 or float32 where rows end in a number, otherwise None.
        taught: `(n, views, dim)` float32, a teacher's vectors of the texts, if there is one.
    """

    texts: np.ndarray
    targets: np.ndarray | None = None
    taught: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def part(self, which: slice) -> Rows:
        """Some of the rows."""
        return Rows(self.texts[which], None if self.targets is None else self.targets[which])


def rows(texts: Any) -> Rows | None:
    """Lists and arrays of texts as rows.

    Args:
        texts: Anything.

    Returns:
        None for what is neither `Rows`, a list, a tuple nor an array of strings.

    Raises:
        UserError: A single string, an empty list, or a row that is not like the rows before it; the message names the
            row.
    """
    if isinstance(texts, Rows):
        return texts
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
    views, ends_in_number = _shape(texts[0]) or (1, False)
    if views > 3 and len(texts) < views:
        raise UserError(
            f"row 0 has {views} texts, and there are {len(texts)} rows: these look like columns, which become rows by "
            f"list(zip(anchors, positives)). {_EXPECTED}"
        )
    found = [_row(i, row, views, ends_in_number) for i, row in enumerate(texts)]
    if not ends_in_number:
        return Rows(np.array(found, dtype=object))
    numbers = [row[-1] for row in texts]
    for i, number in enumerate(numbers):
        if not np.isfinite(number):
            raise UserError(f"row {i} ends in {number}, which is no label and no score. {_EXPECTED}")
    kind = "int64" if all(isinstance(number, Integral) for number in numbers) else "float32"
    return Rows(np.array(found, dtype=object), np.array(numbers, kind))


def _shape(row: Any) -> tuple[int, bool] | None:
    """How many texts a row has, and whether a number follows; None if it is not a row of several cells."""
    if not isinstance(row, list | tuple):
        return None
    ends_in_number = len(row) > 1 and isinstance(row[-1], Real) and not isinstance(row[-1], bool)
    texts = row[:-1] if ends_in_number else row
    return (len(texts), ends_in_number) if texts and all(isinstance(text, str | bytes) for text in texts) else None


def _row(i: int, row: Any, views: int, ends_in_number: bool) -> list[bytes]:
    shape = (1, False) if isinstance(row, str | bytes) else _shape(row)
    if shape is None:
        raise UserError(f"row {i} is not text: {row!r:.80}. {_EXPECTED}")
    if shape != (views, ends_in_number):
        has, first = map(_count, (shape, (views, ends_in_number)))
        raise UserError(f"row {i} has {has}, row 0 has {first}. {_EXPECTED}")
    cells = [row] if isinstance(row, str | bytes) else row[:views]
    return [text.encode("utf-8", "replace") if isinstance(text, str) else text for text in cells]


def _count(shape: tuple[int, bool]) -> str:
    views, ends_in_number = shape
    return f"{views} text{'s' * (views != 1)}{' and a number' * ends_in_number}"


def classes(rows: Rows) -> Source:
    """Texts of classes as a source, which draws each text's positive from its class.

    Args:
        rows: Single texts with labels.

    Raises:
        UserError: There is one class, or one without two different texts; names the row.
    """
    assert rows.targets is not None
    texts = [text.decode("utf-8", "replace") for (text,) in rows.texts]
    stored = list(zip(texts, rows.targets.tolist(), strict=True))
    members: dict[int, set[str]] = {}
    for text, label in stored:
        members.setdefault(label, set()).add(text)
    for i, (_, label) in enumerate(stored):
        if len(members[label]) == 1:
            raise UserError(f"row {i}: no different text has the label {label}, so no positive. Leave the row out.")
    if len(members) == 1:
        raise UserError(f"row 0 and all others have the label {stored[0][1]}: negatives are texts of other classes.")

    def read(reject: Reject) -> Reading:
        del reject
        yield from stored
        return ""

    return Source("the rows", 2, read, draw=targets.draw_pairs, target="label")


def string_batches(dataset: tf.data.Dataset) -> tf.data.Dataset | None:
    """A data set of batches of texts as one of `(batch, views)` strings.

    Args:
        dataset: Elements are `(batch,)` strings, `(batch, views)` strings, or a tuple of `(batch,)` strings, one for
            each view. Scores of pairs stand behind them: `(strings, scores)` or `(strings, strings, scores)`.

    Returns:
        With scores, `(batch,)` float32, a data set of both; None where the elements are not strings.

    Raises:
        UserError: The elements are single texts, or the number of views is unknown.
    """
    spec = dataset.element_spec
    columns: list[Any] = tf.nest.flatten(spec) if isinstance(spec, tuple | list) else [spec]
    if not all(isinstance(column, tf.TensorSpec) for column in columns):
        return None
    has_scores = len(columns) > 1 and (columns[-1].dtype.is_integer or columns[-1].dtype.is_floating)
    texts = columns[:-1] if has_scores else columns
    if any(column.dtype != tf.string for column in texts):
        return None
    ranks = {column.shape.rank for column in texts}
    if ranks == {0}:
        raise UserError("the data set gives single texts: batch it, dataset.batch(64, drop_remainder=True).")
    if ranks != {1} and (ranks != {2} or len(texts) > 1 or texts[0].shape[1] is None):
        raise UserError(
            f"the data set's elements are {spec}. Expected (batch,) strings, (batch, views) strings with a known "
            "number of views, or a tuple of tensors of (batch,) strings; and behind them (batch,) scores, if any."
        )

    def join(*columns: Any) -> Any:
        columns = tf.nest.flatten(columns)
        texts = columns[:-1] if has_scores else columns
        joined = tf.stack(texts, axis=1) if ranks == {1} else texts[0]
        return (joined, tf.cast(columns[-1], tf.float32)) if has_scores else joined

    return dataset.map(join)


def batched(
    rows: Rows, batch_size: int, *, drop_remainder: bool = False, shuffle_seed: int | None = None
) -> tf.data.Dataset:
    """Cuts rows into batches.

    Args:
        rows: `n` rows.
        batch_size: Rows in a batch.
        drop_remainder: Leave out the rest that fills no batch.
        shuffle_seed: Go through the rows without end, in another order each time. With the epoch's number it decides
            the order: the same on every worker, and however TensorFlow iterates over the data.

    Returns:
        Elements are `(batch_size, views)` strings, with targets such and `(batch_size,)` numbers, with a teacher
        such and a dictionary with its vectors.
    """
    columns: Any = tf.constant(rows.texts, tf.string)
    if rows.targets is not None:
        columns = columns, tf.constant(rows.targets)
    elif rows.taught is not None:
        columns = columns, {"teacher": tf.constant(rows.taught)}
    if shuffle_seed is None:
        return tf.data.Dataset.from_tensor_slices(columns).batch(batch_size, drop_remainder=drop_remainder)

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(len(rows)), seed=tf.stack([shuffle_seed, number]))
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size, drop_remainder=drop_remainder)

    batches = tf.data.Dataset.range(np.iinfo("int64").max).flat_map(epoch)
    return batches.map(lambda places: tf.nest.map_structure(lambda column: tf.gather(column, places), columns))
