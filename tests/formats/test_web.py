"""The page for the browser: `embedder.py`'s tokens and vectors, from its own directory alone."""

import functools
import http.server
import json
import re
import shutil
import subprocess
import threading

import numpy as np
import pytest

from benchmarks import tiny
from simcse_tf import export
from simcse_tf.config import EncoderConfig
from simcse_tf.errors import UserError
from simcse_tf.formats import presets, web
from simcse_tf.formats.check_texts import check_texts
from simcse_tf.formats.fast_tokenizers import fast_tokenizer
from tests.conftest import PROMPTS, SENTENCES, VOCABULARY
from tests.formats.tiny_encoders import encoder_of

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
ODD = [
    "dog\x00cat",
    "dog \ud800",
    "\u039f\u0394\u039f\u03a3 \u03a3",
    "\ufffd\u200b\x07",
    "x" * 150,
    "\U0001f469\u200d\U0001f467",
    "[SEP] ##s <b>dog</b>",
]
TEXTS = [*check_texts(), *ODD]

# Under Node: the tokens of texts by a tokenizer.json.
_TOKENIZE = """
import { readFileSync } from "node:fs";
const [library, directory] = process.argv.slice(1);
const { Tokenizer } = await import(library);
const tokenizer = new Tokenizer(JSON.parse(readFileSync(`${directory}/tokenizer.json`)), {});
console.log(JSON.stringify(JSON.parse(readFileSync(0)).map((text) => tokenizer.encode(text).ids)));
"""

browser_test = pytest.mark.browser


@pytest.fixture
def no_tensorflow(monkeypatch):
    def imported():
        raise AssertionError("TensorFlow was imported")

    monkeypatch.setattr("simcse_tf.quiet.import_tensorflow", imported)


@pytest.fixture
def fake_npm(tmp_path, monkeypatch):
    """Puts a script in place of npm; returns the cache's directory."""

    def put(script):
        programs = tmp_path / "programs"
        programs.mkdir()
        for name in ("npm", "node"):
            (programs / name).write_text(f"#!/bin/sh\n{script}\n")
            (programs / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        return tmp_path / "cache" / "simcse_tf"

    return put


def test_a_missing_npm_is_said_before_tensorflow_is_imported(tiny_preset, tmp_path, monkeypatch, no_tensorflow):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no npm on the path"):
        export.main([str(tiny_preset), "--format", "web", "--to", str(tmp_path / "page")])


def test_what_npm_says_of_its_failure_is_said_and_nothing_is_kept(tiny_preset, tmp_path, fake_npm, no_tensorflow):
    cache = fake_npm("echo npm error network EAI_AGAIN >&2; exit 1")
    with pytest.raises(UserError, match="(?s)npm error network EAI_AGAIN.*is there a network"):
        export.main([str(tiny_preset), "--format", "web", "--to", str(tmp_path / "page")])
    assert list(cache.iterdir()) == []


def test_the_packages_are_installed_once(fake_npm):
    cache = fake_npm("mkdir node_modules || exit 1; echo once >> ../installed")
    assert web.runtime() == web.runtime()
    assert (cache / "installed").read_text() == "once\n"


def test_other_packages_than_the_pinned_ones_are_refused(tmp_path):
    for origin in web._RUNTIME.values():
        (tmp_path / origin).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / origin).write_text("")
    (tmp_path / "page").mkdir()
    with pytest.raises(UserError, match="not the packages that this version needs"):
        web.write_page(tmp_path / "page", tmp_path, name="x", quantize="none")


@pytest.fixture(scope="module")
def packages():
    try:
        return web.runtime()
    except UserError as e:
        pytest.skip(f"needs npm and its registry: {e}")


@pytest.fixture(scope="module")
def encoder(packages, tmp_path_factory):
    """Its matrices are large enough that the converter quantises them: 1,024 numbers at least. It has prompts."""
    from simcse_tf.formats.encoders import load_encoder

    directory = tmp_path_factory.mktemp("wider") / "preset"
    tiny.make_preset(directory, VOCABULARY, dim=64)
    return load_encoder(presets.locate(str(directory)), EncoderConfig("avg", "none", **PROMPTS))


@pytest.fixture(scope="module")
def exported(encoder, tmp_path_factory):
    return web.export(encoder, tmp_path_factory.mktemp("web") / "page", quantize="none")


@pytest.fixture(scope="module")
def embedder(exported):
    from simcse_tf.serving.embedder import Embedder

    return Embedder(exported, threads=1)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "xlm-roberta"])
