import json

import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from simcse_tf.config import EncoderConfig
from simcse_tf.data.tokenization import tokenize
from simcse_tf.errors import UserError
from simcse_tf.formats import huggingface, presets
from simcse_tf.formats.encoders import load_encoder
from tests.formats import hugging_face_directories
from tests.formats.hugging_face_directories import DIM
from tests.formats.tiny_encoders import FAMILIES, TEXTS, encoder_of

IDS = np.array([[2, 5, 6, 7, 3], [2, 9, 3, 1, 1]], "int32")
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], "int32")


def hidden(backbone):
    inputs = {"token_ids": IDS, "padding_mask": MASK, "segment_ids": np.zeros_like(IDS)}
    outputs = backbone({name: tf.constant(inputs[name]) for name in backbone.input})
    outputs = outputs["sequence_output"] if isinstance(outputs, dict) else outputs
    # What a padding token becomes is nobody's business.
    return np.array(outputs) * MASK[:, :, None]


@pytest.mark.parametrize("model_type", ["bert", "distilbert"])
def test_weights_equal_keras_hubs_own_converter(tmp_path, model_type):
    directory = hugging_face_directories.write(tmp_path, model_type)
    ours, _ = huggingface.load(directory, dropout=0.1, dtype="float32")
    theirs = keras_hub.models.Backbone.from_preset(str(directory))
    np.testing.assert_array_equal(hidden(ours), hidden(theirs))


def test_roberta_keeps_its_token_type_vector_which_keras_hub_drops(tmp_path):
    directory = hugging_face_directories.write(tmp_path, "roberta")
    ours, _ = huggingface.load(directory, dropout=0.1, dtype="float32")
    assert not np.allclose(hidden(ours), hidden(keras_hub.models.Backbone.from_preset(str(directory))), atol=1e-3)
    weights = load_file(directory / "model.safetensors")
    weights["roberta.embeddings.word_embeddings.weight"] += weights["roberta.embeddings.token_type_embeddings.weight"]
    save_file(weights, directory / "model.safetensors")
    np.testing.assert_allclose(
        hidden(ours), hidden(keras_hub.models.Backbone.from_preset(str(directory))), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("model_type", hugging_face_directories.PREFIXES)
@pytest.mark.parametrize(("prefix", "old_names"), [(False, False), (True, True)])
def test_prefixes_and_old_names_make_no_difference(tmp_path, model_type, prefix, old_names):
    if model_type == "distilbert" and old_names:
        pytest.skip("DistilBERT's layer norms never had the old names")
    usual = hugging_face_directories.write(tmp_path / "a", model_type)
    other = hugging_face_directories.write(tmp_path / "b", model_type)
    weights = {
        k.removeprefix(hugging_face_directories.PREFIXES[model_type]): v
        for k, v in load_file(usual / "model.safetensors").items()
    }
    if old_names:
        weights = {
            k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
            for k, v in weights.items()
        }
    if prefix:
        weights = {hugging_face_directories.PREFIXES[model_type] + k: v for k, v in weights.items()}
    save_file(weights, other / "model.safetensors")
    a, b = (huggingface.load(d, dropout=0.0, dtype="float32")[0] for d in (usual, other))
    np.testing.assert_array_equal(hidden(a), hidden(b))


def test_a_simcse_checkpoint_brings_its_head_along(tmp_path):
    """princeton-nlp keep the trained MLP in `pooler.dense`; their RoBERTa checkpoints have no prefix."""
    directory = hugging_face_directories.write(tmp_path, "roberta", prefix=False)
    encoder = load_encoder(presets.locate(str(directory)), EncoderConfig("cls", "always"), head_init="pooler")
    weights = load_file(directory / "model.safetensors")
    cls = encoder.pooled({"token_ids": tf.constant(IDS), "padding_mask": tf.constant(MASK)})
    expected = np.tanh(cls @ weights["pooler.dense.weight"].T + weights["pooler.dense.bias"])
    actual = encoder({"token_ids": tf.constant(IDS), "padding_mask": tf.constant(MASK)})
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model_type", hugging_face_directories.PREFIXES)
def test_every_family_encodes_text(tmp_path, model_type):
    directory = hugging_face_directories.write(tmp_path, model_type)
    encoder = load_encoder(presets.locate(str(directory)), EncoderConfig("avg_first_last", "none"))
    vectors = encoder.encode(["the dog sleeps .", "a dog", "the man reads the old book near the river"])
    assert vectors.shape == (3, DIM)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


def test_shards_are_read(tmp_path):
    whole = hugging_face_directories.write(tmp_path / "whole", "bert")
    sharded = hugging_face_directories.write(tmp_path / "sharded", "bert")
    weights = load_file(whole / "model.safetensors")
    (sharded / "model.safetensors").unlink()
    where = {}
    for i, name in enumerate(weights):
        where[name] = f"part-{i % 2}.safetensors"
    for shard in set(where.values()):
        save_file({k: v for k, v in weights.items() if where[k] == shard}, sharded / shard)
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}), "utf-8")
    a, b = (huggingface.load(d, dropout=0.0, dtype="float32")[0] for d in (whole, sharded))
    np.testing.assert_array_equal(hidden(a), hidden(b))


