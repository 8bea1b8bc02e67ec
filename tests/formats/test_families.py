import re
from pathlib import Path

import keras_hub
import numpy as np
import pytest

from simcse_tf.config import EncoderConfig
from simcse_tf.formats import families, presets, safetensors
from simcse_tf.formats.encoders import load_encoder
from simcse_tf.models import backbone
from tests.conftest import SENTENCES
from tests.formats import hugging_face_directories

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("model_type", families.FAMILIES)
def test_a_row_names_classes_of_keras_hub_and_parts_of_a_layer(model_type):
    family = families.FAMILIES[model_type]
    for kind in ("Backbone", "Tokenizer"):
        assert hasattr(keras_hub.models, family.keras_hub + kind)
    assert tuple(family.layer) == backbone.TransformerLayer._fields
    assert families.of_backbone(object()) is None


def test_the_row_that_contributing_shows_is_a_whole_family(tmp_path, monkeypatch):
    section = (ROOT / "CONTRIBUTING.md").read_text("utf-8").split("## A model family")[1]
    rows = re.findall(r"^\+(.*)$", section, re.MULTILINE)
    ((model_type, family),) = eval("{" + "\n".join(rows) + "}", vars(families)).items()
    monkeypatch.setitem(families.FAMILIES, model_type, family)

    # The family has RoBERTa's architecture and tokenizer, and a prefix of its own.
    roberta = hugging_face_directories.write(tmp_path / "roberta", "roberta")
    other = hugging_face_directories.write(tmp_path / "other", "roberta", prefix=False)
    weights = safetensors.load(roberta / "model.safetensors")
    renamed = {re.sub(r"^roberta\.", family.prefix, name): value for name, value in weights.items()}
    assert renamed.keys() != weights.keys()
    safetensors.save(renamed, other / "model.safetensors")
    config = (other / "config.json").read_text("utf-8").replace('"roberta"', f'"{model_type}"')
    (other / "config.json").write_text(config, "utf-8")
    ours, expected = (load_encoder(presets.locate(str(d)), EncoderConfig("avg", "none")) for d in (other, roberta))
    np.testing.assert_array_equal(ours.encode(SENTENCES), expected.encode(SENTENCES))
