"""Which replicas a run has, as far as it can be told without starting any."""

import json
from types import SimpleNamespace

import pytest

from simcse_tf import train
from simcse_tf.errors import UserError
from simcse_tf.training import cluster, replicas


def config(task, **addresses):
    return json.dumps({"cluster": addresses, "task": task})


TWO = ["host0:1", "host1:2"]


@pytest.mark.parametrize(
    ("text", "workers", "index"),
    [
        ("", 1, 0),
        ("{}", 1, 0),
        (config({"type": "worker", "index": 1}, worker=TWO), 2, 1),
        (config({"type": "chief", "index": 0}, chief=["c:1"], worker=TWO), 3, 0),
        (config({"type": "worker", "index": 1}, chief=["c:1"], worker=TWO), 3, 2),
    ],
)
def test_tf_config_names_the_workers_chief_first(monkeypatch, text, workers, index):
    monkeypatch.setenv("TF_CONFIG", text)
    own = cluster.of_this_process("auto")
    assert (len(own.workers), own.index, own.is_chief) == (workers, index, index == 0)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{'cluster'", "not JSON"),
        ("[]", "it is not an object"),
        ('{"cluster": 1}', "'cluster' is not an object"),
        (config({}, ps=["a:1"], worker=TWO), "the cluster has 'ps'"),
        (config({}, worker=["host0"]), 'expected a list of "host:port"'),
        (config({}, worker="host0:1"), 'expected a list of "host:port"'),
        (config({}, chief=TWO), "2 chiefs"),
        (config({}, worker=["a:1", "a:1"]), "two workers have the same address"),
        (config({"type": "evaluator", "index": 0}, worker=TWO), 'the task\'s type is "evaluator"'),
        (config({"type": "worker", "index": 2}, worker=TWO), "the task's index is 2, expected a number from 0 to 1"),
        (config({"type": "worker", "index": "0"}, worker=TWO), 'the task\'s index is "0"'),
        (config({"type": "worker"}, worker=TWO), "the task's index is null"),
    ],
)
def test_a_malformed_tf_config_says_what_it_should_look_like(monkeypatch, text, problem):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError) as error:
        cluster.of_this_process("auto")
    assert problem in str(error.value)
    assert '"task": {"type": "worker", "index": 0}}' in str(error.value)


def test_multiworker_needs_workers_and_other_strategies_none(monkeypatch, tmp_path):
    flags = ["--output-dir", str(tmp_path / "run")]
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(UserError, match="`strategy` multiworker: TF_CONFIG is not set. Expected at least two"):
        train.main([*flags, "--strategy", "multiworker"])
    monkeypatch.setenv("TF_CONFIG", config({"type": "worker", "index": 0}, worker=TWO))
    with pytest.raises(UserError, match="`strategy` mirrored: TF_CONFIG names 2 workers"):
        train.main([*flags, "--strategy", "mirrored"])


@pytest.mark.parametrize(("batch_size", "nearest"), [(64, "63 or 66"), (2, "3")])
def test_a_batch_that_replicas_cannot_share_names_those_that_they_can(batch_size, nearest):
    three = SimpleNamespace(num_replicas_in_sync=3)
    message = f"`batch_size` {batch_size}: cannot be shared equally among 3 replicas; {nearest} can"
    with pytest.raises(UserError, match=message):
        replicas.check_batch_size(batch_size, three)
    replicas.check_batch_size(66, three)


def test_a_tpu_that_is_not_there_is_missed():
    with pytest.raises(UserError, match="TensorFlow finds no TPU here"):
        replicas.choose_strategy("tpu")
