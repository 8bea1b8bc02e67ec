import json

import keras_hub
import numpy as np
import pytest

from simcse_tf.config import EncoderConfig
from simcse_tf.errors import UserError
from simcse_tf.formats import interchange, presets
from simcse_tf.formats.encoders import load_encoder
from tests.conftest import SENTENCES
from tests.formats import hugging_face_directories

TEXTS = [*SENTENCES, "", "Caf\u00e9 na\u00efve, don't!", "the unknown words of a dog", "dog " * 100]
FAMILIES = ["bert", "distilbert", "electra", "roberta"]


def encoder_of(tmp_path, model_type, config):
    encoder = load_encoder(presets.locate(str(hugging_face_directories.write(tmp_path / "source", model_type))), config)
    if encoder.head is not None:
        rng = np.random.default_rng(0)
        encoder.head.set_weights([rng.normal(size=w.shape).astype("float32") for w in encoder.head.get_weights()])
    return encoder


def distance(a, b):
    """The largest cosine distance of two sets of vectors, row by row."""
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (np.float64(a), np.float64(b)))
    return float(np.max(1 - np.sum(a * b, axis=1)))


class TestHuggingFace:
    @pytest.mark.parametrize("model_type", FAMILIES)
    @pytest.mark.parametrize("config", [EncoderConfig("avg", "none", 16), EncoderConfig("cls", "always")])
    def test_an_export_read_back_gives_the_same_embeddings(self, tmp_path, model_type, config):
        encoder = encoder_of(tmp_path, model_type, config)
        directory = interchange.to_huggingface(encoder, tmp_path / "out")
        origin = presets.locate(str(directory))
        assert origin.config == EncoderConfig(config.pooling, config.head, encoder.max_length)
        np.testing.assert_allclose(load_encoder(origin).encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)

    def test_simcse_keeps_its_head_in_the_pooler(self, tmp_path):
        encoder = encoder_of(tmp_path, "roberta", EncoderConfig("cls", "always"))
        interchange.to_huggingface(encoder, tmp_path / "out")
        (tmp_path / "out" / "modules.json").unlink()
        origin = presets.locate(str(tmp_path / "out"))
        again = load_encoder(origin, EncoderConfig("cls", "always"), head_init="pooler")
        np.testing.assert_allclose(again.encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)

    def test_the_form_of_gelu_is_the_one_that_is_computed(self, tmp_path):
        for model_type, expected in (("bert", "gelu_pytorch_tanh"), ("roberta", "gelu")):
            encoder = encoder_of(tmp_path / model_type, model_type, EncoderConfig("cls", "none"))
            directory = interchange.to_huggingface(encoder, tmp_path / model_type / "out")
            assert json.loads((directory / "config.json").read_text("utf-8"))["hidden_act"] == expected

    def test_pooling_over_several_layers_has_no_counterpart(self, tmp_path):
        encoder = encoder_of(tmp_path, "bert", EncoderConfig("avg_first_last", "none"))
        with pytest.raises(
            UserError, match="'avg_first_last' reads several layers, for which sentence-transformers has"
        ):
            interchange.to_huggingface(encoder, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_an_existing_directory_is_left_alone(self, tmp_path):
        encoder = encoder_of(tmp_path, "bert", EncoderConfig("cls", "none"))
        for export in (interchange.to_huggingface, interchange.to_keras_hub):
            with pytest.raises(UserError, match=r"source: exists\. Delete it"):
                export(encoder, tmp_path / "source")

    def test_a_dense_module_that_is_no_head_is_refused(self, tmp_path):
        encoder = encoder_of(tmp_path, "bert", EncoderConfig("cls", "always"))
        interchange.to_huggingface(encoder, tmp_path / "out")
        file = tmp_path / "out" / "2_Dense" / "config.json"
        file.write_text(file.read_text("utf-8").replace("Tanh", "Identity"), "utf-8")
        with pytest.raises(UserError, match="this Dense module is not SimCSE's head"):
            presets.locate(str(tmp_path / "out"))


class TestKerasHub:
    @pytest.mark.parametrize("pooling", ["avg", "cls"])
    def test_text_embedder_gives_the_same_embeddings(self, tmp_path, pooling):
        encoder = encoder_of(tmp_path, "bert", EncoderConfig(pooling, "none", 16))
        interchange.to_keras_hub(encoder, tmp_path / "out")
        embedder = keras_hub.models.TextEmbedder.from_preset(str(tmp_path / "out"))
        np.testing.assert_allclose(embedder.encode_text(TEXTS, verbose=0), encoder.encode(TEXTS), atol=1e-5)

    @pytest.mark.parametrize("model_type", FAMILIES)
    @pytest.mark.parametrize("config", [EncoderConfig("avg", "none"), EncoderConfig("cls", "always", 12)])
    def test_an_export_read_back_is_the_same(self, tmp_path, model_type, config):
        encoder = encoder_of(tmp_path, model_type, config)
        interchange.to_keras_hub(encoder, tmp_path / "out")
        origin = presets.locate(str(tmp_path / "out"))
        assert origin.config == config
        np.testing.assert_allclose(load_encoder(origin).encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)

    def test_how_a_text_embedder_of_others_pools_is_read(self, tmp_path):
        encoder = encoder_of(tmp_path, "bert", EncoderConfig("avg", "none", 16))
        interchange.to_keras_hub(encoder, tmp_path / "out")
        (tmp_path / "out" / "encoder.json").unlink()
        origin = presets.locate(str(tmp_path / "out"))
        assert origin.config == EncoderConfig("avg", "none", 16)
        np.testing.assert_allclose(load_encoder(origin).encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)


def test_every_export_has_a_card(tmp_path):
    encoder = encoder_of(tmp_path, "bert", EncoderConfig("cls", "none"))
    for export, name in ((interchange.to_huggingface, "a"), (interchange.to_keras_hub, "b")):
        card = (export(encoder, tmp_path / name, source=str(tmp_path / "source")) / "README.md").read_text("utf-8")
        assert card.startswith("---\nlibrary_name: ")
        assert f"# {name}\n" in card
