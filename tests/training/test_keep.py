"""`--keep`: mixes with the starting weights, which of them is chosen, and what a kill between does not change."""

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest

from simcse_tf import runs, train
from simcse_tf.config import TrainConfig
from simcse_tf.errors import UserError
from simcse_tf.evaluation import sts
from simcse_tf.formats import card, presets
from simcse_tf.formats.encoders import load_encoder
from simcse_tf.training import keep
from simcse_tf.training.checkpoint import RunDirectory
from tests.conftest import SENTENCES

SETS = [SimpleNamespace(name="docs", headline="ndcg@10"), SimpleNamespace(name="bundled", headline="spearman")]


def found(**rows):
    """`k25=(60, 70)`: at a share of 0.25 docs has 60 and bundled 70."""
    return {
        int(name[1:]) / 100: {"dev": docs, "docs/ndcg@10": docs, "bundled/spearman": bundled}
        for name, (docs, bundled) in rows.items()
    }


class TestChoice:
    def test_the_best_of_those_that_lose_at_most_half_a_point_elsewhere(self):
        mixes = found(k0=(66, 60), k25=(65, 69.4), k50=(64, 69.5), k75=(58, 71), k100=(50, 70))
        assert keep.choose(mixes, SETS) == 0.5

    def test_the_set_that_selects_alone_decides_alone(self):
        mixes = found(k0=(65, 60), k25=(66, 69.4), k50=(64, 69.5), k100=(50, 70))
        assert keep.choose(mixes, SETS[:1]) == 0.25

    def test_of_equals_the_one_that_keeps_most(self):
        assert keep.choose(found(k0=(65, 70), k25=(65, 70), k50=(65, 70), k100=(50, 70)), SETS) == 0.5

    def test_the_start_is_always_there(self):
        assert keep.choose(found(k0=(65, 60), k25=(60, 60), k50=(60, 60), k100=(50, 70)), SETS) == 1


@pytest.mark.parametrize("value", ["1.5", "-0.1", "nan"])
def test_a_share_is_between_0_and_1(value):
    with pytest.raises(UserError, match="`keep` .*: must be at least 0 and at most 1"):
        TrainConfig(keep=float(value)).validate()


def test_a_share_may_be_chosen_by_itself():
    config = train.parse(["--keep", "auto"])
    assert config.keep == "auto"
    assert TrainConfig.from_json(config.to_json()) == config
    assert train.parse(["--keep=0.5"]).keep == 0.5
    with pytest.raises(UserError, match="`keep` half: unknown"):
        TrainConfig(keep="half").validate()


@pytest.fixture
def flags(tiny_preset, tmp_path):
    """A run that learns the very pairs that judge it, so that it surely improves; general pairs stand beside them."""
    pairs = tmp_path / "docs.csv"
    pairs.write_text("anchor,positive\n" + "".join(f"{a},{b}\n" for a, b in itertools.pairwise(SENTENCES)))
    flags = ["--preset", str(tiny_preset), "--data", str(pairs), "--dev", str(pairs), "bundled", "--batch-size", "8"]
    flags += ["--max-length", "12", "--max-steps", "6", "--eval-every", "3", "--learning-rate", "3e-3"]
    return [*flags, "--temperature", "0.05", "--export-to", "None", "--no-report", "--output-dir"]


def weights(encoder):
    return [np.array(v) for v in encoder.backbone.trainable_weights]


def best(run):
    return load_encoder(presets.locate(str(run)))


class KilledError(Exception):
    pass


