"""Training against the length of its file: peak memory, time to the first step. `python -m benchmarks.file_length`.

For every length a file of unique lines of about 100 characters is generated, and the command itself trains a tiny BERT
on it in a process of its own, once with epochs (the file is read whole before the first step, to count and to check
it) and once with `--max-steps`. Then, on the longest: the rate of the batch pipeline without a model, and how long a
run takes to its place in the data when it is resumed. Prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import tiny

_ROOT = Path(__file__).resolve().parents[1]
_TEXT = """
a an the this every some man woman child dog cat bird horse boat car house tree river garden street morning plays eats
runs sleeps sings reads rides watches builds finds red blue green small large old new quiet bright on in under near with
without behind before after guitar piano ball book bread apple window letter is are not and two three
"""
_WORDS = _TEXT.split()
_BATCH, _LENGTH = 64, 32
# Steps after which the command is stopped; the shuffle buffer, by default of 100,000 rows, is full before the first.
_STEPS = 300


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, nargs="+", default=[10_000, 1_000_000, 10_000_000])
    parser.add_argument("--suffix", choices=(".txt", ".jsonl", ".csv"), default=".txt")
    parser.add_argument("--resume-at", type=int, default=100_000, help="step of the longest file to resume at")
    parser.add_argument("--directory", type=Path, help="where the files are made, and deleted (a temporary directory)")
    parser.add_argument("--output", type=Path, default=Path("file_length.json"))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        _WORKERS[given.worker](given.directory, given.lines[0], given.resume_at)
        return

    results = {"training": []}
    with tempfile.TemporaryDirectory(dir=given.directory) as name:
        directory = Path(name)
        _work("preset", directory, 0, 0)
        for count in sorted(given.lines):
            path = directory / f"lines{given.suffix}"
            seconds = write_lines(path, count)
            print(f"{count} lines written in {seconds:.0f} s", file=sys.stderr)
            for flags in ([], ["--max-steps", str(_STEPS * 2)]):
                row = {"lines": count, "megabytes": path.stat().st_size / 1e6, "flags": " ".join(flags)}
                results["training"].append(row | train(directory, path, flags))
                print(json.dumps(results["training"][-1]), file=sys.stderr)
        results["pipeline"] = _work("pipeline", directory, max(given.lines), 0)
        results["resume"] = _work("resume", directory, max(given.lines), given.resume_at)
    print(table(results))
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "command": sys.argv}
    given.output.write_text(json.dumps({"machine": machine, **results}, indent=2) + "\n", "utf-8")


def write_lines(path: Path, count: int) -> float:
    """Generates a file in seconds a gigabyte, the same every time; returns the seconds."""
    began, rng = time.monotonic(), random.Random(0)
    pieces = [" ".join(rng.choices(_WORDS, k=rng.randint(5, 13))) for _ in range(20_000)]
    form = {".txt": "{} {} {} .\n", ".csv": "{} {} {} .\n", ".jsonl": '{{"text": "{} {} {} ."}}\n'}[path.suffix]
    with path.open("w") as file:
        if path.suffix == ".csv":
            file.write("text\n")
        for start in range(0, count, 10_000):
            rows = range(start, min(count, start + 10_000))
            file.write("".join(form.format(rng.choice(pieces), i, rng.choice(pieces)) for i in rows))
    return time.monotonic() - began


def train(directory: Path, path: Path, flags: list[str]) -> dict:
    """Runs the command until it has logged `_STEPS` steps, and stops it."""
    run = directory / "run"
    shutil.rmtree(run, ignore_errors=True)
    command = [
        *(sys.executable, "-m", "simcse_tf.train", "unsup-bert-base", "--preset", str(directory / "preset")),
        *("--data", str(path), "--dev", "bundled", "--output-dir", str(run), "--no-report"),
        *("--batch-size", str(_BATCH), "--max-length", str(_LENGTH), "--eval-every", "100000"),
        *("--epochs", "3", *flags),
    ]
    began, first, done = time.monotonic(), {}, 0
    process = subprocess.Popen(command, cwd=_ROOT, stderr=subprocess.DEVNULL, env=_environment())
    while done < _STEPS:
        time.sleep(0.02)
        if process.poll() is not None:
            raise RuntimeError(f"ended after {done} steps with status {process.returncode}: {' '.join(command)}")
        done = _logged_steps(run / "metrics.jsonl") if (run / "metrics.jsonl").is_file() else 0
        if done and not first:
            first = {
                "first_step_seconds": time.monotonic() - began,
                "first_step_cpu_seconds": _cpu_seconds(process.pid),
            }
    process.kill()
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0  # waited for
    return first | {"peak_mib": usage.ru_maxrss / 1024}


def _cpu_seconds(pid: int) -> float:
    """What it has computed, on all cores: tells a slow start from a busy machine."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _logged_steps(metrics: Path) -> int:
    return metrics.read_bytes().count(b'"loss"')


