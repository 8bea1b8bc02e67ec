"""The server over an encoder that is made up, and once over an exported model beside TF Serving's protocol."""

import asyncio
import base64
import contextlib
import hashlib
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from simcse_tf import loading, serve
from simcse_tf.errors import UserError
from simcse_tf.serving import compact
from simcse_tf.serving.batching import Batcher, QueueFullError
from simcse_tf.serving.client import Client
from tests.serving.conftest import ROOT

pytest.importorskip("uvicorn", reason="needs the extra serve: pip install -e '.[serve]'")
from simcse_tf.serving.server import Limits, application

DIM = 8
PREDICT = "/v1/models/tiny:predict"
ODD = ["", " ", "\x00dog\x00", "\U0001f600 caf\u00e9", "\u05e9\u05dc\u05d5\u05dd", '"\\\n\t', "dog " * 25_000]


class Made:
    """An encoder that takes no time: a text's vector depends on its characters alone. While `closed`, it waits."""

    name = "made up"

    def __init__(self):
        self.open = threading.Event()
        self.open.set()
        # Texts of each call.
        self.calls: list[list[str]] = []

    def encode_batch(self, texts: list[str], prompt_name: str | None = None) -> np.ndarray:
        self.calls.append(texts)
        assert self.open.wait(30)
        texts = [f"{prompt_name}: {text}" for text in texts] if prompt_name else texts
        if "broken" in texts:
            raise RuntimeError("the model is broken")
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") for text in texts]
        vectors = np.array([np.random.default_rng(seed).standard_normal(DIM) for seed in seeds], "float32")
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Prompted(Made):
    """One with prompts."""

    prompt_names = ("query", "passage")


