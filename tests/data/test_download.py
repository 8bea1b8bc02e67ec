import socket
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from simcse_tf.data import download
from simcse_tf.data.sources import Scan, open_source, scan
from simcse_tf.errors import UserError

WIKI = b"One.\nTwo.\n\nFour.\n"
NLI = b'sent0,sent1,hard_neg\na,b,c\n"d\nd",e,f\n'


@pytest.fixture
def web(monkeypatch):
    """A web server on this machine; `pages` maps a path to `(bytes sent, Content-Length)`, `requests` lists paths."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.requests.append(self.path)
            if self.path == "/silent":
                server.released.wait(30)
            if self.path == "/moved.txt":
                self.send_response(302)
                self.send_header("Location", "/wiki.txt")
                self.end_headers()
                return
            if self.path not in server.pages:
                self.send_error(404)
                return
            body, length = server.pages[self.path]
            self.send_response(200)
            if length is not None:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)
            if self.path == "/stalls.txt":
                self.wfile.flush()
                server.released.wait(30)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.pages = {"/wiki.txt": (WIKI, len(WIKI)), "/nli.csv": (NLI, len(NLI))}
    server.requests = []
    server.released = threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(urllib.request, "_opener", None)  # it has read the environment once and for all
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "simcse_tf"


@pytest.fixture
def closed_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def no_network(monkeypatch, closed_port):
    """Every HTTP client of this process is sent to a port where nobody listens."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)


def publish(monkeypatch, name, url, rows, columns=()):
    monkeypatch.setitem(download.PUBLISHED, name, download.Published(url, rows, columns))


def complaint(spec, **options):
    with pytest.raises(UserError) as caught:
        scan(open_source(spec, **options))
    return str(caught.value)


# --- SimCSE's own files ---


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
        ((WIKI[:9], len(WIKI)), "it broke off after 9 of 17 bytes"),
        ((WIKI[:9], None), "expected 4 rows, found 2"),
        ((WIKI * 2, None), "expected 4 rows, found 8"),
        ((b"", 0), "expected 4 rows, found 0"),
        (None, "HTTP Error 404"),
    ],
)
def test_a_download_that_is_not_the_whole_file_leaves_nothing_behind(web, cache, monkeypatch, page, expected):
    web.pages["/wiki.txt"] = page
    if page is None:
        del web.pages["/wiki.txt"]
    publish(monkeypatch, "wiki1m", web.url + "/wiki.txt", 4)
    message = complaint("wiki1m")
    assert message.startswith(f"cannot download wiki1m from {web.url}/wiki.txt: {expected}")
    assert "--data bundled" in message
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
    assert "Without a network: --data bundled, or --data FILE" in message
    assert list(cache.iterdir()) == []


def test_the_real_files_say_within_seconds_that_there_is_no_network(cache, no_network):
    began = time.monotonic()
    for name in ("wiki1m", "nli_for_simcse"):
        assert complaint(name).startswith(f"cannot download {name} from https://huggingface.co/")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("page", ["/silent", "/stalls.txt"])
def test_a_server_that_falls_silent_is_given_up(web, cache, monkeypatch, page):
    monkeypatch.setattr(download, "_PATIENCE", 0.3)
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
        assert download.fetch("wiki1m") == tmp_path / ".cache" / "simcse_tf" / "wiki.txt"


def test_a_cache_that_cannot_be_written_says_so(web, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    publish(monkeypatch, "wiki1m", web.url + "/wiki.txt", 4)
    message = complaint("wiki1m")
    assert message.startswith(f"{tmp_path / 'file' / 'simcse_tf'}: cannot be written (")
    assert "XDG_CACHE_HOME" in message


# --- TensorFlow Datasets, stored by TFDS's own writer ---

SNLI = [
    ("A dog runs.", "An animal moves.", 0),
    ("A dog runs.", "A pet runs.", 0),
    ("A dog runs.", "It is brown.", 1),
    ("A dog runs.", "A dog sleeps.", 2),
    ("Nobody agreed.", "Who knows.", -1),
    ("A cat eats.", "A cat starves.", 2),
]
MULTI_NLI = [("Über uns.", "  Above us. ", 0), ("A cat eats.", "It is fed.", 0), ("Über uns.", "Below.", 2)]


@pytest.fixture(scope="session")
def stored(tmp_path_factory) -> Path:
    """A TFDS data directory with snli, multi_nli, glue/sst2 and a dataset that TFDS does not know, `mine/small`."""
    import numpy as np
    import tensorflow_datasets as tfds

    directory = tmp_path_factory.mktemp("tfds")
    text = tfds.features.Text()

    def store(name, version, features, examples, config=None, split="train"):
        tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            version=version,
            config=config,
            data_dir=directory,
            features=tfds.features.FeaturesDict(features),
            split_datasets={split: list(enumerate(examples))},
            disable_shuffling=True,
        )

    pair = {"premise": text, "hypothesis": text, "label": tfds.features.ClassLabel(num_classes=3)}
    for name, rows in (("snli", SNLI), ("multi_nli", MULTI_NLI)):
        store(name, "1.1.0", pair, [dict(zip(pair, row, strict=True)) for row in rows])
    sentences = [{"sentence": f"Sentence {i}.", "label": 0, "idx": i} for i in range(2500)]
    sst2 = {"sentence": text, "label": tfds.features.ClassLabel(num_classes=2), "idx": np.int32}
    store("glue", "2.0.0", sst2, sentences, config="sst2")
    rows = [("One.", b"Two."), ("", b"No anchor."), ("Latin-1.", b"caf\xe9"), ("Three.", b"Four.")]
    mine = {"question": text, "answer": text, "votes": tfds.features.Sequence(np.int64)}
    store(
        "mine",
        "1.0.0",
        mine,
        [{"question": a, "answer": b, "votes": []} for a, b in rows],
        config="small",
        split="all_of_it",
    )
    return directory


