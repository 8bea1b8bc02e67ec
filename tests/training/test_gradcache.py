"""Chunks change the memory of a step, never its gradients; false negatives are counted; accumulation is refused."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from simcse_tf import train
from simcse_tf.config import EncoderConfig, TrainConfig
from simcse_tf.errors import UserError
from simcse_tf.formats.encoders import load_encoder
from simcse_tf.models.matryoshka import Matryoshka
from simcse_tf.models.objectives import CoSENT, InfoNCE, TripletMargin, Views, count_false_negatives
from simcse_tf.training import gradcache
from simcse_tf.training.simcse import SimCSE
from tests.conftest import SENTENCES, VOCABULARY
from tests.models.test_objectives import numpy_info_nce

ROWS, LENGTH = 8, 12


@pytest.fixture(scope="module")
def encoders(tiny_origin):
    """By dropout rate; they share nothing."""
    keras.utils.set_random_seed(1)
    return {rate: load_encoder(tiny_origin, EncoderConfig("cls", "train_only"), dropout=rate) for rate in (0.0, 0.3)}


def batch(views, seed=0):
    """`ROWS` different texts a view, of 3 to `LENGTH` tokens."""
    rng = np.random.default_rng(seed)
    mask = np.arange(LENGTH) < rng.integers(3, LENGTH + 1, (ROWS, views, 1))
    ids = rng.integers(VOCABULARY.index("a"), len(VOCABULARY), (ROWS, views, LENGTH)) * mask
    texts = np.arange(ROWS * views).reshape(ROWS, views)
    return {
        "token_ids": tf.constant(ids, tf.int32),
        "padding_mask": tf.constant(mask, tf.int32),
        "text_ids": tf.constant(texts, tf.int64),
    }


def compiled(encoder, objective=None, optimizer=None, **kwargs):
    model = SimCSE(encoder, objective or InfoNCE(0.5), **kwargs)
    model.compile(optimizer=optimizer or keras.optimizers.SGD(0.1), jit_compile=False)
    return model


def flat(gradients):
    return np.concatenate([np.ravel(g).astype("float64") for g in gradients])


def assert_equal(gradients, expected):
    """To 1e-6 of the whole gradient's size: single numbers may be nothing but rounding."""
    expected = flat(expected)
    assert np.linalg.norm(expected) > 1e-3
    np.testing.assert_allclose(np.linalg.norm(flat(gradients) - expected) / np.linalg.norm(expected), 0, atol=1e-6)


@pytest.mark.parametrize(
    ("views", "objective", "chunk_size", "targets"),
    [
        (2, InfoNCE(0.5), 2, {"targets": np.array([0, 1, 2, 0, 0, 1, 1, 2])}),
        (4, InfoNCE(0.5, 0.3), 4, {}),
        (3, TripletMargin(0.5), 1, {}),
        (2, CoSENT(0.5), 2, {"targets": np.array([0, 1, 5, 3, 0, 2, 1, 4], "float32")}),
        (3, Matryoshka(InfoNCE(0.5, 0.3), (16, 8, 4), (1.0, 0.5, 2.0)), 2, {}),
    ],
    ids=["classes", "two hard negatives", "triplets", "graded pairs", "several sizes"],
)
def test_without_dropout_the_gradients_are_the_plain_steps(encoders, views, objective, chunk_size, targets):
    data = batch(views) | targets
    expected, expected_logs = compiled(encoders[0.0], objective).gradients(data)
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=1024.0)
    chunked = compiled(encoders[0.0], objective, scaled, chunk_size=chunk_size)
    scaled.build(chunked.trainable_variables)
    gradients, logs = tf.function(chunked.gradients)(data)
    assert_equal([g / 1024 for g in gradients], expected)
    assert [g.shape for g in gradients] == [v.shape for v in chunked.trainable_variables]
    assert logs.keys() == expected_logs.keys()
    np.testing.assert_allclose(logs["loss"], expected_logs["loss"], rtol=1e-6)


