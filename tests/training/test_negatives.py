"""What the training model keeps and encodes for InfoNCE: a queue, anchors without dropout, a learned temperature."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from simcse_tf.config import EncoderConfig
from simcse_tf.errors import UserError
from simcse_tf.formats.encoders import load_encoder
from simcse_tf.models.objectives import CoSENT, InfoNCE, TripletMargin, unit
from simcse_tf.models.terms import AlignUniform, WithTerms
from simcse_tf.training.simcse import SimCSE
from tests.conftest import SENTENCES
from tests.models.test_objectives import numpy_variant
from tests.training.test_gradcache import ROWS, assert_equal, batch

EVERYTHING = {"off_dropout": True, "queue_size": 12, "learn_temperature": True, "word_repetition": 0.5}


@pytest.fixture
def make(tiny_origin):
    def make(objective=None, *, dropout=0.0, rate=0.1, **settings):
        keras.utils.set_random_seed(1)
        encoder = load_encoder(tiny_origin, EncoderConfig("cls", "train_only"), dropout=dropout)
        model = SimCSE(encoder, objective or InfoNCE(0.5), max_length=12, **settings)
        model.compile(optimizer=keras.optimizers.SGD(rate), jit_compile=False)
        return model

    return make


def anchors(data):
    return {name: data[name][:, 0] for name in ("token_ids", "padding_mask")}


def with_head(encoder, pooled_by, data):
    return encoder.head(pooled_by.pooled(anchors(data))).numpy()


def test_the_queue_has_the_latest_texts_as_the_moving_average_encodes_them(make):
    model = make(queue_size=12, queue_momentum=0.5)
    encoder, queue = model.encoder, model._queue
    average = [np.array(v) for v in encoder.backbone.weights]
    held, ids = np.zeros((0, encoder.dim)), []
    for step in range(3):
        data = batch(2, seed=step)
        data["text_ids"] += 100 * step
        vectors = np.stack(
            [with_head(encoder, encoder, {n: x[:, v:] for n, x in data.items()}) for v in (0, 1)], axis=1
        )
        expected = numpy_variant(vectors.astype("float64"), vectors, queue=held).mean()
        logs = model.train_step(data)
        np.testing.assert_allclose(logs["loss"], expected, rtol=1e-5)
        average = [0.5 * (a + np.array(v)) for a, v in zip(average, encoder.backbone.weights, strict=True)]
        for value, own in zip(queue.average.backbone.weights, average, strict=True):
            np.testing.assert_allclose(value, own, atol=1e-6)
        held = np.concatenate([unit(with_head(encoder, queue.average, data)), held])[:12]
        ids = [*data["text_ids"][:, 0].numpy(), *ids][:12]
        np.testing.assert_allclose(queue.vectors[: len(held)], held, atol=1e-5)
        assert queue.text_ids.numpy().tolist() == ids + [-1] * (12 - len(ids))
    assert np.abs(np.array(queue.average.backbone.weights[0]) - np.array(encoder.backbone.weights[0])).max() > 1e-4


def test_the_queue_is_no_part_of_the_encoder_and_is_not_trained(make):
    plain, model = make(), make(queue_size=12)
    assert [v.shape for v in model.trainable_variables] == [v.shape for v in plain.trainable_variables]
    assert model.encoder.count_params() == plain.encoder.count_params()
    assert model.count_params() > 2 * model.encoder.backbone.count_params()
    # Nor does evaluation know it.
    data = batch(2)
    before = float(model.test_step(data)["loss"])
    model._queue.step(model.encoder, anchors(data), data["text_ids"][:, 0] + 100, pack=True)
    assert float(model.test_step(data)["loss"]) == before


def test_anchors_are_encoded_once_more_without_dropout_and_with_a_gradient(make):
    seen = []

    class Seeing(InfoNCE):
        def __call__(self, local, gathered, row_offset=0):
            seen.append(local)
            return super().__call__(local, gathered, row_offset)

    model, data = make(Seeing(0.5), dropout=0.3, off_dropout=True), batch(2)
    model.gradients(data)
    (views,) = seen
    assert views.vectors.shape == (ROWS, 2, model.encoder.dim)
    expected = with_head(model.encoder, model.encoder, data)
    np.testing.assert_allclose(views.without_dropout, expected, atol=1e-6)
    assert np.abs(views.vectors[:, 0] - expected).max() > 0.01


def test_in_chunks_the_gradients_are_the_whole_batchs_and_reach_the_temperature(make):
    objective = WithTerms(InfoNCE(0.5, mixed_negatives=0.2), (AlignUniform(),), (0.1,))
    settings = {name: EVERYTHING[name] for name in ("off_dropout", "queue_size", "learn_temperature")}
    found = []
    for chunk_size in (None, 2):
        model = make(objective, chunk_size=chunk_size, **settings)
        earlier = batch(2, seed=7)
        model._queue.step(model.encoder, anchors(earlier), earlier["text_ids"][:, 0] + 100, pack=True)
        found.append(tf.function(model.gradients)(batch(2)))
    assert_equal(found[1][0], found[0][0])
    assert [g.shape for g in found[1][0]] == [v.shape for v in model.trainable_variables]
    (of_temperature,) = (g for g, v in zip(found[1][0], model.trainable_variables, strict=True) if v.shape == ())
    assert abs(float(of_temperature)) > 1e-3
    for name, value in found[0][1].items():
        np.testing.assert_allclose(found[1][1][name], value, rtol=1e-6)


def test_a_learned_temperature_begins_with_the_objectives_moves_and_is_logged(make):
    model = make(InfoNCE(0.3), learn_temperature=True, dropout=0.1)
    before = model.evaluate(SENTENCES[:16], batch_size=8, verbose=0, return_dict=True)
    assert before["temperature"] == pytest.approx(0.3)
    fixed = make(InfoNCE(0.3), dropout=0.1).evaluate(SENTENCES[:16], batch_size=8, verbose=0, return_dict=True)
    assert before["loss"] == pytest.approx(fixed["loss"])
    history = model.fit(SENTENCES, batch_size=8, epochs=3, verbose=0).history
    assert len({*history["temperature"], 0.3}) == 4
    model._log_temperature.assign(-20.0)
    assert model.evaluate(SENTENCES[:16], batch_size=8, verbose=0, return_dict=True)["temperature"] == pytest.approx(
        0.01
    )


def test_a_saved_model_goes_on_as_it_would_have(make, tmp_path):
    model = make(InfoNCE(0.1, positive_scale=0.9, mixed_negatives=0.2), dropout=0.1, rate=0.01, **EVERYTHING)
    model.fit(SENTENCES, batch_size=8, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == model.get_config()
    for one in (model, loaded):
        keras.utils.set_random_seed(2)
        one.fit(SENTENCES, batch_size=8, verbose=0)
    for value, expected in zip(loaded.variables, model.variables, strict=True):
        # The backbone's own dropout layers are never called.
        if not value.path.endswith("seed_generator_state"):
            np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize(
    ("objective", "settings", "facts"),
    [
        (TripletMargin(), {"off_dropout": True}, ["`off_dropout`", "TripletMargin"]),
        (CoSENT(), {"queue_size": 8}, ["`queue_size`", "CoSENT"]),
        (WithTerms(AlignUniform(), ()), {"learn_temperature": True}, ["`learn_temperature`", "AlignUniform"]),
        (None, {"queue_size": 0}, ["`queue_size` 0"]),
        (None, {"queue_momentum": 1.5}, ["`queue_momentum` 1.5"]),
        (None, {"off_dropout": True, "dropout_masks": "same"}, ["`off_dropout`", "`dropout_masks` same"]),
        (InfoNCE(directions=("a2p", "p2a")), {"off_dropout": True}, ["`off_dropout`", "`directions` a2p p2a"]),
        (None, {"word_repetition": 1.5}, ["`word_repetition` 1.5"]),
        (None, {"word_repetition": 0.3, "max_length": 24}, ["`max_length` 24", "32 positions", "23"]),
    ],
)
def test_what_contradicts_is_refused(tiny_origin, objective, settings, facts):
    encoder = load_encoder(tiny_origin, EncoderConfig("cls", "train_only"))
    with pytest.raises(UserError) as e:
        SimCSE(encoder, objective, **({"max_length": 12} | settings))
    for fact in facts:
        assert fact in str(e.value)


@pytest.mark.parametrize(
    ("settings", "rows", "facts"),
    [
        ({"off_dropout": True}, [("a dog", "a cat")] * 8, ["`off_dropout`", "2 texts"]),
        ({"queue_size": 8}, [("a dog", 1), ("a cat", 1), ("the dog", 2), ("the cat", 2)], ["`queue_size`", "classes"]),
    ],
)
def test_rows_that_it_cannot_use_are_refused(make, settings, rows, facts):
    with pytest.raises(UserError) as e:
        make(**settings).fit(rows, batch_size=4, verbose=0)
    for fact in facts:
        assert fact in str(e.value)
