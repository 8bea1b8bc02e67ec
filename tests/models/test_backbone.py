"""keras-hub's attributes are probed before use: a renamed one costs time, not an error or another vector."""

import inspect
import logging
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_hub.src.layers.modeling import transformer_encoder

from simcse_tf.config import EncoderConfig
from simcse_tf.formats.encoders import SentenceEncoder, load_encoder
from simcse_tf.models.backbone import UnknownBackboneError, parts
from simcse_tf.models.packed import unsupported_reason

BATCH = {
    "token_ids": tf.constant([[2, 5, 6, 7, 3], [2, 9, 3, 0, 0]]),
    "padding_mask": tf.constant([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}


@pytest.fixture
def encoder(tiny_origin):
    return load_encoder(tiny_origin, EncoderConfig("avg_first_last", "none"))


def again(encoder):
    """A second encoder over the same backbone, as keras-hub left it."""
    return SentenceEncoder(encoder.backbone, encoder.tokenizer, encoder.config.pooling)


def rename(layer, old, new):
    setattr(layer, new, getattr(layer, old))
    delattr(layer, old)


def test_a_layers_attribute_under_another_name_means_keras_hubs_own_forward(encoder, monkeypatch, caplog):
    """What a release of keras-hub does that renames a private attribute, in the layer and in its forward."""
    expected = encoder(BATCH)
    scope = dict(vars(transformer_encoder))
    call = textwrap.dedent(inspect.getsource(transformer_encoder.TransformerEncoder.call))
    exec(call.replace("_feedforward_layer_norm", "_final_norm"), scope)
    monkeypatch.setattr(transformer_encoder.TransformerEncoder, "call", scope["call"])
    for layer in encoder.backbone.transformer_layers:
        rename(layer, "_feedforward_layer_norm", "_final_norm")
    with caplog.at_level(logging.WARNING):
        np.testing.assert_allclose(again(encoder)(BATCH), expected, atol=1e-5)
    assert "keras-hub's own forward is used" in caplog.text
    assert "transformer_layer_0 has no _feedforward_layer_norm" in caplog.text


@pytest.mark.parametrize("name", ["position_embedding", "segment_embedding", "embeddings_layer_norm", "dropout"])
def test_a_backbones_attribute_under_another_name_means_keras_hubs_own_forward(encoder, caplog, name):
    expected = encoder(BATCH)
    delattr(encoder.backbone, name)
    np.testing.assert_allclose(again(encoder)(BATCH), expected, atol=1e-5)
    assert "keras-hub's own forward is used" in caplog.text


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("layer", "_self_attention_layer"),
        ("layer", "_self_attention_layer_norm"),
        ("layer", "_feedforward_intermediate_dense"),
        ("layer", "_feedforward_output_dense"),
        ("attention", "_query_dense"),
        ("attention", "_key_dense"),
        ("attention", "_value_dense"),
        ("attention", "_output_dense"),
    ],
)
def test_every_private_attribute_is_probed(encoder, where, name):
    layer = encoder.backbone.transformer_layers[-1]
    delattr(layer if where == "layer" else layer._self_attention_layer, name)
    assert name in str(unsupported_reason(encoder.backbone))


def test_a_layer_with_more_weights_is_not_known(encoder):
    layer = encoder.backbone.transformer_layers[1]
    assert unsupported_reason(encoder.backbone) is None
    layer._tracker.unlock()
    layer.gate = keras.layers.Dense(16, name="gate")
    layer.gate.build((None, 16))
    assert "gate" in str(unsupported_reason(encoder.backbone))
    with pytest.raises(UnknownBackboneError, match="gate"):
        parts(encoder.backbone)
