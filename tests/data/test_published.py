import time
import urllib.request

import pytest

from simcse_tf import network
from simcse_tf.data import published
from simcse_tf.data.sources import Scan, open_source, scan
from simcse_tf.errors import UserError

WIKI = b"One.\nTwo.\n\nFour.\n"
NLI = b'sent0,sent1,hard_neg\na,b,c\n"d\nd",e,f\n'


@pytest.fixture
def web(web):
    web.pages |= {"/wiki.txt": (WIKI, len(WIKI)), "/nli.csv": (NLI, len(NLI))}
    return web


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "simcse_tf"


def publish(monkeypatch, name, url, rows, columns=None):
    monkeypatch.setitem(published.PUBLISHED, name, published.Published(url, rows, columns))


def complaint(spec, **options):
    with pytest.raises(UserError) as caught:
        scan(open_source(spec, **options))
    return str(caught.value)


def test_a_published_file_is_downloaded_once_and_read_from_the_cache(web, cache, monkeypatch, capsys):
    publish(monkeypatch, "wiki1m", web.url + "/wiki.txt", 4)
    source = open_source("wiki1m")
    assert web.requests == []
    assert scan(source) == Scan(rows=3, bad=0, complete=True, first_bad=None)
    assert list(source.rows()) == [("One.",), ("Two.",), ("Four.",)]
    assert web.requests == ["/wiki.txt"]
    assert [p.name for p in cache.iterdir()] == ["wiki.txt"]
    assert str(cache / "wiki.txt") in capsys.readouterr().err


def test_the_published_triplets_are_counted_in_rows_and_not_in_lines(web, cache, monkeypatch):
    publish(monkeypatch, "nli_for_simcse", web.url + "/nli.csv", 2, ("sent0", "sent1", "hard_neg"))
    assert list(open_source("nli_for_simcse").rows()) == [("a", "b", "c"), ("d\nd", "e", "f")]
    assert list(open_source("nli_for_simcse", columns=("sent0", "sent1")).rows()) == [("a", "b"), ("d\nd", "e")]


def test_a_redirect_is_followed(web, cache, monkeypatch):
    publish(monkeypatch, "wiki1m", web.url + "/moved.txt", 4)
    assert scan(open_source("wiki1m")).rows == 3


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ((WIKI[:9], len(WIKI)), "cut off after 9 of 17 bytes"),
        ((WIKI[:9], None), "expected 4 rows, found 2"),
        ((WIKI * 2, None), "expected 4 rows, found 8"),
        ((b"", 0), "expected 4 rows, found 0"),
        (None, "HTTP 404"),
    ],
)
def test_a_download_that_is_not_the_whole_file_leaves_nothing_behind(web, cache, monkeypatch, page, expected):
    web.pages["/wiki.txt"] = page
    if page is None:
        del web.pages["/wiki.txt"]
    publish(monkeypatch, "wiki1m", web.url + "/wiki.txt", 4)
    message = complaint("wiki1m")
    assert message.startswith(f"cannot download wiki1m from {web.url}/wiki.txt: {expected}")
    assert "`data` to bundled" in message
    assert str(cache / "wiki.txt") in message
    assert list(cache.iterdir()) == []


def test_a_truncated_table_is_no_whole_file(web, cache, monkeypatch):
    web.pages["/nli.csv"] = (NLI[: NLI.index(b'"')], None)
    publish(monkeypatch, "nli_for_simcse", web.url + "/nli.csv", 2, ("sent0", "sent1", "hard_neg"))
    assert "expected 2 rows, found 1" in complaint("nli_for_simcse")
    assert list(cache.iterdir()) == []


def test_a_refused_connection_names_the_offline_choices(cache, monkeypatch, closed_port):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(urllib.request, "_opener", None)
    publish(monkeypatch, "wiki1m", f"http://127.0.0.1:{closed_port}/wiki.txt", 4)
    message = complaint("wiki1m")
    assert "Connection refused" in message
    assert "Without a network, set `data` to bundled" in message
    assert list(cache.iterdir()) == []


def test_the_real_files_say_within_seconds_that_there_is_no_network(cache, no_network):
    began = time.monotonic()
    for name in ("wiki1m", "nli_for_simcse"):
        assert complaint(name).startswith(f"cannot download {name} from https://huggingface.co/")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("page", ["/silent.txt", "/stalls.txt"])
def test_a_server_that_falls_silent_is_given_up(web, cache, monkeypatch, page):
    monkeypatch.setattr(network, "PATIENCE", 0.3)
    web.pages["/stalls.txt"] = (WIKI[:9], len(WIKI))
    publish(monkeypatch, "wiki1m", web.url + page, 4)
    began = time.monotonic()
    assert complaint("wiki1m").startswith(f"cannot download wiki1m from {web.url}{page}: ")
    assert time.monotonic() - began < 5
    assert list(cache.iterdir()) == []


def test_a_short_file_that_was_put_into_the_cache_by_hand_is_found(cache, monkeypatch):
    cache.mkdir(parents=True)
    publish(monkeypatch, "wiki1m", "http://127.0.0.1:1/wiki.txt", 4)
    (cache / "wiki.txt").write_bytes(WIKI)
    assert scan(open_source("wiki1m")).rows == 3
    (cache / "wiki.txt").write_bytes(WIKI[:9])
    assert complaint("wiki1m") == f"{cache / 'wiki.txt'}: expected 4 rows, found 2. Delete it and try again."


def test_the_cache_is_in_the_home_folder_unless_xdg_says_where(web, tmp_path, monkeypatch):
    publish(monkeypatch, "wiki1m", web.url + "/wiki.txt", 4)
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert published.fetch("wiki1m") == tmp_path / ".cache" / "simcse_tf" / "wiki.txt"


def test_a_cache_that_cannot_be_written_says_so(web, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    publish(monkeypatch, "wiki1m", web.url + "/wiki.txt", 4)
    message = complaint("wiki1m")
    assert message.startswith(f"{tmp_path / 'file' / 'simcse_tf'}: cannot be written (")
    assert "XDG_CACHE_HOME" in message
