import os
import stat
from pathlib import Path

import numpy as np
import pytest

from simcse_tf.config import EncoderConfig
from simcse_tf.formats import huggingface, keras_hub, safetensors
from simcse_tf.formats.encoders import load_encoder


@pytest.fixture(params=[0o022, 0o027])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_every_file_of_an_export_follows_the_umask(tmp_path, tiny_origin, umask):
    encoder = load_encoder(tiny_origin, EncoderConfig("cls", "always"))
    huggingface.export(encoder, tmp_path / "huggingface")
    keras_hub.export(encoder, tmp_path / "keras_hub")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"head.safetensors", "model.safetensors", "model.weights.h5"}
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask, path


def test_nothing_else_writes_such_files():
    package = Path(safetensors.__file__).parents[1]
    writers = [path.name for path in package.rglob("*.py") if "save_file(" in path.read_text("utf-8")]
    assert writers == ["safetensors.py"]


def test_arrays_of_any_layout_come_back(tmp_path):
    tensors = {"scalar": np.array(3.0, "float32"), "transposed": np.arange(6, dtype="float32").reshape(2, 3).T}
    safetensors.save(tensors, tmp_path / "file.safetensors", {"format": "pt"})
    for name, value in safetensors.load(tmp_path / "file.safetensors").items():
        assert value.shape == tensors[name].shape
        np.testing.assert_array_equal(value, tensors[name])