class TestDamage:
    @pytest.fixture
    def directory(self, tmp_path):
        return hugging_face_directories.write(tmp_path / "model", "bert")

    def test_a_half_downloaded_file_is_found_by_its_length(self, directory):
        path = directory / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(UserError, match=r"model\.safetensors: has \d+ bytes where its header promises \d+"):
            presets.locate(str(directory))

    def test_an_empty_file(self, directory):
        (directory / "model.safetensors").write_bytes(b"")
        with pytest.raises(UserError, match=r"cut short or not a safetensors file \(0 bytes\)"):
            presets.locate(str(directory))

    def test_a_damaged_header(self, directory):
        path = directory / "model.safetensors"
        path.write_bytes(path.read_bytes()[:8] + b"x" * (path.stat().st_size - 8))
        with pytest.raises(UserError, match="damaged safetensors header"):
            presets.locate(str(directory))

    def test_only_a_pickle(self, directory):
        (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
        with pytest.raises(UserError, match="safe_serialization"):
            presets.locate(str(directory))

    def test_a_missing_tensor_is_named(self, directory):
        weights = load_file(directory / "model.safetensors")
        del weights["bert.encoder.layer.1.output.dense.bias"]
        save_file(weights, directory / "model.safetensors")
        with pytest.raises(UserError, match=r"no tensor 'encoder\.layer\.1\.output\.dense\.bias'"):
            huggingface.load(directory, dropout=0.1, dtype="float32")

    def test_a_tensor_of_another_size(self, directory):
        weights = load_file(directory / "model.safetensors")
        weights["bert.embeddings.LayerNorm.bias"] = np.zeros(DIM + 1, "float32")
        save_file(weights, directory / "model.safetensors")
        with pytest.raises(
            UserError, match=r"'embeddings\.LayerNorm\.bias' has 9 numbers, but config\.json asks for 8"
        ):
            huggingface.load(directory, dropout=0.1, dtype="float32")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"model_type": "gpt2"}, "model_type 'gpt2' is not supported; supported: bert"),
            ({"hidden_act": "relu"}, "activation 'relu'"),
            ({"layer_norm_eps": 1e-3}, "layer_norm_eps 0.001"),
        ],
    )
    def test_what_keras_hub_cannot_express_is_refused(self, directory, changes, message):
        config = json.loads((directory / "config.json").read_text("utf-8"))
        (directory / "config.json").write_text(json.dumps(config | changes), "utf-8")
        with pytest.raises(UserError, match=message):
            presets.locate(str(directory))

    def test_no_vocabulary(self, directory):
        (directory / "vocab.txt").unlink()
        with pytest.raises(UserError, match=r"no vocab\.txt"):
            presets.locate(str(directory))

    def test_no_config(self, directory):
        (directory / "config.json").unlink()
        with pytest.raises(UserError, match=r"no config\.json"):
            presets.locate(str(directory))

    def test_a_size_that_config_json_does_not_give(self, directory):
        config = json.loads((directory / "config.json").read_text("utf-8"))
        del config["num_hidden_layers"]
        (directory / "config.json").write_text(json.dumps(config), "utf-8")
        with pytest.raises(UserError, match=r"config\.json: .*num_hidden_layers"):
            presets.locate(str(directory))

    def test_a_config_that_is_not_json_is_named_with_its_line(self, directory):
        (directory / "config.json").write_text('{\n  "model_type": bert\n}', "utf-8")
        with pytest.raises(UserError, match=r"config\.json:2: not JSON"):
            presets.locate(str(directory))


