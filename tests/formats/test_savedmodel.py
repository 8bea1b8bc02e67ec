import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from simcse_tf.config import EncoderConfig
from simcse_tf.data.tokenization import tokenize
from simcse_tf.errors import UserError
from simcse_tf.formats import savedmodel, server_files
from simcse_tf.formats.encoders import load_encoder
from simcse_tf.serving import compact
from simcse_tf.serving.client import Client
from tests.conftest import PROMPTS, SENTENCES

TEXTS = [*SENTENCES[:5], "", "dog \ud800 \x00 \U0001f600".encode("utf-8", "replace").decode()]


@pytest.fixture(scope="module")
def encoder(tiny_origin):
    return load_encoder(tiny_origin, EncoderConfig("avg", "none", **PROMPTS))


@pytest.fixture(scope="module")
def signatures(exported):
    return tf.saved_model.load(str(exported / "1")).signatures


def test_odd_strings_in_a_fresh_process_after_the_directories_were_moved(exported_family, tmp_path):
    moved = []
    for model_type in ("bert", "roberta"):
        moved.append(tmp_path / f"moved {model_type}" / "7")
        shutil.copytree(exported_family(model_type) / "1", moved[-1])
    worker = Path(__file__).with_name("fuzz_worker.py")
    command = [sys.executable, worker, "1000", *moved]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1000", "1000"]


@pytest.mark.parametrize(
    "model_type", ["bert", "roberta", *(pytest.param(m, marks=pytest.mark.slow) for m in ("distilbert", "electra"))]
)
def test_every_family_is_exported_with_the_live_encoders_numbers(exported_family, model_type):
    from simcse_tf.formats import presets

    directory = exported_family(model_type)
    live = load_encoder(presets.locate(str(directory.parent / "sources" / model_type)), EncoderConfig("cls", "none"))
    client = Client(directory)
    np.testing.assert_allclose(client.encode(TEXTS), live.encode(TEXTS), atol=1e-5)
    assert client.encode([]).shape == (0, client.dim)


class TestSignatures:
    def test_any_number_of_texts(self, signatures, encoder):
        for count in (0, 1, 7):
            texts = tf.constant(SENTENCES[:count], tf.string, shape=[count])
            assert signatures["serving_default"](text=texts)["embedding"].shape == (count, 16)
            assert signatures["similarity"](text_a=texts, text_b=texts)["score"].shape == (count,)
            assert signatures["tokens"](text=texts)["token_ids"].shape[0] == count

    def test_similarity_is_the_cosine(self, signatures, encoder):
        a, b = SENTENCES[:6], SENTENCES[30:36]
        score = signatures["similarity"](text_a=tf.constant(a), text_b=tf.constant(b))["score"]
        np.testing.assert_allclose(score, (encoder.encode(a) * encoder.encode(b)).sum(axis=1), atol=1e-5)

    @pytest.mark.parametrize("name", ["query", "passage"])
    def test_a_prompt_has_a_signature_that_puts_it_before_each_text(self, signatures, encoder, name):
        found = signatures[name](text=tf.constant([*TEXTS, b"\xff dog"]))["embedding"]
        prompt = PROMPTS[f"{name}_prompt"]
        written_out = signatures["serving_default"](text=tf.constant([prompt.encode() + b"\xff dog"]))["embedding"]
        np.testing.assert_allclose(found[:-1], encoder.encode([prompt + text for text in TEXTS]), atol=1e-5)
        np.testing.assert_allclose(found[-1:], written_out, atol=1e-6)

    def test_an_encoder_without_prompts_has_no_signatures_for_them(self, exported_family):
        signatures = tf.saved_model.load(str(exported_family("bert") / "1")).signatures
        assert set(signatures) == {"serving_default", "similarity", "tokens", "int8", "binary"}

    @pytest.mark.parametrize(("dtype", "length"), [("int8", 16), ("binary", 2)])
    def test_fewer_bits_are_strings_of_as_many_bytes(self, signatures, encoder, dtype, length):
        for name in (None, "query"):
            vectors = encoder.encode(TEXTS, prompt_name=name)
            outputs = signatures[compact.signature_of(name, dtype)](text=tf.constant(TEXTS))
            rows = outputs[f"embedding_{dtype}_bytes"].numpy()
            assert {len(row) for row in rows} == {length}
            assert np.mean(compact.from_bytes(rows, dtype) != compact.quantized(vectors, dtype)) < 0.02
        assert signatures[dtype](text=tf.constant([], tf.string))[f"embedding_{dtype}_bytes"].shape == (0,)

    def test_tokens_are_what_the_encoder_saw(self, signatures, encoder):
        run = tf.function(lambda text: tokenize(encoder.tokenizer, text, max_length=encoder.max_length))
        expected = run(tf.constant([*TEXTS, "dog " * 500]))
        found = signatures["tokens"](text=tf.constant([*TEXTS, "dog " * 500]))
        assert set(found) == {"token_ids", "padding_mask"}
        for name in found:
            np.testing.assert_array_equal(found[name], expected[name])
        assert found["token_ids"].shape[1] == encoder.max_length

    def test_what_follows_a_nul_is_read(self, signatures):
        ids = signatures["tokens"](text=tf.constant([b"a dog\x00 runs", b"a dog runs"]))["token_ids"]
        np.testing.assert_array_equal(ids[0], ids[1])


