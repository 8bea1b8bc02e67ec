"""A run that was stopped at any moment continues to the bit. `benchmarks/kill_resume.py` does it with SIGKILL."""

import json
import os
import shutil
import signal

import pytest

from simcse_tf import runs, train
from simcse_tf.config import TrainConfig
from simcse_tf.errors import UserError
from simcse_tf.training import fingerprint
from simcse_tf.training.callbacks import Evaluation
from simcse_tf.training.checkpoint import RunDirectory


@pytest.fixture
def flags(tiny_preset, sentences_file):
    flags = ["--preset", str(tiny_preset), "--data", str(sentences_file), "--batch-size", "8", "--max-length", "12"]
    flags += ["--watch", str(sentences_file)]
    return [*flags, "--max-steps", "6", "--eval-every", "4", "--export-to", "None", "--no-report", "--output-dir"]


def losses(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


# All that has a state beside the weights, or draws something in every step.
EVERYTHING = [
    *("--negatives", "queue:20", "mixed", "off_dropout", "--learn-temperature", "--word-repetition", "0.5"),
    *("--add", "dimensions", "align_uniform:0.2"),
]


@pytest.mark.parametrize("objective", [[], EVERYTHING], ids=["plain", "everything"])
def test_sigterm_saves_and_what_a_kill_leaves_behind_does_not_matter(
    capsys, flags, objective, sentences_file, tmp_path, monkeypatch
):
    whole, run = tmp_path / "whole", tmp_path / "run"
    flags = [*objective, *flags]
    train.main([*flags, str(whole)])

    on_step = Evaluation.on_step

    def signalled(self, loss):
        on_step(self, loss)
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Evaluation, "on_step", signalled)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        train.main([*flags, str(run), "--save-every", "2"])
    monkeypatch.undo()
    assert stopped.value.code == 75
    assert "the state after step 3 of 6 is saved" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    checkpoints = run / "checkpoints"
    assert [path.name for path in checkpoints.glob("state-*")] == ["state-00000003"]

    # As if it had then gone on, and been killed in an evaluation: a better encoder is there, half a state, half a line,
    # and the vectors of the watched texts.
    shutil.copytree(checkpoints / "encoder-00000000", checkpoints / "encoder-00000004")
    (checkpoints / "best").unlink()
    (checkpoints / "best").symlink_to("encoder-00000004")
    (checkpoints / ".state-00000004.partial").mkdir()
    assert sorted(os.listdir(run / "watched")) == ["step-00000000.npy", "texts.json"]
    (run / "watched" / "step-00000005.npy").touch()
    with (run / "metrics.jsonl").open("a") as f:
        f.write('{"step": 4, "loss": 1.0}\n{"step": 4, "de')

    text = sentences_file.read_text("utf-8")
    sentences_file.write_text(text.partition("\n")[2] + "a cat and a dog .\n", "utf-8")
    with pytest.raises(UserError, match=r"`resume`: the rows that it reads from `data` .* changed since the run"):
        train.main([*flags, str(run), "--resume"])
    sentences_file.write_text(text, "utf-8")
    train.main([*flags, str(run), "--resume"])

    states = [path / "checkpoints" / "state-00000006" for path in (whole, run)]
    for name in ("variables.safetensors", "progress.json"):
        assert (states[0] / name).read_bytes() == (states[1] / name).read_bytes(), name
    assert losses(run) == losses(whole)
    assert sorted(os.listdir(checkpoints)) == sorted(os.listdir(whole / "checkpoints"))
    names = [f"step-{step:08d}.npy" for step in (0, 4, 6)]
    assert sorted(os.listdir(run / "watched")) == sorted(os.listdir(whole / "watched")) == [*names, "texts.json"]
    for name in names:
        assert (run / "watched" / name).read_bytes() == (whole / "watched" / name).read_bytes(), name


def test_a_run_does_not_go_on_with_other_texts_to_watch(tmp_path, sentences_file):
    run = RunDirectory(tmp_path / "run")
    config = TrainConfig(resume=True, watch=sentences_file)
    before, after = ({"watched": fingerprint.of_text(text)} for text in ("a", "b"))
    run.start(config, before)
    with pytest.raises(UserError, match=f"the texts of `watch` {sentences_file} changed since the run"):
        run.check_data(config, after)


class TestFingerprints:
    @pytest.fixture
    def run(self, tmp_path):
        run = RunDirectory(tmp_path / "run")
        run.start(TrainConfig(), {"rows": "1", "development_set": "2", "starting_weights": "3"})
        return run

    @pytest.mark.parametrize(
        ("name", "what"),
        [("development_set", "the development set"), ("starting_weights", "the weights or the vocabulary")],
    )
    def test_each_is_compared_when_it_is_known(self, run, name, what):
        config = TrainConfig(resume=True)
        run.check_data(config, {"rows": "1"})
        run.check_data(config, {name: run.data()[name]})
        with pytest.raises(UserError, match=f"{what}.* changed since the run"):
            run.check_data(config, {name: "other"})

    def test_a_new_run_is_compared_with_nothing(self, run):
        run.check_data(TrainConfig(overwrite=True), {"rows": "other"})


def test_a_run_killed_before_it_had_a_configuration_can_be_started_again(tmp_path):
    (tmp_path / "data.json").write_text("{}", "utf-8")
    (tmp_path / ".config.json.partial").write_text("{", "utf-8")
    run = RunDirectory(tmp_path)
    run.check(TrainConfig())
    run.start(TrainConfig())
    with pytest.raises(UserError, match="already holds a run"):
        run.check(TrainConfig())
    # Killed in the first evaluation: nothing to continue from, nothing left of it.
    (run.checkpoints / "encoder-00000000").mkdir()
    run.best.symlink_to("encoder-00000000")
    run.log(0, dev=1.0)
    assert run.start(TrainConfig(resume=True)).step == -1
    assert os.listdir(run.checkpoints) == []
    assert runs.read_metrics(tmp_path) == []
