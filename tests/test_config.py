import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from simcse_tf import train
from simcse_tf.config import RECIPES, EncoderConfig, TrainConfig, recipe
from simcse_tf.errors import UserError, did_you_mean


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json_and_is_valid(name):
    config = replace(
        recipe(name), columns=("a", "b"), layers=(0, 2), teach=("mask",), sts_dir=Path("x"), tfds_dir=Path("y")
    )
    assert TrainConfig.from_json(config.to_json()) == config
    recipe(name).validate()


def test_the_papers_hyperparameters():
    """Gao et al. 2021, appendix A."""
    table = {
        "unsup-bert-base": (64, 3e-5, 1),
        "unsup-bert-large": (64, 1e-5, 1),
        "unsup-roberta-base": (512, 1e-5, 1),
        "unsup-roberta-large": (512, 3e-5, 1),
        "sup-bert-base": (512, 5e-5, 3),
        "sup-bert-large": (512, 1e-5, 3),
        "sup-roberta-base": (512, 5e-5, 3),
        "sup-roberta-large": (512, 1e-5, 3),
    }
    assert {n: (c.batch_size, c.learning_rate, c.epochs) for n, c in RECIPES.items() if n != "quickstart"} == table
    for name in table:
        config = RECIPES[name]
        assert (config.max_length, config.temperature, config.dropout) == (32, 0.05, 0.1)
        assert (config.pooling, config.eval_every, config.clip_norm) == ("cls", 125, 1.0)
        assert config.head == ("train_only" if name.startswith("unsup") else "always")


def test_the_papers_recipes_have_the_papers_loss_and_the_default_masks_duplicates():
    masks = {name: config.mask_false_negatives for name, config in RECIPES.items()}
    assert masks.pop("quickstart")
    assert not any(masks.values())
    assert TrainConfig().mask_false_negatives


@pytest.mark.parametrize("max_length", [0, 1, 2, -5])
def test_an_encoder_needs_room_for_a_token(max_length):
    with pytest.raises(UserError, match=f"`max_length` {max_length}: must be at least 3"):
        EncoderConfig(max_length=max_length)
    assert EncoderConfig(max_length=3).max_length == 3


def test_an_encoder_needs_a_pooler_and_a_head_that_exist():
    with pytest.raises(UserError, match="`pooling` agv: unknown. Did you mean 'avg'"):
        EncoderConfig(pooling="agv")
    with pytest.raises(UserError, match="`head` both: unknown"):
        EncoderConfig(head="both")


class TestPrompts:
    def test_an_encoder_has_both_or_none(self):
        assert EncoderConfig().prompts == {}
        assert EncoderConfig(query_prompt="q: ").prompts == {"query": "q: ", "passage": ""}

    def test_files_of_an_encoder_without_are_as_they_were(self):
        config = EncoderConfig("avg", "none", 8)
        assert config.to_dict() == {"pooling": "avg", "head": "none", "max_length": 8}
        for other in (
            config,
            EncoderConfig(query_prompt="q: "),
            EncoderConfig(query_prompt="q\n", passage_prompt=" "),
        ):
            assert EncoderConfig.from_dict({**other.to_dict(), "sha256": {}}) == other

    def test_training_keeps_those_of_the_preset_unless_it_is_given_others(self):
        preset = EncoderConfig(query_prompt="q: ", passage_prompt="p: ")
        assert TrainConfig().encoder(preset).prompts == preset.prompts
        assert TrainConfig(passage_prompt="d: ").encoder(preset).prompts == {"query": "q: ", "passage": "d: "}
        assert TrainConfig(query_prompt="", passage_prompt="").encoder(preset).prompts == {}
        assert TrainConfig().encoder(None).prompts == TrainConfig().encoder().prompts == {}

    @pytest.mark.parametrize(
        ("prompt", "message"), [("caf\udce9 ", "is not valid UTF-8 .*character 3"), (5, "a string")]
    )
    def test_one_that_is_not_text_is_refused(self, prompt, message):
        with pytest.raises(UserError, match=f"`query_prompt` .*{message}"):
            TrainConfig(query_prompt=prompt).validate()
        with pytest.raises(UserError, match=f"`passage_prompt` .*{message}"):
            EncoderConfig(passage_prompt=prompt)


def test_every_preset_of_a_recipe_exists():
    from simcse_tf.formats import presets

    known = {"minilm", *presets.keras_hub_presets()}
    assert {c.preset for c in RECIPES.values()} <= known


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_the_defaults_of_the_flags(name):
    config = train.parse([name])
    assert config == replace(RECIPES[name], output_dir=Path("runs") / name)


def test_every_field_is_a_flag(capsys):
    with pytest.raises(SystemExit):
        train.parse(["--help"])
    shown = capsys.readouterr().out
    for field in fields(TrainConfig):
        assert "--" + field.name.replace("_", "-") in shown


