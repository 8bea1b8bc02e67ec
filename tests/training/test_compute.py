"""What a GPU changes where no flag is given. There is none: TensorFlow is told of one, or its way is taken on CPU."""

import json
import platform
import resource
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from simcse_tf import train
from simcse_tf.config import TrainConfig
from simcse_tf.training import compute, replicas

CONFIG = TrainConfig(eval_every=125)


@pytest.fixture
def gpus(monkeypatch):
    """Lets TensorFlow list GPUs with these compute capabilities."""

    def pretend(*capabilities):
        devices = list(capabilities)
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: devices if kind == "GPU" else [])
        monkeypatch.setattr(
            tf.config.experimental,
            "get_device_details",
            lambda device: {} if device is None else {"compute_capability": device},
        )

    return pretend


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ([], "off"),
        ([(9, 0)], "bfloat16"),
        ([(8, 0), (8, 6)], "bfloat16"),
        ([(7, 5)], "off"),
        ([(8, 0), (7, 0)], "off"),
        ([None], "off"),
    ],
)
def test_bfloat16_where_every_gpu_has_it(gpus, capabilities, expected):
    gpus(*capabilities)
    assert compute.precision(CONFIG, tf.distribute.get_strategy()) == expected


def test_flags_have_the_last_word(gpus):
    gpus((9, 0))
    strategy = tf.distribute.get_strategy()
    assert compute.precision(replace(CONFIG, mixed_precision="off"), strategy) == "off"
    assert compute.precision(replace(CONFIG, mixed_precision="float16"), strategy) == "float16"
    assert compute.use_xla(CONFIG, strategy)
    assert not compute.use_xla(replace(CONFIG, jit_compile="off"), strategy)


def test_without_a_gpu_python_hears_of_every_step(gpus):
    gpus()
    strategy = tf.distribute.get_strategy()
    assert compute.steps_per_execution(CONFIG, strategy, 0, 1000) == 1
    assert not compute.use_xla(CONFIG, strategy)
    assert replicas.choose_strategy() is strategy


@pytest.mark.parametrize(
    ("start", "steps", "save_every", "expected"),
    [
        (0, 1000, None, 25),
        (0, 1000, 10, 5),
        (0, 15_625, None, 25),
        (0, 1001, None, 1),
        (50, 1000, None, 25),
        (3, 9, 6, 1),
    ],
)
def test_on_a_gpu_several_steps_run_between_what_has_to_happen(gpus, start, steps, save_every, expected):
    gpus((9, 0))
    config = replace(CONFIG, save_every=save_every)
    assert compute.steps_per_execution(config, tf.distribute.get_strategy(), start, steps) == expected


@pytest.fixture
def graphs_as_written():
    """TensorFlow's graph optimiser off: it writes a loop's body in another way, which changes the last bits."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


@pytest.mark.usefixtures("graphs_as_written")
def test_the_way_of_one_gpu_trains_to_the_same_weights(capsys, monkeypatch, tiny_preset, sentences_file, tmp_path):
    flags = ["--preset", str(tiny_preset), "--data", str(sentences_file), "--batch-size", "8", "--max-length", "12"]
    flags += ["--max-steps", "6", "--eval-every", "3", "--export-to", "None", "--no-report", "--output-dir"]

    def of(run):
        state = run / "checkpoints" / "state-00000006"
        metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
        for line in metrics:
            for measured in ("evaluation_seconds", "elapsed_seconds"):
                line.pop(measured, None)
        return [(state / name).read_bytes() for name in ("variables.safetensors", "progress.json")], metrics

    train.main([*flags, str(tmp_path / "plain")])
    monkeypatch.setattr(compute, "steps_per_execution", lambda *_: 3)
    monkeypatch.setattr(replicas, "choose_strategy", lambda *_: tf.distribute.OneDeviceStrategy("/CPU:0"))
    train.main([*flags, str(tmp_path / "several")])
    assert "replica(s), float32, XLA off" in capsys.readouterr().err
    (plain, losses), (several, fewer_losses) = of(tmp_path / "plain"), of(tmp_path / "several")
    assert several == plain
    # Each third loss is heard of, and the same evaluations.
    assert fewer_losses == [line for line in losses if line["step"] % 3 == 0]
    assert [line["step"] for line in fewer_losses if "dev" in line] == [0, 3, 6]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told to keep memory")
def test_memory_that_a_step_has_freed_is_there_for_the_next():
    compute.keep_freed_memory()

    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.ones(4 * 2**20, "float32")
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    # 16 MiB are 4,096 pages; with large pages fewer.
    first, *others = [faults() for _ in range(5)]
    assert max(others) < 200, (first, others)
