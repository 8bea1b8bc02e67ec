"""Every tab in a real browser, on a tiny model; the numbers must be the client's."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path
from urllib.parse import quote

import pytest

from simcse_tf.demo.jobs import Jobs
from tests.conftest import SENTENCES
from tests.demo.conftest import Demo, end_trainings

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[dev]'")

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium executable: apt-get install chromium"),
]
# Chromium by itself asks Google for updates; the page must ask nobody.
_QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Milliseconds that a test waits for a training: on a loaded machine the import of TensorFlow alone takes a minute.
LONG = 600_000
A, B, C, D = "a man plays the guitar .", "a woman reads the book .", "the old dog sleeps .", "two birds in a tree ."


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=_QUIET)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, demo):
    """The page at desktop width; fails if it asked another host for anything or raised an error."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    wrong = []
    page.on("request", lambda r: r.url.startswith((demo.address, "data:", "blob:")) or wrong.append(r.url))
    page.on("pageerror", lambda e: wrong.append(str(e)))
    page.on("dialog", lambda d: (wrong.append(f"dialog {d.message}"), d.dismiss()))
    page.goto(demo.address)
    page.wait_for_selector("#compare-run")
    yield page
    context.close()
    assert wrong == []


GROUPS = {
    "Files": ("Map", "Search", "Duplicates", "Size"),
    "Training": ("Learn", "Before and after"),
    "About": ("The model",),
}


def tab(page, name):
    """Opens a tab, in its group."""
    group = next((group for group, names in GROUPS.items() if name in names), "Sentences")
    page.get_by_role("tab", name=group, exact=True).click()
    page.get_by_role("tab", name=name, exact=True).click()


def box(page, name):
    return page.locator(f"#{name} textarea, #{name} input[type=text]").first


def fill(page, name, text):
    """Types into a box. A tab gets its content when it is opened, and a box its first value a moment after that."""
    field = box(page, name)
    for _ in range(20):
        field.fill(text)
        page.wait_for_timeout(200)
        if field.input_value() == text:
            return
    raise AssertionError(f"{name} has {field.input_value()!r}")


def upload(page, name, path, content):
    path.write_bytes(content)
    page.set_input_files(f"#{name} input[type=file]", path)
    page.locator(f"#{name}").get_by_text(path.stem).first.wait_for()


def numbers(text):
    return [float(n) for n in re.findall(r"-?\d\.\d{3}", text)]


def test_compare_shows_the_clients_score_and_the_other_models(page, client):
    fill(page, "compare-a", A)
    fill(page, "compare-b", B)
    page.click("#compare-run")
    page.wait_for_selector("#compare-score")
    assert float(page.inner_text("#compare-score")) == pytest.approx(client.similarity(A, B), abs=6e-4)
    assert "base/1" in page.inner_text("#compare-result")
    page.get_by_text("a negation").click()
    playwright.expect(box(page, "compare-a")).to_have_value("She has never been to Norway.")
    # An example is compared at once.
    playwright.expect(page.locator("#compare-score")).not_to_have_text(f"{client.similarity(A, B):.3f}")


def test_compare_works_with_the_keyboard_alone(page, client):
    box(page, "compare-a").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type(C)
    page.keyboard.press("Tab")
    page.keyboard.press("Control+A")
    page.keyboard.type(D)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#compare-score")
    assert float(page.inner_text("#compare-score")) == pytest.approx(client.similarity(C, D), abs=6e-4)


def test_another_model_is_chosen_in_the_page(page, models):
    from simcse_tf.serving.client import Client

    page.locator("#model input").click()
    page.get_by_role("option", name="base/1").click()
    fill(page, "compare-a", A)
    fill(page, "compare-b", B)
    page.click("#compare-run")
    page.wait_for_selector("#compare-score")
    expected = Client(models / "base").similarity(A, B)
    assert float(page.inner_text("#compare-score")) == pytest.approx(expected, abs=6e-4)