def test_help_groups_the_flags_and_lists_the_recipes(capsys):
    with pytest.raises(SystemExit):
        train.parse(["--help"])
    shown = capsys.readouterr().out
    assert "[RECIPE]" in shown.splitlines()[0]
    assert all(f"  {name} " in shown for name in RECIPES)
    groups = re.findall(r"\W (\w+) options \W", shown)
    assert groups == ["model", "data", "objective", "teacher", "optimisation", "evaluation", "files", "compute"]
    assert shown.index("model options") < shown.index("--pooling") < shown.index("data options")
    assert "(default: )" not in shown
    assert "None}" not in shown


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooling": "clss"}, "`pooling` clss: unknown. Did you mean 'cls'"),
        ({"loss": "tripplet"}, "Did you mean 'triplet'?"),
        ({"batch_size": 0}, "`batch_size` 0: must be at least 1."),
        ({"batch_size": 1}, "`batch_size` 1: InfoNCE needs at least 2 rows"),
        ({"max_length": 2}, r"`max_length` 2: must be at least 3 \(\[CLS\], \[SEP\] and at least one token\)"),
        ({"dropout": 1.0}, "`dropout` 1.0: must be at least 0 and at most 0.99."),
        ({"temperature": 0.0}, "`temperature` 0.0: must be above 0."),
        ({"learning_rate": float("nan")}, "`learning_rate` nan: must be above 0."),
        ({"hard_negative_weight": float("inf")}, "`hard_negative_weight` inf: must be a finite number."),
        ({"max_steps": 0}, "`max_steps` 0: must be at least 1."),
        ({"pooling": "cls_before_pooler", "head": "always"}, "contradicts `head` always"),
        ({"overwrite": True, "resume": True}, "`overwrite` and `resume` contradict each other"),
        ({"loss": "cosent", "batch_size": 1}, "`batch_size` 1: CoSENT needs at least 2 rows"),
        ({"loss": "cosent", "hard_negative_weight": 1.0}, "`hard_negative_weight` 1: a part of `loss` infonce"),
        ({"loss": "triplet", "decoupled": True}, "`decoupled`: a part of `loss` infonce, not of triplet"),
        ({"loss": "cosent", "logits": "arccon"}, "`logits` arccon: a part of `loss` infonce, not of cosent"),
        ({"loss": "align_uniform", "negatives": ("queue",)}, "`negatives` queue: a part of `loss` infonce"),
        ({"loss": "align_uniform", "add": ("align_uniform",)}, "`add` align_uniform: it is the `loss` already"),
        ({"loss": "align_uniform", "batch_size": 1}, "`batch_size` 1: align_uniform needs at least 2 rows"),
        ({"loss": "cosent", "add": ("dimensions",)}, "`add` dimensions: needs positives"),
        ({"loss": "cosent", "word_repetition": 0.3}, "`word_repetition` 0.3: needs positives"),
        ({"word_repetition": 0.0}, "`word_repetition` 0.0: must be above 0 and at most 1"),
        ({"directions": ("p2a", "a2a")}, "`directions` p2a a2a: without a2p"),
        ({"directions": ("a2p", "a2p")}, "`directions` a2p a2p: one is given twice"),
        ({"directions": ("a2p", "p2q")}, "`directions` p2q: unknown. Did you mean 'p2"),
        ({"joint": True}, "`joint`: `directions` a2p is one direction"),
        ({"logits": "focul"}, "`logits` focul: unknown. Did you mean 'focal'"),
        ({"logits": "arccon:5"}, "`logits` 5.0: .*arccon"),
        ({"logits": "cosine:5"}, "`logits` cosine:5: cosine takes no number"),
        ({"negatives": ("mixed", "mixed:0.3")}, "`negatives` mixed mixed:0.3: mixed is given twice"),
        ({"negatives": ("queue:many",)}, "`negatives` queue:many: expected a number .*queue:160"),
        ({"negatives": ("queue:1.5",)}, "`negatives` 1.5: must be a whole number"),
        ({"negatives": ("off_dropout",), "dropout": 0.0}, "off_dropout and `dropout` 0: there is no dropout"),
        ({"negatives": ("off_dropout",), "dropout_masks": "same"}, "off_dropout and `dropout_masks` same"),
        ({"negatives": ("off_dropout",), "directions": ("a2p", "p2a")}, "off_dropout and `directions` a2p p2a"),
        ({"add": ("dimensions:0",)}, "`add` 0.0: must be above 0"),
    ],
)
def test_a_field_out_of_its_range_is_named_with_what_it_may_be(change, message):
    with pytest.raises(UserError, match=message):
        replace(TrainConfig(), **change).validate()


def test_an_unknown_recipe_gets_the_nearest_names():
    with pytest.raises(UserError, match="unknown recipe 'unsup-bert-bas'. Did you mean 'unsup-bert-base'"):
        train.parse(["unsup-bert-bas"])


def test_an_unknown_field_of_a_saved_configuration_is_named():
    with pytest.raises(UserError, match=r"run/config.json: unknown field 'temprature'. Did you mean 'temperature'"):
        TrainConfig.from_json('{"temprature": 1}', where="run/config.json")
    with pytest.raises(UserError, match=r"config.json:1: not JSON"):
        TrainConfig.from_json("{")
    with pytest.raises(UserError, match=r"run/config.json: expected a JSON object"):
        TrainConfig.from_json("[1]", where="run/config.json")


def test_did_you_mean_lists_everything_when_nothing_is_close():
    assert did_you_mean("zzz", ["beta", "alpha"]) == "Valid: alpha, beta."
    assert did_you_mean("ALPHA", ["beta", "alpha"]) == "Did you mean 'alpha'?"
