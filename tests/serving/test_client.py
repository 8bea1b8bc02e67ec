import http.server
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import simcse_tf
from benchmarks.workers import free_port
from simcse_tf.errors import UserError
from simcse_tf.serving import client as client_module
from simcse_tf.serving import compact
from simcse_tf.serving.client import Client
from tests.conftest import PROMPTS, SENTENCES
from tests.serving.conftest import ROOT

ODD = [
    "",
    " ",
    "\x00dog\x00",
    "\U0001f600 caf\u00e9",
    "\u05e9\u05dc\u05d5\u05dd",
    "dog \ud800 lone",
    '"\\\n\t',
    "dog " * 3000,
]


@pytest.fixture(scope="module")
def disk(exported) -> Client:
    return Client(exported)


@pytest.fixture(params=["rest", "grpc"])
def remote(server, request) -> Client:
    return Client(getattr(server, request.param), timeout=20, retry_for=90)


class TestSameAnswersEverywhere:
    def test_a_served_model_gives_what_the_model_on_disk_gives(self, disk, remote):
        texts = SENTENCES + ODD
        np.testing.assert_allclose(remote.encode(texts), disk.encode(texts), atol=1e-6)

    def test_the_number_of_texts_does_not_matter(self, disk, remote):
        for client in (disk, remote):
            assert client.encode([]).shape == (0, 16)
            assert client.encode(SENTENCES[0]).shape == (16,)
            assert client.encode(SENTENCES[:1]).shape == (1, 16)
            np.testing.assert_allclose(client.encode(SENTENCES, batch_size=7), client.encode(SENTENCES), atol=1e-5)

    def test_similarity_has_an_axis_per_list(self, disk, remote):
        for client in (disk, remote):
            score = client.similarity("a dog runs .", "a cat runs .")
            assert isinstance(score, float)
            matrix = client.similarity(SENTENCES[:3], SENTENCES[:5])
            assert matrix.shape == (3, 5)
            np.testing.assert_allclose(np.diag(matrix), 1, atol=1e-5)
            np.testing.assert_allclose(client.similarity(SENTENCES[1], SENTENCES[:5]), matrix[1], atol=1e-5)
            np.testing.assert_allclose(client.similarity(SENTENCES[:3], SENTENCES[4]), matrix[:, 4], atol=1e-5)
            np.testing.assert_allclose(
                client.similarity(client.encode(SENTENCES[:3]), SENTENCES[:5]), matrix, atol=1e-5
            )

    @pytest.mark.parametrize("name", ["query", "passage"])
    def test_a_prompt_is_put_before_each_text_when_it_is_named(self, disk, remote, name):
        written_out = disk.encode([PROMPTS[f"{name}_prompt"] + text for text in SENTENCES])
        for client in (disk, remote):
            assert client.prompt_names == ("query", "passage")
            found = client.encode(SENTENCES, prompt_name=name, batch_size=16)
            np.testing.assert_allclose(found, written_out, atol=1e-5)
            np.testing.assert_allclose(client.encode(SENTENCES[0], prompt_name=name), written_out[0], atol=1e-5)

    @pytest.mark.parametrize("name", [None, "query"])
    @pytest.mark.parametrize("dtype", ["int8", "binary"])
    def test_fewer_bits_are_those_of_the_same_vectors(self, disk, remote, dtype, name):
        texts = SENTENCES + ODD
        expected = compact.quantized(disk.encode(texts, prompt_name=name), dtype)
        assert remote._backend.in_bits
        for client in (disk, remote):
            found = client.encode(texts, dtype=dtype, prompt_name=name)
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
            # Where a number lies just between two.
            assert np.mean(found != expected) < 0.01
            np.testing.assert_array_equal(client.encode(texts[3], dtype=dtype, prompt_name=name), found[3])
            assert client.encode([], dtype=dtype).shape == (0, expected.shape[1])
            assert client.similarity(found[:3], texts[3:5]).shape == (3, 2)
        np.testing.assert_allclose(remote.similarity(found[:3], found[:3]).diagonal(), 1, rtol=1e-5)

    def test_a_client_may_keep_the_first_numbers_alone(self, exported, disk, remote):
        cut = compact.shortened(disk.encode(SENTENCES), 5)
        for model in (exported, remote._backend, simcse_tf.load(exported)._backend):
            client = Client(model, dim=5)
            assert client.dim == 5
            np.testing.assert_allclose(client.encode(SENTENCES), cut, atol=1e-5)
            assert client.encode(SENTENCES[:2], dtype="binary").shape == (2, 1)
            assert isinstance(client.similarity("a dog", "a cat"), float)
        client.build_index(SENTENCES)
        assert len(client.search(SENTENCES[7], top_k=3)) == 3
        for model in (exported, remote._backend):
            with pytest.raises(UserError, match="`dim` 17: the vectors of this encoder have 16 numbers"):
                Client(model, dim=17)

    def test_a_version_can_be_named(self, server, disk):
        for address in (f"{server.rest}/versions/1", f"{server.grpc}/1"):
            np.testing.assert_allclose(Client(address).encode(SENTENCES[:2]), disk.encode(SENTENCES[:2]), atol=1e-6)

    def test_load_gives_the_same_functions_for_an_export_and_a_live_encoder(self, exported, tiny_preset, server):
        for model in (exported, str(exported / "1"), server.rest, tiny_preset):
            client = simcse_tf.load(model)
            assert client.dim == 16
            assert -1 <= client.similarity("a dog", "a cat") <= 1
            client.build_index(SENTENCES)
            assert client.search(SENTENCES[7], top_k=1)[0][0] == SENTENCES[7]