def test_rank_sorts_typed_candidates(page, client):
    tab(page, "Rank")
    fill(page, "rank-query", A)
    fill(page, "rank-text", "\n".join([B, "<img src=x onerror=alert(1)>", A]))
    page.click("#rank-run")
    page.wait_for_selector("#rank-result table")
    rows = page.locator("#rank-result tbody tr").all_inner_texts()
    assert len(rows) == 3
    assert A in rows[0]
    assert any("<img src=x onerror=alert(1)>" in row for row in rows)
    by_row = next(row for row in rows if B in row)
    assert numbers(by_row)[0] == pytest.approx(client.similarity(A, B), abs=6e-4)


def test_rank_names_the_line_of_a_file_that_is_no_utf8(page, tmp_path):
    tab(page, "Rank")
    upload(page, "rank-file", tmp_path / "bad.txt", b"fine\nbroken \xff\n")
    page.click("#rank-run")
    page.get_by_text(re.compile(r"bad\.txt:2: byte 0xff")).wait_for()


def test_rank_reads_a_file(page, tmp_path):
    tab(page, "Rank")
    upload(page, "rank-file", tmp_path / "good.txt", f"{B}\n{C}\n".encode())
    page.click("#rank-run")
    page.wait_for_selector("#rank-result tbody tr")
    assert page.locator("#rank-result tbody tr").count() == 2


def test_the_matrix_tells_each_cell_by_pointer_and_by_keyboard(page, client):
    tab(page, "Matrix")
    fill(page, "matrix-text", "\n".join([A, B, "{{value}} ${1+1} <i>x</i>"]))
    page.click("#matrix-ordered input")
    page.click("#matrix-run")
    page.wait_for_selector("#matrix-result td[data-r]")
    assert "{{value}} ${1+1} <i>x</i>" in page.inner_text("#matrix-result")
    page.hover("#matrix-result td[data-r='2'][data-c='1']")
    told = page.inner_text("#matrix-result .readout")
    assert numbers(told)[0] == pytest.approx(client.similarity(A, B), abs=6e-4)
    page.focus("#matrix-result .heat")
    page.keyboard.press("ArrowRight")
    assert "{{value}}" not in page.inner_text("#matrix-result .readout")
    page.keyboard.press("ArrowDown")
    assert B in page.inner_text("#matrix-result .readout")


def test_thousands_of_lines_are_refused_in_the_page(page):
    tab(page, "Matrix")
    # As one change: typed, the browser itself takes a long time for thousands of lines.
    box(page, "matrix-text").evaluate(
        "(e) => { e.value = 'x\\n'.repeat(3000); e.dispatchEvent(new Event('input', { bubbles: true })); }"
    )
    page.click("#matrix-run")
    page.get_by_text("3,000 lines; at most 50 are taken").wait_for()


TWELVE = [f"{a} {b}" for a in ("a man", "the dog", "red birds") for b in ("sleeps", "runs", "eats", "sings")]


def draw(page):
    page.click("#map-run")
    page.wait_for_selector("#map-result canvas")
    page.locator("#map-result canvas").first.scroll_into_view_if_needed()


def dot(page, index):
    """Where a dot of the map is in the window."""
    box = page.locator("#map-result canvas").first.bounding_box()
    x, y = page.evaluate(f"document.querySelector('#map-result .atlas').simcse.at({index})")
    return box["x"] + x, box["y"] + y