def table(results: dict) -> str:
    """What was measured, for people."""
    rows = [f"{'lines':>10} {'MB':>6} {'flags':>16} {'first step s':>13} {'CPU s':>6} {'peak MiB':>9}"]
    rows += [
        f"{r['lines']:>10} {r['megabytes']:>6.0f} {r['flags'] or '-':>16} {r['first_step_seconds']:>13.1f} "
        f"{r['first_step_cpu_seconds']:>6.1f} {r['peak_mib']:>9.0f}"
        for r in results["training"]
    ]
    r = results["pipeline"]
    rows.append(f"batches of {_BATCH} x {_LENGTH} without a model: {r['batches_per_second']:.0f}/s")
    r = results["resume"]
    rows.append(
        f"resuming at step {r['step']}: first batch after {r['seconds']:.1f} s, {r['rows_per_second']:.0f} rows/s"
    )
    return "\n".join(rows)


def _work(worker: str, directory: Path, lines: int, step: int) -> dict:
    arguments = ["--worker", worker, "--directory", str(directory), "--lines", str(lines), "--resume-at", str(step)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.file_length", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=_ROOT,
        env=_environment(),
    )
    return json.loads(done.stdout.splitlines()[-1])


def _environment() -> dict[str, str]:
    return os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}


def _make_preset(directory: Path, lines: int, step: int) -> None:
    digits = "0123456789."
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS, *digits, *(f"##{c}" for c in digits)]
    tiny.make_preset(directory / "preset", vocabulary, layers=2, positions=512)
    print("{}")


def _pipeline_rate(directory: Path, lines: int, step: int) -> None:
    from simcse_tf.data import pipeline
    from simcse_tf.formats import presets
    from simcse_tf.formats.encoders import load_encoder

    tokenizer = load_encoder(presets.locate(str(directory / "preset"))).tokenizer
    batches = pipeline.token_batches(_feed(directory), tokenizer, max_length=_LENGTH)
    batches = iter(batches)
    next(batches)  # fills the shuffle buffer
    began, count = time.monotonic(), 3000
    for _ in range(count):
        next(batches)
    print(json.dumps({"batches_per_second": count / (time.monotonic() - began)}))


def _resume(directory: Path, lines: int, step: int) -> None:
    feed = _feed(directory, start_step=step)
    began = time.monotonic()
    next(iter(feed))
    seconds = time.monotonic() - began
    print(json.dumps({"step": step, "seconds": seconds, "rows_per_second": step * _BATCH / seconds}))


def _feed(directory: Path, start_step: int = 0):
    from simcse_tf.data import pipeline, sources

    (path,) = directory.glob("lines.*")
    return pipeline.Feed(sources.open_source(str(path)), batch_size=_BATCH, seed=42, start_step=start_step)


_WORKERS = {"preset": _make_preset, "pipeline": _pipeline_rate, "resume": _resume}

if __name__ == "__main__":
    main()
