"""Kills a run with SIGKILL at random moments, resumes it, and compares the end with a run that was never stopped.

    python -m benchmarks.kill_resume --kills 20
    python -m benchmarks.kill_resume --preset minilm --max-steps 20 --kills 3

Every killed run is one process, ended while it starts, trains, evaluates or saves, and its resumption another. What is
compared, bit for bit: every variable of the final training state (weights, moments, dropout seeds), the best encoder,
and the loss of every step. Minutes: each run starts TensorFlow anew.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import tiny

SAVE_EVERY = 2
KINDS = ("in a step", "while saving", "in a step", "while keeping the best", "while starting")


def main() -> None:
    """Runs, kills, resumes, compares; exits with 1 if any end differs."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        prog="python -m benchmarks.kill_resume",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=20, help="how many runs to kill")
    parser.add_argument("--max-steps", type=int, default=60)
    parser.add_argument("--preset", help="default: a tiny BERT that is made here")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0, help="decides the moments")
    parser.add_argument("--json", type=Path, help="write the results here, too")
    parser.add_argument("flags", nargs="*", help="further flags for simcse_tf.train, after --")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        results = measure(arguments, Path(directory))
    print(json.dumps(results, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    sys.exit(0 if results["identical"] == arguments.kills else 1)


def measure(arguments: argparse.Namespace, directory: Path) -> dict:
    """Everything, in a temporary directory."""
    preset = arguments.preset
    if preset is None:
        preset = str(directory / "preset")
        subprocess.run([sys.executable, "-c", _MAKE, preset], check=True, capture_output=True)
    data = directory / "sentences.txt"
    tiny.write_sentences(data, arguments.max_steps * arguments.batch_size // 2)
    flags = ["--preset", preset, "--data", str(data), "--max-steps", str(arguments.max_steps), "--epochs", "2"]
    flags += ["--batch-size", str(arguments.batch_size), "--max-length", "16", "--learning-rate", "1e-3"]
    flags += ["--eval-every", str(max(arguments.max_steps // 6, 1)), "--save-every", str(SAVE_EVERY)]
    flags += ["--export-to", "None", "--no-report", *arguments.flags]

    began = time.monotonic()
    whole = directory / "whole"
    finish(flags, whole)
    seconds = time.monotonic() - began
    expected = outcome(whole)
    say(f"never stopped: {seconds:.0f} s, {len(expected['losses'])} steps")

    moments = random.Random(arguments.seed)
    kills = []
    for i in range(arguments.kills):
        run = directory / f"killed-{i}"
        kind = KINDS[i % len(KINDS)]
        while not (killed := kill(flags, run, kind, moments, seconds, arguments.max_steps)):
            shutil.rmtree(run)
        finish(flags, run)
        ended = outcome(run)
        same = {name: ended[name] == expected[name] for name in expected}
        kills.append({"kill": i + 1, **killed, **same, "identical": all(same.values())})
        say(
            f"{i + 1:>3}  {kind:<24} last step logged {killed['last_step']:>3}, resumed at {killed['resumed_at']:>3}: "
            + ("identical" if all(same.values()) else f"DIFFERENT: {[name for name in same if not same[name]]}")
        )
        shutil.rmtree(run)
    identical = sum(k["identical"] for k in kills)
    say(f"{identical} of {len(kills)} identical, bit for bit")
    return {"preset": arguments.preset or "tiny", "steps": arguments.max_steps, "identical": identical, "kills": kills}


def kill(flags: list[str], run: Path, kind: str, moments: random.Random, seconds: float, steps: int) -> dict | None:
    """Starts a run, kills it at a moment of this kind, and says where it stood; None if it came to its end before."""
    checkpoints = run / "checkpoints"
    process = start(flags, run)
    if kind == "while starting":
        wait(process, lambda: False, moments.uniform(0.05, 0.5) * seconds)
    elif kind == "while keeping the best":
        # The first is sure to come, at step 0; later ones only where a score rises.
        wait(process, lambda: any(checkpoints.glob(".encoder-*.partial")))
        time.sleep(moments.uniform(0, 0.2))
    else:
        step = moments.randrange(1, steps - SAVE_EVERY)
        wait(process, lambda: logged(run) >= step)
        if kind == "while saving":
            wait(process, lambda: any(checkpoints.glob(".state-*.partial")))
        time.sleep(moments.uniform(0, 0.02))
    alive = process.poll() is None
    process.kill()
    process.wait()
    if not alive:
        return None
    states = [int(path.name.removeprefix("state-")) for path in checkpoints.glob("state-*")]
    partial = sorted(path.name for path in checkpoints.glob(".*"))
    return {
        "kind": kind,
        "last_step": logged(run),
        "resumed_at": max(states, default=0),
        "left_behind": partial,
    }


def wait(process: subprocess.Popen, until: Callable[[], bool], at_most: float = 600) -> None:
    """Polls every millisecond."""
    end = time.monotonic() + at_most
    while process.poll() is None and time.monotonic() < end and not until():
        time.sleep(0.001)


def logged(run: Path) -> int:
    """The last step that the metrics have."""
    metrics = run / "metrics.jsonl"
    lines = metrics.read_bytes().splitlines() if metrics.is_file() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith(b"}")), default=-1)


def start(flags: list[str], run: Path) -> subprocess.Popen:
    """A training process that starts the run or continues it."""
    command = [sys.executable, "-m", "simcse_tf.train", *flags, "--output-dir", str(run), "--resume"]
    # A file, not a pipe, which could fill.
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=run.with_suffix(".log").open("a"))


def finish(flags: list[str], run: Path) -> None:
    """Trains to the end."""
    if start(flags, run).wait() != 0:
        sys.exit(f"the run failed:\n{run.with_suffix('.log').read_text('utf-8')[-4000:]}")


def outcome(run: Path) -> dict:
    """What must be equal: bytes of the state and of the best encoder's weights, losses by step."""
    (state,) = (run / "checkpoints").glob("state-*")
    best = run / "checkpoints" / "best"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    return {
        "state": (state / "variables.safetensors").read_bytes(),
        "progress": (state / "progress.json").read_text("utf-8"),
        "best_encoder": {p.name: _weights(p) for p in best.iterdir() if p.suffix in (".h5", ".safetensors")},
        "losses": [(line["step"], line["loss"]) for line in lines if "loss" in line],
        "evaluations": [(line["step"], line["dev"]) for line in lines if "dev" in line],
    }


def _weights(path: Path) -> object:
    if path.suffix != ".h5":
        return path.read_bytes()
    import h5py

    arrays = {}
    with h5py.File(path) as file:
        # The file itself has times in it.
        file.visititems(
            lambda name, item: arrays.update({name: item[()].tobytes()}) if hasattr(item, "dtype") else None
        )
    return arrays


def say(text: str) -> None:
    """Progress goes to stderr."""
    print(text, file=sys.stderr, flush=True)


_MAKE = "import sys; from pathlib import Path; from benchmarks import tiny; tiny.make_preset(Path(sys.argv[1]))"

if __name__ == "__main__":
    main()