def test_the_map_shows_a_dots_text_where_it_is_and_its_neighbours_beside_it(page, client):
    pytest.importorskip("faiss")
    tab(page, "Map")
    fill(page, "map-text", "\n".join(TWELVE))
    draw(page)
    page.mouse.move(*dot(page, 0))
    playwright.expect(page.locator("#map-result .tip")).to_have_text(TWELVE[0])
    page.mouse.click(*dot(page, 0))
    page.wait_for_selector("#map-result .list ol li")
    assert TWELVE[0] in page.inner_text("#map-result .list h4")
    expected = sorted(client.encode(TWELVE) @ client.encode(TWELVE[0]))[-2]
    assert numbers(page.locator("#map-result .list li").first.inner_text())[0] == pytest.approx(expected, abs=6e-4)

    # Zooming parts dots; the keyboard moves from one to the next.
    def apart():
        (ax, ay), (bx, by) = dot(page, 0), dot(page, 5)
        return abs(ax - bx) + abs(ay - by)

    before = apart()
    page.get_by_label("zoom in").click()
    assert apart() == pytest.approx(1.4 * before)
    page.get_by_label("whole map").click()
    assert apart() == pytest.approx(before)
    page.locator("#map-result canvas").focus()
    seen = set()
    for key in ("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
        seen.add(page.inner_text("#map-result .tip"))
    assert len(seen) > 1
    assert seen <= set(TWELVE)


def test_a_box_on_the_map_selects_sentences_that_are_downloaded(page):
    pytest.importorskip("faiss")
    tab(page, "Map")
    fill(page, "map-text", "\n".join([*TWELVE, 'with a "comma", and <b>']))
    draw(page)
    for tool in ("selects a box", "encircles"):
        page.get_by_label(re.compile(tool)).click()
        box = page.locator("#map-result canvas").bounding_box()
        left, top = box["x"] + 3, box["y"] + 3
        right, bottom = left + box["width"] - 6, top + box["height"] - 6
        page.mouse.move(left, top)
        page.mouse.down()
        for x, y in ((right, top), (right, bottom), (left, bottom)) if tool == "encircles" else ((right, bottom),):
            page.mouse.move(x, y, steps=3)
        page.mouse.up()
        playwright.expect(page.locator("#map-result .list h4")).to_have_text("13 selected")
        page.locator("#map-result .list").get_by_text("Clear").click()
        page.mouse.move(0, 0)
    page.get_by_placeholder("show only").fill("/^(the|red).*s$/")
    playwright.expect(page.locator("#map-result output")).to_have_text("8 of 13")
    page.get_by_label(re.compile("selects a box")).click()
    page.mouse.move(left, top)
    page.mouse.down()
    page.mouse.move(right, bottom, steps=3)
    page.mouse.up()
    with page.expect_download() as download:
        page.get_by_text("Download CSV").click()
    rows = list(csv.reader(Path(download.value.path()).read_text("utf-8").splitlines()))
    assert rows[0] == ["row", "text", "cluster"]
    assert [row[1] for row in rows[1:]] == TWELVE[4:]


def test_a_sentence_lands_on_the_map_while_it_is_typed(page):
    pytest.importorskip("faiss")
    tab(page, "Map")
    fill(page, "map-text", "\n".join(TWELVE))
    draw(page)
    page.get_by_placeholder("put a sentence").press_sequentially(TWELVE[5])
    playwright.expect(page.locator("#map-result .list h4")).to_have_text(f"Nearest to “{TWELVE[5]}”")
    assert page.locator("#map-result .list li").first.inner_text().split("\n") == ["1.000", TWELVE[5]]
    page.get_by_label("coloured by").select_option("likeness")
    assert "1.00" in page.inner_text("#map-result .groups")


def test_the_map_of_a_table_is_coloured_by_a_column_and_seen_under_two_models(page, tmp_path):
    pytest.importorskip("faiss")
    tab(page, "Map")
    kinds = ["people", "people", "animals"] * 4
    table = "text,kind\n" + "".join(f"{each},{kind}\n" for each, kind in zip(TWELVE, kinds, strict=True))
    upload(page, "map-file", tmp_path / "t.csv", table.encode())
    playwright.expect(page.locator("#map-text")).to_be_hidden()
    page.locator("#map-beside input").click()
    page.get_by_role("option", name="base/1").click()
    draw(page)
    assert page.locator("#map-result canvas").count() == 2
    page.wait_for_selector("#map-changed")
    page.get_by_label("coloured by").select_option(label="coloured by kind")
    groups = page.locator("#map-result .groups button")
    assert groups.all_inner_texts() == ["people\n8", "animals\n4"]
    groups.first.click()
    playwright.expect(groups.nth(1)).to_have_attribute("aria-pressed", "false")


def test_duplicates_go_over_a_threshold(page, tmp_path):
    pytest.importorskip("faiss")
    tab(page, "Duplicates")
    upload(page, "duplicates-file", tmp_path / "t.csv", f"n,text\n1,{A}\n2,{B}\n3,{A.upper()}\n".encode())
    page.locator("#duplicates-threshold input[type=number]").fill("1")
    page.click("#duplicates-run")
    playwright.expect(page.locator("#duplicates-result")).to_contain_text("1 of 3 rows")
    page.get_by_text("Take it away").click()
    page.click("#duplicates-prepare")
    with page.expect_download() as download:
        page.locator("#duplicates-download a").first.click()
    assert download.value.suggested_filename == "t-without-duplicates.csv"
    assert Path(download.value.path()).read_text("utf-8") == f"n,text\n1,{A}\n2,{B}\n"


def test_size_is_measured_on_the_visitors_sentences(page):
    pytest.importorskip("faiss")
    tab(page, "Size")
    page.click("#size-run")
    page.wait_for_selector("#size-result .score")
    assert page.locator("#size-result td[style]").count() >= 6
    first = page.inner_text("#size-result .score")
    page.locator("#size-bits").get_by_text("binary").click()
    playwright.expect(page.locator("#size-result .score")).not_to_have_text(first)


def test_search_builds_an_index_answers_and_gives_it_away(page, client, tmp_path):
    pytest.importorskip("faiss")
    tab(page, "Search")
    upload(page, "search-file", tmp_path / "lines.txt", "\n".join([A, B, C, D]).encode())
    page.locator("#search-bits").get_by_text("8", exact=True).click()
    page.click("#search-build")
    page.get_by_text(re.compile("Index of 4 sentences of lines.txt .* flat, 8 bits a number, .* KiB")).wait_for()
    fill(page, "search-query", "the dog sleeps")
    page.click("#search-run")
    page.wait_for_selector("#search-result tbody tr")
    expected = max(client.similarity(["the dog sleeps"], [A, B, C, D])[0])
    assert numbers(page.locator("#search-result tbody tr").first.inner_text())[0] == pytest.approx(expected, abs=0.02)

    page.get_by_text("Take it away").click()
    page.click("#search-prepare")
    with page.expect_download() as download:
        page.locator("#search-downloads a").first.click()
    assert Path(download.value.path()).stat().st_size > 0
    # A link opens it again, as long as the server keeps it.
    page.goto(page.url)
    page.wait_for_selector("#search-result tbody tr")


def test_before_and_after_draws_and_measures_both_models(page, models):
    from simcse_tf.evaluation.geometry import geometry
    from simcse_tf.evaluation.pairs import bundled
    from simcse_tf.serving.client import Client

    tab(page, "Before and after")
    page.locator("#space-before input").click()
    page.get_by_role("option", name="base/1").click()
    page.click("#space-run")
    page.wait_for_selector("#space-result svg.dial")
    assert page.locator("#space-result svg.dial").count() == 2
    page.click("#space-measure")
    page.wait_for_selector("#space-numbers svg.histogram", timeout=LONG)
    shown = [float(n) for n in page.locator("#space-numbers [data-is=alignment]").all_inner_texts()]
    expected = [geometry(Client(models / name).encode, bundled()).alignment for name in ("base", "tiny")]
    assert shown == pytest.approx(expected, abs=6e-4)


def test_about_shows_the_card_of_the_chosen_model(page):
    tab(page, "The model")
    playwright.expect(page.locator("#about-card")).to_contain_text("Version 1 of tiny")
    page.locator("#model input").click()
    page.get_by_role("option", name="base/1").click()
    playwright.expect(page.locator("#about-card")).to_contain_text("Version 1 of base")


def test_a_link_opens_its_tab_with_its_content(page, demo, client):
    page.goto(f"{demo.address}?tab=rank&model=tiny%2F1&query={quote(A)}&candidates={quote(B)}%0A{quote(C)}")
    page.wait_for_selector("#rank-result tbody tr")
    assert box(page, "rank-query").input_value() == A
    assert page.locator("#rank-result tbody tr").count() == 2
    tab(page, "Compare")
    fill(page, "compare-a", D)
    page.click("#compare-run")
    page.wait_for_selector("#compare-score")
    page.wait_for_url(re.compile("tab=compare.*two"))


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_its_width_in_light_and_dark(browser, demo, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    page.goto(demo.address)
    page.click("#compare-run")
    page.wait_for_selector("#compare-score")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    ink = page.evaluate("getComputedStyle(document.querySelector('#compare-score')).color")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ink)[:3])) > sum(map(int, re.findall(r"\d+", paper)[:3]))) == (
        scheme == "dark"
    )
    context.close()


