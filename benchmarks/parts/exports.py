"""The models that contenders load, written once in every run, because the program may have changed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

from benchmarks.parts.setting import Setting, say
from benchmarks.workers import ROOT, environment

_ONNX_RUNTIME = "benchmarks.contenders.onnx_runtime"
_OPENVINO = "benchmarks.contenders.openvino"
_UNFUSED = "minilm_unfused.onnx"


@cache
def saved_model(setting: Setting) -> str:
    """Our SavedModel."""
    return _ours(setting, "saved_model")


@cache
def litert(setting: Setting, quantize: str) -> str:
    """Our LiteRT model, with `quantize` as the command takes it."""
    return _ours(setting, f"litert_{quantize}", "--format", "litert", "--quantize", quantize)


@cache
def onnx(setting: Setting) -> str:
    """ONNX Runtime's fused graph in float32."""
    to = str(setting.build / "minilm.onnx")
    _run(setting, to, _ONNX_RUNTIME, "export", str(setting.model), str(setting.build / _UNFUSED), to)
    return to


@cache
def onnx_int8(setting: Setting) -> str:
    """The same, quantised."""
    to = str(setting.build / "minilm_int8.onnx")
    _run(setting, to, _ONNX_RUNTIME, "quantize", onnx(setting), to)
    return to


@cache
def openvino_int8(setting: Setting) -> str:
    """OpenVINO's quantised graph."""
    onnx(setting)
    to = str(setting.build / "minilm_int8.xml")
    _run(setting, to, _OPENVINO, str(setting.build / _UNFUSED), to)
    return to


def _ours(setting: Setting, name: str, *flags: str) -> str:
    to = setting.build / name
    shutil.rmtree(to, ignore_errors=True)
    _run(setting, str(to), "simcse_tf.export", str(setting.model), *flags, "--to", str(to))
    return str(to)


def _run(setting: Setting, to: str, *command: str) -> None:
    began = time.perf_counter()
    with (setting.build / "logs" / f"{Path(to).name}.log").open("w") as log:
        command = (sys.executable, "-m", *command)
        subprocess.run(command, cwd=ROOT, env=environment(), stdout=log, stderr=log, check=True)
    say(f"{to} written in {time.perf_counter() - began:.1f} s")
