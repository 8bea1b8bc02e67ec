import numpy as np
import pytest

from simcse_tf.errors import UserError
from simcse_tf.serving import messages

predict_pb2 = pytest.importorskip("tensorflow_serving.apis.predict_pb2", reason="needs tensorflow-serving-api")


def published_messages():
    from google.protobuf import wrappers_pb2
    from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2
    from tensorflow_serving.apis import model_pb2, prediction_log_pb2

    return {
        "Dim": tensor_shape_pb2.TensorShapeProto.Dim,
        "Shape": tensor_shape_pb2.TensorShapeProto,
        "Tensor": tensor_pb2.TensorProto,
        "NamedTensor": predict_pb2.PredictRequest.InputsEntry,
        "Version": wrappers_pb2.Int64Value,
        "ModelSpec": model_pb2.ModelSpec,
        "PredictRequest": predict_pb2.PredictRequest,
        "PredictResponse": predict_pb2.PredictResponse,
        "PredictLog": prediction_log_pb2.PredictLog,
        "PredictionLog": prediction_log_pb2.PredictionLog,
    }


@pytest.mark.parametrize("name", messages._MESSAGES)
def test_the_table_agrees_with_the_published_protos(name):
    published = published_messages()[name].DESCRIPTOR.fields_by_name
    same_on_the_wire = {14: 5}  # an enum is an int32
    for field in messages._CLASSES[name].DESCRIPTOR.fields:
        theirs = published[field.name]
        assert (field.number, field.type) == (theirs.number, same_on_the_wire.get(theirs.type, theirs.type)), field.name
        assert field.is_repeated == theirs.is_repeated, field.name


def test_a_request_is_read_by_the_published_classes():
    import tensorflow as tf

    data = messages.predict_request("quickstart", ["a dog", "caf\u00e9", ""], version=3).SerializeToString()
    request = predict_pb2.PredictRequest.FromString(data)
    assert request.model_spec.name == "quickstart"
    assert request.model_spec.version.value == 3
    assert request.model_spec.signature_name == "serving_default"
    assert tf.make_ndarray(request.inputs["text"]).tolist() == [b"a dog", "caf\u00e9".encode(), b""]


@pytest.mark.parametrize("packed", [True, False])
def test_an_answer_of_the_published_classes_is_read(packed):
    import tensorflow as tf

    expected = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
    response = predict_pb2.PredictResponse()
    if packed:
        response.outputs["embedding"].CopyFrom(tf.make_tensor_proto(expected))
        assert response.outputs["embedding"].tensor_content
    else:
        tensor = response.outputs["embedding"]
        tensor.dtype = 1
        for size in expected.shape:
            tensor.tensor_shape.dim.add(size=size)
        tensor.float_val.extend(expected.ravel())
    answer = messages.PredictResponse.FromString(response.SerializeToString())
    np.testing.assert_array_equal(messages.embeddings(answer, "server"), expected)


def test_repeated_values_may_be_left_away():
    import tensorflow as tf

    response = predict_pb2.PredictResponse()
    response.outputs["embedding"].CopyFrom(tf.make_tensor_proto(0.5, shape=[2, 3]))
    answer = messages.PredictResponse.FromString(response.SerializeToString())
    np.testing.assert_array_equal(messages.embeddings(answer, "server"), np.full((2, 3), 0.5, "float32"))


def test_an_answer_without_an_embedding_is_refused():
    import tensorflow as tf

    response = predict_pb2.PredictResponse()
    response.outputs["logits"].CopyFrom(tf.make_tensor_proto([[0.5]]))
    answer = messages.PredictResponse.FromString(response.SerializeToString())
    with pytest.raises(UserError, match=r"server: answers with \['logits'\], not with an embedding"):
        messages.embeddings(answer, "server")