def test_every_mix_is_judged_and_one_is_kept_though_a_kill_came(capsys, flags, tiny_origin, tmp_path, monkeypatch):
    directory = tmp_path / "run"
    flags = [*flags, str(directory), "--keep", "auto"]
    save_mix = RunDirectory.save_mix

    def die(self, *arguments):
        save_mix(self, *arguments)
        raise KilledError

    # Whichever the sets would choose: the mix. Killed when everything is there but the run's end.
    monkeypatch.setattr(keep, "choose", lambda mixes, sets: 0.25)
    monkeypatch.setattr(RunDirectory, "save_mix", die)
    with pytest.raises(KilledError):
        train.main(flags)
    monkeypatch.setattr(RunDirectory, "save_mix", save_mix)
    mixes, made = runs.read(directory).mixes, weights(best(directory))
    capsys.readouterr()
    train.main([*flags, "--resume"])
    out, shown = capsys.readouterr()
    result, run, mixed = json.loads(out), runs.read(directory), best(directory)
    assert run.mixes == mixes
    for one, other in zip(made, weights(mixed), strict=True):
        np.testing.assert_array_equal(one, other)

    step = max(run.evaluations, key=lambda line: line["dev"])
    assert step["step"] > 0
    assert [line["keep"] for line in run.mixes] == [0, 0.25, 0.5, 0.75, 1]
    assert [line["chosen"] for line in run.mixes] == [False, True, False, False, False]
    assert run.mixes[0]["bundled/spearman"] == step["bundled/spearman"]
    assert run.mixes[-1]["dev"] == run.mixes[-1]["docs/ndcg@10"] == run.before["dev"]
    assert (run.best, run.steps) == (run.mixes[1], 6)
    assert (result["keep"], result["best_step"]) == (0.25, step["step"])
    assert result["ndcg@10_after"] == round(run.mixes[1]["dev"], 2)
    assert "0.25 kept" in shown
    assert "Mixes of step" in shown
    # What is kept lies between the start and the best step.
    trained = load_encoder(presets.locate(str(directory / "checkpoints" / f"encoder-{step['step']:08d}")))
    for a, b, c in zip(weights(load_encoder(tiny_origin)), weights(trained), weights(mixed), strict=True):
        np.testing.assert_allclose(c, 0.25 * a + 0.75 * b, rtol=1e-5, atol=1e-7)
    # And scores what was logged.
    assert sts.evaluate(mixed.encode, sts.bundled()).all.spearman == pytest.approx(
        run.mixes[1]["bundled/spearman"], abs=1e-3
    )
    card.write(mixed, tmp_path, name="tiny", source=str(directory))
    written = (tmp_path / card.CARD_FILE).read_text("utf-8")
    assert f"| step {step['step']}, 0.25 of the starting weights kept (this model) |" in written
    assert "| keep | auto |" in written


def test_a_fixed_share_mixes_a_head_that_was_there_and_leaves_one_that_was_random(capsys, flags, tmp_path):
    flags = ["sup-bert-base", *flags[:-1], "--max-steps", "3", "--output-dir"]
    fresh, known = tmp_path / "fresh", tmp_path / "known"
    train.main([*flags, str(fresh), "--keep", "0.5"])
    run = runs.read(fresh)
    assert run.best["step"] > 0
    trained = load_encoder(presets.locate(str(fresh / "checkpoints" / f"encoder-{run.best['step']:08d}")))
    for one, other in zip(best(fresh).head.get_weights(), trained.head.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not all(np.array_equal(*pair) for pair in zip(weights(best(fresh)), weights(trained), strict=True))
    assert [(line["keep"], line["chosen"]) for line in run.mixes] == [(0, False), (0.5, True), (1, False)]

    # That run's encoder has a head, with which another run may begin.
    train.main([*flags, str(known), "--preset", str(fresh), "--keep", "0.5"])
    run = runs.read(known)
    assert run.best["step"] > 0
    trained = load_encoder(presets.locate(str(known / "checkpoints" / f"encoder-{run.best['step']:08d}")))
    heads = (encoder.head.get_weights() for encoder in (best(fresh), trained, best(known)))
    for start, end, mixed in zip(*heads, strict=True):
        np.testing.assert_allclose(mixed, (start + end) / 2, rtol=1e-5, atol=1e-7)
    capsys.readouterr()
    with pytest.raises(UserError, match="has `keep` 0.5, not 0.25"):
        train.main([*flags, str(known), "--preset", str(fresh), "--keep", "0.25", "--resume"])