def test_snli_and_multi_nli_become_triplets_by_premise(stored):
    source = open_source("tfds:snli+multi_nli", tfds_dir=stored)
    assert list(source.rows()) == [
        ("A dog runs.", "An animal moves.", "A dog sleeps."),
        ("A cat eats.", "It is fed.", "A cat starves."),
        ("Über uns.", "Above us.", "Below."),
    ]
    assert scan(source) == Scan(rows=3, bad=0, complete=True, first_bad=None)


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        ("tfds:glue/sst2:train:sentence", 2500),
        ("tfds:glue/sst2:2.0.0:train:sentence", 2500),
        ("tfds:glue/sst2:train[:10%]:sentence", 250),
        ("tfds:glue/sst2:train[:5]+train[7:9]:sentence", 7),
    ],
)
def test_a_dataset_is_read_in_its_own_order(stored, spec, count):
    rows = list(open_source(spec, tfds_dir=stored).rows())
    assert len(rows) == count
    assert rows[:5] == [(f"Sentence {i}.",) for i in range(5)]
    if count == 2500:
        assert rows[-1] == ("Sentence 2499.",)


def test_several_fields_are_the_views_and_bad_examples_are_counted(stored):
    source = open_source("tfds:mine/small:all_of_it:answer,question", tfds_dir=stored)
    bad = []
    assert list(source.rows(bad.append)) == [("Two.", "One."), ("Four.", "Three.")]
    assert bad == [
        "tfds:mine/small:all_of_it:answer,question, example 2: 'question' is empty; the row starts \"No anchor.\"",
        "tfds:mine/small:all_of_it:answer,question, example 3: byte 0xe9 at position 4 is no UTF-8; the row starts "
        '"caf\\xe9 Latin-1."',
    ]
    with pytest.raises(UserError, match=r"example 2: 'question' is empty.* --skip-bad-rows"):
        scan(source)


def test_a_dataset_can_be_read_inside_a_tf_data_generator(stored):
    import tensorflow as tf

    source = open_source("tfds:snli+multi_nli", tfds_dir=stored)
    dataset = tf.data.Dataset.from_generator(source.rows, output_signature=tf.TensorSpec([3], tf.string))
    assert [row[0].decode() for row in dataset.as_numpy_iterator()] == ["A dog runs.", "A cat eats.", "Über uns."]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("tfds:snlii:train:premise", "tfds:snlii: unknown dataset 'snlii'. Did you mean 'snli'"),
        ("tfds:min/small:train:x", "tfds:min/small: unknown dataset 'min'. Did you mean 'mine'"),
        ("tfds:qqqqqqqq:train:x", "tfds:qqqqqqqq: unknown dataset 'qqqqqqqq'. See https://www.tensorflow.org/datasets"),
        ("tfds:glue/sst3:train:x", "tfds:glue/sst3: unknown configuration 'sst3'. Did you mean 'sst2'"),
        ("tfds:mine/smal:train:x", "tfds:mine/smal: unknown configuration 'smal'. Did you mean 'small'"),
        ("tfds:snli:9.9.9:train:premise", "tfds:snli:9.9.9: TFDS cannot load it: "),
        ("tfds:snli:trian:premise", "tfds:snli: split 'trian': Unknown split 'trian'. Should be one of ['train']."),
        ("tfds:snli:train[:x]:premise", "tfds:snli: split 'train[:x]': "),
        ("tfds:snli:train:premises", "tfds:snli: field 'premises' does not exist. Did you mean 'premise'?"),
        ("tfds:snli:train:label", "tfds:snli: field 'label' is not text. "),
        ("tfds:mine/small:all_of_it:votes", "tfds:mine/small: field 'votes' is not text. Valid: answer, question."),
    ],
)
def test_a_wrong_tfds_name_gets_the_nearest_ones(stored, spec, expected):
    assert complaint(spec, tfds_dir=stored).startswith(expected)


def test_a_dataset_that_is_not_there_says_within_seconds_that_there_is_no_network(stored, tmp_path, no_network):
    began = time.monotonic()
    for spec in ("tfds:snli+multi_nli", "tfds:glue/mrpc:train:sentence1,sentence2"):
        message = complaint(spec, tfds_dir=tmp_path)
        assert f"is not in {tmp_path}" in message
        assert "Without a network: --data bundled, or --data FILE" in message
        assert "--tfds-dir" in message
    assert time.monotonic() - began < 10


def test_a_dataset_is_prepared_on_first_use(web, tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    class MadeForThisTest(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict({"text": tfds.features.Text()}))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield 0, {"text": "Made here."}

    monkeypatch.setattr(download, "_TFDS_BUCKET", web.url + "/no-such-page")
    assert list(open_source("tfds:made_for_this_test:train:text", tfds_dir=tmp_path).rows()) == [("Made here.",)]
    assert web.requests == ["/no-such-page"]


def test_a_dataset_whose_script_fails_says_why(web, tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    class FailsInThisTest(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict({"text": tfds.features.Text()}))

        def _split_generators(self, dl_manager):
            raise AssertionError("put the archive there by hand")

        def _generate_examples(self):
            yield 0, {"text": "Never."}

    monkeypatch.setattr(download, "_TFDS_BUCKET", web.url + "/wiki.txt")
    assert "put the archive there by hand" in complaint("tfds:fails_in_this_test:train:text", tfds_dir=tmp_path)