@pytest.fixture(scope="module")
def page_without_models(tmp_path_factory):
    root = tmp_path_factory.mktemp("without_models") / "saved_models"
    demo = Demo("--models", str(root))
    yield demo, root
    demo.stop()


@pytest.fixture
def without_models(page_without_models):
    """The page over a folder that is not there, and the folder."""
    yield page_without_models
    shutil.rmtree(page_without_models[1], ignore_errors=True)


def test_without_a_model_the_page_says_how_to_make_one_and_notices_it(browser, models, without_models):
    demo, root = without_models
    page = browser.new_page()
    page.goto(demo.address)
    page.get_by_text("python -m simcse_tf.train").wait_for()
    playwright.expect(page.locator("#export-base")).to_be_visible()
    assert not page.locator("#compare-run").is_visible()
    shutil.copytree(models / "tiny", root / "mine")
    page.wait_for_selector("#compare-run", timeout=30_000)
    playwright.expect(page.locator("#model input")).to_have_value("mine/1")
    page.close()


@pytest.mark.slow
@pytest.mark.usefixtures("minilm")
def test_the_button_exports_the_base_encoder(browser, without_models):
    from simcse_tf.demo.models import BASE
    from simcse_tf.serving.client import Client

    demo, root = without_models
    page = browser.new_page()
    page.goto(demo.address)
    page.click("#export-base")
    page.get_by_text("Exporting the base encoder").wait_for()
    page.wait_for_selector("#compare-run", timeout=600_000)
    playwright.expect(page.locator("#model input")).to_have_value(f"{BASE}/1")
    fill(page, "compare-a", A)
    fill(page, "compare-b", B)
    page.click("#compare-run")
    # The server imports TensorFlow for it.
    page.wait_for_selector("#compare-score", timeout=LONG)
    score = Client(root / BASE).similarity(A, B)
    assert float(page.inner_text("#compare-score")) == pytest.approx(score, abs=6e-4)
    page.close()


