"""An encoder of some of a preset's layers: what it computes, and that every format has it."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from simcse_tf import loading
from simcse_tf.config import EncoderConfig, choose_layers
from simcse_tf.errors import UserError
from simcse_tf.formats import huggingface, keras_hub, litert, presets
from simcse_tf.formats.encoders import SentenceEncoder, load_encoder, save_encoder
from simcse_tf.formats.families import FAMILIES
from tests.conftest import export_unchecked
from tests.formats import hugging_face_directories
from tests.formats.tiny_encoders import TEXTS

CONFIG = EncoderConfig("avg", "none")


@pytest.mark.parametrize("model_type", FAMILIES)
def test_it_computes_what_a_checkpoint_of_these_layers_does(tmp_path, model_type):
    directory = hugging_face_directories.write(tmp_path, model_type)
    origin = presets.locate(str(directory))
    assert presets.num_layers(origin) == 2
    student = load_encoder(origin, CONFIG, layers=(1,))
    np.testing.assert_array_equal(
        load_encoder(origin, CONFIG, layers=(0, 1)).encode(TEXTS), load_encoder(origin, CONFIG).encode(TEXTS)
    )
    assert student.backbone.num_layers == 1

    # The same of a checkpoint whose only layer is the first: a number alone means how many.
    config = json.loads((directory / "config.json").read_text("utf-8"))
    config[FAMILIES[model_type].sizes["num_layers"]] = 1
    (directory / "config.json").write_text(json.dumps(config), "utf-8")
    weights = load_file(directory / "model.safetensors")
    save_file({name: x for name, x in weights.items() if ".layer.1." not in name}, directory / "model.safetensors")
    expected = load_encoder(presets.locate(str(directory)), CONFIG)
    np.testing.assert_allclose(student.encode(TEXTS), expected.encode(TEXTS), atol=1e-6)


@pytest.fixture(scope="module")
def student(tiny_preset):
    return SentenceEncoder.from_preset(str(tiny_preset), pooling="avg", layers=(1,))


EXPORTS = {
    "a run's": save_encoder,
    "keras-hub": keras_hub.export,
    "Hugging Face": huggingface.export,
    "SavedModel": export_unchecked,
    "LiteRT": litert.export,
}


@pytest.mark.parametrize("name", EXPORTS)
def test_it_is_written_and_read_again(student, tmp_path, name):
    EXPORTS[name](student, tmp_path / "out")
    np.testing.assert_allclose(loading.load(str(tmp_path / "out")).encode(TEXTS), student.encode(TEXTS), atol=1e-5)
    if name in ("a run's", "keras-hub", "Hugging Face"):
        assert presets.num_layers(presets.locate(str(tmp_path / "out"))) == 1


@pytest.mark.parametrize(
    ("layers", "of", "places"),
    [
        ((3,), 6, (0, 2, 5)),
        ((1,), 6, (0,)),
        ((6,), 6, (0, 1, 2, 3, 4, 5)),
        ((6,), 12, (0, 2, 4, 7, 9, 11)),  # DistilBERT's choice of BERT's
        ((1, 3, 5), 6, (1, 3, 5)),
    ],
)
def test_a_number_of_layers_is_spread_evenly(layers, of, places):
    assert choose_layers(layers, of, "it") == places


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((7,), r"`layers` 7: must be at least 1 and at most 6 \(it has 6\)"),
        ((0,), "`layers` 0: must be at least 1"),
        ((0, 6), "`layers` 0 6: expected places from 0 to 5 in rising order"),
        ((2, 2), "`layers` 2 2: expected places"),
        ((3, 1), "`layers` 3 1: expected places"),
        ((-1, 2), "`layers` -1 2: expected places"),
    ],
)
def test_layers_that_are_not_there_are_refused(layers, message):
    with pytest.raises(UserError, match=message):
        choose_layers(layers, 6, "it")