CUT = EncoderConfig("avg", "none", matryoshka=(16, 8, 5), dim=8)


class TestCut:
    """An encoder that keeps the first numbers of its vectors."""

    @pytest.fixture(scope="class")
    def cut(self, tiny_origin):
        return load_encoder(tiny_origin, CUT)

    def test_it_is_exported_and_checked_as_any_other(self, cut, encoder, tmp_path):
        version = savedmodel.export(cut, tmp_path / "cut")
        client = Client(tmp_path / "cut")
        assert (client.dim, client.sizes) == (8, (5,))
        np.testing.assert_allclose(client.encode(TEXTS), compact.shortened(encoder.encode(TEXTS), 8), atol=1e-5)
        card = (version / "README.md").read_text("utf-8")
        assert "vectors of 8 numbers" in card
        assert "first 8 of 16 numbers" in card
        assert "cut to the first 5 numbers" in card

    @pytest.mark.parametrize("dtype", ["int8", "binary"])
    def test_a_difference_is_found_in_fewer_bits_too(self, encoder, dtype):
        live = encoder.encode(TEXTS)
        answer = compact.quantized(live, dtype).view("uint8").astype(int)
        assert savedmodel._difference(live, answer, dtype) == 0
        answer[1, 1] ^= 64
        assert savedmodel._difference(live, answer, dtype) > 1e-3


class TestServerFiles:
    def test_warm_up_requests_are_read_by_the_published_protos_and_can_be_replayed(self, exported, signatures):
        log = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2", reason="needs tensorflow-serving-api")
        path = exported / "1" / "assets.extra" / "tf_serving_warmup_requests"
        records = [log.PredictionLog.FromString(r.numpy()) for r in tf.data.TFRecordDataset(str(path))]
        sizes = {}
        for record in records:
            assert record.WhichOneof("log_type") == "predict_log"
            request = record.predict_log.request
            assert request.model_spec.name == "tiny"
            name = request.model_spec.signature_name
            inputs = {key: tf.constant(tf.make_ndarray(tensor)) for key, tensor in request.inputs.items()}
            (answer,) = signatures[name](**inputs).values()
            sizes.setdefault(name, []).append(answer.shape[0])
        assert sizes == {name: [1, 8, 32, 64] for name in set(signatures) - {"similarity", "tokens"}}

    def test_the_servers_configuration_is_read_by_the_published_protos(self, exported):
        config = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2", reason="see above")
        from google.protobuf import text_format

        parsed = text_format.Parse((exported / "models.config").read_text("utf-8"), config.ModelServerConfig())
        (model,) = parsed.model_config_list.config
        assert (model.name, model.base_path, model.model_platform) == ("tiny", "/models/tiny", "tensorflow")
        assert model.model_version_policy.latest.num_versions == 1

    def test_what_people_edited_is_kept(self, tmp_path):
        server_files.write_configuration(tmp_path)
        (tmp_path / "models.config").write_text("mine", "utf-8")
        server_files.write_configuration(tmp_path)
        assert (tmp_path / "models.config").read_text("utf-8") == "mine"
        assert "max_batch_size" in (tmp_path / "batching_params.pbtxt").read_text("utf-8")


class TestExport:
    def test_an_operation_that_the_server_lacks_stops_the_export(self, encoder, tmp_path, monkeypatch):
        import tensorflow_text

        def trim(tokenizer, text, *, max_length):
            words = tensorflow_text.WhitespaceTokenizer().tokenize(text)
            (trimmed,) = tensorflow_text.RoundRobinTrimmer(max_length).trim([words])
            return {"token_ids": tf.strings.to_hash_bucket_fast(trimmed.to_tensor(""), 50)}

        monkeypatch.setattr(savedmodel, "tokenize", trim)
        with pytest.raises(
            UserError, match=r"'TFText>RoundRobinTrim', which tensorflow/serving 2\.19 does not know"
        ) as e:
            savedmodel.export(encoder, tmp_path / "planted")
        assert "`target_serving` 2.20 has it" in str(e.value)
        assert list((tmp_path / "planted").iterdir()) == []

    def test_a_difference_from_the_live_model_is_found_in_the_signature_of_a_prompt_too(
        self, encoder, exported, monkeypatch
    ):
        right = encoder.encode

        def encode(texts, prompt_name=None):
            return right(texts, prompt_name=prompt_name) + np.float32(1e-3 * (prompt_name == "passage"))

        monkeypatch.setattr(encoder, "encode", encode)
        with pytest.raises(UserError, match=r"differs from the live one by 1\.0\de-03 \(allowed: 1e-05\)"):
            savedmodel._check(encoder, exported / "1", SENTENCES[:3])

    def test_the_card_tells_where_the_encoder_comes_from(self, exported_family):
        card = (exported_family("roberta") / "1" / "README.md").read_text("utf-8")
        for part in (
            "# roberta\n",
            "RobertaBackbone",
            "| pooling | cls |",
            "| tensorflow | 2.",
            "Not trained here: `roberta`",
        ):
            assert part in card
        assert "/tmp" not in card
