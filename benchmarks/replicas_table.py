"""N replicas against one with the whole batch: the largest differences of losses and weights after a few steps.

    python -m benchmarks.replicas_table

Runs the training command on a tiny BERT made here, dropout off: on 1, 2 and 4 logical CPUs (MirroredStrategy), and in 2
worker processes (MultiWorkerMirroredStrategy). Hard negatives, clipping and AdamW take part.

    loss            the largest difference of a step's loss, relative to it
    weights         the largest difference of a weight, relative to the largest weight
    worst_tensor    the same within each tensor: biases that began at 0 are still small after a few steps
    key_biases      the largest difference of a key's bias. Attention does not depend on these, their gradient is 0 but
                    for rounding, and Adam makes whole steps of rounding, so they are not among the weights above
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import tiny


def main() -> None:
    """Runs everything and prints a table and JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        prog="python -m benchmarks.replicas_table",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=5e-5, help="the default is supervised SimCSE's")
    parser.add_argument("--json", type=Path, help="write the results here, too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        results = measure(arguments, Path(directory))
    columns = ("loss", "weights", "worst_tensor", "key_biases")
    print(f"{'':<20}" + "".join(f"{name:>14}" for name in columns))
    for row in results:
        print(f"{row['replicas']:<20}" + "".join(f"{row[name]:>14.1e}" for name in columns))
    print(json.dumps(results, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", "utf-8")


def measure(arguments: argparse.Namespace, directory: Path) -> list[dict]:
    """One row for each way to have replicas; the first is one replica against itself in a second process."""
    preset, data = directory / "preset", directory / "triplets.csv"
    subprocess.run([sys.executable, "-c", _MAKE, str(preset)], check=True, capture_output=True)
    texts = tiny.sentences(3 * arguments.steps * arguments.batch_size)
    rows = zip(texts[::3], texts[1::3], texts[2::3], strict=True)
    data.write_text("sent0,sent1,hard_neg\n" + "".join(",".join(row) + "\n" for row in rows), "utf-8")
    flags = ["--preset", str(preset), "--data", str(data), "--dropout", "0", "--max-length", "16", "--max-steps"]
    flags += [str(arguments.steps), "--batch-size", str(arguments.batch_size), "--eval-every", str(arguments.steps)]
    flags += ["--learning-rate", str(arguments.learning_rate), "--temperature", "0.1", "--hard-negative-weight", "0.3"]
    flags += ["--clip-norm", "0.5", "--export-to", "None", "--no-report"]

    one = logical(1, flags, directory / "1")
    return [
        compare("1 replica, again", one, logical(1, flags, directory / "again")),
        *(compare(f"{n} logical CPUs", one, logical(n, flags, directory / str(n))) for n in (2, 4)),
        compare("2 worker processes", one, processes(2, flags, directory / "workers")),
    ]


def logical(replicas: int, flags: list[str], run: Path) -> Path:
    """Trains on so many logical CPUs of one process."""
    strategy = "mirrored" if replicas > 1 else "one"
    command = [sys.executable, "-c", _LOGICAL, str(replicas), *flags, "--strategy", strategy, "--output-dir", str(run)]
    _succeed([subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)])
    return run


def processes(workers: int, flags: list[str], run: Path) -> Path:
    """Trains in so many worker processes on this machine."""
    addresses = free_addresses(workers)
    started = []
    for index in range(workers):
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        command = [sys.executable, "-m", "simcse_tf.train", *flags, "--output-dir", str(run)]
        environment = os.environ | {"TF_CONFIG": json.dumps(cluster)}
        started.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        )
    _succeed(started)
    return run


def free_addresses(count: int) -> list[str]:
    """So many addresses of this machine on which nobody listens."""
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("localhost", 0))
    addresses = [f"localhost:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    return addresses


def compare(kind: str, one: Path, other: Path) -> dict:
    """The largest differences between two runs; see the top of this file."""
    losses = [np.array(_losses(run)) for run in (one, other)]
    weights = [_weights(run) for run in (one, other)]
    # (heads, dimensions): the biases of queries, keys and values, in turn.
    by_head = [name for name, value in weights[0].items() if name.split("/")[1] == "bias" and value.ndim == 2]
    differences = {name: float(np.abs(weights[1][name] - value).max()) for name, value in weights[0].items()}
    key_biases = max(differences.pop(name) for name in by_head[1::3])
    return {
        "replicas": kind,
        "loss": float((np.abs(losses[1] - losses[0]) / losses[0]).max()),
        "weights": max(differences.values()) / max(float(np.abs(value).max()) for value in weights[0].values()),
        "worst_tensor": max(d / max(float(np.abs(weights[0][name]).max()), 1e-30) for name, d in differences.items()),
        "key_biases": key_biases,
    }


def _losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def _weights(run: Path) -> dict[str, np.ndarray]:
    """The trained weights by name, from the run's last state."""
    from safetensors.numpy import load_file

    (state,) = (run / "checkpoints").glob("state-*")
    variables = load_file(state / "variables.safetensors")
    return {name: variables[name] for name in sorted(variables) if name.split("/")[1] in _WEIGHTS}


def _succeed(started: list[subprocess.Popen]) -> None:
    for process in started:
        _, errors = process.communicate()
        if process.returncode:
            sys.exit(f"a run failed:\n{errors[-4000:]}")


_WEIGHTS = ("embeddings", "kernel", "bias", "gamma", "beta")
_MAKE = "import sys; from pathlib import Path; from benchmarks import tiny; tiny.make_preset(Path(sys.argv[1]))"
_LOGICAL = """
import sys
import tensorflow as tf
from simcse_tf import cli, train
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(sys.argv.pop(1)))
cli.run(train.main)
"""

if __name__ == "__main__":
    main()