class TestServerTrouble:
    def test_a_server_that_dies_and_comes_back_loses_nothing_and_doubles_nothing(self, server, disk):
        """Sixteen clients go on asking while the server is killed and started again."""
        expected = disk.encode(SENTENCES)
        addresses = [server.rest, server.grpc] * 8
        clients = [Client(address, retry_for=90) for address in addresses]
        answers: list[list[np.ndarray]] = [[] for _ in clients]
        problems = []
        up = threading.Event()

        def work(i):
            try:
                while not up.is_set() or len(answers[i]) < 20:
                    answers[i].append(clients[i].encode(SENTENCES, batch_size=16))
            except Exception as e:
                problems.append(e)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(len(clients))]
        for thread in threads:
            thread.start()
        while min(len(a) for a in answers) < 3 and not problems:
            time.sleep(0.01)
        server.kill()
        before = [len(a) for a in answers]
        time.sleep(0.5)
        # What was under way has failed by now; nobody got an answer from nowhere.
        assert all(len(a) <= n + 1 for a, n in zip(answers, before, strict=True))
        server.start()
        up.set()
        for thread in threads:
            thread.join(120)
        assert problems == []
        for i in range(len(clients)):
            assert len(answers[i]) > before[i]
            np.testing.assert_allclose(
                np.stack(answers[i]), np.broadcast_to(expected, (len(answers[i]), 60, 16)), atol=1e-6
            )

    def test_a_wrong_model_name_is_named_at_once(self, server):
        for address in (server.rest, server.grpc):
            began = time.monotonic()
            with pytest.raises(
                UserError, match=r"tin.: the server has no such model \(Servable not found for request: Latest"
            ):
                Client(address[:-1] + "x")
            assert time.monotonic() - began < 3

    def test_a_version_that_is_not_served(self, server):
        for address in (f"{server.rest}/versions/7", f"{server.grpc}/7"):
            with pytest.raises(UserError, match=r"no such model \(Servable not found for request: Specific version 7"):
                Client(address)

    @pytest.mark.parametrize("address", ["http://127.0.0.1:{}/v1/models/tiny", "grpc://127.0.0.1:{}/tiny"])
    def test_nobody_listens(self, address, monkeypatch):
        monkeypatch.setattr("simcse_tf.serving.retry._FIRST_CONTACT", 0.5)
        with pytest.raises(
            UserError, match=r"no answer for \d s .*refused.*Is the server running, and is this its address"
        ):
            Client(address.format(free_port()))

    @pytest.mark.parametrize("address", ["http://127.0.0.1:{}/v1/models/tiny", "grpc://127.0.0.1:{}/tiny"])
    def test_somebody_listens_and_says_nothing(self, address):
        with socket.create_server(("127.0.0.1", 0), backlog=128) as silent:
            began = time.monotonic()
            with pytest.raises(UserError, match="no answer for"):
                Client(address.format(silent.getsockname()[1]), timeout=0.3, retry_for=1)
            assert 0.3 < time.monotonic() - began < 4

    def test_the_wrong_port_of_the_right_server(self, server, monkeypatch):
        monkeypatch.setattr("simcse_tf.serving.retry._FIRST_CONTACT", 0.5)
        swapped = [
            server.rest.replace(str(server._rest_port), str(server._grpc_port)),
            server.grpc.replace(str(server._grpc_port), str(server._rest_port)),
        ]
        for address in swapped:
            with pytest.raises(UserError, match="port 8501 speaks REST, port 8500 gRPC"):
                Client(address, timeout=2)

    def test_overload_is_waited_out(self, monkeypatch):
        from simcse_tf.serving.retry import Retry, UnavailableError

        calls = []

        def request():
            calls.append(time.monotonic())
            if len(calls) < 5:
                raise UnavailableError("HTTP 503: busy")
            return "answer"

        assert Retry("server", 30)(request) == "answer"
        pauses = np.diff(calls)
        assert pauses[3] > pauses[0]

    def test_an_answer_that_is_no_embedding(self):
        class Chatty(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"<html>hello</html>")

            def log_message(self, *_):
                pass

        with http.server.HTTPServer(("127.0.0.1", 0), Chatty) as chatty:
            threading.Thread(target=chatty.handle_request).start()
            with pytest.raises(UserError, match=r"its answer is not an embedding \(b'<html>hello"):
                Client(f"http://127.0.0.1:{chatty.server_port}/v1/models/tiny")

    def test_another_model_behind_the_same_address_is_noticed(self, disk):
        class Changing:
            name = "changing"

            def encode_batch(self, texts):
                vectors = disk.encode(texts)
                return vectors if len(texts) == len(client_module.PROBES) else vectors[:, :-1]

        client = Client(Changing())
        with pytest.raises(UserError, match=r"changing: 1 texts gave an array of shape \(1, 15\) where \(1, 16\)"):
            client.encode(["a dog"])


