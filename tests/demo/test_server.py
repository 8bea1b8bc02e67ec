import json
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.conftest import SENTENCES as LINES
from tests.demo.conftest import ROOT, Demo

gradio_client = pytest.importorskip("gradio_client")
A, B, C, D = "a man plays the guitar .", "a woman reads the book .", "the old dog sleeps .", "two birds in a tree ."


@pytest.fixture(scope="module")
def api(demo):
    return gradio_client.Client(demo.address, verbose=False)


def test_every_endpoint_gives_the_clients_numbers(api, client, tmp_path):
    pytest.importorskip("faiss")
    endpoints = set(api.view_api(return_format="dict", print_info=False)["named_endpoints"])
    assert endpoints == {"/compare", "/rank", "/matrix", "/map", "/duplicates", "/size", "/index", "/search"}

    assert api.predict(A, B, api_name="/compare")["score"] == pytest.approx(client.similarity(A, B), abs=1e-6)
    ranked = api.predict(A, [B, C, A], api_name="/rank")
    assert ranked[0]["candidate"] == A
    found = api.predict([A, B, C], api_name="/matrix")
    np.testing.assert_allclose(found["scores"], client.similarity(*[found["sentences"]] * 2), atol=1e-6)
    assert len(api.predict([A, B, C, D], api_name="/map")["points"]) == 4
    found = api.predict([A, B, A.upper(), C], 1, api_name="/duplicates")
    assert (found["kept"], found["repeats"]) == ([0, 1, 3], [[2, 0, 1.0]])
    assert api.predict(LINES, 8, "binary", api_name="/size")["bytes"] == 1

    (tmp_path / "lines.txt").write_text("\n".join([A, B, C, D]), "utf-8")
    status, index = api.predict(
        gradio_client.handle_file(str(tmp_path / "lines.txt")), None, "tiny/1", api_name="/index"
    )
    assert "4 sentences of lines.txt" in status
    found = api.predict(C, index, 1, api_name="/search")
    assert [(row["sentence"], round(row["score"], 4)) for row in found] == [(C, 1.0)]


@pytest.mark.parametrize(
    ("endpoint", "arguments", "message"),
    [
        ("/compare", ["", B], "Sentence A is empty"),
        ("/compare", [A, "x" * 100_000], "Sentence B has 100,000 characters"),
        ("/compare", [5, B], "expected a string, not int"),
        ("/compare", [A, B, "../../etc"], "no model '../../etc'"),
        ("/rank", [A, []], "0 of at least 1"),
        ("/matrix", [[A] * 5000], "5,000 lines; at most 50"),
        ("/map", [[A]], "1 of at least 4"),
        ("/map", [[A, B, C, D], "spring"], "expected one of pca"),
        ("/duplicates", [[A, B], 7], "from 0.6 to 1"),
        ("/duplicates", [[A], 0.9], "1 of at least 2"),
        ("/size", [[A] * 30, 10_000], "no more than that"),
        ("/size", [[A] * 30, 8, "int4"], "float32, int8, binary"),
        ("/search", [A, "../../etc/passwd"], "no longer held here"),
        ("/search", [A, "x", "many"], "expected a whole number"),
    ],
)
def test_bad_requests_get_the_reason_and_the_server_lives(api, endpoint, arguments, message):
    with pytest.raises(gradio_client.exceptions.AppError, match=message):
        api.predict(*arguments, api_name=endpoint)
    assert api.predict(A, A, api_name="/compare")["score"] == pytest.approx(1, abs=1e-5)


def test_many_visitors_at_a_time_get_their_own_answers(demo, client):
    sentences = [f"{who} {does} ." for who in ("a man", "the dog", "two birds") for does in ("runs", "sings", "eats")]
    expected = client.similarity(A, sentences)

    def visit(i):
        visitor = gradio_client.Client(demo.address, verbose=False)
        for sentence, score in zip(sentences, expected, strict=True):
            assert visitor.predict(A, sentence, api_name="/compare")["score"] == pytest.approx(score, abs=1e-5)
            with pytest.raises(gradio_client.exceptions.AppError, match="is empty"):
                visitor.predict(A, "", api_name="/compare")
        return i

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(visit, range(8))) == list(range(8))


def post(demo, path, body):
    request = urllib.request.Request(
        f"{demo.address}gradio_api/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def test_whatever_a_map_is_asked_it_answers_with_a_reason(demo):
    with urllib.request.urlopen(f"{demo.address}config") as answer:
        components = json.load(answer)["components"]
    number = next(each["id"] for each in components if each["props"].get("elem_id") == "map-result")
    for function in ("load", "near"):
        for asked in (None, "x", [], {}, {"map": 5}, {"map": "../x", "index": -1}, {"map": {"a": 1}, "text": 5}):
            body = {"data": asked, "fn_name": function, "component_id": number, "session_hash": "x"}
            assert "Draw it again" in post(demo, "component_server/", body)["error"]


def test_a_path_on_the_server_is_no_upload(tmp_path):
    path = str(ROOT / "simcse_tf/data/corpora/sentences.txt")
    demo = Demo("--models", str(tmp_path))
    try:
        for file in ({"path": path, "meta": {"_type": "gradio.FileData"}}, {"path": path}, path):
            event = post(demo, "call/index", {"data": [file, None, None, "flat", 32]})["event_id"]
            with urllib.request.urlopen(f"{demo.address}gradio_api/call/index/{event}") as answer:
                said = answer.read().decode()
            assert "event: error" in said
            assert "ready after" not in said
    finally:
        errors = demo.stop()
    assert "not uploaded by a user" in errors


@pytest.mark.parametrize("path", ["/etc/passwd", "README.md", str(ROOT / "README.md"), "../../../../etc/passwd"])
def test_no_file_can_be_read_by_its_path(demo, path):
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{demo.address}gradio_api/file={path}")
    assert caught.value.code in (403, 404)


def test_an_upload_that_is_too_large_is_refused(demo):
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="big.txt"\r\n\r\n'
    body = head + b"a line of text\n" * (60 * 1024 * 1024 // 15) + b"\r\n--x--\r\n"
    request = urllib.request.Request(
        f"{demo.address}gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=x"}
    )
    # The server may hang up while the rest is on its way.
    with pytest.raises(urllib.error.URLError) as caught:
        urllib.request.urlopen(request)
    if isinstance(caught.value, urllib.error.HTTPError):
        assert caught.value.code == 413


def test_a_taken_port_is_an_error_with_the_flag_to_change(demo, models):
    command = [sys.executable, "-m", "demo", "--port", str(demo.port), "--models", str(models)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"--port {demo.port}: cannot listen there" in done.stderr
    assert "Traceback" not in done.stderr


def test_with_a_password_nothing_is_shown_without_it(tmp_path):
    demo = Demo("--models", str(tmp_path), "--auth", "me:secret")
    try:
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{demo.address}config")
        assert caught.value.code == 401
        visitor = gradio_client.Client(demo.address, auth=("me", "secret"), verbose=False)
        with pytest.raises(gradio_client.exceptions.AppError, match="no model in .* yet"):
            visitor.predict(A, A, None, api_name="/compare")
    finally:
        demo.stop()
