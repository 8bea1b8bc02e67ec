"""`python -m simcse_tf.ablate` on the tiny BERT. Its runs are processes; here most of them run inside this one."""

import io
import json
import subprocess
import sys
from contextlib import redirect_stdout

import numpy as np
import pytest

from simcse_tf import ablate, train
from simcse_tf.errors import UserError
from simcse_tf.training.callbacks import Evaluation


@pytest.fixture
def flags(tiny_preset, sentences_file, tmp_path):
    return [
        *("--preset", str(tiny_preset), "--data", str(sentences_file), "--batch-size", "8", "--max-length", "12"),
        *("--learning-rate", "1e-3", "--max-steps", "4", "--eval-every", "2", "--output-dir", str(tmp_path / "grid")),
    ]


@pytest.fixture
def trained(monkeypatch):
    """The flags of every run that was started; runs happen in this process."""
    started = []

    def run(command, **_):
        assert command[:3] == [sys.executable, "-m", "simcse_tf.train"]
        started.append(command[3:])
        printed = io.StringIO()
        try:
            with redirect_stdout(printed):
                train.main(command[3:])
        except UserError as e:
            return subprocess.CompletedProcess(command, 2, "", str(e))
        return subprocess.CompletedProcess(command, 0, printed.getvalue(), "")

    monkeypatch.setattr(ablate.subprocess, "run", run)
    return started


def grid(capsys, *arguments):
    ablate.main([*arguments])
    captured = capsys.readouterr()
    return json.loads(captured.out), captured.err


def evaluations(tmp_path, cell, seed):
    path = tmp_path / "grid" / cell / f"seed-{seed}" / "metrics.jsonl"
    return [m for m in map(json.loads, path.read_text("utf-8").splitlines()) if "dev" in m]


def test_a_grid_gives_mean_and_deviation_over_seeds_and_is_not_trained_twice(capsys, flags, trained, tmp_path):
    arguments = ["quickstart", "--vary", "temperature=0.05,1", "--seeds", "2", *flags]
    summary, shown = grid(capsys, *arguments)
    assert [cell["values"] for cell in summary["cells"]] == [{"temperature": "0.05"}, {"temperature": "1"}]
    for cell in summary["cells"]:
        folder = f"temperature={cell['values']['temperature']}"
        runs = [evaluations(tmp_path, folder, seed) for seed in (42, 43)]
        expected = {
            "before": [run[0]["dev"] for run in runs],
            "best": [max(e["dev"] for e in run) for run in runs],
            "last": [run[-1]["dev"] for run in runs],
            "uniformity": [run[-1]["uniformity"] for run in runs],
        }
        for name, values in expected.items():
            assert cell[name]["mean"] == pytest.approx(np.mean(values))
            assert cell[name]["std"] == pytest.approx(np.std(values, ddof=1), abs=1e-9)
            assert cell[name]["n"] == 2
        assert cell["last"]["std"] > 0, "two seeds gave the same run"
        assert [run["seed"] for run in cell["runs"]] == [42, 43]
        assert f"{cell['last']['mean']:.2f} ± {cell['last']['std']:.2f}" in shown
    assert summary["cells"][0]["last"]["mean"] != summary["cells"][1]["last"]["mean"]
    assert json.loads((tmp_path / "grid" / "ablation.json").read_text("utf-8")) == summary
    assert len(trained) == 4

    again, shown = grid(capsys, *arguments)
    assert len(trained) == 4
    assert again == summary
    assert shown.count("finished before") == 4
    # One more seed trains that alone.
    arguments[arguments.index("--seeds") + 1] = "3"
    more, _ = grid(capsys, *arguments)
    assert len(trained) == 6
    assert [cell["best"]["n"] for cell in more["cells"]] == [3, 3]


def test_a_half_done_grid_continues_in_the_middle_of_its_run(capsys, flags, trained, tmp_path, monkeypatch):
    arguments = ["--vary", "pooling=cls,avg", "--seeds", "1", *flags]

    class Killed(BaseException):
        pass

    on_step = Evaluation.on_step

    def die(self, loss):
        on_step(self, loss)
        if self.step == 3 and len(trained) == 2:
            raise Killed

    monkeypatch.setattr(Evaluation, "on_step", die)
    with pytest.raises(Killed):
        ablate.main(arguments)
    monkeypatch.setattr(Evaluation, "on_step", on_step)
    summary, shown = grid(capsys, *arguments)
    assert ["--resume" in started for started in trained] == [False, False, True]
    assert "pooling=avg seed=42: continues" in shown
    assert [e["step"] for e in evaluations(tmp_path, "pooling=avg", 42)] == [0, 2, 4]
    assert summary["cells"][1]["best"]["n"] == 1
    assert summary["cells"][1]["best"]["std"] is None