@pytest.mark.parametrize("masks", ["independent", "same"])
def test_with_dropout_every_chunk_meets_the_same_masks_twice(encoders, masks):
    encoder = encoders[0.3]
    model = compiled(encoder, dropout_masks=masks, chunk_size=4)
    data = batch(2)
    start = [v.numpy() for v in encoder.dropout_seeds]

    def all_chunks_at_once(data):
        """One tape over all chunks, each encoded once: what memory would not allow."""
        with tf.GradientTape() as tape:
            pieces = [{name: x[i : i + 4] for name, x in data.items()} for i in range(0, ROWS, 4)]
            vectors = tf.concat([model(piece, training=True) for piece in pieces], axis=0)
            own = Views(vectors, data["text_ids"])
            loss = tf.reduce_mean(model.objective(own, own))
        return [tf.convert_to_tensor(g) for g in tape.gradient(loss, model.trainable_variables)], loss

    chunked = tf.function(model.gradients)
    gradients, logs = chunked(data)
    end = [v.numpy() for v in encoder.dropout_seeds]
    for variable, value in zip(encoder.dropout_seeds, start, strict=True):
        variable.assign(value)
    expected, loss = all_chunks_at_once(data)
    assert_equal(gradients, expected)
    np.testing.assert_allclose(logs["loss"], loss, rtol=1e-6)
    # The seeds have moved on once for every chunk, not twice, and the next step has other masks.
    np.testing.assert_array_equal([v.numpy() for v in encoder.dropout_seeds], end)
    assert np.linalg.norm(flat(chunked(data)[0]) - flat(gradients)) > 0.01 * np.linalg.norm(flat(gradients))