class TestExport:
    @pytest.mark.parametrize("model_type", FAMILIES)
    @pytest.mark.parametrize("config", [EncoderConfig("avg", "none", 16), EncoderConfig("cls", "always")])
    def test_an_export_read_back_gives_the_same_embeddings(self, tmp_path, model_type, config):
        encoder = encoder_of(tmp_path, model_type, config)
        directory = huggingface.export(encoder, tmp_path / "out")
        origin = presets.locate(str(directory))
        assert origin.config == EncoderConfig(config.pooling, config.head, encoder.max_length)
        np.testing.assert_allclose(load_encoder(origin).encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)

    def test_simcse_keeps_its_head_in_the_pooler(self, tmp_path):
        encoder = encoder_of(tmp_path, "roberta", EncoderConfig("cls", "always"))
        huggingface.export(encoder, tmp_path / "out")
        (tmp_path / "out" / "modules.json").unlink()
        origin = presets.locate(str(tmp_path / "out"))
        again = load_encoder(origin, EncoderConfig("cls", "always"), head_init="pooler")
        np.testing.assert_allclose(again.encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)

    def test_the_form_of_gelu_is_the_one_that_is_computed(self, tmp_path):
        for model_type, expected in (("bert", "gelu_pytorch_tanh"), ("roberta", "gelu")):
            encoder = encoder_of(tmp_path / model_type, model_type, EncoderConfig("cls", "none"))
            directory = huggingface.export(encoder, tmp_path / model_type / "out")
            assert json.loads((directory / "config.json").read_text("utf-8"))["hidden_act"] == expected

    @pytest.mark.parametrize("model_type", FAMILIES)
    def test_tokenizer_json_gives_the_ids_of_the_graph(self, tmp_path, model_type):
        encoder = encoder_of(tmp_path, model_type, EncoderConfig("cls", "none"))
        fast = Tokenizer.from_file(str(huggingface.export(encoder, tmp_path / "out") / "tokenizer.json"))
        run = tf.function(lambda text: tokenize(encoder.tokenizer, text, max_length=encoder.max_length))
        batch = run(tf.constant(TEXTS))
        rows = zip(batch["token_ids"].numpy(), batch["padding_mask"].numpy(), strict=True)
        assert [e.ids for e in fast.encode_batch(TEXTS)] == [row[: mask.sum()].tolist() for row, mask in rows]

    def test_an_existing_directory_is_left_alone(self, tmp_path):
        encoder = encoder_of(tmp_path, "bert", EncoderConfig("cls", "none"))
        before = sorted((tmp_path / "source").iterdir())
        with pytest.raises(UserError, match=r"source: already exists\."):
            huggingface.export(encoder, tmp_path / "source")
        assert sorted((tmp_path / "source").iterdir()) == before

    def test_a_keras_hub_with_other_attributes_is_named(self, tmp_path):
        encoder = encoder_of(tmp_path, "bert", EncoderConfig("cls", "none"))
        del encoder.backbone.embeddings_layer_norm
        with pytest.raises(UserError, match="keras-hub builds BertBackbone .* has no embeddings_layer_norm"):
            huggingface.export(encoder, tmp_path / "out")
