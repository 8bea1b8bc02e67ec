"""Two worker processes on this machine, by the command that docs/distributed.md gives."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

from benchmarks.replicas_table import free_addresses
from simcse_tf import train
from simcse_tf.config import TrainConfig
from simcse_tf.errors import UserError
from simcse_tf.training import cluster, loop
from simcse_tf.training.callbacks import Checkpoints


def start(flags):
    addresses = free_addresses(2)
    workers = []
    for index in range(2):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        command = [sys.executable, "-m", "simcse_tf.train", *flags]
        environment = os.environ | {"TF_CONFIG": json.dumps(config)}
        workers.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    return workers


def end(workers):
    said = [worker.communicate(timeout=300) for worker in workers]
    return [worker.returncode for worker in workers], [out for out, _ in said], [errors for _, errors in said]


def test_two_workers_compute_what_one_would_and_the_chief_alone_writes(tiny_preset, sentences_file, tmp_path):
    flags = ["--preset", str(tiny_preset), "--data", str(sentences_file), "--batch-size", "8", "--max-length", "12"]
    flags += ["--max-steps", "4", "--eval-every", "2", "--dropout", "0", "--learning-rate", "1e-3", "--no-report"]
    run = tmp_path / "two"
    codes, out, errors = end(start([*flags, "--output-dir", str(run), "--export-to", str(tmp_path / "exported")]))
    assert codes == [0, 0], errors
    assert json.loads(out[0])["steps"] == 4
    assert out[1] == ""
    assert "step      4  bundled" in errors[0]
    assert "step      4" not in errors[1]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [line["step"] for line in lines if "dev" in line] == [0, 2, 4]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    assert [path.name for path in (run / "checkpoints").glob("state-*")] == ["state-00000004"]
    assert sorted(p.name for p in (tmp_path / "exported").iterdir() if p.is_dir()) == ["1"]

    alone = tmp_path / "alone"
    train.main([*flags, "--output-dir", str(alone), "--export-to", "None"])
    expected = [json.loads(line) for line in (alone / "metrics.jsonl").read_text("utf-8").splitlines()]
    np.testing.assert_allclose(
        [line["loss"] for line in lines if "loss" in line],
        [line["loss"] for line in expected if "loss" in line],
        rtol=1e-5,
    )
    one, both = (load_file(path / "checkpoints" / "state-00000004" / "variables.safetensors") for path in (alone, run))
    weights = [name for name in one if name.split("/")[1] in ("kernel", "embeddings")]
    difference = np.concatenate([np.ravel(np.abs(one[name] - both[name])) for name in weights])
    # Adam divides gradients by their size, which magnifies rounding where they are next to nothing.
    assert np.percentile(difference, 99) < 1e-6


class Workers:
    """This worker and another one, of which the test decides what it says; the other is the chief if `chief`."""

    def __init__(self, other, chief=False):
        self.other, self.chief = other, chief

    def all_gather(self, *numbers):
        rows = [list(numbers), self.other(numbers)]
        return np.array(rows[::-1] if self.chief else rows)


def test_all_stop_when_one_got_the_signal_and_the_chief_alone_saves():
    saved = []
    for save in (None, lambda: saved.append(1)):
        checkpoints = Checkpoints(5, lambda step: False, save, Workers(lambda own: [1]))
        checkpoints.set_model(SimpleNamespace(stop_training=False))
        checkpoints.on_step(0.0)
        assert checkpoints.stopped
        assert checkpoints.model.stop_training
    assert saved == [1]


def test_workers_agree_on_the_chiefs_step_or_say_who_differs():
    workers = ("a:1", "b:1")
    plan = SimpleNamespace(config=TrainConfig(), cluster=cluster.Cluster(workers, index=1))
    data = {"rows": "60 rows, " + "ab" * 16}
    assert loop.agreed_step(Workers(lambda own: [7, *own[1:]], chief=True), plan, data, -1) == 7
    with pytest.raises(
        UserError, match="worker 1 differs from the chief in the rows that it reads from `data` bundled"
    ):
        loop.agreed_step(Workers(lambda own: [*own[:-1], 1]), plan, data, 7)
    with pytest.raises(UserError, match="worker 1 differs from the chief in the flags"):
        loop.agreed_step(Workers(lambda own: [own[0], 1, *own[2:]]), plan, data, 7)
