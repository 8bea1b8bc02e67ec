import json

import numpy as np
import pytest

from simcse_tf.config import EncoderConfig
from simcse_tf.errors import UserError
from simcse_tf.formats import huggingface, presets
from simcse_tf.formats.encoders import load_encoder
from simcse_tf.formats.safetensors import load, save
from tests.conftest import SENTENCES
from tests.formats import hugging_face_directories
from tests.formats.tiny_encoders import encoder_of


def test_sentence_transformers_directories_say_how_they_pool(tmp_path):
    directory = hugging_face_directories.write(tmp_path, "bert")
    (directory / "1_Pooling").mkdir()
    pooling = directory / "1_Pooling" / "config.json"
    pooling.write_text('{"pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true}', "utf-8")
    (directory / "sentence_bert_config.json").write_text('{"max_seq_length": 12}', "utf-8")
    assert presets.locate(str(directory)).config == EncoderConfig("avg", "none", 12)
    pooling.write_text('{"pooling_mode_max_tokens": true}', "utf-8")
    with pytest.raises(UserError, match="max_tokens"):
        presets.locate(str(directory))


def test_pooling_over_several_layers_has_no_counterpart(tmp_path):
    encoder = encoder_of(tmp_path, "bert", EncoderConfig("avg_first_last", "none"))
    with pytest.raises(UserError, match="`pooling` avg_first_last .* sentence-transformers has no counterpart"):
        huggingface.export(encoder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


class TestPrompts:
    @staticmethod
    def saved(directory):
        return json.loads((directory / "config_sentence_transformers.json").read_text("utf-8"))

    @pytest.fixture
    def directory(self, tmp_path):
        config = EncoderConfig("avg", "none", query_prompt="query: ", passage_prompt="passage: ")
        return huggingface.export(encoder_of(tmp_path, "bert", config), tmp_path / "out")

    def test_they_come_back_and_are_written_under_the_names_that_the_library_looks_for(self, directory):
        # Its encode_document takes the prompt named document, which it knows as an empty one, before one named passage.
        assert self.saved(directory)["prompts"] == {"query": "query: ", "passage": "passage: ", "document": "passage: "}
        origin = presets.locate(str(directory))
        assert origin.config is not None
        assert origin.config.prompts == {"query": "query: ", "passage": "passage: "}

    def test_without_any_there_is_no_file(self, tmp_path):
        directory = huggingface.export(encoder_of(tmp_path, "bert", EncoderConfig("avg", "none")), tmp_path / "out")
        assert not (directory / "config_sentence_transformers.json").exists()

    @pytest.mark.parametrize(
        ("prompts", "expected"),
        [
            ({"query": "q: ", "document": "", "passage": "p: ", "corpus": "c: "}, {"query": "q: ", "passage": "p: "}),
            ({"query": "", "document": "d: ", "clustering": "c: "}, {"query": "", "passage": "d: "}),
            ({"query": "", "document": ""}, {}),
            ({"s2p_query": "q: "}, {}),
            (None, {}),
        ],
    )
    def test_the_names_that_others_use_are_read(self, directory, prompts, expected):
        file = directory / "config_sentence_transformers.json"
        file.write_text(json.dumps({"prompts": prompts, "default_prompt_name": "query"}), "utf-8")
        origin = presets.locate(str(directory))
        assert origin.config is not None
        assert origin.config.prompts == expected

    def test_prompts_that_cannot_be_used_are_refused(self, directory):
        pooling = directory / "1_Pooling" / "config.json"
        about = json.loads(pooling.read_text("utf-8"))
        pooling.write_text(json.dumps(about | {"include_prompt": False}), "utf-8")
        with pytest.raises(UserError, match=r"1_Pooling/config\.json: include_prompt is false"):
            presets.locate(str(directory))
        (directory / "config_sentence_transformers.json").write_text('{"prompts": {"query": 5}}', "utf-8")
        with pytest.raises(UserError, match=r"config_sentence_transformers\.json: prompts: expected an object of str"):
            presets.locate(str(directory))


class TestCut:
    """An encoder that keeps the first numbers of its vectors: a Dense module before Normalize does that."""

    @pytest.fixture(params=["none", "always"])
    def encoder(self, tmp_path, request):
        return encoder_of(tmp_path, "bert", EncoderConfig("cls", request.param, matryoshka=(8, 4, 2), dim=4))

    def test_it_comes_back(self, encoder, tmp_path):
        origin = presets.locate(str(huggingface.export(encoder, tmp_path / "out")))
        assert origin.config is not None
        assert (origin.config.dim, origin.config.matryoshka) == (4, (4, 2))
        np.testing.assert_allclose(load_encoder(origin).encode(SENTENCES), encoder.encode(SENTENCES), atol=1e-6)
        card = (tmp_path / "out" / "README.md").read_text("utf-8")
        assert "truncate_dim=2" in card
        assert "normalize_embeddings=True" in card

    def test_a_dense_module_that_does_something_else_is_refused(self, encoder, tmp_path):
        directory = huggingface.export(encoder, tmp_path / "out")
        (file,) = [path for path in directory.glob("*_Dense/model.safetensors") if "linear.bias" not in load(path)]
        save({"linear.weight": 2 * load(file)["linear.weight"]}, file)
        with pytest.raises(UserError, match=r"_Dense/config\.json: this Dense module is neither SimCSE's head nor"):
            presets.locate(str(directory))


class TestModules:
    """Transformer, Pooling, SimCSE's head as Dense, Normalize; what else a directory does is refused."""

    @pytest.fixture
    def directory(self, tmp_path):
        return huggingface.export(encoder_of(tmp_path, "bert", EncoderConfig("cls", "always")), tmp_path / "out")

    @pytest.fixture
    def listed(self, directory):
        return json.loads((directory / "modules.json").read_text("utf-8"))

    @staticmethod
    def rewrite(directory, listed):
        (directory / "modules.json").write_text(json.dumps(listed), "utf-8")

    @pytest.mark.parametrize("kind", ["LayerNorm", "Dense", "CNN"])
    def test_a_module_that_would_be_left_out_is_named(self, directory, listed, kind):
        self.rewrite(directory, [*listed, {"path": "4_More", "type": f"sentence_transformers.models.{kind}"}])
        with pytest.raises(UserError, match=rf"modules\.json: the module {kind} "):
            presets.locate(str(directory))

    def test_the_order_counts(self, directory, listed):
        transformer, pooling, dense, normalize = listed
        self.rewrite(directory, [transformer, pooling, normalize, dense])
        with pytest.raises(UserError, match=r"modules\.json: the module Dense .*in this order"):
            presets.locate(str(directory))

    def test_other_places_of_the_same_modules_are_known(self, directory, listed):
        for module in listed:
            module["type"] = "sentence_transformers.base.modules." + module["type"].rpartition(".")[2]
        self.rewrite(directory, listed)
        assert presets.locate(str(directory)).config == EncoderConfig("cls", "always", 20)

    def test_a_list_without_types(self, directory):
        self.rewrite(directory, [{"path": ""}])
        with pytest.raises(UserError, match=r"modules\.json: not a list of modules"):
            presets.locate(str(directory))

    @pytest.mark.parametrize(
        "change",
        [
            {"activation_function": "torch.nn.modules.linear.Identity"},
            {"out_features": 4},
            {"bias": False},
            {"module_input_name": "token_embeddings"},
        ],
    )
    def test_a_dense_module_that_is_not_simcses_head_is_refused(self, directory, change):
        file = directory / "2_Dense" / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | change), "utf-8")
        with pytest.raises(UserError, match=r"config\.json: this Dense module is not SimCSE's head"):
            presets.locate(str(directory))