class Served:
    """A server in a thread, and one connection to it."""

    def __init__(self, backend, **limits):
        self.backend = backend
        model = backend if isinstance(backend, Client) else Client(backend)
        app = application(model, name="tiny", version="1", limits=Limits(**limits))
        self.server = serve.server(app)
        # The connection is idle while other tests run, however long.
        self.server.config.timeout_keep_alive = 3600
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.thread = threading.Thread(target=self.server.run, args=([listener],))
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.port}"
        self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def ask(self, path, body=None, method=None):
        """Status, content and headers of an answer; a body that is not bytes is sent as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        self._connection.request(method or ("GET" if data is None else "POST"), path, data)
        response = self._connection.getresponse()
        content = response.read()
        is_json = response.headers["Content-Type"] == "application/json"
        return response.status, json.loads(content) if is_json else content.decode(), response.headers

    def stop(self):
        self._connection.close()
        while not self.server.started:
            time.sleep(0.001)
        self.server.should_exit = True
        self.thread.join(30)


@contextlib.contextmanager
def serving(backend=None, **limits):
    served = Served(backend or Made(), **limits)
    try:
        yield served
    finally:
        if isinstance(served.backend, Made):
            served.backend.open.set()
        served.stop()


@pytest.fixture(scope="module")
def served():
    with serving() as served:
        yield served


@pytest.fixture(scope="module")
def prompted():
    with serving(Prompted()) as served:
        yield served


def vectors_of(texts):
    return Made().encode_batch(list(texts))


class TestTFServingsInterface:
    @pytest.mark.parametrize(
        ("request_", "key"),
        [
            ({"inputs": {"text": ["a", "b"]}}, "outputs"),
            ({"inputs": ["a", "b"]}, "outputs"),
            ({"instances": ["a", "b"]}, "predictions"),
            ({"instances": [{"text": "a"}, {"text": "b"}]}, "predictions"),
            ({"instances": [{"b64": "YQ=="}, {"b64": "Yg=="}]}, "predictions"),
            ({"inputs": {"text": [{"b64": "YQ=="}, "b"]}, "signature_name": "serving_default"}, "outputs"),
        ],
    )
    def test_rows_and_columns(self, served, request_, key):
        status, answer, _ = served.ask(PREDICT, request_)
        assert (status, list(answer)) == (200, [key])
        # float32 exactly, though in its shortest form.
        np.testing.assert_array_equal(np.array(answer[key], "float32"), vectors_of("ab"))

    def test_similarity_in_rows_and_columns(self, served):
        expected = np.sum(vectors_of("ab") * vectors_of("bb"), axis=1)
        columns = {"signature_name": "similarity", "inputs": {"text_a": ["a", "b"], "text_b": ["b", "b"]}}
        rows = [{"text_a": "a", "text_b": "b"}, {"text_a": "b", "text_b": "b"}]
        answers = [
            served.ask(PREDICT, columns)[1]["outputs"],
            served.ask(PREDICT, {"signature_name": "similarity", "instances": rows})[1]["predictions"],
        ]
        np.testing.assert_allclose(answers, [expected, expected], atol=1e-6)

    @pytest.mark.parametrize("dtype", ["int8", "binary"])
    def test_fewer_bits_are_bytes_by_a_signature_of_their_own(self, served, dtype):
        expected = compact.quantized(vectors_of("ab"), dtype)
        for request, key in (({"inputs": ["a", "b"]}, "outputs"), ({"instances": ["a", "b"]}, "predictions")):
            status, answer, _ = served.ask(PREDICT, {"signature_name": dtype, **request})
            assert status == 200
            assert [base64.b64decode(row["b64"]) for row in answer[key]] == [row.tobytes() for row in expected]
        client = Client(f"{served.url}/v1/models/tiny")
        assert client._backend.in_bits
        np.testing.assert_array_equal(client.encode(["a", "b"], dtype=dtype), expected)
        metadata = served.ask("/v1/models/tiny/metadata")[1]["metadata"]["signature_def"]["signature_def"]
        assert metadata[dtype]["outputs"][f"embedding_{dtype}_bytes"]["dtype"] == "DT_STRING"

    def test_no_texts_have_no_vectors(self, served):
        assert served.ask(PREDICT, {"inputs": {"text": []}})[:2] == (200, {"outputs": []})
        none = {"signature_name": "similarity", "inputs": {"text_a": [], "text_b": []}}
        assert served.ask(PREDICT, none)[:2] == (200, {"outputs": []})

    def test_odd_texts_are_texts(self, served):
        status, answer, _ = served.ask(PREDICT, {"inputs": {"text": ODD}})
        assert status == 200
        np.testing.assert_array_equal(np.array(answer["outputs"], "float32"), vectors_of(ODD))

    def test_status_and_metadata(self, served):
        for address in ("/v1/models/tiny", "/v1/models/tiny/versions/1"):
            status, answer, _ = served.ask(address)
            assert status == 200
            assert [(v["version"], v["state"]) for v in answer["model_version_status"]] == [("1", "AVAILABLE")]
            assert served.ask(address + ":predict", {"inputs": ["a"]})[0] == 200
            signatures = served.ask(address + "/metadata")[1]["metadata"]["signature_def"]["signature_def"]
            dims = signatures["serving_default"]["outputs"]["embedding"]["tensor_shape"]["dim"]
            assert [dim["size"] for dim in dims] == ["-1", str(DIM)]
            assert set(signatures["similarity"]["inputs"]) == {"text_a", "text_b"}

    def test_the_client_works_unchanged(self, served):
        client = Client(f"{served.url}/v1/models/tiny")
        texts = [f"text {i}" for i in range(300)]
        np.testing.assert_array_equal(client.encode(texts, batch_size=64), vectors_of(texts))
        with pytest.raises(UserError, match=r"no such model .*Latest\(other\); this server has tiny, version 1"):
            Client(f"{served.url}/v1/models/other")
        with pytest.raises(UserError, match=r"no such model .*Specific\(tiny, 7\)"):
            Client(f"{served.url}/v1/models/tiny/versions/7")

    def test_answers_are_those_of_the_protocol_for_an_exported_model(self, exported, server):
        def ask(address, request):
            host, path = re.fullmatch(r"http://([^/]+)(/.*)", address).groups()
            connection = http.client.HTTPConnection(host, timeout=60)
            connection.request("POST", path, json.dumps(request))
            response = connection.getresponse()
            return response.status, json.loads(response.read())

        a, b = ["a dog runs .", "the cat"], ["a cat runs .", ""]
        requests = [
            {"inputs": {"text": a}},
            {"inputs": {"text": []}},
            {"instances": a},
            {"instances": [{"text": text} for text in b]},
            {"signature_name": "similarity", "inputs": {"text_a": a, "text_b": b}},
            {"signature_name": "similarity", "instances": [{"text_a": text, "text_b": text} for text in a]},
            {"signature_name": "other", "inputs": {"text": a}},
            {"texts": a},
        ]
        with serving(Client(exported)._backend) as served:
            for request in requests:
                status, answer = ask(f"{served.url}/v1/models/tiny:predict", request)
                expected_status, expected = ask(f"{server.rest}:predict", request)
                assert (status, list(answer)) == (expected_status, list(expected)), request
                if status == 200:
                    (got,), (wanted,) = answer.values(), expected.values()
                    np.testing.assert_allclose(got, wanted, atol=1e-6)


class TestOpenAIsInterface:
    @pytest.fixture(scope="class")
    def openai(self, served):
        openai = pytest.importorskip("openai", reason="needs openai: pip install -e '.[dev]'")
        return openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)

    @pytest.mark.parametrize("settings", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
    def test_its_client_gets_vectors(self, openai, settings):
        answer = openai.embeddings.create(model="tiny", input=["a", "b"], **settings)
        assert (answer.model, answer.object, [x.index for x in answer.data]) == ("tiny", "list", [0, 1])
        given = [x.embedding for x in answer.data]
        if settings == {"encoding_format": "base64"}:
            given = [np.frombuffer(base64.b64decode(x), "<f4") for x in given]
        np.testing.assert_array_equal(np.array(given, "float32"), vectors_of("ab"))
        (single,) = openai.embeddings.create(model="tiny", input="a", **settings).data
        assert single.embedding == answer.data[0].embedding

    def test_fewer_dimensions_are_the_first_ones_at_unit_length(self, openai):
        answer = openai.embeddings.create(model="tiny", input=["a", "b"], dimensions=3)
        expected = vectors_of("ab")[:, :3]
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose([x.embedding for x in answer.data], expected, atol=1e-6)

    def test_a_server_may_give_fewer_dimensions_of_its_own(self, litert):
        with serving(loading.load_client(litert, dim=4)) as served:
            answers = [
                served.ask("/v1/embeddings", {"model": "tiny", "input": ["a dog", "the cat"], **asked})[1]["data"]
                for asked in ({}, {"dimensions": 2})
            ]
            status, answer, _ = served.ask("/v1/embeddings", {"model": "tiny", "input": "a", "dimensions": 5})
            assert (status, answer["error"]["param"]) == (400, "dimensions")
            predicted = served.ask(PREDICT, {"inputs": ["a dog", "the cat"]})[1]["outputs"]
            outputs = served.ask("/v1/models/tiny/metadata")[1]["metadata"]["signature_def"]["signature_def"]
        whole = loading.load_client(litert).encode(["a dog", "the cat"])
        for given, dim in zip([predicted, *([x["embedding"] for x in of] for of in answers)], (4, 4, 2), strict=True):
            np.testing.assert_allclose(given, compact.shortened(whole, dim), atol=1e-5)
        shape = outputs["serving_default"]["outputs"]["embedding"]["tensor_shape"]["dim"]
        assert [each["size"] for each in shape] == ["-1", "4"]

    def test_tokens_are_not_counted(self, openai):
        assert openai.embeddings.create(model="tiny", input="a").usage.total_tokens == 0

    def test_its_client_lists_the_model(self, openai):
        assert [model.id for model in openai.models.list()] == ["tiny"]

    def test_its_client_understands_the_errors(self, openai):
        import openai as package

        with pytest.raises(package.NotFoundError, match="text-embedding-3-small.*this server has tiny") as caught:
            openai.embeddings.create(model="text-embedding-3-small", input="a")
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
        with pytest.raises(package.BadRequestError, match="from 1 to the model's 8") as caught:
            openai.embeddings.create(model="tiny", input="a", dimensions=9)
        assert caught.value.param == "dimensions"

    def test_many_texts_come_in_order(self, served):
        texts = [f"text {i}" for i in range(1000)]
        _, answer, _ = served.ask("/v1/embeddings", {"model": "tiny", "input": texts})
        assert [x["index"] for x in answer["data"]] == list(range(1000))
        given = np.array([x["embedding"] for x in answer["data"]], "float32")
        np.testing.assert_array_equal(given, vectors_of(texts))


class TestPrompts:
    def test_each_is_a_signature(self, prompted):
        for name in ("query", "passage"):
            _, answer, _ = prompted.ask(PREDICT, {"signature_name": name, "inputs": {"text": ["a", "b"]}})
            np.testing.assert_array_equal(
                np.array(answer["outputs"], "float32"), vectors_of([f"{name}: a", f"{name}: b"])
            )
        metadata = prompted.ask("/v1/models/tiny/metadata")[1]["metadata"]["signature_def"]["signature_def"]
        assert metadata["query"] == metadata["passage"] == metadata["serving_default"]

    def test_openais_interface_takes_them_as_input_type(self, prompted):
        for name in ("query", "passage", None):
            _, answer, _ = prompted.ask("/v1/embeddings", {"model": "tiny", "input": "a", "input_type": name})
            expected = vectors_of([f"{name}: a" if name else "a"])[0]
            np.testing.assert_array_equal(np.array(answer["data"][0]["embedding"], "float32"), expected)
        for given, message in (
            (["query"], "input_type a list: expected query or passage"),
            ("document", "expected query"),
        ):
            status, answer, _ = prompted.ask("/v1/embeddings", {"model": "tiny", "input": "a", "input_type": given})
            assert (status, answer["error"]["param"]) == (400, "input_type")
            assert message in answer["error"]["message"]

    def test_the_client_finds_out_whether_there_are_any(self, served, prompted):
        client = Client(f"{prompted.url}/v1/models/tiny")
        np.testing.assert_array_equal(
            client.encode(["a", "b"], prompt_name="query"), vectors_of(["query: a", "query: b"])
        )
        without = Client(f"{served.url}/v1/models/tiny")
        assert without.prompt_names == ()
        with pytest.raises(UserError, match="`prompt_name` query: this model has no prompts"):
            without.encode("a", prompt_name="query")


BAD_PREDICT = {
    b"": "JSON Parse error: Input is a zero-length",
    b"no JSON": "JSON Parse error",
    b"[" * 100_000: "JSON Parse error",
    b'{"inputs": ["\\ud800"]}': "JSON Parse error: .*surrogate",
    b'{"inputs": ["\xff"]}': "JSON Parse error: .*UTF-8",
    b'"a"': "The request is a string; expected a JSON object",
    b"[]": "The request is an empty list",
    b"null": "The request is null",
    b"{}": "Missing 'inputs' or 'instances' key",
    b'{"inputs": ["a"], "instances": ["a"]}': "expected only one of them",
    b'{"inputs": "a"}': "text is a string; expected a list of strings",
    b'{"inputs": {"text": null}}': "text is null; expected a list of strings",
    b'{"inputs": {"txt": ["a"]}}': "Missing named input: text in 'inputs' object",
    b'{"inputs": [1]}': "text element 0 is a number; expected a string",
    b'{"inputs": [["a"]]}': "text element 0 is a list",
    b'{"inputs": [{"b64": "?"}]}': "text element 0 has a value of b64 that is not base64",
    b'{"inputs": [{"b64": 1}]}': "text element 0 is an object",
    b'{"instances": []}': "'instances' is an empty list; expected a list with at least one element",
    b'{"instances": {"text": "a"}}': "'instances' is an object",
    b'{"instances": [{"text": "a"}, {"txt": "a"}]}': "element 1 is an object with txt; expected an object with text",
    b'{"instances": [{"text": ["a"]}]}': "text element 0 is a list",
    b'{"instances": [true]}': "text element 0 is a boolean",
    b'{"signature_name": 5, "inputs": ["a"]}': "signature name: 5 not found; expected serving_default or similarity",
    b'{"inputs": ["' + b"a" * 100_001 + b'"]}': "A text of 100001 characters; this server takes at most 100000",
    b'{"signature_name": ' + b"[" * 300 + b"]" * 300 + b', "inputs": ["a"]}': "signature name: a list not found",
    b'{"signature_name": "tokens", "inputs": ["a"]}': 'signature name: "tokens" not found',
    b'{"signature_name": "similarity", "inputs": ["a"]}': "expected an object with text_a and text_b",
    b'{"signature_name": "similarity", "instances": ["a"]}': "element 0 is a string; expected an object with text_a",
    b'{"signature_name": "similarity", "inputs": {"text_a": ["a"], "text_b": []}}': "lists of the same length",
}
BAD_EMBEDDINGS = {
    "{": (400, None, "JSON Parse error"),
    "{}": (400, "model", "The model is missing; this server has tiny"),
    '{"model": ["tiny"]}': (404, "model", "does not exist"),
    '{"model": "tiny"}': (400, "input", "input is missing"),
    '{"model": "tiny", "input": []}': (400, "input", "input is an empty list"),
    '{"model": "tiny", "input": {"text": "a"}}': (400, "input", "input is an object"),
    '{"model": "tiny", "input": [1, 2]}': (400, "input", "input holds token ids"),
    '{"model": "tiny", "input": [[1, 2], [3]]}': (400, "input", "check_embedding_ctx_length=False"),
    '{"model": "tiny", "input": ["a", null]}': (400, "input", "input element 1 is null"),
    '{"model": "tiny", "input": [true]}': (400, "input", "input element 0 is a boolean"),
    '{"model": "tiny", "input": "a", "encoding_format": "int8"}': (400, "encoding_format", "expected float or base64"),
    '{"model": "tiny", "input": "a", "encoding_format": ["float"]}': (400, "encoding_format", "expected float"),
    '{"model": "tiny", "input": "a", "dimensions": 0}': (400, "dimensions", "dimensions 0: expected .* from 1 to"),
    '{"model": "tiny", "input": "a", "dimensions": true}': (400, "dimensions", "dimensions true: expected"),
    '{"model": "tiny", "input": "a", "dimensions": ' + "[" * 300 + "]" * 300 + "}": (400, "dimensions", "a list: exp"),
    '{"model": "tiny", "input": "a", "dimensions": "8"}': (400, "dimensions", 'dimensions "8": expected'),
    '{"model": "tiny", "input": "a", "input_type": "query"}': (400, "input_type", "this model has no prompts"),
}


class TestBadInput:
    @pytest.mark.parametrize("body", BAD_PREDICT, ids=lambda body: body.decode("latin-1")[:60])
    def test_predict_says_what_is_wrong(self, served, body):
        status, answer, _ = served.ask(PREDICT, body)
        assert (status, list(answer)) == (400, ["error"])
        assert re.search(BAD_PREDICT[body], answer["error"])

    @pytest.mark.parametrize("body", BAD_EMBEDDINGS)
    def test_embeddings_says_what_is_wrong_in_openais_terms(self, served, body):
        expected, param, message = BAD_EMBEDDINGS[body]
        status, answer, _ = served.ask("/v1/embeddings", body.encode())
        assert status == expected
        assert (answer["error"]["type"], answer["error"]["param"]) == ("invalid_request_error", param)
        assert re.search(message, answer["error"]["message"])

    @pytest.mark.parametrize(
        ("method", "path", "expected", "message"),
        [
            ("POST", "/v1/models/tiny:classify", 400, "Malformed request: POST /v1/models/tiny:classify. Expected"),
            ("GET", "/v1/models/tiny:predict", 404, "this server has tiny"),
            ("GET", "/v1/models/tiny/versions/" + "9" * 5000, 404, "this server has tiny, version 1"),
            ("GET", "/v1/models/%00%ff%F0%9F%98%80{}", 404, "this server has tiny"),
            ("DELETE", "/v1/models/tiny", 400, "Malformed request: DELETE"),
            ("GET", "/v1/models/a/b/c", 400, "Malformed request"),
            ("GET", "/", 404, "Not Found: GET /"),
            ("POST", "/v1/chat/completions", 404, "Not Found: POST /v1/chat/completions"),
            ("PUT", "/metrics", 405, "Method Not Allowed"),
        ],
    )
    def test_addresses_that_are_none(self, served, method, path, expected, message):
        status, answer, _ = served.ask(path, b"{}" if method != "GET" else None, method)
        assert status == expected
        assert message in answer["error"]

    def test_limits(self):
        with serving(body_bytes=1000, texts=3) as served:
            assert served.ask(PREDICT, {"inputs": ["a"] * 3})[0] == 200
            status, answer, _ = served.ask(PREDICT, {"inputs": ["a"] * 4})
            assert (status, answer["error"]) == (400, "4 texts; this server takes at most 3 in a request.")
            pairs = {"signature_name": "similarity", "inputs": {"text_a": ["a"] * 2, "text_b": ["a"] * 2}}
            assert served.ask(PREDICT, pairs)[0] == 400
            for path in (PREDICT, "/v1/embeddings"):
                status, answer, _ = served.ask(path, {"model": "tiny", "input": "a" * 10_000_000})
                assert status == 413
                assert "More than 1000 bytes" in str(answer["error"])
            # The connection is as good as before.
            assert served.ask(PREDICT, {"inputs": ["a"]})[0] == 200

    def test_hundreds_of_bodies_get_an_answer_or_a_reason(self, served, caplog):
        """Valid requests with values exchanged, and with bytes changed, lost or doubled."""
        good = [
            {"inputs": {"text": ["a dog", "b"]}},
            {"instances": [{"text": "a"}, {"b64": "YQ=="}]},
            {"signature_name": "similarity", "inputs": {"text_a": ["a"], "text_b": ["b"]}},
            {"signature_name": "similarity", "instances": [{"text_a": "a", "text_b": "b"}]},
            {"model": "tiny", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 3, "user": "u"},
        ]
        values = [None, True, 0, -1, 2**70, 1e300, "", "\x00", "x" * 9999, [], [[]], {}, {"b64": "="}, [1], ["a", 1]]
        rng = random.Random(0)

        def exchanged(value):
            if rng.random() < 0.2:
                return rng.choice(values)
            if isinstance(value, dict):
                keys = [key if rng.random() > 0.1 else rng.choice(["", "b64", "text"]) for key in value]
                return dict(zip(keys, map(exchanged, value.values()), strict=True))
            return [exchanged(v) for v in value] if isinstance(value, list) else value

        def damaged(body):
            at = rng.randrange(len(body) + 1)
            front, rest = body[:at], body[at:]
            return rng.choice([front, front + rng.randbytes(2) + rest, front + rest[1:], body * 2])

        seen = set()
        for i in range(800):
            body = json.dumps(exchanged(rng.choice(good))).encode()
            path = rng.choice([PREDICT, "/v1/embeddings"])
            status, answer, _ = served.ask(path, body if i % 2 else damaged(body))
            assert status in (200, 400, 404), (body, answer)
            assert (status == 200) != ("error" in answer), (body, answer)
            seen.add(status)
        assert seen == {200, 400, 404}
        assert caplog.records == []

    def test_a_client_that_leaves_does_no_harm(self, served, caplog):
        unfinished = f"POST {PREDICT} HTTP/1.1\r\nContent-Length: 100\r\n\r\n{{".encode()
        for sent in (unfinished, b"\x00\xff\r\n\r\n", b"GET"):
            with socket.create_connection(("127.0.0.1", served.port)) as connection:
                connection.sendall(sent)
        assert served.ask("/healthz")[0] == 200
        assert not [record for record in caplog.records if record.levelname == "ERROR"]

    def test_a_model_that_fails_fails_its_requests_alone(self, served, caplog):
        status, answer, _ = served.ask(PREDICT, {"inputs": ["broken"]})
        assert (status, answer["error"]) == (500, "The model failed (RuntimeError); the server's log has the details.")
        assert "the model is broken" in caplog.text
        status, answer, _ = served.ask("/v1/embeddings", {"model": "tiny", "input": "broken"})
        assert (status, answer["error"]["type"]) == (500, "server_error")
        assert served.ask(PREDICT, {"inputs": ["a"]})[0] == 200


class Scene:
    """A batcher over an encoder that waits until it is opened."""

    def __init__(self, **settings):
        self.backend = Made()
        self.backend.open.clear()
        defaults = {"dim": DIM, "batch_size": 64, "characters": 1000, "max_waiting": 100}
        defaults["observe"] = lambda texts: None
        self.batcher = Batcher(self.backend.encode_batch, **defaults | settings)

    async def busy(self):
        """Tasks that keep both threads at work until the encoder is opened."""
        tasks = []
        for i in range(2):
            tasks.append(asyncio.create_task(self.batcher.encode([f"first {i}"])))
            while len(self.backend.calls) <= i:
                await asyncio.sleep(0.001)
        return tasks


def start(batcher, *requests):
    return [asyncio.create_task(batcher.encode(list(texts))) for texts in requests]


class TestBatching:
    def test_what_arrives_while_the_model_is_at_work_goes_into_the_next_call(self):
        async def scene():
            scene = Scene()
            first = await scene.busy()
            tasks = start(scene.batcher, ["a"], ["b", "c"], ["d"])
            await asyncio.sleep(0.01)
            assert scene.batcher.waiting == 4
            scene.backend.open.set()
            answers = await asyncio.gather(*first, *tasks)
            assert scene.backend.calls[2:] == [["a", "b", "c", "d"]]
            np.testing.assert_array_equal(np.concatenate(answers[2:]), vectors_of("abcd"))
            assert scene.batcher.waiting == 0

        asyncio.run(scene())

    def test_long_texts_do_not_all_go_into_one_call(self):
        async def scene():
            scene = Scene(characters=10)
            first = await scene.busy()
            tasks = start(scene.batcher, ["a" * 20], ["b", "c" * 9, "d" * 9], ["e"])
            await asyncio.sleep(0.01)
            scene.backend.open.set()
            answers = await asyncio.gather(*first, *tasks)
            assert all(len(call) == 1 or sum(map(len, call)) <= 11 for call in scene.backend.calls)
            np.testing.assert_array_equal(answers[3], vectors_of(["b", "c" * 9, "d" * 9]))
            assert scene.batcher.waiting == 0

        asyncio.run(scene())

    def test_a_request_that_comes_just_as_the_last_calls_end_is_not_forgotten(self):
        async def scene():
            scene, again = Scene(), []

            async def ask(text):
                await scene.batcher.encode([text])
                if not again:
                    again.append(text)
                    await scene.batcher.encode(["again"])

            tasks = []
            for i, text in enumerate("ab"):
                tasks.append(asyncio.create_task(ask(text)))
                while len(scene.backend.calls) <= i:
                    await asyncio.sleep(0.001)
            scene.backend.open.set()
            time.sleep(0.05)  # the loop learns of both ends at once
            await asyncio.wait_for(asyncio.gather(*tasks), 10)

        asyncio.run(scene())

    def test_a_single_text_does_not_wait_for_the_many_of_another_request(self):
        async def scene():
            scene = Scene(batch_size=4)
            first = await scene.busy()
            many = [f"many {i}" for i in range(40)]
            tasks = start(scene.batcher, many, ["single"])
            await asyncio.sleep(0.01)
            scene.backend.open.set()
            *_, answer, single = await asyncio.gather(*first, *tasks)
            assert scene.backend.calls[2] == ["many 0", "many 1", "single"]
            assert all(len(call) <= 4 for call in scene.backend.calls)
            np.testing.assert_array_equal(answer, vectors_of(many))
            np.testing.assert_array_equal(single, vectors_of(["single"]))

        asyncio.run(scene())

    def test_a_call_has_one_prompt_and_no_request_waits_for_all_of_another(self):
        async def scene():
            scene = Scene(batch_size=4)
            first = await scene.busy()
            many = [f"many {i}" for i in range(40)]
            tasks = start(scene.batcher, many)
            tasks += [asyncio.create_task(scene.batcher.encode([text], "query")) for text in "ab"]
            await asyncio.sleep(0.01)
            scene.backend.open.set()
            *_, answer, a, b = await asyncio.gather(*first, *tasks)
            # Both threads take a call at once.
            assert ["a", "b"] in scene.backend.calls[2:5]
            assert all(len({text in "ab" for text in call}) == 1 for call in scene.backend.calls)
            np.testing.assert_array_equal(answer, vectors_of(many))
            np.testing.assert_array_equal(np.concatenate([a, b]), vectors_of(["query: a", "query: b"]))
            assert scene.batcher.waiting == 0

        asyncio.run(scene())

    def test_a_full_queue_refuses_until_there_is_room(self):
        async def scene():
            scene = Scene(max_waiting=3)
            first = await scene.busy()
            tasks = start(scene.batcher, ["a", "b"])
            await asyncio.sleep(0.01)
            with pytest.raises(QueueFullError):
                await scene.batcher.encode(["c", "d"])
            tasks += start(scene.batcher, ["e"])
            await asyncio.sleep(0.01)
            scene.backend.open.set()
            await asyncio.gather(*first, *tasks)
            assert (await scene.batcher.encode(["a", "b", "c"])).shape == (3, DIM)

        asyncio.run(scene())

    def test_a_failed_call_fails_its_requests_and_frees_their_places(self):
        async def scene():
            scene = Scene(batch_size=2)
            first = await scene.busy()
            tasks = start(scene.batcher, ["broken", "b", "c", "d"])
            await asyncio.sleep(0.01)
            scene.backend.open.set()
            with pytest.raises(RuntimeError, match="the model is broken"):
                await tasks[0]
            await asyncio.gather(*first)
            np.testing.assert_array_equal(await scene.batcher.encode(["a"]), vectors_of("a"))
            assert scene.batcher.waiting == 0

        asyncio.run(scene())

    def test_a_cancelled_request_is_not_encoded(self):
        async def scene():
            scene = Scene()
            first = await scene.busy()
            tasks = start(scene.batcher, ["a"], ["b"])
            await asyncio.sleep(0.01)
            tasks[0].cancel()
            await asyncio.sleep(0.01)
            scene.backend.open.set()
            await asyncio.gather(*first, tasks[1])
            assert scene.backend.calls[2:] == [["b"]]
            assert scene.batcher.waiting == 0

        asyncio.run(scene())


def test_while_the_model_works_others_are_answered_and_too_many_are_put_off():
    backend = Made()
    with serving(backend, texts=2, waiting=2) as served:
        backend.open.clear()
        answers = []

        def ask(text):
            connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
            connection.request("POST", PREDICT, json.dumps({"inputs": [text]}))
            answers.append(connection.getresponse().status)

        threads = [threading.Thread(target=ask, args=(f"text {i}",)) for i in range(4)]
        for i, thread in enumerate(threads):
            thread.start()
            # Two are being encoded, two wait.
            while len(backend.calls) < min(i + 2, 3):
                time.sleep(0.001)
        while "simcse_tf_waiting_texts 2.0" not in served.ask("/metrics")[1]:
            time.sleep(0.001)
        assert served.ask("/healthz")[:2] == (200, "ok\n")
        for path in (PREDICT, "/v1/embeddings"):
            status, answer, headers = served.ask(path, {"inputs": ["a"], "model": "tiny", "input": "a"})
            assert (status, headers["Retry-After"]) == (503, "1")
            assert "2 texts are waiting, of at most 2" in str(answer["error"])
        backend.open.set()
        for thread in threads:
            thread.join()
        assert answers == [200] * 4


def test_what_nobody_waits_for_any_more_is_not_encoded():
    with serving(batch=1) as served:
        served.backend.open.clear()
        with socket.create_connection(("127.0.0.1", served.port)) as connection:
            body = json.dumps({"inputs": [f"text {i}" for i in range(9)]}).encode()
            head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            connection.sendall(head + body)
            while "simcse_tf_waiting_texts 8.0" not in served.ask("/metrics")[1]:
                time.sleep(0.01)
        deadline = time.monotonic() + 30
        while served.backend.open.is_set() or 'simcse_tf_requests_total{code="400"' not in served.ask("/metrics")[1]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        served.backend.open.set()
        assert served.ask(PREDICT, {"inputs": ["a"]})[0] == 200
        assert len(served.backend.calls) <= 4


def test_prometheus_reads_what_happened():
    with serving() as served:
        for _ in range(3):
            served.ask(PREDICT, {"inputs": ["a", "b"]})
        served.ask(PREDICT, b"no JSON")
        served.ask("/nowhere")
        status, text, headers = served.ask("/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    samples = {name: float(value) for name, value in lines}
    assert samples['simcse_tf_requests_total{code="200",route="predict"}'] == 3
    assert samples['simcse_tf_requests_total{code="400",route="predict"}'] == 1
    assert samples['simcse_tf_requests_total{code="404",route="unknown"}'] == 1
    assert samples['simcse_tf_request_seconds_count{route="predict"}'] == 4
    assert samples['simcse_tf_request_seconds_bucket{le="+Inf",route="predict"}'] == 4
    assert samples["simcse_tf_texts_total"] == 6
    assert samples['simcse_tf_batch_texts_bucket{le="1.0"}'] == 0
    assert samples['simcse_tf_batch_texts_bucket{le="2.0"}'] == 3
    assert samples['simcse_tf_request_seconds_sum{route="predict"}'] > 0


# The command over a model that is made up: what it imports, says and does at its end is the same.
_COMMAND = """
import sys, time
import numpy
from simcse_tf import cli, loading, serve
from simcse_tf.serving.client import Client

