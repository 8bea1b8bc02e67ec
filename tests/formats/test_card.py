import json

import pytest

from simcse_tf.config import EncoderConfig, TrainConfig
from simcse_tf.formats import card, huggingface, keras_hub
from simcse_tf.formats.encoders import load_encoder, save_encoder


@pytest.fixture
def run(tiny_origin, tmp_path):
    """A run that was trained and measured by [CLS] without a head."""
    directory = tmp_path / "run"
    save_encoder(load_encoder(tiny_origin, EncoderConfig("cls", "none")), directory / "checkpoints" / "best")
    (directory / "config.json").write_text(TrainConfig(pooling="cls", head="none").to_json(), "utf-8")
    metrics = [{"step": 0, "dev": 60.0}, {"step": 3, "loss": 1.0}, {"step": 5, "dev": 70.25}, {"step": 9, "dev": 65.0}]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics), "utf-8")
    return directory


def write(origin, config, directory, run):
    directory.mkdir(exist_ok=True)
    card.write(load_encoder(origin, config), directory, name="model", source=str(run))
    return (directory / card.CARD_FILE).read_text("utf-8")


def test_the_score_is_this_models_only_if_it_makes_its_vectors_as_the_run_did(tiny_origin, tmp_path, run):
    # [CLS] without a head under its two names, and the maximum length that is the default.
    for config in (
        EncoderConfig("cls", "none"),
        EncoderConfig("cls", "train_only", 32),
        EncoderConfig("cls_before_pooler", "always"),
    ):
        written = write(tiny_origin, config, tmp_path / "a", run)
        assert "| step 5 (this model) | 70.25 |" in written
        assert "not measured" not in written
    for config, own in (
        (EncoderConfig("avg", "none"), "pooling avg, no head and at most 32 tokens"),
        (EncoderConfig("cls", "always"), "pooling cls, the head and at most 32 tokens"),
        (EncoderConfig("cls", "none", 8), "pooling cls, no head and at most 8 tokens"),
    ):
        written = write(tiny_origin, config, tmp_path / "a", run)
        assert "| step 5 | 70.25 |" in written
        assert "this model)" not in written
        assert "Measured with pooling cls, no head and at most 32 tokens." in written
        assert f"This model, with {own}, was not measured." in written


def test_the_recipe_is_the_runs(tiny_origin, tmp_path, run):
    written = write(tiny_origin, EncoderConfig("cls", "none"), tmp_path / "a", run)
    assert "| learning_rate | " in written
    assert "| before training | 60.00 |" in written


def test_the_library_is_the_one_that_loads_the_directory(tiny_origin, tmp_path):
    encoder = load_encoder(tiny_origin, EncoderConfig("avg", "none"))
    for export, library in ((huggingface.export, "sentence-transformers"), (keras_hub.export, "keras-hub")):
        written = (export(encoder, tmp_path / library, source="here") / card.CARD_FILE).read_text("utf-8")
        assert written.startswith(f"---\nlibrary_name: {library}\n")
        assert f"# {library}\n" in written


def test_the_prompts_are_shown_with_what_adds_them(tiny_origin, tmp_path, exported, litert):
    assert "The signatures `query` and `passage` do that" in (exported / "1" / card.CARD_FILE).read_text("utf-8")
    assert 'encode(texts, prompt_name="query")` does that' in (litert / card.CARD_FILE).read_text("utf-8")
    encoder = load_encoder(tiny_origin, EncoderConfig("avg", "none", query_prompt="a\n| `b`: "))
    written = (keras_hub.export(encoder, tmp_path / "preset") / card.CARD_FILE).read_text("utf-8")
    assert '\n    "a\\n| `b`: "\n    ""\n\nNothing here does that' in written
    card.write(load_encoder(tiny_origin), tmp_path, name="model", source="")
    assert "Prompts" not in (tmp_path / card.CARD_FILE).read_text("utf-8")


def test_a_saved_model_names_no_library(exported):
    """The hub's tf-keras is Keras 2's loader, which cannot use these signatures."""
    assert "library_name" not in (exported / "1" / card.CARD_FILE).read_text("utf-8")
