"""What an export for MediaPipe refuses; what MediaPipe makes of one is in tests/interop."""

import importlib.util
import json
import shutil
import zipfile

import pytest

from simcse_tf import export, loading
from simcse_tf.errors import UserError
from simcse_tf.formats import mediapipe, presets
from tests.formats import hugging_face_directories


@pytest.fixture
def without_mediapipe(monkeypatch):
    found = importlib.util.find_spec

    def find_spec(name):
        return None if name == "mediapipe" else found(name)

    monkeypatch.setattr("importlib.util.find_spec", find_spec)


def test_a_tokenizer_that_mediapipe_does_not_have_is_refused(tmp_path):
    directory = hugging_face_directories.write(tmp_path / "x", "roberta")
    with pytest.raises(UserError, match="RobertaTokenizer.*WordPiece.*`format` litert"):
        mediapipe.check_origin(presets.locate(str(directory)))


def test_cased_encoders_are_refused(tmp_path, tiny_preset):
    hugging_face = hugging_face_directories.write(tmp_path / "x", "bert")
    (hugging_face / "tokenizer_config.json").write_text('{"do_lower_case": false}', "utf-8")
    keras_hub = tmp_path / "y"
    shutil.copytree(tiny_preset, keras_hub)
    about = json.loads((keras_hub / "tokenizer.json").read_text("utf-8"))
    about["config"]["lowercase"] = False
    (keras_hub / "tokenizer.json").write_text(json.dumps(about), "utf-8")
    for directory in (hugging_face, keras_hub):
        with pytest.raises(UserError, match="distinguishes upper and lower case.*`format` litert"):
            mediapipe.check_origin(presets.locate(str(directory)))


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "electra"])
def test_wordpiece_encoders_lack_nothing_but_mediapipe(tmp_path, model_type, without_mediapipe):
    directory = hugging_face_directories.write(tmp_path / "x", model_type)
    with pytest.raises(UserError, match=r"pip install 'simcse-tf\[mediapipe\]'"):
        mediapipe.check_origin(presets.locate(str(directory)))


def test_the_command_says_that_mediapipe_is_missing_before_tensorflow_is_imported(
    tmp_path, tiny_preset, without_mediapipe, monkeypatch
):
    def imported():
        raise AssertionError("TensorFlow was imported")

    monkeypatch.setattr("simcse_tf.quiet.import_tensorflow", imported)
    with pytest.raises(UserError, match=r"pip install 'simcse-tf\[mediapipe\]'"):
        export.main([str(tiny_preset), "--to", str(tmp_path / "x"), "--format", "mediapipe", "--quantize", "int8"])
    assert not (tmp_path / "x").exists()


def test_a_model_for_mediapipe_is_not_taken_for_one_of_litert(tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"\x1c\x00\x00\x00TFL3")
    with zipfile.ZipFile(tmp_path / "model.tflite", "a") as packed:
        packed.writestr("vocab.txt", "[PAD]\n")
    with pytest.raises(UserError, match=f"{tmp_path}: is a model for MediaPipe.*`format` litert"):
        loading.load(str(tmp_path))