@pytest.fixture(scope="module")
def learning(models, tiny_preset, tmp_path_factory):
    """A page over one model, on which trainings begin with the tiny BERT."""
    root = tmp_path_factory.mktemp("learning")
    shutil.copytree(models / "tiny", root / "models" / "tiny")
    demo = Demo("--models", str(root / "models"), "--runs", str(root / "runs"), "--presets", str(tiny_preset))
    demo.models = root / "models"
    yield demo
    end_trainings(Jobs(root / "runs", root / "models"))
    errors = demo.stop()
    assert "Traceback" not in errors, errors


def begin_training(page, name, texts, steps):
    fill(page, "learn-text", texts)
    fill(page, "learn-name", name)
    if not page.locator("#learn-steps").is_visible():
        page.get_by_text("Settings", exact=True).click()
    page.locator("#learn-batch input").click()
    page.get_by_role("option", name="4", exact=True).click()
    page.locator("#learn-steps input[type=number]").fill(str(steps))
    page.locator("#learn-steps input[type=number]").press("Tab")
    page.click("#learn-start")


def dots(page):
    """Where the texts are once they have come to rest."""
    all_dots = "[...document.querySelectorAll('#learn-motion circle[data-i]')]"
    page.wait_for_timeout(1000)
    return page.evaluate(f"{all_dots}.map((dot) => [dot.cx.baseVal.value, dot.cy.baseVal.value])")


