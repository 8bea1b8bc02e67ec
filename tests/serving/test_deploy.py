import re
import subprocess

import pytest

from tests.serving.conftest import ROOT

yaml = pytest.importorskip("yaml")


def compose():
    return yaml.safe_load((ROOT / "deploy" / "docker-compose.yml").read_text("utf-8"))["services"]["serving"]


def healthy(port: int, name: str) -> bool:
    _, *command = compose()["healthcheck"]["test"]
    # Compose writes $$ for a dollar; in the container the port is always 8501.
    command[-1] = command[-1].replace("$$", "$").replace("8501", str(port))
    environment = {"MODEL_NAME": name, "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, env=environment, capture_output=True, timeout=10, check=False).returncode == 0


def test_the_health_check_tells_a_served_model_from_none(server):
    from benchmarks.workers import free_port

    port = int(re.search(r":(\d+)/", server.rest)[1])
    assert healthy(port, "tiny")
    assert not healthy(port, "other")
    assert not healthy(free_port(), "tiny")


def test_both_manifests_serve_the_oldest_supported_image_with_the_same_flags():
    from simcse_tf.formats import served_ops

    image = f"tensorflow/serving:{served_ops.TARGETS[served_ops.OLDEST].tensorflow}"
    deployment, service = yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text("utf-8"))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == compose()["image"] == image
    assert container["args"] == [flag.replace("${MODEL:-quickstart}", "quickstart") for flag in compose()["command"]]
    assert [p["port"] for p in service["spec"]["ports"]] == [8500, 8501]


def test_the_short_proto_agrees_with_the_published_ones():
    predict_pb2 = pytest.importorskip("tensorflow_serving.apis.predict_pb2", reason="needs tensorflow-serving-api")
    from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2
    from tensorflow_serving.apis import model_pb2

    text = (ROOT / "deploy" / "predict.proto").read_text("utf-8")
    published = {
        "Dim": tensor_shape_pb2.TensorShapeProto.Dim,
        "TensorShapeProto": tensor_shape_pb2.TensorShapeProto,
        "TensorProto": tensor_pb2.TensorProto,
        "ModelSpec": model_pb2.ModelSpec,
        "PredictRequest": predict_pb2.PredictRequest,
        "PredictResponse": predict_pb2.PredictResponse,
    }
    message, seen = "", 0
    for line in text.splitlines():
        if opened := re.match(r"\s*message (\w+)", line):
            message = opened[1]
        elif field := re.match(r"\s+.*?(\w+) = (\d+);", line):
            # The nested message closes before its parent's own field.
            name = "TensorShapeProto" if field[1] == "dim" else message
            assert published[name].DESCRIPTOR.fields_by_name[field[1]].number == int(field[2])
            seen += 1
    assert seen == 12
