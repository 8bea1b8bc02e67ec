"""A model behind TF Serving's REST port."""

from __future__ import annotations

import base64
import http.client
import json
import urllib.error
import urllib.request
from functools import cached_property

import numpy as np

from simcse_tf.errors import UserError
from simcse_tf.serving import compact
from simcse_tf.serving.compact import Dtype
from simcse_tf.serving.retry import Retry, UnavailableError, refused, served_prompts, serves_bits

# Too many requests, bad gateway, unavailable, gateway time-out.
_TRY_AGAIN = {429, 502, 503, 504}


class RestBackend:
    """A model that TF Serving serves over HTTP.

    Args:
        url: `http://host:8501/v1/models/NAME`; `/versions/3` or `/labels/stable` may follow.
        timeout: Seconds without a byte after which an attempt is given up.
        retry_for: Seconds after which a request is given up.

    Raises:
        UserError: The address does not name a model.
    """

    def __init__(self, url: str, *, timeout: float, retry_for: float):
        self.name = url.rstrip("/")
        if "/v1/models/" not in self.name or self.name.endswith(":predict"):
            raise UserError(f"{url}: not a model's address; expected http://host:8501/v1/models/NAME.")
        self._timeout = timeout
        self._retry = Retry(self.name, retry_for)

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
        asked = {"signature_name": compact.signature_of(prompt_name, dtype), "inputs": {"text": texts}}
        body = json.dumps(asked, ensure_ascii=False).encode()
        request = urllib.request.Request(
            f"{self.name}:predict", body, {"Content-Type": "application/json"}, method="POST"
        )
        answer = self._retry(lambda: self._send(request))
        try:
            outputs = json.loads(answer)["outputs"]
            if dtype == "float32":
                return np.array(outputs, "float32")
            return compact.from_bytes([base64.b64decode(row["b64"]) for row in outputs], dtype)
        except (ValueError, KeyError, TypeError) as e:
            raise UserError(
                f"{self.name}: its answer is not an embedding ({answer[:200]!r}). Is it TF Serving, and was the model "
                "exported by simcse_tf?"
            ) from e

    def _send(self, request: urllib.request.Request) -> bytes:
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:
                return response.read()
        except urllib.error.HTTPError as e:
            with e:
                message = _message(e.read())
            if e.code in _TRY_AGAIN:
                raise UnavailableError(f"HTTP {e.code}: {message}") from e
            if e.code == 404:
                raise UserError(
                    f"{self.name}: the server has no such model ({message}). Its models are named in models.config, or "
                    "by MODEL_NAME for a container."
                ) from e
            raise refused(self.name, f"HTTP {e.code}: {message}") from e
        except (OSError, http.client.HTTPException) as e:
            reason = getattr(e, "reason", e)
            raise UnavailableError(str(reason) or type(reason).__name__) from e


def _message(body: bytes) -> str:
    """What the server says of an error; TF Serving says it in JSON, a proxy may say it in HTML."""
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")
