import time

import pytest

from simcse_tf import network


def test_any_answer_means_that_there_is_a_network(web):
    web.pages["/a"] = (b"x", 1)
    network.check(web.url + "/a")
    network.check(web.url + "/no-such-page")
    assert web.requests == ["/a", "/no-such-page"]


def test_nobody_who_listens_means_that_there_is_none(closed_port):
    with pytest.raises(network.UnreachableError, match="refused") as caught:
        network.check(f"http://127.0.0.1:{closed_port}/")
    assert caught.value.silent


@pytest.mark.parametrize("page", ["/silent.txt", "/stalls.txt"])
def test_silence_is_given_up(web, tmp_path, monkeypatch, page):
    monkeypatch.setattr(network, "PATIENCE", 0.3)
    web.pages["/stalls.txt"] = (b"x", 2)
    began = time.monotonic()
    with pytest.raises(network.UnreachableError) as caught:
        network.download(web.url + page, tmp_path / "file")
    assert caught.value.silent
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("page", "reason"), [("/none", "HTTP 404"), ("/short", "cut off after 2 of 9 bytes")], ids=["an error", "a part"]
)
def test_a_host_that_answers_is_not_silent(web, tmp_path, page, reason):
    web.pages["/short"] = (b"xy", 9)
    with pytest.raises(network.UnreachableError, match=reason) as caught:
        network.download(web.url + page, tmp_path / "file")
    assert not caught.value.silent


def test_a_file_is_downloaded_whole(web, tmp_path):
    web.pages["/a"] = (b"xyz" * 1_000_000, 3_000_000)
    network.download(web.url + "/a", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"xyz" * 1_000_000
