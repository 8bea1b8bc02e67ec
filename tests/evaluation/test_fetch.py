"""Fetching from a server on this machine: archives made here, in the shape of the published ones."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import socket
import tarfile
import threading
import time
import zipfile

import pytest

from simcse_tf import network
from simcse_tf.errors import UserError
from simcse_tf.evaluation import fetch, sts

from .layout import write_task

SICK, STSB, STS16 = fetch.SOURCES[6], fetch.SOURCES[5], fetch.SOURCES[4]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """This machine's own addresses are not asked of a proxy, wherever the tests run."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def archive_of(source, tmp_path, *, leave_out=()):
    """What `source` would serve: complete made-up sets under the published member names."""
    root = tmp_path / "made"
    for task in source.tasks:
        write_task(root, task)
    content = {m: (root / target).read_bytes() for m, target in source.members.items() if m not in leave_out}
    content["readme.txt"] = b"not wanted"
    buffer = io.BytesIO()
    if source.name.endswith(".zip"):
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
            for member, data in content.items():
                file.writestr(member, data)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as file:
            for member, data in content.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


class Server:
    """Serves `files` by name and notes what was asked for; a value may be a status code."""

    def __init__(self):
        self.files: dict[str, bytes | int] = {}
        self.asked: list[str] = []
        self.cut = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.lstrip("/")
                outer.asked.append(name)
                body = outer.files.get(name, 404)
                if isinstance(body, int):
                    self.send_error(body)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) - outer.cut])

            def log_message(self, *args):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves SICK, STS-B and STS16, and nothing else is fetched."""
    server = Server()
    sources = [fetch.Source(f"{server.url}/{s.name}", s.tasks, s.members) for s in (SICK, STSB, STS16)]
    monkeypatch.setattr(fetch, "SOURCES", sources)
    server.files = {s.name: archive_of(s, tmp_path) for s in sources}
    yield server
    server.http.shutdown()
    server.http.server_close()


def test_every_task_has_a_source_with_every_file_that_it_is_read_from(tmp_path):
    needed = {
        (path.relative_to(tmp_path).as_posix())
        for task in sts.TASKS.values()
        for subset in task.subsets
        for path in task.paths(tmp_path, subset)
    }
    assert {target for s in fetch.SOURCES for target in s.members.values()} == needed
    assert sorted(task for s in fetch.SOURCES for task in s.tasks) == sorted(sts.TASKS)
    assert STS16.members["sts2016-english-with-gs-v1.0/STS2016.gs.headlines.txt"] == (
        "STS/STS16-en-test/STS.gs.headlines.txt"
    )


def test_sets_are_downloaded_unpacked_pinned_and_complete(tmp_path, server):
    lines = []
    root = tmp_path / "new" / "data"
    assert fetch.fetch(root, say=lines.append) == ["SICK-R", "STSB-dev", "STSB-test", "STS16"]
    assert sts.available(root)[0] == ["STS16", "STSB-dev", "STSB-test", "SICK-R"]
    for task in ("STS16", "STSB-dev", "STSB-test", "SICK-R"):
        assert len(sts.load(task, root).gold) == sts.TASKS[task].pairs
    pins = json.loads((root / "checksums.json").read_text("utf-8"))
    assert pins == {name: hashlib.sha256(body).hexdigest() for name, body in server.files.items()}
    assert sorted(p.name for p in root.iterdir()) == ["SICK", "STS", "archives", "checksums.json"]
    assert sorted(p.name for p in (root / "archives").iterdir()) == sorted(server.files)
    assert len(lines) == 3
    assert "STSB-dev, STSB-test complete" in lines[1]


def test_a_second_call_downloads_only_what_is_missing_and_mends_unpacked_files(tmp_path, server):
    server.files, kept = {**server.files, STS16.name: 503}, server.files
    with pytest.raises(UserError, match="HTTP 503"):
        fetch.fetch(tmp_path / "data")
    server.files, server.asked = kept, []
    dev = tmp_path / "data/STS/STSBenchmark/sts-dev.csv"
    dev.write_text("damaged", "utf-8")
    assert len(fetch.fetch(tmp_path / "data")) == 4
    assert server.asked == [STS16.name]
    assert len(sts.load("STSB-dev", tmp_path / "data").gold) == 1500


def test_only_the_tasks_asked_for_are_fetched(tmp_path, server):
    assert fetch.fetch(tmp_path / "data", ["SICK-R"]) == ["SICK-R"]
    assert server.asked == [SICK.name]
    with pytest.raises(UserError, match=r"unknown STS task 'STSB-tset'. Did you mean 'STSB-test'"):
        fetch.fetch(tmp_path / "data", ["STSB-tset"])


def test_one_source_that_fails_does_not_keep_the_others_back(tmp_path, server):
    server.files[SICK.name] = 404
    with pytest.raises(UserError, match=rf"{SICK.name}: HTTP 404(.|\n)*Complete in .*: STSB-dev, STSB-test, STS16\."):
        fetch.fetch(tmp_path / "data")
    assert sts.available(tmp_path / "data")[0] == ["STS16", "STSB-dev", "STSB-test"]


def test_an_archive_that_differs_from_its_pin_is_refused(tmp_path, server):
    root = tmp_path / "data"
    fetch.fetch(root, ["SICK-R"])
    before = (root / "SICK/SICK_test_annotated.txt").read_bytes()
    archive = root / "archives" / SICK.name
    good = archive.read_bytes()
    archive.write_bytes(good + b"tampered")
    with pytest.raises(UserError, match=rf"{SICK.name} from {server.url}.*sha256 is .*checksums.json pins .*Nothing"):
        fetch.fetch(root, ["SICK-R"])

    archive.unlink()
    server.files[SICK.name] = good + b"changed at its source"
    with pytest.raises(UserError, match=r"sha256 is .*pins"):
        fetch.fetch(root, ["SICK-R"])
    assert not archive.exists()
    assert (root / "SICK/SICK_test_annotated.txt").read_bytes() == before

    (root / "checksums.json").unlink()
    assert fetch.fetch(root, ["SICK-R"]) == ["SICK-R"]


@pytest.mark.parametrize("body", [b"<html>Please sign in</html>", b""])
@pytest.mark.parametrize("source", [SICK, STSB])
def test_something_else_in_place_of_an_archive_is_neither_kept_nor_pinned(tmp_path, server, source, body):
    server.files[source.name] = body
    with pytest.raises(UserError, match=rf"{source.name} from .* is not the archive expected"):
        fetch.fetch(tmp_path / "data", source.tasks)
    assert not list((tmp_path / "data/archives").iterdir())
    assert not (tmp_path / "data/checksums.json").exists()


def test_an_archive_without_a_file_is_refused(tmp_path, server):
    for source, member in ((SICK, "SICK_test_annotated.txt"), (STSB, "stsbenchmark/sts-test.csv")):
        server.files[source.name] = archive_of(source, tmp_path, leave_out=[member])
        with pytest.raises(UserError, match=rf"is not the archive expected .*{member}"):
            fetch.fetch(tmp_path / "data", source.tasks)


def test_an_archive_with_an_incomplete_set_is_not_pinned(tmp_path, server):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(
            "SICK_test_annotated.txt", "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tx\n1\ta\tb\t3.5\tNEUTRAL\n"
        )
    server.files[SICK.name] = buffer.getvalue()
    with pytest.raises(
        UserError, match=r"not complete.*: SICK/SICK_test_annotated.txt: 1 scored pairs, but SICK-R has 4927"
    ):
        fetch.fetch(tmp_path / "data", ["SICK-R"])
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["archives"]


def test_a_download_that_is_cut_off_is_not_kept(tmp_path, server):
    server.cut = 100
    with pytest.raises(UserError, match=rf"{SICK.name}: cut off after \d+ of \d+ bytes"):
        fetch.fetch(tmp_path / "data", ["SICK-R"])
    assert not list((tmp_path / "data/archives").iterdir())


def test_without_a_network_it_says_so_at_once_and_tries_each_host_once(tmp_path, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{probe.getsockname()[1]}"
    sources = [fetch.Source(f"{closed}/{s.name}", s.tasks, s.members) for s in (SICK, STSB)]
    monkeypatch.setattr(fetch, "SOURCES", sources)
    started = time.monotonic()
    with pytest.raises(UserError) as error:
        fetch.fetch(tmp_path / "data")
    assert time.monotonic() - started < 5
    message = str(error.value)
    assert f"{SICK.name}: " in message
    assert "refused" in message
    assert f"{STSB.name}: not tried, see above" in message
    assert "Complete in" in message
    assert "by hand" in message


def test_a_host_that_never_answers_is_given_up_after_the_timeout(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/{SICK.name}"
        monkeypatch.setattr(fetch, "SOURCES", [fetch.Source(url, SICK.tasks, SICK.members)])
        monkeypatch.setattr(network, "PATIENCE", 0.3)
        with pytest.raises(UserError, match="timed out|no answer"):
            fetch.fetch(tmp_path / "data")


def test_archives_put_there_by_hand_are_unpacked_without_a_network(tmp_path, server):
    body = server.files.pop(SICK.name)
    (tmp_path / "data/archives").mkdir(parents=True)
    (tmp_path / "data/archives" / SICK.name).write_bytes(body)
    assert fetch.fetch(tmp_path / "data", ["SICK-R"]) == ["SICK-R"]
    assert server.asked == []
    assert SICK.name in (tmp_path / "data/checksums.json").read_text("utf-8")


def test_a_damaged_list_of_checksums_and_a_file_in_place_of_the_directory_are_errors(tmp_path, server):
    (tmp_path / "file").write_text("x", "utf-8")
    with pytest.raises(UserError, match="archives: cannot be made"):
        fetch.fetch(tmp_path / "file")
    (tmp_path / "data").mkdir()
    for text in ("{", "[]"):
        (tmp_path / "data/checksums.json").write_text(text, "utf-8")
        with pytest.raises(UserError, match=r"checksums.json:(1: not JSON| expected an object)"):
            fetch.fetch(tmp_path / "data", ["SICK-R"])
