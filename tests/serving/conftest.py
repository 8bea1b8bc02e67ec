"""One tiny export and one process that serves it, for all tests of this folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from benchmarks.workers import free_port
from tests.conftest import export_unchecked

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def exported_family(tmp_path_factory):
    """A function from a Hugging Face `model_type` to the directory of its tiny export; each is made once."""
    from simcse_tf.config import EncoderConfig
    from simcse_tf.models import presets
    from simcse_tf.models.saved import load_encoder
    from tests.models import hugging_face_directories

    root = tmp_path_factory.mktemp("families")

    @cache
    def export(model_type: str) -> Path:
        source = str(hugging_face_directories.write(root / "sources" / model_type, model_type))
        encoder = load_encoder(presets.locate(source), EncoderConfig("cls", "none"))
        export_unchecked(encoder, root / model_type, source=source)
        return root / model_type

    return export


@pytest.fixture(scope="session")
def exported(tiny_origin, tmp_path_factory) -> Path:
    """The directory `tiny`, with version 1 of a tiny BERT."""
    from simcse_tf.config import EncoderConfig
    from simcse_tf.models.saved import load_encoder

    directory = tmp_path_factory.mktemp("models") / "tiny"
    export_unchecked(load_encoder(tiny_origin, EncoderConfig("avg", "none")), directory)
    return directory


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
