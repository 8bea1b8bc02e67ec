"""What every part of the benchmark needs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.texts import Texts
from benchmarks.workers import Worker

BATCH_SIZE = 64

# `module.function` in `benchmarks.contenders`, and settings of its own if it has any.
Contender = str | tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Setting:
    """The machine's, the model's and the texts' side of a run."""

    build: Path
    texts: Texts
    # all-MiniLM-L6-v2 as a Hugging Face directory.
    model: Path
    threads: int
    # One round of everything: a check that it runs.
    quick: bool

    def settings(self, **more: Any) -> dict[str, Any]:
        """What a worker is told."""
        # A quick run is its own check that everybody computes the same.
        dropout = 0.0 if self.quick else 0.1
        return {"model": str(self.model), "threads": self.threads, "batch_size": BATCH_SIZE, "dropout": dropout} | more


@contextlib.contextmanager
def running(setting: Setting, contenders: Mapping[str, Contender], **more: Any) -> Iterator[dict[str, Worker]]:
    """Starts workers one after another, and ends them all.

    Args:
        setting: The run's.
        contenders: By name.
        more: Settings for all of them.
    """
    workers: dict[str, Worker] = {}
    try:
        for name, contender in contenders.items():
            function, own = (contender, {}) if isinstance(contender, str) else contender
            log = setting.build / "logs" / f"{name}.log"
            workers[name] = Worker(function, setting.settings(**more | own), log)
            say(f"{name}: loaded in {workers[name].loading:.1f} s")
        yield workers
    finally:
        for worker in workers.values():
            worker.end()


def gemms(setting: Setting) -> dict[str, str]:
    """Whose matrix products set the machine's rate."""
    pytorch = {"PyTorch's product": "pytorch.gemm"}
    return pytorch if setting.quick else pytorch | {"TensorFlow's product": "ours.gemm"}


def best_rate(multipliers: dict[str, Worker]) -> float:
    """The machine's rate in matrix products now, in operations a second."""
    return max(worker.turn("gemm")["rate"] for worker in multipliers.values())


def say(text: str) -> None:
    """Progress."""
    print(f"  {text}", file=sys.stderr, flush=True)
