"""An HTTP server over any model that the client loads: TF Serving's REST interface, and OpenAI's for embeddings.

Needs the extra `serve`; imports neither TensorFlow nor Keras.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from simcse_tf.data.strings import PromptName
from simcse_tf.serving import compact
from simcse_tf.serving.batching import Batcher, QueueFullError
from simcse_tf.serving.client import Client
from simcse_tf.serving.compact import Dtype

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Signature:
    """As those of an exported model."""

    inputs: tuple[str, ...] = ("text",)
    # None for similarities, which are no embeddings.
    dtype: Dtype | None = None
    prompt_name: PromptName | None = None

    @property
    def output(self) -> str:
        """The output's name."""
        return "score" if self.dtype is None else compact.output_of(self.dtype)


# Vectors that are written as JSON in one go, in a millisecond or two; then other requests have their turn.
_PIECE = 64
# Characters per call of the model, unless one text has more: a thousand or two of tokens, so that requests take turns
# in fractions of a second, whatever they send.
_CHARACTERS_PER_CALL = 8000
# Seconds between two looks at whether a client still waits.
_LOOK = 0.5
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Limits:
    """What a request may ask for, and all of them together."""

    # Bytes of a request's body.
    body_bytes: int = 4 * 2**20
    # Texts of a request.
    texts: int = 2048
    # Characters of a text: a tokenizer takes time and memory for all of them.
    characters: int = 100_000
    # Texts that may wait for the model.
    waiting: int = 4096
    # Texts per call of the model.
    batch: int = 64


class _RefusedError(Exception):
    """A request whose answer is an error.

    Args:
        status: HTTP's.
        message: What is wrong with the request, and what was expected.
        param: The key of the request that is wrong; OpenAI's clients are told.
        code: OpenAI's name of the error, where it has one.
    """

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code


def application(model: Client, *, name: str, version: str = "1", limits: Limits | None = None) -> Starlette:
    """The server as an ASGI application.

    Args:
        model: What encodes.
        name: The model's name in addresses.
        version: Its version there, a number.
        limits: Requests beyond them are refused.
    """
    service = _Service(model, name, version, limits or Limits())
    routes = [
        Route("/v1/models/{name}:predict", service.predict, methods=["POST"]),
        Route("/v1/models/{name}/versions/{version}:predict", service.predict, methods=["POST"]),
        Route("/v1/models/{name}/metadata", service.metadata),
        Route("/v1/models/{name}/versions/{version}/metadata", service.metadata),
        Route("/v1/models/{name}/versions/{version}", service.status),
        Route("/v1/models/{name}", service.status),
        Route("/v1/models/{rest:path}", _malformed, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
        Route("/v1/embeddings", service.embeddings, methods=["POST"]),
        Route("/v1/models", service.models),
        Route("/metrics", service.metrics),
        Route("/healthz", service.healthz),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(_Measured, service=service)],
        exception_handlers={
            _RefusedError: _refused,
            HTTPException: _not_found,
            ClientDisconnect: _gone,
        },
    )


