"""Rows of text to batches of token ids: shuffled, batched, tokenised in parallel; decided by seed and step alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from simcse_tf.data.repetition import repeat_tokens
from simcse_tf.data.sources import Source
from simcse_tf.data.strings import PROMPT_NAMES
from simcse_tf.data.tokenization import check_prompts, tokenize, with_prompt

# Batches that are tokenised at once, and as many that wait: tokenising takes a hundredth of a step.
_AT_ONCE = 2
# The type of a row's target.
_NUMBERS = {"label": "int64", "score": "float32"}

T = TypeVar("T")


def shuffled(rows: Iterable[T], *, buffer: int, seed: int, epoch: int) -> Iterator[T]:
    """Shuffles a stream through a buffer: a row leaves from a random place of it and the next row takes the place.

    A stream no longer than the buffer is shuffled perfectly. A longer one keeps a trace of its order: a row comes out,
    on average, `buffer` rows after it went in, and never more than `buffer` rows before its turn.

    Args:
        rows: Any length.
        buffer: Rows held in memory.
        seed: With `epoch`, decides the order.
        epoch: Every epoch has an order of its own.

    Yields:
        Every row once.
    """
    rng = np.random.Generator(np.random.PCG64([seed, epoch]))
    rows = iter(rows)
    held = list(islice(rows, buffer))
    while block := list(islice(rows, 4096)):
        # One draw of many numbers: a draw for each row would cost more than reading the row.
        for row, place in zip(block, rng.integers(len(held), size=len(block)).tolist(), strict=True):
            yield held[place]
            held[place] = row
    rng.shuffle(held)
    yield from held


@dataclass(frozen=True)
class Repetition:
    """Some tokens of every positive stand twice, others in each batch: see `simcse_tf.data.repetition`.

    Attributes:
        rate: Share of a text's tokens.
        seed: With the batch's number, decides which.
        start_step: The number of the first batch.
    """

    rate: float
    seed: int
    start_step: int = 0


class Feed:
    """An endless stream of text batches from a source, epoch after epoch, each without its last, incomplete batch.

    An exception inside tf.data arrives as a TensorFlow error that has lost its type; the original is kept in `error`.

    Args:
        source: Where the rows come from.
        batch_size: Rows per batch.
        seed: Decides the order of the rows with the epoch, and what the source draws.
        shuffle_buffer: Rows held for shuffling.
        skip_bad_rows: Leave out rows that cannot be used instead of raising.
        start_step: Batches to leave out at the beginning (they are read, not tokenised).
        teacher: A teacher's vectors of the source's rows, by their places: `(rows, dim)` for each text of a row. The
            feed ends before a row that they do not reach.

    Attributes:
        spec: What TensorFlow is to expect of a batch.
    """

    def __init__(
        self,
        source: Source,
        *,
        batch_size: int,
        seed: int,
        shuffle_buffer: int = 100_000,
        skip_bad_rows: bool = False,
        start_step: int = 0,
        teacher: Sequence[np.ndarray] = (),
    ):
        self.error: Exception | None = None
        self.spec: Any = tf.TensorSpec([batch_size, source.views], tf.string)
        if source.target is not None:
            self.spec = (self.spec, tf.TensorSpec([batch_size], _NUMBERS[source.target]))
        elif teacher:
            shape = [batch_size, len(teacher), teacher[0].shape[1]]
            self.spec = (self.spec, {"teacher": tf.TensorSpec(shape, tf.float32)})
        self._source = source
        self._batch_size = batch_size
        self._seed = seed
        self._shuffle_buffer = shuffle_buffer
        self._on_bad = (lambda message: None) if skip_bad_rows else None
        self._start_step = start_step
        self._teacher = teacher

    def __iter__(self) -> Iterator[Any]:
        """Yields `(batch_size, views)` arrays of UTF-8 bytes; behind them what belongs to the rows, if anything does.

        That is `(batch_size,)` targets, or a dictionary with the teacher's vectors, `(batch_size, views, dim)`.
        """
        try:
            yield from self._batches()
        except Exception as e:
            self.error = e
            raise

    def _batches(self) -> Iterator[Any]:
        skip = self._start_step
        for epoch in count():
            rows = self._source.rows(self._on_bad, seed=self._seed, epoch=epoch)
            if self._teacher:
                rows = enumerate(rows)
            rows = shuffled(rows, buffer=self._shuffle_buffer, seed=self._seed, epoch=epoch)
            # Rows that were trained on before are drawn again, since they decide the order of the others, but no more.
            skipped = sum(1 for _ in islice(rows, skip * self._batch_size)) // self._batch_size
            skip -= skipped
            empty = skipped == 0
            while len(batch := list(islice(rows, self._batch_size))) == self._batch_size:
                empty = False
                if self._teacher and max(place for place, _ in batch) >= len(self._teacher[0]):
                    return  # TensorFlow asks for more batches than the run has steps
                yield self._arrays(batch)
            if empty:
                raise ValueError(f"{self._source.name}: fewer rows than one batch of {self._batch_size}")

    def _arrays(self, batch: list[Any]) -> Any:
        if self._teacher:
            places = [place for place, _ in batch]
            taught = np.stack([vectors[places] for vectors in self._teacher], axis=1)
            return _encoded(row for _, row in batch), {"teacher": taught}
        if self._source.target is None:
            return _encoded(batch)
        return _encoded(row[:-1] for row in batch), np.array([row[-1] for row in batch], _NUMBERS[self._source.target])


def _encoded(rows: Iterable[Any]) -> np.ndarray:
    return np.array([[text.encode() for text in row] for row in rows], dtype=object)


def text_batches(feed: Feed) -> tf.data.Dataset:
    """A feed as a dataset without end, whose elements are the feed's."""
    # A generator that ends at its first element would be called again by tf.data: pass the iterable, not an iterator.
    return tf.data.Dataset.from_generator(lambda: feed, output_signature=feed.spec)