def test_a_run_that_fails_does_not_stop_the_others(capsys, flags, trained, tmp_path):
    with pytest.raises(UserError, match=r"1 of 2 runs failed(.|\n)*learning_rate=1e30/seed-42"):
        ablate.main(["--vary", "learning_rate=1e30,1e-3", "--seeds", "1", *flags, "--clip-norm", "1e30"])
    summary = json.loads(capsys.readouterr().out)
    assert [cell["best"]["n"] for cell in summary["cells"]] == [0, 1]
    assert summary["cells"][0]["best"]["mean"] is None
    assert not (tmp_path / "grid" / "learning_rate=1e30" / "seed-42" / "result.json").exists()


def test_the_flags_of_a_run_say_the_same_as_its_configuration(flags):
    vary = [
        "--vary",
        "dropout=0,0.1",
        "--vary",
        "dropout-masks=independent,same",
        "--vary",
        "hard_negative_weight=-1.5,0",
    ]
    vary += ["--vary", "max_steps=None,7", "--vary", "data=a/b.txt,bundled"]
    _, runs = ablate.parse(["unsup-bert-base", "--seed", "7", "--seeds", "2", *vary, *flags])
    assert len(runs) == 2**5 * 2
    assert {run.config.seed for run in runs} == {7, 8}
    assert len({run.directory for run in runs}) == len(runs)
    assert all(len(run.directory.parts) == len(runs[0].directory.parts) for run in runs)
    for run in runs:
        assert train.parse(run.flags) == run.config
        assert run.config.export_to is None
    assert {run.config.max_steps for run in runs} == {None, 7}
    assert {run.config.dropout_masks for run in runs} == {"independent", "same"}


def test_the_directory_is_named_after_the_recipe():
    assert str(ablate.parse(["sup-bert-base", "--seeds", "1"])[0]) == "runs/ablate-sup-bert-base"
    _, (run,) = ablate.parse(["--seeds", "1"])
    assert str(run.directory) == "runs/ablate-quickstart/as-it-is/seed-42"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vary", "temperture=0.1"], "there is no 'temperture' to vary. Did you mean 'temperature'"),
        (["--vary", "pooling=cls,agv"], r"--vary pooling: 'agv' is none of its values. Did you mean 'avg'"),
        (["--vary", "dropout_masks=sam"], "'sam' is none of its values. Did you mean 'same'"),
        (["--vary", "batch_size=8,1.5"], "'1.5' is not a whole number"),
        (["--vary", "max_steps=x"], "'x' is not a whole number"),
        (["--vary", "temperature=0.1,warm"], "'warm' is not a number"),
        (["--vary", "temperature=0"], "--temperature 0.0: must be above 0"),
        (["--vary", "temperature"], "expected FIELD=VALUE,VALUE"),
        (["--vary", "temperature=1,,2"], "expected FIELD=VALUE,VALUE"),
        (["--vary", "temperature=0.1,0.10"], "a value is there twice"),
        (["--vary", "temperature=1", "--vary", "temperature=2"], "is varied already"),
        (["--vary", "seed=1,2"], "give the number of seeds with --seeds"),
        (["--vary", "output_dir=a,b"], "there is no 'output_dir' to vary"),
        (["--vary", "data=nothere.txt"], "nothere.txt"),
        (["--vary", "loss=infonce,triplet"], "--loss triplet needs anchor, positive and hard negative"),
        (["--seeds", "0"], "--seeds 0: must be at least 1"),
        (["--resume"], "a grid continues by itself"),
        (["unsup-bert"], "unknown recipe 'unsup-bert'. Did you mean 'unsup-bert-base'"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(flags, trained, tmp_path, arguments, message):
    name = [arguments.pop(0)] if not arguments[0].startswith("-") else []
    with pytest.raises(UserError, match=message):
        ablate.main([*name, *flags, *arguments])
    assert trained == []
    assert not (tmp_path / "grid").exists()


def test_another_configuration_does_not_continue_a_grid(capsys, flags, trained):
    grid(capsys, "--seeds", "1", *flags)
    with pytest.raises(UserError, match=r"has --batch-size 8, not 16"):
        ablate.main(["--seeds", "1", *flags, "--batch-size", "16"])


def test_the_command_line_runs_the_dropout_ablation(flags, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "simcse_tf.ablate", "--vary", "dropout_masks=independent,same", "--seeds", "1", *flags],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    independent, same = json.loads(done.stdout)["cells"]
    assert same["values"] == {"dropout_masks": "same"}
    assert independent["before"]["mean"] == same["before"]["mean"]
    assert independent["last"]["mean"] != same["last"]["mean"]
    assert "run 2 of 2: dropout_masks=same seed=42" in done.stderr


def test_help_comes_without_tensorflow():
    code = (
        "import sys, importlib.abc\n"
        "class Refuse(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, *_):\n"
        "        if name in ('tensorflow', 'keras', 'scipy'): raise AssertionError('imported ' + name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from simcse_tf import ablate, cli\n"
        "sys.argv = ['ablate', '--help']\n"
        "cli.run(ablate.main)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--vary" in done.stdout