class _Service:
    """The endpoints."""

    def __init__(self, model: Client, name: str, version: str, limits: Limits):
        self._dim, self._name, self._version, self._limits = model.dim, name, version, limits
        self._prompt_names = model.prompt_names
        self._signatures = {
            "serving_default": _Signature(dtype="float32"),
            "similarity": _Signature(("text_a", "text_b")),
        }
        self._signatures |= {
            compact.signature_of(name, dtype): _Signature(dtype=dtype, prompt_name=name)
            for dtype in compact.DTYPES
            for name in (None, *model.prompt_names)
        }
        self._started = int(time.time())
        # Of this server alone: the library's own registry is the process's.
        self._registry = figures = CollectorRegistry()
        self.requests = Counter("simcse_tf_requests", "Requests answered.", ("route", "code"), registry=figures)
        about = "From a request's headers to the end of its answer."
        self.seconds = Histogram("simcse_tf_request_seconds", about, ("route",), buckets=_SECONDS, registry=figures)
        self._texts = Counter("simcse_tf_texts", "Texts encoded.", registry=figures)
        about = "Texts per call of the model."
        self._batches = Histogram("simcse_tf_batch_texts", about, buckets=_TEXTS, registry=figures)
        self._batcher = Batcher(
            # A client's call with all texts in one batch: it checks what the model answers.
            lambda texts, prompt_name: model.encode(texts, batch_size=len(texts), prompt_name=prompt_name),
            dim=model.dim,
            batch_size=limits.batch,
            characters=_CHARACTERS_PER_CALL,
            max_waiting=limits.waiting,
            observe=self._observe,
        )
        about = "Texts that no call of the model has taken yet."
        Gauge("simcse_tf_waiting_texts", about, registry=figures).set_function(lambda: self._batcher.waiting)

    async def predict(self, request: Request) -> Response:
        """`POST /v1/models/NAME:predict`, in rows (`instances`) and in columns (`inputs`)."""
        self._check_address(request)
        given = await self._json(request)
        signature = given.get("signature_name", "serving_default")
        signature = "serving_default" if signature == "" else signature
        if not isinstance(signature, str) or signature not in self._signatures:
            expected = " or ".join(self._signatures)
            raise _RefusedError(400, f"Serving signature name: {_shown(signature)} not found; expected {expected}.")
        asked = self._signatures[signature]
        inputs = asked.inputs
        columns, answer = _columns(given, inputs)
        # Before each of them is looked at.
        self._check_count(sum(map(len, columns.values())))
        texts = [_text(element, name, i) for name, column in columns.items() for i, element in enumerate(column)]
        if len(columns[inputs[0]]) * len(inputs) != len(texts):
            raise _RefusedError(400, f"{' and '.join(inputs)} are pairs: expected lists of the same length.")
        result = await self._encode(request, texts, prompt_name=asked.prompt_name)
        if asked.dtype is None:
            half = len(texts) // 2
            result = np.einsum("nd,nd->n", result[:half], result[half:])
        elif asked.dtype != "float32":
            result = [{"b64": _base64(row)} for row in compact.quantized(result, asked.dtype)]
        return _json_response(b'{"%s":%s}' % (answer, await _json_list(len(result), lambda rows: result[rows])))

    async def status(self, request: Request) -> Response:
        """`GET /v1/models/NAME`."""
        self._check_address(request)
        status = {"error_code": "OK", "error_message": ""}
        versions = [{"version": self._version, "state": "AVAILABLE", "status": status}]
        return _json_response({"model_version_status": versions})

    async def metadata(self, request: Request) -> Response:
        """`GET /v1/models/NAME/metadata`."""
        self._check_address(request)

        def tensor(dtype: str, *sizes: int) -> dict[str, Any]:
            dims = [{"size": str(size), "name": ""} for size in (-1, *sizes)]
            return {"dtype": dtype, "tensor_shape": {"dim": dims, "unknown_rank": False}, "name": ""}

        # By dtype; a score has none.
        outputs = {None: tensor("DT_FLOAT"), "float32": tensor("DT_FLOAT", self._dim)}
        signatures = {
            signature: {
                "inputs": {name: tensor("DT_STRING") for name in of.inputs},
                "outputs": {of.output: outputs.get(of.dtype, tensor("DT_STRING"))},
                "method_name": "tensorflow/serving/predict",
            }
            for signature, of in self._signatures.items()
        }
        return _json_response(
            {
                "model_spec": {"name": self._name, "signature_name": "", "version": self._version},
                "metadata": {"signature_def": {"signature_def": signatures}},
            }
        )

    async def embeddings(self, request: Request) -> Response:
        """`POST /v1/embeddings`, as OpenAI's API has it; with NVIDIA's `input_type`, which names a prompt."""
        given = await self._json(request)
        model = given.get("model")
        if model != self._name:
            missing = "is missing" if model is None else f"{_shown(model)} does not exist"
            status, code = (400, None) if model is None else (404, "model_not_found")
            raise _RefusedError(status, f"The model {missing}; this server has {self._name}.", param="model", code=code)
        if isinstance(given.get("input"), list):
            self._check_count(len(given["input"]), param="input")
        texts = _input(given.get("input"))
        encoding = given.get("encoding_format") or "float"
        if encoding not in ("float", "base64"):
            message = f"encoding_format {_shown(encoding)}: expected float or base64."
            raise _RefusedError(400, message, param="encoding_format")
        dimensions = self._dim if given.get("dimensions") is None else given["dimensions"]
        if type(dimensions) is not int or not 1 <= dimensions <= self._dim:
            message = f"dimensions {_shown(dimensions)}: expected a whole number from 1 to the model's {self._dim}."
            raise _RefusedError(400, message, param="dimensions")
        prompt_name = given.get("input_type")
        if prompt_name is not None and prompt_name not in self._prompt_names:
            expected = " or ".join(self._prompt_names)
            message = f"expected {expected}." if expected else "this model has no prompts; omit it."
            raise _RefusedError(400, f"input_type {_shown(prompt_name)}: {message}", param="input_type")
        vectors = await self._encode(request, texts, prompt_name=prompt_name, param="input")
        vectors = compact.shortened(vectors, dimensions)
        write = _base64 if encoding == "base64" else lambda vector: vector

        def objects(rows: slice) -> list[dict[str, Any]]:
            return [
                {"object": "embedding", "index": i, "embedding": write(vectors[i])}
                for i in range(rows.start, rows.stop)
            ]

        # Tokens are not counted, and nobody pays for them; but clients expect the numbers.
        about = orjson.dumps({"model": self._name, "usage": {"prompt_tokens": 0, "total_tokens": 0}})[1:]
        data = await _json_list(len(texts), objects)
        return _json_response(b'{"object":"list","data":%s,%s' % (data, about))

    async def models(self, request: Request) -> Response:
        """`GET /v1/models`, as OpenAI's API has it."""
        model = {"id": self._name, "object": "model", "created": self._started, "owned_by": "simcse_tf"}
        return _json_response({"object": "list", "data": [model]})

    async def metrics(self, request: Request) -> Response:
        """`GET /metrics`, for Prometheus."""
        return Response(generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(self, request: Request) -> Response:
        """`GET /healthz`: the model is loaded, as it is before the server listens."""
        return Response("ok\n", media_type="text/plain")

    def _check_address(self, request: Request) -> None:
        name, version = request.path_params["name"], request.path_params.get("version")
        if name != self._name or version not in (None, self._version):
            wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            has = f"{self._name}, version {self._version}"
            raise _RefusedError(404, f"Servable not found for request: {wanted[:300]}; this server has {has}.")

    async def _json(self, request: Request) -> dict[str, Any]:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._limits.body_bytes:
                most = self._limits.body_bytes
                raise _RefusedError(413, f"More than {most} bytes. Send the texts in several requests.")
        try:
            given = orjson.loads(body)
        except orjson.JSONDecodeError as e:
            raise _RefusedError(400, f"JSON Parse error: {e}") from e
        if not isinstance(given, dict):
            raise _RefusedError(400, f"The request is {_kind(given)}; expected a JSON object.")
        return given

    async def _encode(
        self, request: Request, texts: list[str], *, prompt_name: PromptName | None = None, param: str | None = None
    ) -> np.ndarray:
        longest = max(map(len, texts), default=0)
        if longest > self._limits.characters:
            message = f"A text of {longest} characters; this server takes at most {self._limits.characters}."
            raise _RefusedError(400, message, param=param)
        try:
            encoding = asyncio.ensure_future(self._batcher.encode(texts, prompt_name))
            try:
                while not (await asyncio.wait({encoding}, timeout=_LOOK))[0]:
                    if await request.is_disconnected():
                        raise ClientDisconnect
            finally:
                # Of a client that has gone, nothing more is encoded.
                encoding.cancel()
            return encoding.result()
        except ClientDisconnect:
            raise
        except QueueFullError as e:
            waiting, most = self._batcher.waiting, self._limits.waiting
            raise _RefusedError(503, f"{waiting} texts are waiting, of at most {most}. Try again later.") from e
        except Exception as e:
            _LOG.exception("The model failed.")
            reason = f"The model failed ({type(e).__name__}); the server's log has the details."
            raise _RefusedError(500, reason) from e

    def _check_count(self, texts: int, *, param: str | None = None) -> None:
        if texts > self._limits.texts:
            message = f"{texts} texts; this server takes at most {self._limits.texts} in a request."
            raise _RefusedError(400, message, param=param)

    def _observe(self, texts: int) -> None:
        self._texts.inc(texts)
        self._batches.observe(texts)


class _Measured:
    """Counts requests and measures how long they take."""

    def __init__(self, app: ASGIApp, service: _Service):
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began = time.perf_counter()
        code = "500"

        async def noting(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            # The router leaves the function that it has chosen.
            endpoint = scope.get("endpoint")
            route = endpoint.__name__.strip("_") if endpoint else "unknown"
            self._service.requests.labels(route, code).inc()
            self._service.seconds.labels(route).observe(time.perf_counter() - began)


def _columns(given: Mapping[str, Any], inputs: tuple[str, ...]) -> tuple[dict[str, list], bytes]:
    """The elements of each input of a signature, and the key under which the answer goes."""
    if "instances" in given and "inputs" in given:
        raise _RefusedError(400, "The request has 'instances' and 'inputs'; expected only one of them.")
    if "instances" in given:
        return _columns_of_rows(given["instances"], inputs), b"predictions"
    if "inputs" not in given:
        raise _RefusedError(400, "Missing 'inputs' or 'instances' key.")
    value = given["inputs"]
    if not isinstance(value, dict) and len(inputs) > 1:
        expected = " and ".join(inputs)
        raise _RefusedError(400, f"'inputs' is {_kind(value)}; expected an object with {expected}.")
    columns: dict[str, Any] = value if isinstance(value, dict) else dict.fromkeys(inputs, value)
    for name in inputs:
        if name not in columns:
            raise _RefusedError(400, f"Missing named input: {name} in 'inputs' object.")
        if not isinstance(columns[name], list):
            raise _RefusedError(400, f"{name} is {_kind(columns[name])}; expected a list of strings.")
    return {name: columns[name] for name in inputs}, b"outputs"


def _columns_of_rows(rows: Any, inputs: tuple[str, ...]) -> dict[str, list]:
    if not isinstance(rows, list) or not rows:
        raise _RefusedError(400, f"'instances' is {_kind(rows)}; expected a list with at least one element.")
    columns: dict[str, list] = {name: [] for name in inputs}
    for i, row in enumerate(rows):
        if len(inputs) == 1 and (not isinstance(row, dict) or row.keys() == {"b64"}):
            columns[inputs[0]].append(row)
        elif isinstance(row, dict) and row.keys() == columns.keys():
            for name in inputs:
                columns[name].append(row[name])
        else:
            shown = f"an object with {', '.join(row) or 'nothing'}"[:200] if isinstance(row, dict) else _kind(row)
            expected = " and ".join(inputs)
            raise _RefusedError(400, f"'instances' element {i} is {shown}; expected an object with {expected}.")
    return columns


def _text(value: Any, name: str, i: int) -> str:
    """A string as it is; TF Serving's `{"b64": ...}` decoded, as the model would take its bytes."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str):
        try:
            return base64.b64decode(value["b64"], validate=True).decode("utf-8", "replace")
        except ValueError as e:
            raise _RefusedError(400, f"{name} element {i} has a value of b64 that is not base64: {e}.") from e
    raise _RefusedError(400, f"{name} element {i} is {_kind(value)}; expected a string.")


def _input(given: Any) -> list[str]:
    """The texts of a request to OpenAI's interface."""
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        problem = "is missing" if given is None else f"is {_kind(given)}"
        message = f"input {problem}; expected a string, or a list of at least one."
        raise _RefusedError(400, message, param="input")
    for i, text in enumerate(texts):
        if isinstance(text, int | list) and not isinstance(text, bool):
            message = (
                "input holds token ids, of a tokenizer that is not this model's. Send strings (in LangChain: "
                "OpenAIEmbeddings(check_embedding_ctx_length=False))."
            )
            raise _RefusedError(400, message, param="input")
        if not isinstance(text, str):
            raise _RefusedError(400, f"input element {i} is {_kind(text)}; expected a string.", param="input")
    return texts


def _base64(vector: np.ndarray) -> str:
    # Little-endian, as OpenAI's clients expect numbers.
    return base64.b64encode(vector.astype(vector.dtype.newbyteorder("<")).tobytes()).decode()


async def _json_list(length: int, elements: Callable[[slice], Any]) -> bytes:
    """A JSON list, written in pieces between which the event loop serves others.

    Args:
        length: Of the list.
        elements: A slice of it, as an array or a list.
    """
    pieces = []
    for start in range(0, length, _PIECE):
        if start:
            await asyncio.sleep(0)
        rows = slice(start, min(length, start + _PIECE))
        # float32 in as few digits as say it exactly.
        pieces.append(orjson.dumps(elements(rows), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1])
    return b"[%s]" % b",".join(pieces)


def _json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    return Response(body, status, headers, media_type="application/json")


def _error(
    request: Request, status: int, message: str, *, param: str | None = None, code: str | None = None
) -> Response:
    """An error as the interface that was called has it."""
    headers = {"Retry-After": "1"} if status == 503 else None
    if request.url.path != "/v1/embeddings":
        return _json_response({"error": message}, status, headers)
    kind = "invalid_request_error" if status < 500 else "server_error"
    return _json_response({"error": {"message": message, "type": kind, "param": param, "code": code}}, status, headers)


async def _refused(request: Request, e: Exception) -> Response:
    assert isinstance(e, _RefusedError)
    return _error(request, e.status, e.message, param=e.param, code=e.code)


async def _malformed(request: Request) -> Response:
    path = request.url.path[:300]
    message = (
        f"Malformed request: {request.method} {path}. Expected POST /v1/models/NAME:predict or GET /v1/models/NAME."
    )
    raise _RefusedError(400, message)


async def _not_found(request: Request, e: Exception) -> Response:
    """No such path, or not by this method."""
    assert isinstance(e, HTTPException)
    answer = _error(request, e.status_code, f"{e.detail}: {request.method} {request.url.path[:300]}")
    answer.headers.update(e.headers or {})
    return answer


async def _gone(request: Request, e: Exception) -> Response:
    """Nobody reads this: the client has closed the connection."""
    return _error(request, 400, "The request is incomplete.")


def _kind(value: Any) -> str:
    """What a value is in JSON's terms."""
    if isinstance(value, str | bool) or value is None:
        return {str: "a string", bool: "a boolean"}.get(type(value), "null")
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return "an object" if isinstance(value, dict) else "a number"


def _shown(value: Any) -> str:
    """A value as a message quotes it."""
    # Not of lists and objects: orjson reads deeper ones than it writes.
    shown = orjson.dumps(value).decode() if isinstance(value, str | int | float | None) else _kind(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
