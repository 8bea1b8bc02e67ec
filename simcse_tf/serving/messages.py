"""TF Serving's messages, as far as they are used here.

They need neither TensorFlow (10 s to import) nor the tensorflow-serving-api package (which is bound to TensorFlow): the
client and the export work without. The tables repeat names, numbers and types of TF Serving's published `.proto` files;
what is not in them is skipped when read, as protocol buffers have it. They live in a pool of their own, so that the
published classes can be imported beside them. A test holds both against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from simcse_tf.errors import UserError
from simcse_tf.serving import compact
from simcse_tf.serving.compact import Dtype

_PACKAGE = "simcse_tf.serving"
_SCALARS = {"int64": 3, "int32": 5, "float": 2, "string": 9, "bytes": 12}
# message -> field -> (number, type); a star marks a repeated field. Maps are lists of entries, which is the same on the
# wire, and so are enums and int32.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Dim": {"size": (1, "int64")},
    "Shape": {"dim": (2, "Dim*")},
    "Tensor": {
        "dtype": (1, "int32"),
        "tensor_shape": (2, "Shape"),
        "tensor_content": (4, "bytes"),
        "float_val": (5, "float*"),
        "string_val": (8, "bytes*"),
    },
    "NamedTensor": {"key": (1, "string"), "value": (2, "Tensor")},
    "Version": {"value": (1, "int64")},
    "ModelSpec": {"name": (1, "string"), "version": (2, "Version"), "signature_name": (3, "string")},
    "PredictRequest": {"model_spec": (1, "ModelSpec"), "inputs": (2, "NamedTensor*")},
    "PredictResponse": {"outputs": (1, "NamedTensor*")},
    "PredictLog": {"request": (1, "PredictRequest")},
    "PredictionLog": {"predict_log": (6, "PredictLog")},
}
_DT_FLOAT, _DT_STRING = 1, 7


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="simcse_tf/serving.proto", package=_PACKAGE, syntax="proto3")
    for message, fields in _MESSAGES.items():
        descriptor = file.message_type.add(name=message)
        for name, (number, kind) in fields.items():
            field = descriptor.field.add(name=name, number=number, label=3 if kind.endswith("*") else 1)
            kind = kind.removesuffix("*")
            if kind in _SCALARS:
                field.type = _SCALARS[kind]
            else:
                field.type_name = f".{_PACKAGE}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in _MESSAGES
    }


_CLASSES = _classes()
PredictRequest = _CLASSES["PredictRequest"]
PredictResponse = _CLASSES["PredictResponse"]
PredictionLog = _CLASSES["PredictionLog"]


def predict_request(
    model: str, texts: Sequence[str], *, signature: str = "serving_default", version: int | None = None
) -> Any:
    """The request that asks a signature for the embeddings of some texts."""
    request = PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    tensor = request.inputs.add(key="text").value
    tensor.dtype = _DT_STRING
    tensor.tensor_shape.dim.add(size=len(texts))
    tensor.string_val.extend(text.encode() for text in texts)
    return request


def embeddings(response: Any, where: str, dtype: Dtype = "float32") -> np.ndarray:
    """Reads the answer.

    Args:
        response: A `PredictResponse`.
        where: The server, for the error message.
        dtype: Of the signature that was asked.

    Returns:
        `(n, dim)` float32, or what `compact.quantized` makes of it.

    Raises:
        UserError: The answer holds no embedding of that dtype.
    """
    tensors = {entry.key: entry.value for entry in response.outputs}
    tensor = tensors.get(compact.output_of(dtype))
    expected = (_DT_FLOAT, 2) if dtype == "float32" else (_DT_STRING, 1)
    if tensor is None or (tensor.dtype, len(tensor.tensor_shape.dim)) != expected:
        raise UserError(
            f"{where}: answers with {sorted(tensors)}, not with an embedding. Was the model exported by simcse_tf?"
        )
    if dtype != "float32":
        return compact.from_bytes(list(tensor.string_val), dtype)
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.tensor_content:
        return np.frombuffer(tensor.tensor_content, "<f4").reshape(shape)
    values = np.array(tensor.float_val, "float32")
    # A tensor whose last values are all the same may omit the repetitions.
    missing = int(np.prod(shape)) - len(values)
    return np.pad(values, (0, missing), mode="edge" if len(values) else "constant").reshape(shape)