def test_xla_meets_the_same_masks_twice():
    """With one layer for an encoder: XLA takes a minute to compile four passes of BERT."""
    dense, dropout = keras.layers.Dense(5), keras.layers.Dropout(0.5, seed=1)
    x = tf.random.stateless_normal([ROWS, 2, 3], [0, 1])
    dense.build(x.shape)

    def encoder(inputs):
        return dropout(dense(inputs["x"]), training=True)

    @tf.function(jit_compile=True)
    def chunked():
        vectors, backpropagate = gradcache.encode(encoder, {"x": x}, 2, [dropout.seed_generator.state])
        return backpropagate(3 * vectors**2, dense.trainable_variables)

    @tf.function(jit_compile=True)
    def all_chunks_at_once():
        with tf.GradientTape() as tape:
            vectors = tf.concat([encoder({"x": x[i : i + 2]}) for i in range(0, ROWS, 2)], axis=0)
            loss = tf.reduce_sum(vectors**3)
        return tape.gradient(loss, dense.trainable_variables)

    gradients = chunked()
    np.testing.assert_array_equal(dropout.seed_generator.state, [1, ROWS // 2])
    dropout.seed_generator.state.assign([1, 0])
    assert_equal(gradients, all_chunks_at_once())


def test_what_lies_in_memory_between_the_passes_is_a_chunk_and_the_vectors(encoders):
    """Both passes are loops over chunks, one at a time; nothing in the step but they runs the encoder."""
    model = compiled(encoders[0.0], chunk_size=2)
    graph = tf.function(model.gradients).get_concrete_function(batch(2)).graph
    loops = [op for op in graph.get_operations() if op.type in ("While", "StatelessWhile")]
    assert [loop.get_attr("parallel_iterations") for loop in loops] == [1, 1]
    largest = max(t.shape.num_elements() or 0 for loop in loops for t in loop.outputs)
    assert largest == max(v.shape.num_elements() for v in model.trainable_variables)
    # The only matrix products outside the loops are the loss's, and its gradients.
    products = [op for op in graph.get_operations() if "MatMul" in op.type]
    assert 1 <= len(products) <= 3


class TestChunkSize:
    def test_it_divides_the_batch(self, encoders):
        with pytest.raises(UserError, match="`chunk_size` 48 .*`batch_size` 64; 16 would"):
            TrainConfig(batch_size=64, chunk_size=48).validate()
        with pytest.raises(UserError, match="64 / 4 replicas = 16 rows each; 16 would"):
            TrainConfig(batch_size=64, chunk_size=32).check_chunks(replicas=4)
        with pytest.raises(ValueError, match="chunks of 3 rows do not divide a batch of 8"):
            gradcache.encode(lambda x: x["x"], {"x": tf.zeros([8, 2, 4])}, 3, [])
        TrainConfig(batch_size=64, chunk_size=16).check_chunks(replicas=4)

    def test_it_is_positive(self):
        with pytest.raises(UserError, match="`chunk_size` 0: .*at least 1"):
            TrainConfig(chunk_size=0).validate()


class TestAccumulation:
    @pytest.mark.parametrize(
        "flag", ["--gradient-accumulation-steps", "--gradient_accumulation_steps=4", "--accumulate-grad-batches"]
    )
    def test_the_flags_of_other_trainers_are_answered(self, flag):
        with pytest.raises(UserError, match=rf"^{flag}: .*another loss.*512") as e:
            train.main([flag, "4"])
        assert "--batch-size 512 with --chunk-size 64" in e.value.for_command()

    @pytest.mark.parametrize("wrapped", [False, True])
    def test_an_optimizer_that_accumulates_is_refused(self, encoders, wrapped):
        optimizer = keras.optimizers.AdamW(gradient_accumulation_steps=4)
        if wrapped:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        with pytest.raises(ValueError, match=r"gradient_accumulation_steps=4: .*another loss.*chunk_size"):
            SimCSE(encoders[0.0]).compile(optimizer=optimizer)


class TestFalseNegatives:
    @pytest.mark.parametrize("views", [2, 3])
    def test_they_are_counted_as_numpy_counts(self, views):
        texts = np.random.default_rng(3).integers(0, 9, (ROWS, views))
        vectors = np.zeros((ROWS, views, 2))
        expected = sum(
            texts[j, v] in (texts[i, 0], texts[i, 1]) and (i, 1) != (j, v)
            for i in range(ROWS)
            for j in range(ROWS)
            for v in range(1, views)
        )
        assert expected > 5
        everyone = Views(tf.constant(vectors), tf.constant(texts))
        assert count_false_negatives(everyone, everyone) == expected
        parts = [Views(tf.constant(vectors[i : i + 2]), tf.constant(texts[i : i + 2])) for i in range(0, ROWS, 2)]
        assert sum(float(count_false_negatives(part, everyone)) for part in parts) == expected

    def test_different_texts_are_none(self):
        everyone = Views(tf.zeros([ROWS, 2, 4]), batch(2)["text_ids"])
        assert count_false_negatives(everyone, everyone) == 0

    def test_without_masking_they_are_negatives_like_others(self):
        x = np.random.default_rng(0).normal(size=(ROWS, 3, 5))
        twice = Views(tf.constant(x, tf.float32), tf.zeros([ROWS, 3], tf.int64))
        unmasked = InfoNCE(0.5, mask_false_negatives=False)(twice, twice)
        np.testing.assert_allclose(unmasked, numpy_info_nce(x, 0.5), rtol=1e-5)
        assert np.all(InfoNCE(0.5)(twice, twice) < unmasked)


def test_a_run_in_chunks_counts_false_negatives_in_its_logs(tiny_preset, tmp_path):
    """Half precision with its loss scale, from the command's flags to metrics.jsonl and TensorBoard."""
    data, run = tmp_path / "sentences.txt", tmp_path / "run"
    # Every sentence five times: one batch of everything has 20 anchors with 4 false negatives each.
    data.write_text("".join(s + "\n" for s in SENTENCES[:4] * 5), "utf-8")
    flags = ["--preset", str(tiny_preset), "--data", str(data), "--batch-size", "20", "--chunk-size", "5"]
    flags += ["--max-length", "12", "--max-steps", "2", "--mixed-precision", "float16", "--export-to", "None"]
    train.main([*flags, "--no-report", "--no-mask-false-negatives", "--output-dir", str(run)])
    steps = [m for m in map(json.loads, (run / "metrics.jsonl").read_text("utf-8").splitlines()) if "loss" in m]
    assert [m["false_negatives"] for m in steps] == [20 * 4, 20 * 4]
    assert np.isfinite([m["loss"] for m in steps]).all()
    assert "false_negatives" in tensorboard_tags(run / "tensorboard")


def tensorboard_tags(directory):
    records = tf.data.TFRecordDataset([str(path) for path in directory.glob("*")])
    events = [tf.compat.v1.Event.FromString(record.numpy()) for record in records]
    return {value.tag for event in events for value in event.summary.value}
