"""Start-up: from a cold process to the first embedding; imports; `--help`."""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.measurements import OURS, Measurement
from benchmarks.parts import exports
from benchmarks.parts.setting import Setting, say
from benchmarks.workers import ROOT, environment

LOAD = "import simcse_tf; simcse_tf.load({!r}).encode('A text.')"
_ST = "from sentence_transformers import SentenceTransformer as S; S({!r}, device='cpu').encode('A text.')"
ORT = "from benchmarks.contenders.onnx_runtime import Encoder; Encoder({!r}).call(['A text.'])"


def start(setting: Setting) -> list[Measurement]:
    """Every command in a process of its own, in turns; the files are in the system's cache."""
    onnx = setting.settings(onnx=exports.onnx(setting))
    first = Measurement("start", "From a cold process to the first embedding", "s", False)
    imports = Measurement("import", "Import", "s", False)
    helps = Measurement("help", "`--help`", "s", False)
    commands: list[tuple[Measurement, dict[str, list[str]]]] = [
        (
            first,
            {
                OURS: ["-c", LOAD.format(exports.saved_model(setting))],
                f"{OURS}, in process": ["-c", LOAD.format(str(setting.model))],
                "sentence-transformers": ["-c", _ST.format(str(setting.model))],
                "ONNX Runtime": ["-c", ORT.format(onnx)],
            },
        ),
        (
            imports,
            {
                OURS: ["-c", "import simcse_tf"],
                f"{OURS}, TensorFlow": ["-c", "import tensorflow"],
                "sentence-transformers": ["-c", "import sentence_transformers"],
                "ONNX Runtime": ["-c", "import onnxruntime, tokenizers"],
            },
        ),
        (helps, {OURS: ["-m", "simcse_tf.train", "--help"]}),
    ]
    for measurement, contenders in commands:
        in_turns(setting, measurement, contenders)
    return [first, imports, helps]


def in_turns(setting: Setting, measurement: Measurement, commands: dict[str, list[str]]) -> None:
    """Measures how long Python runs with these arguments.

    Args:
        setting: The run's.
        measurement: Gets the seconds.
        commands: Contender to arguments.
    """
    for i in range(2 if setting.quick else 4):
        for who, command in commands.items():
            seconds = _seconds(command)
            if i:  # the first time the files were read from disk
                measurement.add(who, seconds)
    say(f"{measurement.title}: " + ", ".join(f"{w} {x:.2f} s" for w, x in measurement.medians().items()))


def _seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=ROOT, env=environment(), check=True, capture_output=True)
    return time.perf_counter() - began
