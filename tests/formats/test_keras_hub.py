import numpy as np
import pytest
from keras_hub.models import TextEmbedder

from simcse_tf.config import EncoderConfig
from simcse_tf.errors import UserError
from simcse_tf.formats import keras_hub, presets
from simcse_tf.formats.encoders import load_encoder
from tests.formats.tiny_encoders import FAMILIES, TEXTS, encoder_of


@pytest.mark.parametrize("pooling", ["avg", "cls"])
def test_text_embedder_gives_the_same_embeddings(tmp_path, pooling):
    encoder = encoder_of(tmp_path, "bert", EncoderConfig(pooling, "none", 16))
    keras_hub.export(encoder, tmp_path / "out")
    embedder = TextEmbedder.from_preset(str(tmp_path / "out"))
    np.testing.assert_allclose(embedder.encode_text(TEXTS, verbose=0), encoder.encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("config", [EncoderConfig("avg", "none"), EncoderConfig("cls", "always", 12)])
def test_an_export_read_back_is_the_same(tmp_path, model_type, config):
    encoder = encoder_of(tmp_path, model_type, config)
    keras_hub.export(encoder, tmp_path / "out")
    origin = presets.locate(str(tmp_path / "out"))
    assert origin.config == config
    np.testing.assert_allclose(load_encoder(origin).encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)


def test_an_encoder_that_cuts_vectors_is_no_text_embedder_which_cannot(tmp_path):
    encoder = encoder_of(tmp_path, "bert", EncoderConfig("avg", "none", matryoshka=(8, 4), dim=4))
    keras_hub.export(encoder, tmp_path / "out")
    assert not (tmp_path / "out" / "task.json").exists()
    assert "cannot cut vectors" in (tmp_path / "out" / "README.md").read_text("utf-8")
    origin = presets.locate(str(tmp_path / "out"))
    assert (origin.config, origin.dim) == (encoder.config, encoder.backbone.hidden_dim)
    np.testing.assert_allclose(load_encoder(origin).encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)


def test_how_a_text_embedder_of_others_pools_is_read(tmp_path):
    encoder = encoder_of(tmp_path, "bert", EncoderConfig("avg", "none", 16))
    keras_hub.export(encoder, tmp_path / "out")
    (tmp_path / "out" / "encoder.json").unlink()
    origin = presets.locate(str(tmp_path / "out"))
    assert origin.config == EncoderConfig("avg", "none", 16)
    np.testing.assert_allclose(load_encoder(origin).encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)


def test_a_text_embedder_that_takes_the_maximum_is_refused(tmp_path):
    keras_hub.export(encoder_of(tmp_path, "bert", EncoderConfig("avg", "none")), tmp_path / "out")
    (tmp_path / "out" / "encoder.json").unlink()
    task = tmp_path / "out" / "task.json"
    task.write_text(task.read_text("utf-8").replace('"mean"', '"max"'), "utf-8")
    with pytest.raises(UserError, match=r"task\.json: pooling by 'max'"):
        presets.locate(str(tmp_path / "out"))


def test_an_existing_directory_is_left_alone(tmp_path):
    encoder = encoder_of(tmp_path, "bert", EncoderConfig("cls", "none"))
    with pytest.raises(UserError, match=r"source: already exists\."):
        keras_hub.export(encoder, tmp_path / "source")