class Slow:
    name = "models/tiny/3"

    def encode_batch(self, texts):
        time.sleep("slow" in texts)
        return numpy.full((len(texts), 2), 0.5**0.5, "float32")

loading.load_client = lambda model, dim: Client(Slow(), dim=dim)
cli.run(serve.main)
print(*{"tensorflow", "keras"} & set(sys.modules), file=sys.stderr)
"""


class TestCommand:
    def test_it_says_where_it_is_and_answers_what_is_under_way_when_it_is_stopped(self):
        process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, "models/tiny/3", "--port", "0", "--dim", "1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        try:
            line = process.stdout.readline()
            ready = r"(http://\S+) is ready \(Ctrl-C ends it\)\. Try: (curl .*)\n"
            address, command = re.fullmatch(ready, line).groups()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1/models/tiny", address)
            done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
            assert json.loads(done.stdout) == {"outputs": [[1.0]]}
            port = int(re.search(r":(\d+)/", address)[1])
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("POST", "/v1/models/tiny/versions/3:predict", json.dumps({"inputs": ["slow"]}))
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            assert connection.getresponse().status == 200
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
        assert (process.returncode, out, err) == (0, "", "\n")

    def test_a_port_that_is_taken_is_named_before_the_model_is_loaded(self, monkeypatch):
        monkeypatch.setattr("simcse_tf.loading.load_client", None)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(UserError, match=f"`port` {port}: cannot listen there .*choose another port, or 0"):
                serve.main(["minilm", "--port", str(port)])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "MODEL is needed"),
            (["minilm", "--port", "65536"], "`port` 65536: must be at least 0 and at most 65535"),
            (["minilm", "--host", "no such host", "--port", "0"], "`host` no such host .*cannot listen there"),
            (["minilm", "--host", "192.0.2.1", "--port", "0"], "`host` 192.0.2.1 .*cannot listen there"),
            (["minilm", "--name", "a/b"], "`name` 'a/b': expected letters"),
            (["minilm", "--dim", "0", "--port", "0"], "`dim` 0: must be at least 1"),
            (["minilm", "--dim", "385", "--port", "0"], "`dim` 385: the vectors of this encoder have 384 numbers"),
            (["minilm", "--max-texts", "0"], "`max_texts` 0: must be at least 1"),
            (["minilm", "--max-texts", "9", "--max-waiting", "8"], "`max_texts` 9 is more than `max_waiting` 8"),
            (["nothing-there", "--port", "0"], "nothing-there"),
        ],
    )
    def test_bad_flags(self, arguments, message):
        with pytest.raises(UserError, match=message):
            serve.main(arguments)

    @pytest.mark.parametrize("missing", ["uvicorn", "starlette", "orjson"])
    def test_a_missing_extra_is_named(self, monkeypatch, missing):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == missing else object())
        with pytest.raises(UserError, match=rf"the server needs {missing}.*simcse-tf\[serve\]"):
            serve.main(["minilm"])

    @pytest.mark.parametrize(
        ("model", "name"),
        [
            ("saved_models/quickstart", "quickstart"),
            ("saved_models/quickstart/12/", "quickstart"),
            ("http://host:8501/v1/models/other/versions/3", "other"),
            ("grpc://host:8500/other/3", "other"),
            ("minilm", "minilm"),
            ("3", "3"),
        ],
    )
    def test_the_name_is_that_of_the_directory(self, model, name):
        assert serve._name(model) == name