def token_batches(
    feed: Feed,
    tokenizer: Any,
    *,
    max_length: int,
    prompts: Mapping[str, str] | None = None,
    repetition: Repetition | None = None,
    parallel: bool = True,
) -> tf.data.Dataset:
    """Tokenises a feed in parallel with training.

    Args:
        feed: Batches of text.
        tokenizer: The encoder's keras-hub tokenizer.
        max_length: Tokens per text; every batch is padded to it, so that XLA compiles one shape.
        prompts: As for `tokenized`.
        repetition: As for `tokenized`.
        parallel: Tokenise several batches at once.

    Returns:
        A dataset without end. Elements: `token_ids` and `padding_mask` `(batch, views, max_length)` int32 (with
        repetition 9 longer), `text_ids` `(batch, views)` int64 (equal for equal texts, whatever prompts are put before
        them); where the rows have labels or scores, `targets` `(batch,)` int64 or float32; with a teacher, `teacher`
        `(batch, views, dim)` float32.

    Raises:
        UserError: As `tokenized`.
    """
    return tokenized(
        text_batches(feed),
        tokenizer,
        max_length=max_length,
        prompts=prompts,
        repetition=repetition,
        parallel=parallel,
    )


def tokenized(
    texts: tf.data.Dataset,
    tokenizer: Any,
    *,
    max_length: int,
    pad: bool = True,
    prompts: Mapping[str, str] | None = None,
    repetition: Repetition | None = None,
    parallel: bool = True,
) -> tf.data.Dataset:
    """Tokenises batches of text.

    Args:
        texts: Elements are `(batch, views)` strings, where the number of views is known; or such with the targets of
            their rows, `(batch,)` numbers; or such with a dictionary of what else belongs to their rows.
        tokenizer: The encoder's keras-hub tokenizer.
        max_length: Tokens per text at most.
        pad: To `max_length`; otherwise to the longest text of the batch.
        prompts: `query` is put before the first text of a row, `passage` before the others. Where they differ, a text
            that is alone in its row becomes two views, so that it comes with either.
        repetition: Of the second view's tokens; a text that is alone in its row becomes two views. Needs `pad`.
        parallel: Several batches at once.

    Returns:
        Elements as `token_batches` gives them.

    Raises:
        UserError: A prompt leaves no room for a text.
    """
    query, passage = ((prompts or {}).get(name, "") for name in PROMPT_NAMES)
    check_prompts(prompts or {}, tokenizer, max_length=max_length)

    # Nothing in it branches on a tensor, and AutoGraph would take longer to convert it than TensorFlow to trace it.
    @tf.autograph.experimental.do_not_convert
    def tokens(texts: tf.Tensor, beside: tf.Tensor | dict[str, tf.Tensor] | None = None) -> dict[str, tf.Tensor]:
        of_rows = {} if beside is None else beside if isinstance(beside, dict) else {"targets": beside}
        if texts.shape[1] == 1 and (query != passage or repetition is not None):
            texts = tf.repeat(texts, 2, axis=1)
            of_rows = {name: x if name == "targets" else tf.repeat(x, 2, axis=1) for name, x in of_rows.items()}
        views = texts.shape[1]
        rows = texts.shape[0] or tf.shape(texts)[0]
        flat = tf.reshape(texts, [-1])
        if query or passage:
            flat = with_prompt(tf.tile([query] + [passage] * (views - 1), [rows]), flat)
        flat = tokenize(tokenizer, flat, max_length=max_length, pad_to=max_length if pad else None)
        batch = {name: tf.reshape(ids, [rows, views, ids.shape[1] or tf.shape(ids)[1]]) for name, ids in flat.items()}
        batch["text_ids"] = tf.strings.to_hash_bucket_fast(texts, 2**62)
        return batch | of_rows

    @tf.autograph.experimental.do_not_convert
    def repeated(step: tf.Tensor, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        assert repetition is not None
        pad_token_id, names = tokenizer.pad_token_id, ("token_ids", "padding_mask")
        ids, mask = repeat_tokens(
            *(batch[name][:, 1] for name in names),
            rate=repetition.rate,
            seed=tf.stack([repetition.seed, step]),
            pad_token_id=pad_token_id,
        )
        longer = {}
        for name, positives, padding in zip(names, (ids, mask), (pad_token_id, 0), strict=True):
            x = tf.pad(batch[name], [[0, 0], [0, 0], [0, ids.shape[1] - max_length]], constant_values=padding)
            longer[name] = tf.concat([x[:, :1], positives[:, tf.newaxis], x[:, 2:]], axis=1)
        return batch | longer

    calls = _AT_ONCE if parallel else None
    batches = texts.map(tokens, num_parallel_calls=calls, deterministic=parallel or None)
    if repetition is not None:
        batches = batches.enumerate(repetition.start_step)
        batches = batches.map(repeated, num_parallel_calls=calls, deterministic=parallel or None)
    # Nothing is tuned: where TensorFlow tunes, what destroys the iterator waits for a thread that sleeps, half a minute
    # after a run of 40 steps and longer after longer ones.
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(_AT_ONCE).with_options(options)
