"""The hot path computes what keras-hub's own forward computes, for every family: values, gradients, dropout's rate."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

from simcse_tf.config import EncoderConfig
from simcse_tf.formats.encoders import SentenceEncoder, load_encoder
from simcse_tf.models import packed
from simcse_tf.models.backbone import parts
from simcse_tf.models.elementwise import Dropout
from simcse_tf.models.pooling import POOLERS

SIZES = {"num_layers": 3, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 12, "max_sequence_length": 9}
models = keras_hub.models
FAMILIES = {
    "bert": lambda **kw: models.BertBackbone(vocabulary_size=40, **SIZES, **kw),
    "roberta": lambda **kw: models.RobertaBackbone(vocabulary_size=40, **SIZES, **kw),
    "xlm_roberta": lambda **kw: models.XLMRobertaBackbone(vocabulary_size=40, **SIZES, **kw),
    "distil_bert": lambda **kw: models.DistilBertBackbone(vocabulary_size=40, **SIZES, **kw),
    "electra": lambda **kw: models.ElectraBackbone(vocab_size=40, embedding_dim=6, **SIZES, **kw),
    "electra_wide": lambda **kw: models.ElectraBackbone(vocab_size=40, embedding_dim=8, **SIZES, **kw),
}
LENGTHS = [5, 2, 7, 3]
WIDTH = 7


def batch():
    rng = np.random.default_rng(3)
    mask = np.arange(WIDTH) < np.array(LENGTHS)[:, None]
    return {
        "token_ids": tf.constant(np.where(mask, rng.integers(1, 40, mask.shape), 0), tf.int32),
        "padding_mask": tf.constant(mask, tf.int32),
    }


def backbone(family, **kwargs):
    keras.utils.set_random_seed(5)
    made = FAMILIES[family](**kwargs)
    rng = np.random.default_rng(11)
    # Fresh biases are 0 and fresh scales 1, which would hide mistakes.
    made.set_weights(
        [rng.normal(0.3, 0.4, w.shape).astype(w.dtype) if w.dtype == "float32" else w for w in made.get_weights()]
    )
    return made


def keras_hubs(made, layers, inputs, training=False):
    """The same layers' outputs by keras-hub's own forward."""
    view = keras.Model(made.input, [made.transformer_layers[i].output for i in layers])
    features = dict(inputs)
    if "segment_ids" in made.input:
        features["segment_ids"] = tf.zeros_like(inputs["token_ids"])
    outputs = view(features, training=training)
    return outputs if isinstance(outputs, list) else [outputs]


@pytest.mark.parametrize("pooling", ["cls", "avg_first_last"])
@pytest.mark.parametrize("family", FAMILIES)
def test_values_and_gradients_are_keras_hubs(family, pooling):
    made, inputs, pooler = backbone(family, dropout=0.0), batch(), POOLERS[pooling]
    variables = made.trainable_variables
    weights = tf.constant(np.random.default_rng(1).normal(size=(len(LENGTHS), 8)), tf.float32)

    def answer(forward):
        with tf.GradientTape() as tape:
            pooled = pooler.pool(forward(), inputs["padding_mask"])
            loss = tf.reduce_sum(weights * tf.tanh(pooled))
        # What a pooler does not read has no gradient in either.
        gradients = tape.gradient(
            loss, [v.value for v in variables], unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return pooled, [tf.convert_to_tensor(g) for g in gradients]

    plain, plain_gradients = answer(lambda: keras_hubs(made, pooler.layers, inputs))
    assert sum(bool(np.abs(g).max() > 1e-3) for g in plain_gradients) > 30
    # Training with and without packing, and inference.
    for seed, pack in ((tf.constant([1, 2]), True), (tf.constant([1, 2]), False), (None, True)):
        ours, our_gradients = answer(
            lambda seed=seed, pack=pack: packed.hidden_states(
                made, inputs, pooler.layers, first_only=pooler.first_only, seed=seed, pack=pack
            )
        )
        np.testing.assert_allclose(ours, plain, atol=1e-5)
        for variable, a, b in zip(variables, our_gradients, plain_gradients, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5, err_msg=variable.path)
    # What is exported: the same as it was when it was traced, whatever becomes of the weights.
    snapshot = packed.Snapshot()
    exported = tf.function(
        lambda inputs: packed.hidden_states(
            made, inputs, pooler.layers, first_only=pooler.first_only, snapshot=snapshot
        )
    )
    exported(inputs)
    parts(made).layers[-1].output.kernel.assign(tf.zeros([12, 8]))
    np.testing.assert_allclose(pooler.pool(exported(inputs), inputs["padding_mask"]), plain, atol=1e-5)


@pytest.mark.parametrize("pack", [True, False], ids=["packed", "padded"])
def test_xla_and_16_bits(pack):
    made, inputs = backbone("bert", dtype="mixed_bfloat16"), batch()
    plain = keras_hubs(made, (-1,), inputs)[0][:, 0]

    @tf.function(jit_compile=not pack)
    def ours():
        return packed.hidden_states(made, inputs, (-1,), first_only=True, pack=pack)[0][:, 0]

    assert ours().dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(ours(), tf.float32), tf.cast(plain, tf.float32), atol=0.1)


def test_no_text_at_all():
    none = {name: x[:0] for name, x in batch().items()}
    made = backbone("bert")
    for first_only, length in ((True, 1), (False, WIDTH)):
        forward = tf.function(lambda n, only=first_only: packed.hidden_states(made, n, (-1,), first_only=only))
        assert forward(none)[0].shape == (0, length, 8)


class TestDropout:
    def test_a_seed_decides_the_masks(self):
        made, inputs = backbone("bert", dropout=0.2), batch()

        def hidden(*seed):
            return packed.hidden_states(made, inputs, (-1,), seed=tf.constant(seed))[0].numpy()

        np.testing.assert_array_equal(hidden(1, 2), hidden(1, 2))
        assert np.abs(hidden(1, 2) - hidden(1, 3)).max() > 0.01

    @pytest.mark.parametrize("rate", [0.1, 0.5])
    def test_rate_and_expectation(self, rate):
        drop = Dropout(rate, tf.constant([3, 4]))
        x = tf.ones([500, 1001])
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = drop(x)
        kept = y.numpy() != 0
        # Five standard deviations of a proportion of half a million.
        assert kept.mean() == pytest.approx(1 - rate, abs=5 * (rate * (1 - rate) / kept.size) ** 0.5)
        np.testing.assert_allclose(y.numpy()[kept], 1 / (1 - rate), rtol=1e-4)
        np.testing.assert_array_equal(tape.gradient(y, x), y)
        # Neighbours share a random word, but are independent.
        assert np.corrcoef(kept[:, :-1].ravel(), kept[:, 1:].ravel())[0, 1] == pytest.approx(0, abs=0.01)
        # Every call has masks of its own.
        assert (drop(x).numpy() != y.numpy()).mean() == pytest.approx(2 * rate * (1 - rate), rel=0.05)

    def test_it_is_where_keras_hub_has_it(self):
        """The same mean and variance of a loss over many masks as keras-hub's, though the masks differ."""
        made = backbone("bert", dropout=0.1)
        row = {name: tf.repeat(x[:1], 4000, axis=0) for name, x in batch().items()}
        plain = keras_hubs(made, (-1,), row, training=True)[0][:, 0]
        ours = packed.hidden_states(made, row, (-1,), first_only=True, seed=tf.constant([1, 2]))[0][:, 0]
        deviation = np.std(plain, axis=0)
        np.testing.assert_allclose(np.mean(ours, axis=0), np.mean(plain, axis=0), atol=5 * deviation.max() / 2000**0.5)
        np.testing.assert_allclose(np.std(ours, axis=0), deviation, rtol=0.1)


class TestFallback:
    def test_what_it_does_not_know_is_computed_by_keras_hub_and_said(self, tiny_origin, caplog):
        usual = load_encoder(tiny_origin, EncoderConfig("avg", "none"), dropout=0.0)
        made, tokenizer = usual.backbone, usual.tokenizer
        assert caplog.text == ""
        made.transformer_layers[1].normalize_first = True
        other = SentenceEncoder(made, tokenizer, "avg")
        assert "keras-hub's own forward" in caplog.text
        assert made.transformer_layers[1].name in caplog.text
        inputs = {name: x[:, :5] for name, x in batch().items()}
        expected = POOLERS["avg"].pool(keras_hubs(made, (-1,), inputs), inputs["padding_mask"])
        np.testing.assert_allclose(other(inputs), expected, atol=1e-6)
        assert np.abs(usual(inputs) - expected).max() > 1e-3

    def test_other_backbones_are_named(self):
        other = models.AlbertBackbone(40, 2, 2, 4, 8, 12, max_sequence_length=9)
        assert "AlbertBackbone" in str(packed.unsupported_reason(other))
