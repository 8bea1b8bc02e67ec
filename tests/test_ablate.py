"""`python -m simcse_tf.ablate`. Its runs are processes: real ones on the tiny BERT at the end."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from simcse_tf import ablate, runs, train
from simcse_tf.config import TrainConfig
from simcse_tf.errors import UserError
from simcse_tf.evaluation.development_files import find
from simcse_tf.training.callbacks import Evaluation
from simcse_tf.training.checkpoint import RunDirectory


@pytest.fixture
def flags(tiny_preset, sentences_file, tmp_path):
    return [
        *("--preset", str(tiny_preset), "--data", str(sentences_file), "--batch-size", "8", "--max-length", "12"),
        *("--learning-rate", "1e-3", "--max-steps", "4", "--eval-every", "2", "--output-dir", str(tmp_path / "grid")),
    ]


@pytest.fixture
def trained(monkeypatch):
    """The flags of every run that was started. A run writes what training would: scores from temperature and seed."""
    started = []

    def run(command, **_):
        assert command[:3] == [sys.executable, "-m", "simcse_tf.train"]
        started.append(command[3:])
        config = train.parse(command[3:])
        if config.learning_rate > 1:
            return subprocess.CompletedProcess(command, 2, "")
        assert config.resume
        assert not config.report
        directory = RunDirectory(config.output_dir)
        directory.start(config)
        (directory.best).mkdir()
        for step, dev in enumerate((50.0, 60 + config.temperature, 55 + config.temperature * (config.seed - 41) ** 2)):
            directory.log(step, dev=dev, alignment=0.1 * step, uniformity=-step)
        directory.write_result({"development_set": "STSB-dev"})
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(ablate.subprocess, "run", run)
    return started


def grid(capsys, *arguments):
    ablate.main([*arguments])
    captured = capsys.readouterr()
    return json.loads(captured.out), captured.err


def test_a_grid_gives_mean_and_deviation_over_seeds(capsys, flags, trained, tmp_path):
    summary, shown = grid(capsys, "quickstart", "--vary", "temperature=0.05,1", "--seeds", "2", *flags)
    assert len(trained) == 4
    assert [cell["values"] for cell in summary["cells"]] == [{"temperature": "0.05"}, {"temperature": "1"}]
    warm = summary["cells"][1]
    assert warm["before"] == {"mean": 50, "std": 0, "n": 2}
    assert warm["best"] == {"mean": 61, "std": 0, "n": 2}
    assert warm["last"] == {"mean": 57.5, "std": pytest.approx(np.std([56, 59], ddof=1)), "n": 2}
    assert warm["uniformity"]["mean"] == -2
    assert [(run["seed"], run["best_step"], run["last"]) for run in warm["runs"]] == [(42, 1, 56), (43, 1, 59)]
    row = next(line for line in shown.splitlines() if "57.50 ± 2.12" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        *("1", "50.00 ± 0.00", "61.00 ± 0.00", "57.50 ± 2.12", "0.200 ± 0.000", "-2.000 ± 0.000", "2"),
    ]
    assert "STSB-dev, Spearman x 100: mean ± standard deviation over seeds" in shown
    assert json.loads((tmp_path / "grid" / "ablation.json").read_text("utf-8")) == summary


def test_the_table_says_which_figure_of_a_set_of_ones_own_it_is(capsys, flags, trained, tmp_path, monkeypatch):
    (tmp_path / "docs.csv").write_text("query,document\na,b\nc,d\n")
    start, log = RunDirectory.start, RunDirectory.log

    def with_sets(self, config):
        start(self, config)
        (found,) = find(config.dev)
        (self.path / "development.json").write_text(json.dumps([found.about()]))

    monkeypatch.setattr(RunDirectory, "start", with_sets)
    monkeypatch.setattr(RunDirectory, "log", lambda self, step, dev, **_: log(self, step, dev=dev))
    arguments = ["--seeds", "1", "--vary", "temperature=0.05,1", "--dev", str(tmp_path / "docs.csv")]
    summary, shown = grid(capsys, *arguments, *flags)
    assert summary["figure"] == "nDCG@10 x 100"
    assert "nDCG@10 x 100: mean" in shown
    assert "uniformity" not in shown


def test_sizes_of_vectors_have_columns_of_their_own(capsys, flags, trained, monkeypatch):
    log = RunDirectory.log
    sizes = {"dev_dim_8": 40.0, "dev_dim_4": 30.0}
    monkeypatch.setattr(RunDirectory, "log", lambda self, step, **values: log(self, step, **values, **sizes))
    summary, shown = grid(capsys, *flags, "--temperature", "0.05", "--seeds", "2", "--matryoshka", "4", "16", "8")
    (cell,) = summary["cells"]
    assert cell["best_dim_8"] == {"mean": 40, "std": 0, "n": 2}
    assert shown.index("best_dim_8") < shown.index("best_dim_4")
    assert "30.00 ± 0.00" in shown
    with pytest.raises(UserError, match="there is no 'matryoshka' to vary"):
        ablate.main(["--vary", "matryoshka=16,8", *flags])


def test_finished_runs_are_not_trained_again(capsys, flags, trained):
    arguments = ["--vary", "temperature=0.05,1", *flags, "--seeds"]
    summary, _ = grid(capsys, *arguments, "2")
    again, shown = grid(capsys, *arguments, "2")
    assert again == summary
    assert len(trained) == 4
    assert shown.count("finished before") == 4
    more, _ = grid(capsys, *arguments, "3")
    assert len(trained) == 6
    assert [cell["best"]["n"] for cell in more["cells"]] == [3, 3]


def test_one_seed_has_no_deviation(capsys, flags, trained):
    summary, shown = grid(capsys, "--temperature", "0.05", "--seeds", "1", *flags)
    assert summary["cells"][0]["best"] == {"mean": 60.05, "std": None, "n": 1}
    assert "60.05 " in shown
    assert "±" not in shown.splitlines()[-2]


def test_a_run_that_fails_does_not_stop_the_others(capsys, flags, trained, tmp_path):
    with pytest.raises(UserError, match=r"1 of 2 runs failed(.|\n)*learning_rate=1e30/seed-42"):
        ablate.main(["--vary", "learning_rate=1e30,1e-3", "--seeds", "1", *flags])
    summary = json.loads(capsys.readouterr().out)
    assert [cell["best"]["n"] for cell in summary["cells"]] == [0, 1]
    assert summary["cells"][0]["best"]["mean"] is None
    assert not (tmp_path / "grid" / "learning_rate=1e30" / "seed-42" / "result.json").exists()


def test_the_command_line_continues_an_interrupted_run_by_real_training(flags, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    on_step = Evaluation.on_step

    def die(self, loss):
        on_step(self, loss)
        if self.step == 3:
            raise Killed

    arguments = ["--vary", "dropout_masks=same", "--seeds", "1", *flags]
    with monkeypatch.context() as patch:
        # Not subprocess itself: the run asks git for its commit.
        started = SimpleNamespace(run=lambda command, **_: train.main(command[3:]), DEVNULL=subprocess.DEVNULL)
        patch.setattr(ablate, "subprocess", started)
        patch.setattr(Evaluation, "on_step", die)
        with pytest.raises(Killed):
            ablate.main(arguments)
    command = [sys.executable, "-m", "simcse_tf.ablate", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "run 1 of 1: dropout_masks=same seed=42: continues" in done.stderr
    (cell,) = json.loads(done.stdout)["cells"]
    assert cell["values"] == {"dropout_masks": "same"}
    directory = tmp_path / "grid" / "dropout_masks=same" / "seed-42"
    assert [run["directory"] for run in cell["runs"]] == [str(directory)]
    assert TrainConfig.from_json((directory / "config.json").read_text("utf-8")).dropout_masks == "same"
    metrics = runs.read_metrics(directory)
    assert [line["step"] for line in metrics if "dev" in line] == [0, 2, 4]
    assert [line["step"] for line in metrics if "loss" in line] == [1, 2, 3, 4]
    assert (cell["before"]["mean"], cell["last"]["mean"]) == (metrics[0]["dev"], metrics[-1]["dev"])


def test_the_flags_of_a_run_say_the_same_as_its_configuration(flags):
    axes = ["dropout=0.2", "dropout-masks=independent,same", "hard_negative_weight=-1.5", "max_steps=None,7"]
    vary = [word for axis in (*axes, "data=a/b.txt,bundled") for word in ("--vary", axis)]
    _, grid = ablate.parse(["unsup-bert-base", "--seed", "7", "--seeds", "2", *vary, *flags])
    assert len(grid) == 2**3 * 2
    assert {run.config.seed for run in grid} == {7, 8}
    directories = [run.directory.path for run in grid]
    assert len(set(directories)) == len(grid)
    assert len({len(directory.parts) for directory in directories}) == 1
    for run in grid:
        assert train.parse(run.flags) == run.config
        assert run.config.export_to is None
    assert {run.config.max_steps for run in grid} == {None, 7}
    assert {run.config.dropout_masks for run in grid} == {"independent", "same"}


def test_booleans_vary_as_the_training_command_has_them(capsys, flags, trained):
    summary, _ = grid(capsys, "--vary", "mask_false_negatives=True,False", "--seeds", "1", *flags)
    assert [cell["values"]["mask_false_negatives"] for cell in summary["cells"]] == ["True", "False"]
    assert [train.parse(flags).mask_false_negatives for flags in trained] == [True, False]


def test_on_a_terminal_the_table_is_all(capsys, flags, trained, monkeypatch, tmp_path):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    ablate.main(["--seeds", "1", *flags])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "mean ± standard deviation" in captured.err
    assert (tmp_path / "grid" / "ablation.json").is_file()


def test_the_directory_is_named_after_the_recipe():
    assert str(ablate.parse(["sup-bert-base", "--seeds", "1"])[0]) == "runs/ablate-sup-bert-base"
    _, (run,) = ablate.parse(["--seeds", "1"])
    assert str(run.directory.path) == "runs/ablate-quickstart/as-it-is/seed-42"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vary", "temperture=0.1"], "there is no 'temperture' to vary. Did you mean 'temperature'"),
        (["--vary", "pooling=cls,agv"], r"--vary pooling: 'agv' is not one of its values. Did you mean 'avg'"),
        (["--vary", "dropout_masks=sam"], "'sam' is not one of its values. Did you mean 'same'"),
        (["--vary", "batch_size=8,1.5"], "'1.5' is not a whole number"),
        (["--vary", "max_steps=x"], "'x' is not a whole number"),
        (["--vary", "temperature=0.1,warm"], "'warm' is not a number"),
        (["--vary", "temperature=0"], "`temperature` 0.0: must be above 0"),
        (["--vary", "mask_false_negatives=yes"], "'yes' is not one of its values. Valid: True, False"),
        (["--vary", "temperature"], "expected FIELD=VALUE,VALUE"),
        (["--vary", "temperature=1,,2"], "expected FIELD=VALUE,VALUE"),
        (["--vary", "temperature=0.1,0.10"], "a value is given twice"),
        (["--vary", "temperature=1", "--vary", "temperature=2"], "is varied already"),
        (["--vary", "seed=1,2"], "give the number of seeds with --seeds"),
        (["--vary", "output_dir=a,b"], "there is no 'output_dir' to vary"),
        (["--vary", "data=nothere.txt"], "nothere.txt"),
        (["--vary", "loss=infonce,triplet"], "`loss` triplet needs anchor, positive and hard negative"),
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


def test_another_configuration_does_not_continue_a_grid(flags, trained):
    _, (run,) = ablate.parse(["--seeds", "1", *flags])
    run.directory.path.mkdir(parents=True)
    (run.directory.path / "config.json").write_text(run.config.to_json(), "utf-8")
    with pytest.raises(UserError, match=r"has `batch_size` 8, not 16"):
        ablate.main(["--seeds", "1", *flags, "--batch-size", "16"])
    assert trained == []


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