def test_a_visitor_trains_watches_stops_and_compares_with_the_new_model(browser, learning):
    page = browser.new_page()
    wrong = []
    page.on("pageerror", lambda e: wrong.append(str(e)))
    page.goto(learning.address)
    page.wait_for_selector("#compare-run")
    tab(page, "Learn")
    pairs = "\n".join(f"{a} | {b}" for a, b in zip(SENTENCES[:12], SENTENCES[12:24], strict=True))
    begin_training(page, "stopped", pairs, 1000)
    page.wait_for_selector("#learn-motion .motion[data-at='0']", timeout=LONG)
    before = dots(page)
    page.wait_for_selector("#learn-motion .motion:not([data-at='0'])", timeout=LONG)
    after = dots(page)
    assert len(before) == len(after) == 24
    assert max(abs(a - b) for was, now in zip(before, after, strict=True) for a, b in zip(was, now, strict=True)) > 1
    # A page that is opened again shows it as it stands.
    page.reload()
    page.wait_for_selector("#learn-motion .motion circle")
    page.click("#learn-stop")
    page.locator("#learn-status").get_by_text("stopped/1").wait_for(timeout=LONG)
    playwright.expect(page.locator("#learn-status")).to_contain_text("Stopped.")

    begin_training(page, "finished", pairs, 20)
    page.locator("#learn-status").get_by_text("finished/1").wait_for(timeout=LONG)
    playwright.expect(page.locator("#model input")).to_have_value("finished/1")
    # Back through the steps.
    last = dots(page)
    slider = page.locator("#learn-motion input[type=range]")
    slider.fill("0")
    playwright.expect(page.locator("#learn-motion output")).to_have_text("step 0")
    assert dots(page) != last
    tab(page, "Compare")
    fill(page, "compare-a", A)
    fill(page, "compare-b", B)
    page.click("#compare-run")
    page.wait_for_selector("#compare-score")
    playwright.expect(page.locator("#compare-result")).to_contain_text("stopped/1")
    # Delete asks first; then the training that is left is shown.
    tab(page, "Learn")
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.click("#learn-delete")
    playwright.expect(page.locator("#learn-job input")).to_have_value("finished")
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("#learn-delete")
    playwright.expect(page.locator("#learn-job input")).to_have_value("stopped")
    playwright.expect(page.locator("#learn-status")).to_contain_text("Stopped.")
    assert wrong == []
    page.close()


def test_what_a_visitor_types_while_the_page_loads_stays(browser, learning):
    page = browser.new_page()
    waiting = []
    page.route("**/queue/join*", lambda route: waiting.append(route))
    page.goto(f"{learning.address}?tab=learn")
    tab(page, "Learn")
    fill(page, "learn-name", "early")
    fill(page, "learn-text", "a | b")
    while waiting:
        waiting.pop().continue_()
        page.wait_for_timeout(100)
    page.unroute("**/queue/join*")
    playwright.expect(page.locator("#learn-name input")).to_have_attribute("placeholder", re.compile("mine-"))
    assert page.input_value("#learn-name input") == "early"
    assert page.input_value("#learn-text textarea") == "a | b"
    page.close()


def test_bad_rows_are_refused_in_the_page(browser, learning):
    page = browser.new_page()
    page.goto(f"{learning.address}?tab=learn")
    begin_training(page, "bad", "a | b\nc\nd | e\nf | g", 10)
    page.get_by_text("Line 2 has 1 texts, the first one 2").first.wait_for()
    assert not page.locator("#learn-stop").is_visible() or "bad" not in page.inner_text("#learn-job")
    page.close()


def test_a_fresh_page_opens_the_newest_model_and_results_say_whose_they_are(browser, models, learning):
    newer = learning.models / "newer"
    shutil.copytree(models / "base", newer)
    (newer / "1" / "saved_model.pb").touch()
    page = browser.new_page()
    page.goto(learning.address)
    playwright.expect(page.locator("#model input")).to_have_value("newer/1")
    page.click("#compare-run")
    page.wait_for_selector("#compare-score", timeout=LONG)
    page.locator("#model input").click()
    page.get_by_role("option", name="tiny/1").click()
    assert page.inner_text("#compare-result .whose").endswith("Thursday instead.” with newer/1")
    shutil.rmtree(newer)
    page.close()


def test_the_link_of_a_file_opens_the_tab_alone_and_keeps_the_theme(page, demo, tmp_path):
    page.goto(f"{demo.address}?__theme=dark")
    tab(page, "Rank")
    upload(page, "rank-file", tmp_path / "lines.txt", f"{B}\n{C}\n".encode())
    page.click("#rank-run")
    page.wait_for_selector("#rank-result tbody tr")
    page.wait_for_url(re.compile(r"\?tab=rank&__theme=dark$"))
