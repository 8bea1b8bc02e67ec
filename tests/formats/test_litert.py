"""LiteRT directories: the live encoder's vectors, without TensorFlow."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from benchmarks import tiny
from simcse_tf import loading
from simcse_tf.config import EncoderConfig
from simcse_tf.errors import UserError
from simcse_tf.formats import litert as format
from simcse_tf.formats import presets
from simcse_tf.formats.encoders import load_encoder
from simcse_tf.serving.client import Client
from simcse_tf.serving.embedder import Embedder
from tests.conftest import PROMPTS, SENTENCES, VOCABULARY
from tests.formats.tiny_encoders import TEXTS, distance, encoder_of

ODD = ["", " ", "dog\x00cat", "dog \ud800", "\U0001f600 caf\u00e9", "dog " * 5000, "\ufffd\u200b\x07"]


@pytest.fixture(scope="module")
def encoder(tiny_origin):
    return load_encoder(tiny_origin, EncoderConfig("avg", "none", **PROMPTS))


@pytest.fixture(scope="module")
def client(litert):
    return Client(litert)


@pytest.mark.parametrize(
    ("model_type", "config"),
    [
        ("distilbert", EncoderConfig("cls", "always")),
        ("roberta", EncoderConfig("avg_top2", "none", matryoshka=(8, 4, 2), dim=4)),
        ("xlm-roberta", EncoderConfig("avg_first_last", "train_only")),
    ],
)
def test_every_kind_of_tokenizer_pooler_and_head_is_exported(tmp_path, model_type, config):
    encoder = encoder_of(tmp_path, model_type, config)
    exported = format.export(encoder, tmp_path / "litert")
    client = Client(exported)
    np.testing.assert_allclose(client.encode(TEXTS), encoder.encode(TEXTS), atol=1e-5)
    assert (client.dim, client.sizes) == (encoder.dim, encoder.sizes)


@pytest.fixture(scope="module")
def wider_encoder(tmp_path_factory):
    """Its matrices are large enough that the converter quantises them: 1,024 numbers at least."""
    directory = tmp_path_factory.mktemp("wider") / "preset"
    tiny.make_preset(directory, VOCABULARY, layers=2, dim=64)
    return load_encoder(presets.locate(str(directory)), EncoderConfig("avg", "none"))


@pytest.mark.parametrize(("quantize", "largest", "size"), [("float16", 1e-5, 0.6), ("int8", 0.01, 0.4)])
def test_keras_export_quantises(wider_encoder, tmp_path, quantize, largest, size):
    exported = wider_encoder.export(tmp_path / "litert", format="litert", quantize=quantize)
    assert distance(Client(exported).encode(SENTENCES), wider_encoder.encode(SENTENCES)) < largest
    float32 = 4 * wider_encoder.backbone.count_params()
    assert (exported / "model.tflite").stat().st_size < size * float32
    card = (exported / "README.md").read_text("utf-8")
    assert f"| weights | {quantize}" in card
    assert "| Spearman x 100 on the bundled pairs, before export | " in card


def test_what_a_text_becomes_does_not_depend_on_the_others(client):
    together = client.encode(SENTENCES, batch_size=7)
    np.testing.assert_allclose(together, [client.encode(text) for text in SENTENCES], atol=1e-6)
    np.testing.assert_array_equal(together[::-1], client.encode(SENTENCES[::-1]))
    assert client.encode([]).shape == (0, client.dim)


def test_odd_texts_become_what_the_live_encoder_makes_of_them(client, encoder):
    np.testing.assert_allclose(client.encode(ODD), encoder.encode(ODD), atol=1e-5)


@pytest.mark.parametrize("name", ["query", "passage"])
def test_a_prompt_is_put_before_each_text_when_it_is_named(litert, client, encoder, name):
    expected = encoder.encode([PROMPTS[f"{name}_prompt"] + text for text in ODD])
    np.testing.assert_allclose(client.encode(ODD, prompt_name=name), expected, atol=1e-5)
    embedder = Embedder(litert, threads=1)
    np.testing.assert_allclose(embedder.encode(ODD[4], prompt_name=name), expected[4], atol=1e-5)


def test_a_prompt_that_the_model_does_not_have_is_refused(litert, tmp_path):
    with pytest.raises(ValueError, match="prompt_name 'document': expected query or passage"):
        Embedder(litert, threads=1).encode("a dog", prompt_name="document")
    # As a version that knew no prompts has written it.
    copy = shutil.copytree(litert, tmp_path / "copy")
    about = json.loads((copy / "encoder.json").read_text("utf-8"))
    assert {name: about.pop(name) for name in PROMPTS} == PROMPTS
    (copy / "encoder.json").write_text(json.dumps(about), "utf-8")
    with pytest.raises(ValueError, match="prompt_name 'query': this model has no prompts"):
        Embedder(copy, threads=1).encode("a dog", prompt_name="query")
    with pytest.raises(UserError, match="`prompt_name` query: this model has no prompts"):
        Client(copy).encode("a dog", prompt_name="query")


@pytest.mark.parametrize("texts", [[b"bytes"], ["a", None], b"bytes", [["a"]]])
def test_what_is_no_string_is_refused(litert, texts):
    with pytest.raises(TypeError, match=r"text \d is of type \w+, not a string"):
        Embedder(litert, threads=1).encode(texts)


def test_the_directory_has_these_files_and_no_others(litert):
    names = {"README.md", "embedder.py", "encoder.json", "model.tflite", "tokenizer.json"}
    assert {path.name for path in litert.iterdir()} == names


def test_no_directory_need_be_writable(litert, monkeypatch):
    monkeypatch.setattr("tempfile.TemporaryFile", Path("/nowhere/file").open)
    assert Embedder(litert, threads=1).encode("a dog").shape == (16,)


def test_one_thread_has_one_copy_of_the_weights(litert, monkeypatch):
    made = []
    right = Interpreter.__init__
    monkeypatch.setattr(Interpreter, "__init__", lambda self, *a, **k: (made.append(self), right(self, *a, **k))[1])
    embedder = Embedder(litert, threads=1)
    np.testing.assert_allclose(embedder.encode(SENTENCES)[0], embedder.encode(SENTENCES[0]), atol=1e-6)
    assert len(made) == 1


def test_threads_share_it(litert):
    embedder = Embedder(litert, threads=3)
    expected = embedder.encode(SENTENCES)
    with ThreadPoolExecutor(8) as pool:
        for vectors in pool.map(lambda _: embedder.encode(SENTENCES), range(32)):
            np.testing.assert_array_equal(vectors, expected)
        for vector in pool.map(lambda _: embedder.encode(SENTENCES[3]), range(64)):
            np.testing.assert_allclose(vector, expected[3], atol=1e-6)


_WITHOUT_TENSORFLOW = """
import json, sys
for name in ("tensorflow", "keras", "keras_hub", "tensorflow_text"):
    sys.modules[name] = None  # importing it fails
