"""Two tiny exports and one process that shows the page over them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.workers import free_port
from tests.conftest import export_unchecked

pytest.importorskip("gradio", reason="needs gradio: pip install -e '.[demo]'")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def models(tiny_origin, tmp_path_factory) -> Path:
    """A folder as `saved_models/`: `base/1`, then `tiny/1`, which pools in another way."""
    from simcse_tf.config import EncoderConfig
    from simcse_tf.formats.encoders import load_encoder

    root = tmp_path_factory.mktemp("saved_models")
    for name, pooling in (("base", "cls"), ("tiny", "avg")):
        export_unchecked(load_encoder(tiny_origin, EncoderConfig(pooling, "none")), root / name, source="tiny")
    return root


@pytest.fixture(scope="session")
def client(models):
    """The client over `tiny/1`: what the page shows must be what it says."""
    from simcse_tf.serving.client import Client

    return Client(models / "tiny")


class Demo:
    """`python -m demo` in a process of its own."""

    models: Path

    def __init__(self, *arguments: str):
        self.port = free_port()
        command = [sys.executable, "-m", "demo", "--port", str(self.port), *arguments]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said, self.process.communicate()[1]
        self.address = said.split()[0]

    def stop(self) -> str:
        """Ends it as a service manager does; returns what it wrote to stderr."""
        self.process.send_signal(signal.SIGTERM)
        errors = self.process.communicate(timeout=30)[1]
        assert self.process.returncode == 0, errors
        return errors


@pytest.fixture(scope="session")
def demo(models) -> Iterator[Demo]:
    """The page over both models."""
    running = Demo("--models", str(models))
    yield running
    errors = running.stop()
    assert "Traceback" not in errors, errors


def end_trainings(jobs) -> None:
    """Kills what is still trained: it would outlive the tests, as it outlives the page."""
    for job in jobs.all():
        if job.state().what in ("running", "stopping"):
            os.killpg(int((job.directory / "lock").read_text()), signal.SIGKILL)
