import json

import keras_hub
import numpy as np
import pytest
import tensorflow as tf

from simcse_tf.config import EncoderConfig
from simcse_tf.errors import UserError
from simcse_tf.formats import presets
from simcse_tf.formats.encoders import SentenceEncoder, load_encoder, save_encoder
from tests.conftest import PROMPTS, SENTENCES, VOCABULARY

BATCH = {
    "token_ids": tf.constant([[2, 5, 6, 7, 3], [2, 9, 3, 0, 0]]),
    "padding_mask": tf.constant([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
}


@pytest.mark.parametrize("pooling", ["cls", "avg", "avg_top2", "avg_first_last"])
@pytest.mark.parametrize("head", ["none", "train_only", "always"])
def test_the_head_is_applied_when_the_configuration_says(tiny_origin, pooling, head):
    encoder = load_encoder(tiny_origin, EncoderConfig(pooling, head), dropout=0.0)
    pooled = encoder.pooled(BATCH)
    applied = pooled if encoder.head is None else encoder.head(pooled)
    np.testing.assert_allclose(encoder(BATCH, training=True), applied, atol=1e-5)
    np.testing.assert_allclose(encoder(BATCH), applied if head == "always" else pooled, atol=1e-5)
    assert (encoder.head is None) == (head == "none")


def test_cls_before_pooler_leaves_the_head_away_at_inference(tiny_origin):
    encoder = load_encoder(tiny_origin, EncoderConfig("cls_before_pooler", "train_only"))
    np.testing.assert_array_equal(encoder(BATCH), encoder.pooled(BATCH))


def test_hidden_states_are_the_backbones_own(tiny_origin):
    encoder = load_encoder(tiny_origin, EncoderConfig("cls", "none"))
    inputs = BATCH | {"segment_ids": tf.zeros([2, 5], tf.int32)}
    np.testing.assert_allclose(encoder(BATCH), encoder.backbone(inputs)["sequence_output"][:, 0], atol=1e-6)
    ours = {id(v) for v in encoder.trainable_variables}
    assert ours < {id(v) for v in encoder.backbone.variables}, "a second copy of the weights"


def test_padding_changes_nothing(tiny_origin):
    encoder = load_encoder(tiny_origin, EncoderConfig("avg", "none"))
    longer = {name: tf.pad(x, [[0, 0], [0, 4]]) for name, x in BATCH.items()}
    np.testing.assert_allclose(encoder(longer), encoder(BATCH), atol=1e-5)


def test_dropout_makes_two_views_of_one_sentence_differ_in_training_only(tiny_origin):
    encoder = load_encoder(tiny_origin, EncoderConfig("cls", "none"), dropout=0.1)
    twice = {name: tf.repeat(x[:1], 2, axis=0) for name, x in BATCH.items()}
    a, b = np.array(encoder(twice, training=True))
    assert np.abs(a - b).max() > 1e-3
    a, b = np.array(encoder(twice))
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_every_trainable_variable_gets_a_gradient(tiny_origin):
    encoder = load_encoder(tiny_origin, EncoderConfig("cls", "train_only"))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(encoder(BATCH, training=True))
    for variable, gradient in zip(
        encoder.trainable_variables, tape.gradient(loss, encoder.trainable_variables), strict=True
    ):
        assert gradient is not None, variable.path


class TestEncode:
    def test_order_and_length_do_not_depend_on_batching(self, tiny_origin):
        encoder = load_encoder(tiny_origin, EncoderConfig("avg", "none"))
        texts = [SENTENCES[0], "dog", " ".join(SENTENCES[:3]), ""]
        whole = encoder.encode(texts)
        single = np.concatenate([encoder.encode([t]) for t in texts])
        np.testing.assert_allclose(whole, single, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1.0, atol=1e-5)

    def test_nothing_to_encode(self, tiny_origin):
        assert load_encoder(tiny_origin).encode([]).shape == (0, 16)

    def test_a_long_text_keeps_cls_and_sep(self, tiny_origin):
        from simcse_tf.data.tokenization import tokenize

        encoder = load_encoder(tiny_origin, EncoderConfig("cls", "none", max_length=8))
        batch = tf.function(lambda t: tokenize(encoder.tokenizer, t, max_length=8))(tf.constant(["dog " * 100, "a"]))
        cls, sep = VOCABULARY.index("[CLS]"), VOCABULARY.index("[SEP]")
        dog, a = VOCABULARY.index("dog"), VOCABULARY.index("a")
        assert batch["token_ids"].numpy().tolist() == [[cls, *[dog] * 6, sep], [cls, a, sep, 0, 0, 0, 0, 0]]
        assert batch["padding_mask"].numpy().tolist() == [[1] * 8, [1, 1, 1, 0, 0, 0, 0, 0]]

    def test_bytes_that_are_no_utf8_give_a_finite_vector(self, tiny_origin):
        encoder = load_encoder(tiny_origin, EncoderConfig("cls", "none"))
        vectors = tf.function(encoder.encode_tensor)(
            tf.constant([b"\xff\xfe dog", b"", b"a\x00b", "\U0001f600".encode()])
        )
        assert np.isfinite(vectors).all()


class TestPrompts:
    @pytest.fixture(scope="class")
    def encoder(self, tiny_origin):
        return load_encoder(tiny_origin, EncoderConfig("avg", "always", **PROMPTS))

    @pytest.mark.parametrize("name", ["query", "passage"])
    def test_one_is_put_before_each_text_when_it_is_named(self, encoder, name):
        texts = ["", "dog", " cat", SENTENCES[0], "dog " * 50]
        written_out = [PROMPTS[f"{name}_prompt"] + text for text in texts]
        np.testing.assert_array_equal(encoder.encode(texts, prompt_name=name), encoder.encode(written_out))
        np.testing.assert_array_equal(encoder.encode("dog", prompt_name=name), encoder.encode(written_out[1]))
        assert np.abs(encoder.encode(texts, prompt_name=name) - encoder.encode(texts)).max() > 0.01

    def test_a_name_that_the_encoder_does_not_know_is_refused(self, encoder, tiny_origin):
        assert encoder.prompt_names == ("query", "passage")
        with pytest.raises(UserError, match="`prompt_name` qeury: unknown. Did you mean 'query'"):
            encoder.encode("dog", prompt_name="qeury")
        without = load_encoder(tiny_origin)
        assert without.prompt_names == ()
        with pytest.raises(UserError, match="`prompt_name` query: this model has no prompts"):
            without.encode("dog", prompt_name="query")

    def test_they_are_saved_and_can_be_replaced_or_removed(self, encoder, tmp_path):
        encoder.save_to_preset(tmp_path / "saved")
        saved = str(tmp_path / "saved")
        again = SentenceEncoder.from_preset(saved)
        np.testing.assert_array_equal(
            again.encode("dog", prompt_name="query"), encoder.encode("dog", prompt_name="query")
        )
        assert SentenceEncoder.from_preset(saved, query_prompt="").config.prompts == {"query": "", "passage": "! "}
        assert SentenceEncoder.from_preset(saved, query_prompt="", passage_prompt="").prompt_names == ()

    def test_one_that_leaves_no_room_for_a_text_is_refused(self, tiny_preset):
        with pytest.raises(UserError, match=r"`query_prompt` 'dog dog .*leaves no room .*`max_length` 32"):
            SentenceEncoder.from_preset(str(tiny_preset), query_prompt="dog " * 30)


class TestSaving:
    @pytest.mark.parametrize("head", ["none", "train_only", "always"])
    def test_an_encoder_comes_back_with_its_configuration(self, tiny_origin, tmp_path, head):
        encoder = load_encoder(tiny_origin, EncoderConfig("avg_top2", head, max_length=20))
        save_encoder(encoder, tmp_path / "saved")
        again = load_encoder(presets.locate(str(tmp_path / "saved")))
        assert again.config == encoder.config
        for mine, theirs in zip(
            encoder.encode_with_and_without_head(SENTENCES[:5]),
            again.encode_with_and_without_head(SENTENCES[:5]),
            strict=True,
        ):
            np.testing.assert_array_equal(mine, theirs)

    def test_keras_hub_reads_it_as_a_preset(self, tiny_origin, tmp_path):
        encoder = load_encoder(tiny_origin, EncoderConfig("cls", "always"))
        save_encoder(encoder, tmp_path / "saved")
        backbone = keras_hub.models.Backbone.from_preset(str(tmp_path / "saved"))
        for mine, theirs in zip(encoder.backbone.variables, backbone.variables, strict=True):
            if "seed" not in mine.path:
                np.testing.assert_array_equal(mine, theirs)

    @pytest.mark.parametrize("file", ["model.weights.h5", "head.safetensors"])
    def test_a_changed_byte_is_found(self, tiny_origin, tmp_path, file):
        save_encoder(load_encoder(tiny_origin, EncoderConfig("cls", "always")), tmp_path / "saved")
        path = tmp_path / "saved" / file
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        with pytest.raises(UserError, match="wrong SHA-256 checksum"):
            presets.locate(str(tmp_path / "saved"))

    def test_a_broken_description_is_named(self, tiny_origin, tmp_path):
        save_encoder(load_encoder(tiny_origin), tmp_path / "saved")
        about = json.loads((tmp_path / "saved" / "encoder.json").read_text("utf-8"))
        assert about == {"pooling": "cls", "head": "none", "max_length": None, "sha256": about["sha256"]}
        del about["pooling"]
        (tmp_path / "saved" / "encoder.json").write_text(json.dumps(about), "utf-8")
        with pytest.raises(UserError, match=r"encoder\.json: cannot be read .*pooling"):
            presets.locate(str(tmp_path / "saved"))

    def test_nothing_is_left_of_a_failed_save(self, tiny_origin, tmp_path, monkeypatch):
        encoder = load_encoder(tiny_origin)

        def fail(*_):
            raise OSError("disk full")

        monkeypatch.setattr(encoder.tokenizer, "save_to_preset", fail)
        with pytest.raises(OSError, match="disk full"):
            save_encoder(encoder, tmp_path / "saved")
        assert list(tmp_path.iterdir()) == []


def test_more_tokens_than_positions_are_refused(tiny_origin):
    with pytest.raises(UserError, match="`max_length` 33: .*32 positions"):
        load_encoder(tiny_origin, EncoderConfig(max_length=33))
