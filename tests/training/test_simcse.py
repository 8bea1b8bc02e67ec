import keras
import numpy as np
import pytest
import tensorflow as tf

from simcse_tf.config import EncoderConfig
from simcse_tf.data import sources
from simcse_tf.data.pipeline import Feed, token_batches
from simcse_tf.formats.encoders import load_encoder
from simcse_tf.models import packed
from simcse_tf.models.objectives import InfoNCE, TripletMargin
from simcse_tf.training.simcse import SimCSE
from tests.models.test_objectives import numpy_info_nce


def batches(path, tokenizer, batch_size=8):
    source = sources.open_source(str(path))
    feed = Feed(source, batch_size=batch_size, seed=0)
    return token_batches(feed, tokenizer, max_length=12)


def model(origin, head="none", dropout=0.0, objective=None, jit_compile=False, rate=1e-3):
    keras.utils.set_random_seed(1)
    encoder = load_encoder(origin, EncoderConfig("cls", head), dropout=dropout)
    simcse = SimCSE(encoder, objective or InfoNCE(0.1))
    simcse.compile(optimizer=keras.optimizers.AdamW(rate), jit_compile=jit_compile)
    return simcse


def test_the_step_reports_the_mean_loss_of_numpy(tiny_origin, triplets_file):
    simcse = model(tiny_origin)
    data = batches(triplets_file, simcse.encoder.tokenizer)
    batch = next(iter(data))
    vectors = np.stack(
        [
            simcse.encoder({"token_ids": batch["token_ids"][:, v], "padding_mask": batch["padding_mask"][:, v]})
            for v in range(3)
        ],
        axis=1,
    )
    ids = batch["text_ids"].numpy()

    def same(i, j, view):
        return ids[j, view] in (ids[i, 0], ids[i, 1])

    expected = numpy_info_nce(vectors.astype("float64"), 0.1, same=same).mean()
    history = simcse.fit(data, steps_per_epoch=1, verbose=0, shuffle=False)
    assert history.history["loss"][0] == pytest.approx(expected, rel=1e-4)
    fresh = model(tiny_origin)
    assert fresh.evaluate(data, steps=1, verbose=0, return_dict=True)["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("fixture", "objective"), [("sentences_file", InfoNCE(0.1)), ("triplets_file", TripletMargin(0.5))]
)
def test_training_lowers_the_loss(tiny_origin, request, fixture, objective):
    simcse = model(tiny_origin, head="train_only", dropout=0.1, objective=objective, rate=5e-3)
    data = batches(request.getfixturevalue(fixture), simcse.encoder.tokenizer)
    losses = simcse.fit(data, epochs=6, steps_per_epoch=5, verbose=0, shuffle=False).history["loss"]
    assert losses[-1] < 0.9 * losses[0]


def test_xla_computes_the_same(tiny_origin, triplets_file, no_determinism):
    def losses(jit_compile):
        simcse = model(tiny_origin, head="train_only", jit_compile=jit_compile)
        assert simcse.jit_compile == jit_compile
        data = batches(triplets_file, simcse.encoder.tokenizer)
        return [
            simcse.fit(data.skip(i), steps_per_epoch=1, verbose=0, shuffle=False).history["loss"][0] for i in range(3)
        ]

    np.testing.assert_allclose(losses(True), losses(False), rtol=1e-4)


def test_the_hot_path_has_the_loss_curve_of_keras_hubs_own_forward(tiny_origin, triplets_file, monkeypatch):
    def losses():
        simcse = model(tiny_origin, head="train_only", objective=InfoNCE(0.1, 0.5))
        data = batches(triplets_file, simcse.encoder.tokenizer)
        return simcse.fit(data, epochs=12, steps_per_epoch=1, verbose=0, shuffle=False).history["loss"]

    hot = losses()
    monkeypatch.setattr(packed, "unsupported_reason", lambda backbone: "the test wants the other one")
    np.testing.assert_allclose(hot, losses(), atol=1e-4)
    assert hot[-1] < hot[0] - 0.1


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_trains_and_keeps_float32_weights(tiny_origin, sentences_file, precision):
    keras.utils.set_random_seed(1)
    encoder = load_encoder(tiny_origin, EncoderConfig("avg", "train_only"), dtype=f"mixed_{precision}")
    simcse = SimCSE(encoder, InfoNCE(0.1))
    # Keras scales the loss by itself where the model's own policy is mixed; ours is the backbone's.
    optimizer = keras.optimizers.AdamW(1e-3)
    if precision == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    simcse.compile(optimizer=optimizer)
    data = batches(sentences_file, encoder.tokenizer)
    losses = simcse.fit(data, epochs=6, steps_per_epoch=5, verbose=0, shuffle=False).history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    assert {v.dtype for v in encoder.trainable_variables} == {"float32"}
    assert encoder.encode(["a dog"]).dtype == np.float32


def test_two_views_of_a_sentence_are_encoded_under_two_masks(tiny_origin, sentences_file):
    simcse = model(tiny_origin, dropout=0.3)
    batch = next(iter(batches(sentences_file, simcse.encoder.tokenizer)))
    twice = {name: tf.repeat(x, 2, axis=1) for name, x in batch.items()}
    vectors = np.array(simcse(twice, training=True))
    assert np.abs(vectors[:, 0] - vectors[:, 1]).max() > 1e-3
    vectors = np.array(simcse(twice))
    np.testing.assert_allclose(vectors[:, 0], vectors[:, 1], atol=1e-6)
