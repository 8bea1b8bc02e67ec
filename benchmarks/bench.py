"""simcse_tf against PyTorch, sentence-transformers, ONNX Runtime and OpenVINO.

`make bench`, or `python -m benchmarks.bench`. Needs an environment with all of them (`make bench` makes it), Linux, and
a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from benchmarks import table, texts
from benchmarks.parts import PARTS, SLOW
from benchmarks.parts.setting import Setting
from benchmarks.workers import ROOT
from simcse_tf.formats import presets

_PACKAGES = (
    "simcse-tf",
    "tensorflow",
    "keras",
    "keras-hub",
    "torch",
    "transformers",
    "sentence-transformers",
    "onnxruntime",
    "openvino",
    "ai-edge-litert",
    "tokenizers",
    "numpy",
)
_THREADS = 2
# Load average above which the machine is not called quiet.
_QUIET = 0.5


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of the main parts, to see that they run")
    parser.add_argument("--only", default="", help=f"parts, separated by commas: {', '.join(PARTS)}")
    parser.add_argument("--build", type=Path, default=ROOT / "build/bench", help="where models and logs go")
    parser.add_argument("--results", type=Path, help="the JSON file; default: benchmarks/results/DATE.json")
    arguments = parser.parse_args()
    chosen = arguments.only.split(",") if arguments.only else [p for p in PARTS if not (arguments.quick and p in SLOW)]
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"--only: no part {', '.join(sorted(unknown))}. Parts: {', '.join(PARTS)}")

    # All processes inherit it: as many threads for everybody, on any machine.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:_THREADS])
    if (load := os.getloadavg()[0]) > _QUIET:
        print(
            f"the load average is {load:.1f}: something else is running, or was until now. Its part of the machine is "
            "not taken equally from everybody (PyTorch's threads wait for each other), so figures will flatter us.",
            file=sys.stderr,
        )
    (arguments.build / "logs").mkdir(parents=True, exist_ok=True)
    model = presets.locate("minilm").directory
    assert model is not None
    setting = Setting(arguments.build, texts.prepare(arguments.build), model, _THREADS, arguments.quick)
    began = datetime.now(timezone.utc)
    results = {"about": _about(setting, began), "measurements": {}}
    path = arguments.results or ROOT / "benchmarks" / "results" / f"{began:%Y-%m-%d-%H%M}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in chosen:
        print(f"{name} ({time.strftime('%H:%M:%S')}, load {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)
        for measurement in PARTS[name](setting):
            results["measurements"][measurement.name] = measurement.to_dict()
        results["about"]["seconds"] = round((datetime.now(timezone.utc) - began).total_seconds())
        path.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    print(table.markdown(results))
    print(f"\n{path}")


def _about(setting: Setting, began: datetime) -> dict:
    return {
        "date": began.isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD") or "unknown",
        "changed_files": _git("status", "--porcelain").splitlines(),
        "machine": {
            "cpu": _cpu(),
            "threads": setting.threads,
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "system": platform.platform(),
            "load_before": round(os.getloadavg()[0], 2),
        },
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
        "texts": "real" if setting.texts.real else "generated",
        "quick": setting.quick,
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    main()
