"""TF Serving's protocol in front of a real SavedModel: `python -m tests.serving.protocol_server DIRECTORY NAME
REST_PORT GRPC_PORT`.

Stands in for the TF Serving binary, which comes from no package registry. gRPC uses the published protos
(tensorflow-serving-api), the model runs in the v1 Session loader, and the errors are those that TF Serving gives.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import grpc
import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401  (registers the tokenizer's operations)
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc


class ServingError(Exception):
    def __init__(self, code: grpc.StatusCode, message: str):
        super().__init__(message)
        self.code, self.message = code, message


class ServedModel:
    """One version of a model, run as TF Serving runs it."""

    def __init__(self, directory: str, name: str):
        self.name = name
        self.version = int(os.path.basename(directory.rstrip("/")))
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        self._signatures = tf.compat.v1.saved_model.loader.load(self._session, ["serve"], directory).signature_def

    def signature(self, model: str, version: int | None, signature: str):
        if model != self.name or version not in (None, self.version):
            wanted = "Latest" if version is None else f"Specific version {version}"
            raise ServingError(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {wanted}({model})")
        if signature not in self._signatures:
            raise ServingError(
                grpc.StatusCode.INVALID_ARGUMENT, f'Serving signature name: "{signature}" not found in signature def'
            )
        return self._signatures[signature]

    def run(self, definition, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if set(inputs) != set(definition.inputs):
            raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, "input keys do not match the signature")
        feed = {definition.inputs[key].name: value for key, value in inputs.items()}
        return self._session.run({key: info.name for key, info in definition.outputs.items()}, feed)


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, model: ServedModel):
        self._model = model

    def Predict(self, request, context):  # noqa: N802 (the protocol's name)
        spec = request.model_spec
        try:
            version = spec.version.value if spec.HasField("version") else None
            definition = self._model.signature(spec.name, version, spec.signature_name or "serving_default")
            outputs = self._model.run(definition, {k: tf.make_ndarray(v) for k, v in request.inputs.items()})
        except ServingError as e:
            context.abort(e.code, e.message)
        response = predict_pb2.PredictResponse(model_spec=spec)
        for key, value in outputs.items():
            tensor = response.outputs[key]
            if value.dtype == np.float32:
                # As TF Serving fills it by default; tf.make_tensor_proto would pack the bytes.
                tensor.dtype = tf.float32.as_datatype_enum
                for size in value.shape:
                    tensor.tensor_shape.dim.add(size=size)
                tensor.float_val.extend(value.ravel().tolist())
            else:
                tensor.CopyFrom(tf.make_tensor_proto(value))
        return response


class RestHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model: ServedModel

    def log_message(self, format, *args):
        pass

    def do_GET(self):
        match = re.fullmatch(r"/v1/models/([^/:]+)(?:/versions/\d+)?", self.path)
        if match is None or match[1] != self.model.name:
            return self._answer(404, {"error": f"Could not find any versions of model {match and match[1]}"})
        status = {"error_code": "OK", "error_message": ""}
        return self._answer(
            200,
            {"model_version_status": [{"version": str(self.model.version), "state": "AVAILABLE", "status": status}]},
        )

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        match = re.fullmatch(r"/v1/models/([^/:]+)(?:/versions/(\d+))?:predict", self.path)
        if match is None:
            return self._answer(400, {"error": f"Malformed request: POST {self.path}"})
        try:
            request = json.loads(body)
            version = None if match[2] is None else int(match[2])
            definition = self.model.signature(match[1], version, request.get("signature_name", "serving_default"))
            if "instances" in request:
                rows = [row if isinstance(row, dict) else {"text": row} for row in request["instances"]]
                columns = {key: [row[key] for row in rows] for key in definition.inputs}
            elif "inputs" in request:
                columns = request["inputs"]
                columns = columns if isinstance(columns, dict) else {next(iter(definition.inputs)): columns}
            else:
                raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, "Missing 'inputs' or 'instances' key")
            inputs = {key: np.array([_bytes(x) for x in column], object) for key, column in columns.items()}
            outputs = {key: _json(key, value) for key, value in self.model.run(definition, inputs).items()}
        except ServingError as e:
            return self._answer(404 if e.code == grpc.StatusCode.NOT_FOUND else 400, {"error": e.message})
        except ValueError as e:
            return self._answer(400, {"error": f"JSON Parse error: {e}"})
        if "inputs" in request:
            return self._answer(200, {"outputs": next(iter(outputs.values())) if len(outputs) == 1 else outputs})
        if len(outputs) == 1:
            return self._answer(200, {"predictions": next(iter(outputs.values()))})
        columns = [[(key, x) for x in column] for key, column in outputs.items()]
        return self._answer(200, {"predictions": [dict(row) for row in zip(*columns, strict=True)]})

    def _answer(self, code: int, answer: dict) -> None:
        body = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _json(key: str, value: np.ndarray) -> list:
    # TF Serving goes by the output's name.
    encoded = key.endswith("_bytes")
    return [{"b64": base64.b64encode(row).decode()} for row in value] if encoded else value.tolist()


def _bytes(value) -> bytes:
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value.encode()


class _HttpServer(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


def serve(directory: str, name: str, rest_port: int, grpc_port: int) -> None:
    model = ServedModel(directory, name)
    server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(model), server)
    assert server.add_insecure_port(f"127.0.0.1:{grpc_port}") == grpc_port
    server.start()
    handler = type("Handler", (RestHandler,), {"model": model})
    http_server = _HttpServer(("127.0.0.1", rest_port), handler)
    print("ready", flush=True)
    threading.Thread(target=http_server.serve_forever, daemon=True).start()
    server.wait_for_termination()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