def test_in_javascript_every_kind_of_tokenizer_gives_the_same_tokens(packages, tmp_path, model_type):
    encoder = encoder_of(tmp_path, model_type, EncoderConfig("avg", "none"))
    tokenizer = fast_tokenizer(encoder.tokenizer, max_length=encoder.max_length)
    tokenizer.no_truncation()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    texts = [text.encode("utf-8", "replace").decode() for text in TEXTS]
    done = subprocess.run(
        [
            "node",
            "--input-type=module",
            "-e",
            _TOKENIZE,
            str(packages / web._RUNTIME["runtime/tokenizers.js"]),
            tmp_path,
        ],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [tokenizer.encode(text).ids for text in texts]


@pytest.fixture(scope="module")
def rows(exported):
    return web.run(exported, TEXTS)


def test_under_node_the_page_has_the_embedders_tokens_and_vectors(rows, embedder):
    assert [row["ids"] for row in rows] == embedder.token_ids(TEXTS)
    np.testing.assert_allclose([row["vector"] for row in rows], embedder.encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize("side", ["query", "passage"])
def test_under_node_a_side_has_its_prompt(exported, embedder, side):
    found = [row["ids"] for row in web.run(exported, TEXTS[:5], side)]
    assert found == embedder.token_ids(TEXTS[:5], side) != embedder.token_ids(TEXTS[:5])


def test_by_default_the_page_has_an_int8_model(encoder, exported, tmp_path):
    smaller = web.export(encoder, tmp_path / "smaller")
    assert (smaller / "model.tflite").stat().st_size < 0.4 * (exported / "model.tflite").stat().st_size
    assert "smaller (int8)" in (smaller / "page.json").read_text("utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: {**row, "ids": [*row["ids"], 0]}, "into other tokens"),
        (lambda row: {**row, "vector": [-x for x in row["vector"]]}, "a cosine of -1.0000"),
        (lambda row: {**row, "vector": [float("nan")] * len(row["vector"])}, "a cosine of nan"),
    ],
)
def test_a_page_with_other_tokens_or_vectors_is_refused(encoder, exported, rows, monkeypatch, change, message):
    monkeypatch.setattr(web, "run", lambda _, texts: [change(row) for row in rows[: len(texts)]])
    with pytest.raises(UserError, match=message):
        web._check(encoder, exported, 0.98)


def test_the_directory_names_every_package_and_its_licence(exported):
    text = (exported / "LICENSES.txt").read_text("utf-8")
    assert re.search(r"@litertjs/core [\d.]+: Apache-2.0", text)
    assert "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION" in text


# ---------------------------------------------------------------------------------------------------- In Chromium


class Server:
    """A static server, and what was asked of it."""

    def __init__(self, directory):
        asked = self.asked = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_):
                asked.append(self.path)

            def end_headers(self):
                self.send_header("Access-Control-Allow-Origin", "*")
                super().end_headers()

        handler = functools.partial(Handler, directory=str(directory))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("needs a Chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(exported):
    with Server(exported) as server:
        yield server


@pytest.fixture(scope="module")
def page(browser, server):
    """The page with its model, on a phone's width; `page.requests` are the addresses that it asked for."""
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.requests = []
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(server.address)
    page.get_by_text("Ready:").wait_for(timeout=120_000)
    return page


def results(page, form):
    """Scores and texts of a form's results, when it has any."""
    items = page.locator(f"{form} li")
    items.first.wait_for()
    scores = items.locator(".score").all_inner_texts()
    return [float(score.replace("\u2212", "-")) for score in scores], items.locator(".text").all_inner_texts()


@browser_test
def test_in_the_browser_vectors_are_the_embedders(page, embedder):
    done = page.evaluate(
        """async (texts) => {
            const { vectors } = await encode(texts, { signal: new AbortController().signal });
            return vectors.map((vector) => Array.from(vector));
        }""",
        TEXTS,
    )
    np.testing.assert_allclose(done, embedder.encode(TEXTS), atol=1e-3)


@browser_test
def test_no_other_host_is_asked_for_anything(page, server, tmp_path):
    assert page.requests
    assert all(url.removeprefix("blob:").startswith(server.address) for url in page.requests)
    # Another port is another origin. Neither the page nor its worker, where the packages run, gets there.
    with Server(tmp_path) as other:
        for where in (page, *page.workers):
            answer = where.evaluate(f"fetch('{other.address}').then(() => 'answered', (error) => error.name)")
            assert answer == "TypeError"
        assert other.asked == []


@browser_test
def test_compare_shows_the_cosine_until_a_sentence_changes(page, embedder):
    page.get_by_label("First sentence").fill("the dog sleeps .")
    page.get_by_label("Second sentence").fill("the cat sleeps .")
    page.get_by_label("Second sentence").press("Control+Enter")
    scores, _ = results(page, "#compare")
    a, b = embedder.encode(["the dog sleeps .", "the cat sleeps ."])
    assert scores == [pytest.approx(float(a @ b), abs=0.006)]
    assert page.locator("#compare .about").inner_text().startswith("page (float32)")
    page.get_by_label("Second sentence").fill("")
    assert page.locator("#compare .results").inner_text() == ""
    page.get_by_role("button", name="Compare").click()
    assert page.locator("#compare .error").inner_text() == "Enter a second sentence."


@browser_test
def test_rank_sorts_all_lines_and_shows_text_as_text(page, embedder):
    texts = [*SENTENCES[:5], "<img src=x onerror=alert(1)> <b>dog</b>"]
    form = page.locator("#rank")
    form.get_by_label("Query").fill("a woman reads .")
    form.get_by_label("Sentences").fill("\n\n".join(texts))
    form.get_by_role("button").click()
    scores, shown = results(page, "#rank")
    expected = embedder.encode(texts, prompt_name="passage") @ embedder.encode("a woman reads .", prompt_name="query")
    assert sorted(shown) == sorted(texts)
    np.testing.assert_allclose(scores, sorted(expected, reverse=True), atol=0.006)
    assert page.locator("#rank li b, #rank li img").count() == 0


@browser_test
def test_search_reads_a_file_and_stops_when_asked(page, embedder, tmp_path):
    form = page.locator("#search")
    lines = [f"{sentence} {i}" for i in range(100) for sentence in SENTENCES]
    (tmp_path / "long.txt").write_text("\n".join(lines), "utf-8")
    form.get_by_label("Or a text file").set_input_files(tmp_path / "long.txt")
    form.get_by_label("Query").fill(SENTENCES[7])
    form.get_by_role("button", name="Search").click()
    form.get_by_role("button", name="Stop").click()
    assert form.locator("progress").is_hidden()
    (tmp_path / "short.txt").write_text("\r\n".join(SENTENCES), "utf-8")
    form.get_by_label("Or a text file").set_input_files(tmp_path / "short.txt")
    form.get_by_role("button", name="Search").click()
    scores, shown = results(page, "#search")
    passages, query = (
        embedder.encode(SENTENCES, prompt_name="passage"),
        embedder.encode(SENTENCES[7], prompt_name="query"),
    )
    np.testing.assert_allclose(scores, sorted(passages @ query, reverse=True)[:10], atol=0.006)
    assert len(shown) == 10
    assert f"of {len(SENTENCES)} sentences" in form.locator(".about").inner_text()


@browser_test
def test_a_file_that_is_not_utf8_is_named(page, tmp_path):
    (tmp_path / "latin.txt").write_bytes("caf\u00e9".encode("latin-1"))
    page.locator("#search [name=file]").set_input_files(tmp_path / "latin.txt")
    page.locator("#search .error").wait_for()
    assert page.locator("#search .error").inner_text() == "latin.txt is not text in UTF-8."


@browser_test
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone(page, scheme):
    page.emulate_media(color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@browser_test
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.unlink(), "tokenizer.json cannot be loaded: the server answered 404"),
        (lambda file: file.write_text("{}"), "tokenizer.json is not the file that was exported with this page"),
    ],
)
def test_a_missing_or_damaged_file_is_named_on_the_page(browser, exported, tmp_path, damage, message):
    shutil.copytree(exported, tmp_path / "copy")
    damage(tmp_path / "copy" / "tokenizer.json")
    with Server(tmp_path / "copy") as server:
        page = browser.new_page()
        page.goto(server.address)
        page.locator("#status .error").wait_for(timeout=60_000)
        assert message in page.locator("#status").inner_text()
        assert page.get_by_role("button", name="Compare").is_disabled()
        page.close()


@browser_test
def test_opened_without_a_server_the_page_says_how_to_start_one(browser, exported):
    page = browser.new_page()
    page.goto(f"file://{exported}/index.html")
    page.locator("#status .error").wait_for()
    assert "python -m http.server" in page.locator("#status").inner_text()
    page.close()
