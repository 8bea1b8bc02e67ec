"""One process that serves the tiny export, for all tests of this folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.workers import free_port

ROOT = Path(__file__).resolve().parents[2]


class Server:
    """A process that speaks TF Serving's protocol; see protocol_server.py."""

    def __init__(self, directory: Path, name: str):
        self._rest_port, self._grpc_port = free_port(), free_port()
        self._command = [
            *(sys.executable, "-m", "tests.serving.protocol_server"),
            *(str(directory), name, str(self._rest_port), str(self._grpc_port)),
        ]
        self.rest = f"http://127.0.0.1:{self._rest_port}/v1/models/{name}"
        self.grpc = f"grpc://127.0.0.1:{self._grpc_port}/{name}"
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="session")
def server(exported) -> Iterator[Server]:
    """Serves version 1 of the tiny export under the name `tiny`."""
    pytest.importorskip("tensorflow_serving", reason="needs tensorflow-serving-api: pip install -e '.[dev]'")
    server = Server(exported / "1", "tiny")
    yield server
    server.kill()