import simcse_tf
from simcse_tf import encode, evaluate
directory, texts = sys.argv[1:]
model = simcse_tf.load(directory)
model.build_index(texts)
encode.main([directory, "--input", texts, "--output", "vectors.npy"])
evaluate.main([directory, "--output", "scores.json"])
json.dump([model.search("a dog", threshold=-1)[0][0], model.encode("a dog").tolist()], sys.stdout)
"""


def test_no_command_needs_tensorflow_for_it(litert, encoder, tmp_path, sentences_file):
    command = [sys.executable, "-c", _WITHOUT_TENSORFLOW, str(litert), str(sentences_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "INFO" not in done.stderr
    found, vector = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(vector, encoder.encode("a dog"), atol=1e-5)
    assert found in SENTENCES
    np.testing.assert_allclose(np.load(tmp_path / "vectors.npy"), encoder.encode(SENTENCES), atol=1e-5)
    assert json.loads((tmp_path / "scores.json").read_text())["scores"]["bundled"] is not None


def test_the_directory_alone_is_a_program_wherever_it_is_put(litert, encoder, tmp_path):
    moved = shutil.copytree(litert, tmp_path / "else where")
    text = b"a dog sleeps\n\ndog \xff\n"
    # -I: the package cannot be found from there.
    for arguments, prompt in ([], ""), (["passage"], PROMPTS["passage_prompt"]):
        command = [sys.executable, "-I", str(moved / "embedder.py"), *arguments]
        done = subprocess.run(command, input=text, capture_output=True, check=False, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, b"")
        vectors = [json.loads(line) for line in done.stdout.splitlines()]
        written_out = [prompt + line for line in ("a dog sleeps", "", "dog \ufffd")]
        np.testing.assert_allclose(vectors, encoder.encode(written_out), atol=1e-5)


_FORKED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from embedder import Embedder
embedder, texts = Embedder(threads=2), ["a dog"] * 50
expected = embedder.encode(texts)
if child := os.fork():
    sys.exit(os.waitpid(child, 0)[1])
signal.alarm(60)
os._exit(not (embedder.encode(texts) == expected).all())
"""


