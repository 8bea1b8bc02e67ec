"""A contender runs in a process of its own, and works only when it is its turn; between turns the process is stopped.

The parent (`Worker`) and the child (`Turns`) talk in lines of JSON: the parent names a task, the child answers with
what it measured. A child is

    python -m benchmarks.workers MODULE.FUNCTION SETTINGS

and calls that function of `benchmarks.contenders` with `(turns, settings)`; it loads, and takes turns for ever.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    # NNCF reports its use to its makers otherwise.
    "NNCF_CI": "1",
}

# Every answer has the memory; a task that asks for nothing else.
_COMMON: dict[str, Callable[..., dict[str, Any]]] = {"memory": dict}


def environment() -> dict[str, str]:
    """What every process of the benchmark is started with: no GPU, no network, no chatter."""
    return os.environ | _ENVIRONMENT


class Worker:
    """The parent's side of a contender; started, loaded and stopped when the constructor returns.

    Args:
        function: `module.function` in `benchmarks.contenders`.
        settings: What the function is given.
        log: The file that the child's output goes to.

    Raises:
        RuntimeError: The child ended; the message has the end of its output.
    """

    def __init__(self, function: str, settings: dict[str, Any], log: Path):
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        began = time.perf_counter()
        command = [sys.executable, "-m", "benchmarks.workers", function, json.dumps(settings)]
        with log.open("w") as output:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                bufsize=1,
            )
        self._receive()
        self.loading = time.perf_counter() - began
        self._process.send_signal(signal.SIGSTOP)

    def turn(self, task: str, **arguments: Any) -> dict[str, Any]:
        """Lets the child do one task, alone.

        Returns:
            Its answer; `memory` is the most it ever had resident so far, in bytes.
        """
        self._process.send_signal(signal.SIGCONT)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"task": task} | arguments) + "\n")
        answer = self._receive()
        self._process.send_signal(signal.SIGSTOP)
        return answer

    def end(self) -> None:
        """Ends the child."""
        self._process.kill()
        self._process.communicate()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise RuntimeError(f"{self.log} ends:\n{self.log.read_text('utf-8', 'replace')[-3000:]}")
        return json.loads(line)


class Turns:
    """The child's side."""

    def __init__(self):
        # What libraries print must not get between the answers.
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def answer(self, **values: Any) -> None:
        """Ends a turn; the first answer says that everything is loaded."""
        self._answers.write(json.dumps(values | {"memory": resident_memory()}) + "\n")
        self._answers.flush()

    def wait(self) -> dict[str, Any]:
        """Waits for a turn: `task` and its arguments."""
        line = sys.stdin.readline()
        if not line:
            os._exit(0)
        return json.loads(line)

    def serve(self, tasks: dict[str, Callable[..., dict[str, Any]]]) -> None:
        """Takes turns for ever: `tasks` maps names to functions of the turn's arguments."""
        self.answer()
        while True:
            turn = self.wait()
            self.answer(**(_COMMON | tasks)[turn.pop("task")](**turn))


class StepTurns:
    """Turns for a training loop that is not ours to interrupt: it reports its steps, and is held between turns.

    Args:
        turns: The process' turns.
        others: Tasks other than training.
    """

    def __init__(self, turns: Turns, others: dict[str, Callable[..., dict[str, Any]]] | None = None):
        self._turns, self._others = turns, others or {}

    def begin(self) -> None:
        """Everything is loaded; returns when steps are to be made."""
        self._turns.answer()
        self._wait()

    def after_step(self, loss: float) -> None:
        """Counts a step; at the end of a turn it answers with the timed steps' `seconds` and every step's loss."""
        self._losses.append(loss)
        done = len(self._losses) - self._untimed
        if done == 0:
            self._began = time.perf_counter()
        if done == self._steps:
            self._turns.answer(seconds=time.perf_counter() - self._began, losses=self._losses)
            self._wait()

    def _wait(self) -> None:
        while (turn := self._turns.wait())["task"] != "train":
            self._turns.answer(**(_COMMON | self._others)[turn.pop("task")](**turn))
        self._untimed, self._steps, self._losses = turn["untimed"], turn["steps"], []
        self._began = time.perf_counter()


def resident_memory(process: int | str = "self", field: str = "VmHWM") -> int:
    """Bytes that a process has resident: the most that it ever had, or with `VmRSS` those of now."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/{process}/status: memory is measured on Linux only")


def free_port() -> int:
    """A port of this machine at which nobody listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def main() -> None:
    """The child; it dies with its parent, even while it is stopped."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    turns = Turns()
    function, settings = sys.argv[1:]
    module, _, name = function.partition(".")
    run = getattr(importlib.import_module(f"benchmarks.contenders.{module}"), name)
    run(turns, json.loads(settings))


if __name__ == "__main__":
    main()