class TestWrongUse:
    @pytest.mark.parametrize(
        ("address", "message"),
        [
            ("ftp://host/model", "unknown kind of address 'ftp://'"),
            ("http://host:8501/quickstart", "expected http://host:8501/v1/models/NAME"),
            ("http://host:8501/v1/models/quickstart:predict", "expected http://host:8501/v1/models/NAME"),
            ("grpc://host/quickstart", "expected grpc://host:8500/NAME"),
            ("grpc://host:8500/quickstart/latest", "expected grpc://host:8500/NAME"),
            ("no/such/directory", "no exported model there"),
        ],
    )
    def test_an_address_that_is_none(self, address, message):
        with pytest.raises(UserError, match=message):
            Client(address)

    def test_a_missing_extra_is_named(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "grpc", None)
        with pytest.raises(UserError, match=r"needs grpcio.*simcse-tf\[grpc\]"):
            Client("grpc://localhost:8500/tiny")

    def test_an_element_that_is_no_string(self, disk):
        with pytest.raises(UserError, match="text 1 is of type float, not a string: nan"):
            disk.encode(["a dog", float("nan")])

    def test_a_prompt_that_the_model_does_not_have(self, disk, exported_family):
        with pytest.raises(UserError, match="`prompt_name` pasage: unknown. Did you mean 'passage'"):
            disk.encode("a dog", prompt_name="pasage")
        with pytest.raises(UserError, match="`prompt_name` query: this model has no prompts"):
            Client(exported_family("bert")).encode("a dog", prompt_name="query")

    @pytest.mark.parametrize(
        "message",
        [
            'HTTP 400: Serving signature name: "query" not found in signature def',
            'FAILED_PRECONDITION: Serving signature key "query" not found.',
        ],
    )
    def test_a_server_says_by_a_missing_signature_that_its_model_has_no_prompts(self, message):
        from simcse_tf.serving.retry import refused, served_prompts

        def encode_batch(texts, prompt_name):
            raise refused("http://host", said)

        said = message
        assert served_prompts(encode_batch) == ()
        said = "HTTP 400: something else"
        with pytest.raises(UserError, match="http://host: the server refused the request: HTTP 400: something else"):
            served_prompts(encode_batch)

    def test_a_batch_of_nothing(self, disk):
        with pytest.raises(UserError, match="`batch_size` 0: must be at least 1"):
            disk.encode(["a dog"], batch_size=0)

    def test_a_damaged_model(self, exported, tmp_path):
        (tmp_path / "1").mkdir()
        (tmp_path / "1" / "saved_model.pb").write_bytes(b"nonsense")
        with pytest.raises(UserError, match="1: cannot be loaded"):
            Client(tmp_path)

    def test_searching_without_an_index(self, disk):
        with pytest.raises(UserError, match=r"call build_index\(sentences\) or load_index\(directory\) first"):
            Client(disk._backend).search("a dog")


def run(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestImports:
    def test_a_served_model_needs_neither_tensorflow_nor_keras(self, server):
        code = (
            "import sys; from simcse_tf.serving.client import Client\n"
            "for address in sys.argv[1:]: assert Client(address).encode(['a dog']).shape == (1, 16)\n"
            "assert not {'tensorflow', 'keras', 'keras_hub', 'tensorflow_serving'} & set(sys.modules)\n"
        )
        run(code, server.rest, server.grpc)

    def test_a_model_on_disk_needs_neither_the_trainer_nor_keras(self, exported):
        code = (
            "import sys; from simcse_tf.serving.client import Client\n"
            "assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
            "assert Client(sys.argv[1]).encode(['a dog']).shape == (1, 16)\n"
            "assert not {'keras', 'keras_hub', 'tensorflow_text'} & set(sys.modules)\n"
            "print(*sorted(m for m in sys.modules if m.startswith('simcse_tf.')))"
        )
        folders = {name.split(".")[1] for name in run(code, str(exported)).split()}
        assert folders <= {"checks", "data", "errors", "files", "quiet", "serving"}

    def test_afterwards_keras_and_tensorflow_text_are_imported_as_ever(self, exported):
        """And a model whose operations are in none of the libraries that are loaded gets all of tensorflow_text."""
        code = (
            "import sys; from simcse_tf.serving import client, disk\n"
            "disk._LIBRARIES = disk._LIBRARIES[1:]\n"
            "assert client.Client(sys.argv[1]).encode(['a dog']).shape == (1, 16)\n"
            "assert 'tensorflow_text' in sys.modules\n"
            "disk._register_tokenizers()\n"
            "from tensorflow.keras.layers import Dense; import keras; assert Dense is keras.layers.Dense\n"
        )
        run(code, str(exported))