def test_a_forked_process_has_interpreters_of_its_own(litert):
    done = subprocess.run([sys.executable, "-c", _FORKED, str(litert)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_directory_alone_says_how_it_is_used_and_stops_when_nobody_reads(litert):
    command = [sys.executable, "-I", str(litert / "embedder.py")]
    done = subprocess.run([*command, "a.txt"], capture_output=True, text=True, check=False)
    usage = "usage: python embedder.py [query|passage] < sentences.txt > vectors.jsonl\n"
    assert (done.returncode, done.stderr) == (1, usage)
    pipe = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    pipe.stdout.close()
    pipe.stdin.write(b"a dog\n" * 5000)
    pipe.stdin.close()
    assert (pipe.wait(60), pipe.stderr.read()) == (0, b"")


class TestDamage:
    @pytest.fixture
    def copy(self, litert, tmp_path):
        return shutil.copytree(litert, tmp_path / "copy")

    @pytest.mark.parametrize("name", ["model.tflite", "tokenizer.json", "encoder.json"])
    def test_a_file_that_is_missing_is_named(self, copy, name):
        (copy / name).unlink()
        with pytest.raises(UserError, match=f"copy/{name}: no such file"):
            loading.load(str(copy))

    @pytest.mark.parametrize("name", ["model.tflite", "tokenizer.json", "encoder.json"])
    def test_a_file_that_is_cut_off_is_named(self, copy, name):
        (copy / name).write_bytes((copy / name).read_bytes()[:-50])
        with pytest.raises(UserError, match=f"copy/{name}: "):
            loading.load(str(copy))

    def test_another_models_tokenizer_is_named(self, copy, tmp_path):
        about = json.loads((copy / "tokenizer.json").read_text("utf-8"))
        about["truncation"]["max_length"] = 5
        (copy / "tokenizer.json").write_text(json.dumps(about), "utf-8")
        with pytest.raises(UserError, match="copy/tokenizer.json: is not the file that was exported with this model"):
            loading.load(str(copy))

    def test_a_model_that_is_replaced_while_it_is_in_use_is_not_mixed_with_the_old_one(self, copy):
        embedder = Embedder(copy, threads=2)
        embedder.encode("a dog")
        (copy / "model.tflite").write_bytes((copy / "model.tflite").read_bytes())
        assert embedder.encode("a dog").shape == (16,)
        # Several texts have other interpreters, which are made now.
        with pytest.raises(ValueError, match=r"model.tflite: was replaced after it was loaded"):
            embedder.encode(SENTENCES)

    def test_a_model_of_something_else_is_named(self, copy):
        about = json.loads((copy / "encoder.json").read_text("utf-8"))
        (copy / "model.tflite").write_bytes(b"TFL3" * 100)
        del about["sha256"]["model.tflite"]
        (copy / "encoder.json").write_text(json.dumps(about), "utf-8")
        with pytest.raises(UserError, match="copy/model.tflite: cannot be loaded"):
            loading.load(str(copy))

    def test_a_missing_package_is_named_with_its_extra(self, litert, monkeypatch):
        monkeypatch.setattr("simcse_tf.checks.importlib.util.find_spec", lambda name: None)
        with pytest.raises(UserError, match=r"ai-edge-litert, which is not installed.*simcse-tf\[litert\]"):
            loading.load(str(litert))


class TestCheck:
    def test_a_model_that_differs_from_the_live_one_is_not_written(self, litert, encoder, tmp_path, monkeypatch):
        monkeypatch.setattr(format, "convert", lambda *_: (litert / "model.tflite").read_bytes())
        right = format.fast_tokenizer
        monkeypatch.setattr(format, "fast_tokenizer", lambda tokenizer, max_length: right(tokenizer, max_length=4))
        with pytest.raises(UserError, match=r"a cosine of .* \(allowed: 0.9999\).*It was not exported"):
            format.export(encoder, tmp_path / "litert")
        assert not (tmp_path / "litert").exists()

    def test_a_model_that_cannot_run_is_not_written(self, encoder, tmp_path, monkeypatch):
        monkeypatch.setattr(format, "convert", lambda *_: b"TFL3")
        with pytest.raises(UserError, match="does not run in a process without TensorFlow"):
            format.export(encoder, tmp_path / "litert")
        assert not (tmp_path / "litert").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "onnx"}, "`format` onnx: unknown"),
        ({"quantize": "int8"}, "`quantize` int8: only `format` litert has it"),
        ({"format": "litert", "quantize": "int4"}, "`quantize` int4: unknown"),
    ],
)
def test_keras_export_refuses_what_cannot_be(encoder, tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        encoder.export(tmp_path / "x", **arguments)
