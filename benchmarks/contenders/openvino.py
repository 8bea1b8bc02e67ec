"""OpenVINO: the graph that ONNX Runtime has, before its fusion, with weights stored in 8 bits by NNCF.

OpenVINO fuses by itself when it compiles the graph for the processor; in how many bits it multiplies is left to its
defaults.
"""

# The peers are installed in the benchmark's environment alone.
# pyright: reportMissingImports=false

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import openvino

from benchmarks.contenders import graph
from benchmarks.workers import Turns


class Encoder(graph.Encoder):
    """Texts to unit vectors."""

    def __init__(self, settings: dict[str, Any]):
        super().__init__(settings)
        # All threads work at one batch.
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": settings["threads"]}
        self._model = openvino.Core().compile_model(settings["openvino"], "CPU", options)

    def run(self, feed: dict[str, np.ndarray]) -> np.ndarray:
        """As the base class says."""
        return self._model(feed)[0]


def encode(turns: Turns, settings: dict[str, Any]) -> None:
    """Throughput in sorted batches, and single calls."""
    graph.serve(turns, settings, Encoder(settings))


def export(unfused: str, to: str) -> None:
    """Stores the weights of an ONNX graph in 8 bits, with a scale for each row."""
    import nncf

    model = openvino.Core().read_model(unfused)
    openvino.save_model(nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM), to)


if __name__ == "__main__":
    export(*sys.argv[1:])
