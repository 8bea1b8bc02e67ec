"""The ablation `--dropout-masks same`: with it dropout is still at work, but no longer tells the two views apart."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from simcse_tf import train
from simcse_tf.config import EncoderConfig
from simcse_tf.data import sources
from simcse_tf.data.pipeline import Feed, token_batches
from simcse_tf.errors import UserError
from simcse_tf.formats.encoders import load_encoder
from simcse_tf.models.objectives import InfoNCE
from simcse_tf.training.simcse import SimCSE


@pytest.fixture(scope="module")
def encoder(tiny_origin):
    keras.utils.set_random_seed(1)
    return load_encoder(tiny_origin, EncoderConfig("cls", "train_only"), dropout=0.2)


@pytest.fixture
def views(encoder, sentences_file):
    """A batch in which every sentence is there twice."""
    feed = Feed(sources.open_source(str(sentences_file)), batch_size=8, seed=0)
    batch = next(iter(token_batches(feed, encoder.tokenizer, max_length=12)))
    return {name: tf.repeat(x, 2, axis=1) for name, x in batch.items()}


@pytest.mark.parametrize("compiled", [False, True])
def test_the_same_masks_make_both_views_equal_while_dropout_is_at_work(encoder, views, compiled, no_determinism):
    model = SimCSE(encoder, dropout_masks="same")
    model.jit_compile = compiled
    training = tf.function(lambda batch: model(batch, training=True), jit_compile=compiled)
    first = training(views).numpy()
    np.testing.assert_array_equal(first[:, 0], first[:, 1])
    # The next batch gets other masks.
    assert np.abs(training(views).numpy() - first).max() > 0.01
    # A training pass without dropout, to show that there is some: the head is on, nothing is dropped.
    seeds = [v.numpy() for v in encoder.dropout_seeds]
    flat = {name: views[name][:, 0] for name in ("token_ids", "padding_mask")}
    assert np.abs(encoder.head(encoder.pooled(flat)).numpy() - first[:, 0]).max() > 0.01
    for seed, before in zip(encoder.dropout_seeds, seeds, strict=True):
        np.testing.assert_array_equal(seed.numpy(), before)


def test_independent_masks_make_them_differ(encoder, views):
    vectors = SimCSE(encoder)(views, training=True).numpy()
    assert np.abs(vectors[:, 0] - vectors[:, 1]).max(axis=1).min() > 0.01


def test_both_kinds_move_the_seeds_on_by_one_pass(encoder, views):
    def moved(kind):
        before = [v.numpy() for v in encoder.dropout_seeds]
        SimCSE(encoder, dropout_masks=kind)(views, training=True)
        return [v.numpy() - b for v, b in zip(encoder.dropout_seeds, before, strict=True)]

    np.testing.assert_array_equal(moved("same"), moved("independent"))


def test_inference_is_one_pass_without_dropout(encoder, views):
    same = SimCSE(encoder, dropout_masks="same")(views, training=False).numpy()
    np.testing.assert_array_equal(same, SimCSE(encoder)(views, training=False).numpy())


def test_the_gradient_reaches_every_weight(encoder, views):
    model = SimCSE(encoder, InfoNCE(0.1), dropout_masks="same")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(views, training=True)[:, 1])
    assert all(g is not None for g in tape.gradient(loss, model.trainable_variables))


def test_the_flag_reaches_the_model(tiny_preset, sentences_file, tmp_path, monkeypatch):
    flags = ["--preset", str(tiny_preset), "--data", str(sentences_file), "--batch-size", "8", "--max-length", "12"]
    flags += ["--max-steps", "1", "--export-to", "None", "--no-report", "--output-dir", str(tmp_path / "run")]
    with pytest.raises(SystemExit):
        train.main([*flags, "--dropout-masks", "equal"])

    class FittedError(Exception):
        pass

    def fit(self, *_, **__):
        raise FittedError(self.dropout_masks)

    monkeypatch.setattr(SimCSE, "fit", fit)
    with pytest.raises(FittedError, match="same"):
        train.main([*flags, "--dropout-masks", "same"])


def test_an_unknown_kind_names_the_valid_ones():
    from simcse_tf.config import TrainConfig

    with pytest.raises(UserError, match="`dropout_masks` sam.*'same'"):
        TrainConfig(dropout_masks="sam").validate()
