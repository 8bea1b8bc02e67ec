"""Word repetition: which tokens stand twice is drawn by seed and step alone, as ESimCSE says."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from simcse_tf.data import sources
from simcse_tf.data.pipeline import Feed, Repetition, token_batches
from simcse_tf.data.repetition import MOST, repeat_tokens
from tests.data.test_pipeline import tiny_tokenizer

PAD = 0


def texts(lengths, length):
    """Tokens that are all different, so that it can be seen which one stands twice."""
    mask = np.arange(length) < np.array(lengths)[:, np.newaxis]
    return tf.constant((1 + np.arange(length)) * mask, tf.int32), tf.constant(mask, tf.int32)


@pytest.mark.parametrize("rate", [0.28, 0.32, 1.0])
def test_the_tokens_between_the_special_ones_are_repeated_as_often_as_the_paper_says(rate):
    # 0.28 * 25 = 7; with 3 tokens or fewer there is nothing to repeat, or one token.
    lengths = [2, 3, 6, 12, 25, 40]
    ids, mask = texts(lengths * 200, 40)
    longer, longer_mask = repeat_tokens(ids, mask, rate=rate, seed=tf.constant([3, 5], tf.int64), pad_token_id=PAD)
    assert longer.shape == longer_mask.shape == (len(lengths) * 200, 40 + MOST)
    counts = {n: [] for n in lengths}
    places = {n: np.zeros(n) for n in lengths}
    for n, row, row_mask in zip(lengths * 200, longer.numpy(), longer_mask.numpy(), strict=True):
        tokens = row[: row_mask.sum()]
        assert not row[row_mask.sum() :].any()
        assert [token for token, _ in itertools.groupby(tokens)] == [*range(1, n + 1)]
        times = np.bincount(tokens, minlength=n + 1)[1:]
        assert times[0] == times[-1] == 1
        assert times.max() <= 2
        counts[n].append(times.sum() - n)
        places[n] += times - 1
    for n in lengths:
        most = min(max(min(10, math.floor(rate * n + 1e-9)) - 1, 0), n - 2)
        assert {*counts[n]} == {*range(most + 1)}, n
        # Every number and every place is as likely: within 4 standard deviations.
        if most < n - 2:
            numbers = np.bincount(counts[n], minlength=most + 1)
            share = 1 / (most + 1)
            assert np.abs(numbers - 200 * share).max() <= 4 * math.sqrt(200 * share * (1 - share)) + 1e-9
            inner = places[n][1:-1]
            assert np.abs(inner - inner.mean()).max() <= 4 * math.sqrt(inner.mean()) + 1e-9


def test_positives_alone_and_the_same_again_from_any_step(sentences_file):
    source, tokenizer = sources.open_source(str(sentences_file)), tiny_tokenizer()

    def batches(start, n, repetition=True):
        feed = Feed(source, batch_size=16, seed=5, start_step=start)
        repeated = Repetition(0.9, seed=5, start_step=start) if repetition else None
        found = token_batches(feed, tokenizer, max_length=12, repetition=repeated)
        return list(found.take(n).as_numpy_iterator())

    whole, without = batches(0, 5), batches(0, 5, repetition=False)
    for got, usual in zip(whole, without, strict=True):
        assert got["token_ids"].shape == got["padding_mask"].shape == (16, 2, 12 + MOST)
        for name in ("token_ids", "padding_mask"):
            np.testing.assert_array_equal(got[name][:, 0, :12], usual[name][:, 0])
            assert not got[name][:, 0, 12:].any()
        assert (got["padding_mask"][:, 1].sum(1) >= usual["padding_mask"][:, 0].sum(1)).all()
        np.testing.assert_array_equal(got["text_ids"], np.repeat(usual["text_ids"], 2, axis=1))
        for row, mask, original in zip(
            got["token_ids"][:, 1], got["padding_mask"][:, 1], usual["token_ids"], strict=True
        ):
            distinct = [token for token, _ in itertools.groupby(row[: mask.sum()])]
            assert distinct == [token for token, _ in itertools.groupby(original[0][original[0] > 0])]
    extra = [batch["padding_mask"][:, 1].sum(1) - batch["padding_mask"][:, 0].sum(1) for batch in whole]
    assert max(map(max, extra)) > 2
    assert any((a != b).any() for a, b in itertools.pairwise(extra))
    for expected, got in zip(whole[2:], batches(2, 3), strict=True):
        for name, value in expected.items():
            np.testing.assert_array_equal(got[name], value)
