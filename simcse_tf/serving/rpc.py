"""A model behind TF Serving's gRPC port. Needs the extra `grpc`; neither TensorFlow nor tensorflow-serving-api."""

from __future__ import annotations

import re
from functools import cached_property

import grpc
import numpy as np

from simcse_tf.errors import UserError
from simcse_tf.serving import compact, messages
from simcse_tf.serving.compact import Dtype
from simcse_tf.serving.retry import Retry, UnavailableError, refused, served_prompts, serves_bits

_TRY_AGAIN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
}
_OPTIONS = [
    # 4 MB by default: less than a large batch of vectors.
    ("grpc.max_receive_message_length", -1),
    # gRPC's own pause before it connects again grows to two minutes, longer than a server needs to come back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
]


class RpcBackend:
    """A model that TF Serving serves over gRPC.

    Args:
        address: `grpc://host:8500/NAME` or `grpc://host:8500/NAME/VERSION`.
        timeout: Seconds after which an attempt is given up.
        retry_for: Seconds after which a request is given up.

    Raises:
        UserError: It is not the address of a model.
    """

    def __init__(self, address: str, *, timeout: float, retry_for: float):
        match = re.fullmatch(r"grpc://([^/]+:\d+)/([^/]+)(?:/(\d+))?/?", address)
        if match is None:
            raise UserError(f"{address}: not a model's address; expected grpc://host:8500/NAME.")
        target, self._model, version = match.groups()
        self.name = address.rstrip("/")
        self._version = None if version is None else int(version)
        self._timeout = timeout
        self._retry = Retry(self.name, retry_for)
        self._predict = grpc.insecure_channel(target, _OPTIONS).unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            request_serializer=messages.PredictRequest.SerializeToString,
            response_deserializer=messages.PredictResponse.FromString,
        )

    @cached_property
    def prompt_names(self) -> tuple[str, ...]:
        """The names of the model's prompts, if it has any."""
        return served_prompts(self.encode_batch)

    @cached_property
    def in_bits(self) -> bool:
        """Whether the model answers in fewer bits than float32 has."""
        return serves_bits(self.encode_batch)

    def encode_batch(self, texts: list[str], prompt_name: str | None = None, dtype: Dtype = "float32") -> np.ndarray:
        """`(len(texts), dim)` float32 of unit length, or what `compact.quantized` makes of it."""
        signature = compact.signature_of(prompt_name, dtype)
        request = messages.predict_request(self._model, texts, signature=signature, version=self._version)
        return messages.embeddings(self._retry(lambda: self._send(request)), self.name, dtype)

    def _send(self, request):
        try:
            return self._predict(request, timeout=self._timeout)
        except grpc.RpcError as e:
            code, details = e.code(), e.details()
            if code in _TRY_AGAIN:
                raise UnavailableError(f"{code.name}: {details}") from e
            if code == grpc.StatusCode.NOT_FOUND:
                raise UserError(
                    f"{self.name}: the server has no such model ({details}). Its models are named in models.config, or "
                    "by MODEL_NAME for a container."
                ) from e
            raise refused(self.name, f"{code.name}: {details}") from e
