"""The page: its start, Compare under load, good and bad requests, a map of 50,000 dots, a training, a large index.

`python -m benchmarks.page [--models saved_models] [--litert FOLDER] [--only PART ...] [--json FILE]`; needs the extras
`demo` and `index`, an exported model, and Chromium for the map, the training and the mixed requests. Starts `python -m
demo` and talks to it as visitors do, with gradio_client and, where something is drawn, in the browser.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gzip
import itertools
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import texts
from benchmarks.workers import ROOT, free_port, resident_memory

_USERS = 20
# Sentences of the large map; seconds of a drag over it; milliseconds that something in the browser may take.
_DOTS, _DRAG, _LONG = 50_000, 4, 600_000
_BROWSER = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


class Page:
    """A running `python -m demo`."""

    def __init__(self, models: Path, runs: Path):
        port = free_port()
        self.address = f"http://127.0.0.1:{port}/"
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-m", "demo", "--models", models, "--runs", runs, "--port", str(port)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said: list[str] = []
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()).startswith("http"):
            line += self._process.stdout.read()
            raise RuntimeError(f"the page did not start:\n{line}")
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        self.said.extend(self._process.stdout)

    def visitor(self) -> Any:
        """A client of its own: a session of its own at the server."""
        from gradio_client import Client

        return Client(self.address, verbose=False)

    def ask_map(self, function: str, asked: Any) -> Any:
        """What the page's map, in a browser, asks the server: `load` for its dots, `near` for neighbours."""
        body = {"data": asked, "fn_name": function, "component_id": self._map(), "session_hash": "x"}
        request = urllib.request.Request(
            f"{self.address}gradio_api/component_server/",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            found = answer.read()
            return json.loads(gzip.decompress(found) if answer.headers["Content-Encoding"] == "gzip" else found)

    @functools.cache  # noqa: B019 - there are but two pages
    def _map(self) -> int:
        with urllib.request.urlopen(f"{self.address}config") as answer:
            components = json.load(answer)["components"]
        return next(each["id"] for each in components if each["props"].get("elem_id") == "map-result")

    @contextlib.contextmanager
    def browser(self, tab: str) -> Iterator[Any]:
        """The page in Chromium, on one of its tabs."""
        from playwright.sync_api import sync_playwright

        with sync_playwright() as p:
            chromium = p.chromium.launch(executable_path=shutil.which("chromium"), args=_BROWSER)
            shown = chromium.new_page(viewport={"width": 1280, "height": 1000})
            shown.set_default_timeout(_LONG)
            shown.goto(f"{self.address}?tab={tab}")
            shown.wait_for_selector(f"#{tab}-text", state="visible")
            # Values that arrive a moment after the tab would replace what is typed.
            shown.wait_for_timeout(1500)
            yield shown
            chromium.close()

    def memory(self) -> dict[str, int]:
        """MiB that the server has resident, and had at most."""
        fields = {"now": "VmRSS", "most": "VmHWM"}
        return {name: resident_memory(self._process.pid, field) // 2**20 for name, field in fields.items()}

    def stop(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait(30)


def compare(page: Page, sentences: list[str], users: int, calls: int) -> dict[str, float]:
    """Milliseconds that visitors wait for Compare, each asking again when it has its answer."""
    visitors = [page.visitor() for _ in range(users)]

    def visit(i: int) -> list[float]:
        chosen, seconds = random.Random(i), []
        for _ in range(calls):
            a, b = chosen.sample(sentences, 2)
            began = time.perf_counter()
            visitors[i].predict(a, b, api_name="/compare")
            seconds.append(time.perf_counter() - began)
        return seconds

    with ThreadPoolExecutor(users) as pool:
        waited = np.array([s for seconds in pool.map(visit, range(users)) for s in seconds]) * 1000
    p50, p95 = np.percentile(waited, [50, 95])
    return {"users": users, "calls": users * calls, "p50_ms": round(p50, 1), "p95_ms": round(p95, 1)}


def mixed(page: Page, sentences: list[str], requests: int, directory: Path) -> dict[str, Any]:
    """Requests that are right and wrong, eight at a time, and how they ended."""
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    path = directory / "few.txt"
    path.write_text("\n".join(sentences[:60]), "utf-8")
    drawn = draw(page, path)[0]
    index = page.visitor().predict(handle_file(str(path)), None, "", api_name="/index")[1]
    broken = directory / "broken.csv"
    broken.write_text("text,n\na dog\n", "utf-8")
    good = {
        "/compare": lambda r: r.sample(sentences, 2),
        "/rank": lambda r: [r.choice(sentences), r.sample(sentences, 20)],
        "/matrix": lambda r: [r.sample(sentences, 10)],
        "/map": lambda r: [r.sample(sentences, 40)],
        "/duplicates": lambda r: [r.sample(sentences, 40)],
        "/size": lambda r: [r.sample(sentences, 40), 8 * r.randint(1, 8), r.choice(["float32", "int8", "binary"])],
        "/index": lambda r: [handle_file(str(path)), None, ""],
        "/search": lambda r: [r.choice(sentences), index],
        "near": lambda r: {"map": drawn} | r.choice([{"index": r.randrange(60)}, {"text": r.choice(sentences)}]),
        "load": lambda r: {"map": drawn},
    }
    bad = {
        "/compare": lambda r: r.choice([["", "a"], ["x" * 100_000, "a"], [5, "a"], ["a", "b", "../../etc"]]),
        "/rank": lambda r: r.choice([["a", []], ["", ["a"]], ["a", ["b"] * 5000], ["a", "no list"]]),
        "/matrix": lambda r: r.choice([[["a"] * 5000], [[]], [[None]], ["<script>alert(1)</script>"]]),
        "/map": lambda r: r.choice([[["a"]], [sentences[:9], "spring"], [[1, 2, 3, 4]]]),
        "/duplicates": lambda r: r.choice([[["a"]], [sentences[:9], 7], [sentences[:9], "high"], [None]]),
        "/size": lambda r: r.choice(
            [[["a"], 8], [sentences[:40], 0], [sentences[:40], "many"], [sentences[:40], 8, "x"]]
        ),
        "/index": lambda r: r.choice(
            [[None, None, ""], [handle_file(str(broken)), None, ""], [handle_file(str(path)), "x", "no model"]]
        ),
        "/search": lambda r: r.choice([[r.choice(sentences), "../../etc/passwd"], ["", index], ["a", index, 0]]),
        "near": lambda r: r.choice([None, {"map": drawn, "index": -1}, {"map": drawn, "text": ""}, {"map": "../x"}]),
        "load": lambda r: r.choice([None, [], {"map": 5}, {"map": {"a": 1}}]),
    }

    def ask(visitor: Any, i: int) -> str:
        chosen = random.Random(i)
        wrong = i % 2 == 1
        endpoint = chosen.choice(list(bad if wrong else good))
        given = (bad if wrong else good)[endpoint](chosen)
        ended = "answered"
        try:
            if endpoint.startswith("/"):
                visitor.predict(*given, api_name=endpoint)
            elif "error" in page.ask_map(endpoint, given):
                ended = "refused with a reason"
        except AppError as e:
            # gradio_client's words for an exception that nobody foresaw.
            ended = "server error" if "has raised an exception" in str(e) else "refused with a reason"
        except urllib.error.HTTPError:
            ended = "server error"
        return f"{'bad' if wrong else 'good'}: {ended}"

    def visit(first: int) -> list[str]:
        # A client loses answers when two threads share it.
        visitor = page.visitor()
        return [ask(visitor, i) for i in range(first, requests, 8)]

    with ThreadPoolExecutor(8) as pool:
        ended = Counter(itertools.chain.from_iterable(pool.map(visit, range(8))))
    return dict(ended) | {"tracebacks": sum("Traceback" in line for line in page.said)}


def draw(page: Page, path: Path, then: Callable[[Any], Any] = lambda shown: None) -> tuple[str, float, Any]:
    """Draws the map of a file in the browser.

    Args:
        page: The page.
        path: The file.
        then: What else is done with the map in the browser.

    Returns:
        The map's name, the seconds it took, and what `then` returned.
    """
    with page.browser("map") as shown:
        shown.set_input_files("#map-file input[type=file]", path)
        shown.locator("#map-text").wait_for(state="hidden")
        began = time.perf_counter()
        shown.click("#map-run")
        shown.wait_for_selector("#map-result canvas")
        took = time.perf_counter() - began
        return shown.get_attribute("#map-result .atlas", "data-map"), round(took, 1), then(shown)


def drag(shown: Any) -> float:
    """Frames a second while the map is dragged."""
    # The page scrolls to the map for a moment.
    shown.wait_for_timeout(1500)
    box = shown.locator("#map-result canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    shown.evaluate(
        "() => { window.frames_ = 0; const p = CanvasRenderingContext2D.prototype, put = p.putImageData;"
        "p.putImageData = function (...all) { window.frames_++; return put.apply(this, all); }; }"
    )
    shown.mouse.move(x, y)
    shown.mouse.down()
    began = time.perf_counter()
    step = 0
    while (took := time.perf_counter() - began) < _DRAG:
        step += 1
        shown.mouse.move(x + 120 * np.sin(step / 25), y + 80 * np.cos(step / 25))
    drawn = shown.evaluate("window.frames_")
    shown.mouse.up()
    return round(drawn / took, 1)


def look(page: Page, path: Path, sentences: list[str]) -> dict[str, Any]:
    """A map of 50,000 sentences: drawn, dragged, and asked by 20 visitors at a time, who read and then ask again."""
    drawn, took, frames = draw(page, path, drag)

    def visit(i: int) -> tuple[float, list[float]]:
        chosen, seconds = random.Random(i), []
        began = time.perf_counter()
        page.ask_map("load", {"map": drawn})
        loaded = time.perf_counter() - began
        for _ in range(10):
            time.sleep(chosen.uniform(0.5, 1.5))
            asked = chosen.choice([{"index": chosen.randrange(_DOTS)}, {"text": chosen.choice(sentences)}])
            began = time.perf_counter()
            page.ask_map("near", {"map": drawn, **asked})
            seconds.append(time.perf_counter() - began)
        return loaded, seconds

    with ThreadPoolExecutor(_USERS) as pool:
        loaded, asked = zip(*pool.map(visit, range(_USERS)), strict=True)
    p50, p95 = np.percentile(np.concatenate(asked) * 1000, [50, 95])
    return {
        "sentences": _DOTS,
        "drawn_s": took,
        "frames_a_second": frames,
        "users": _USERS,
        "slowest_load_s": round(max(loaded), 1),
        "neighbours_p50_ms": round(p50, 1),
        "neighbours_p95_ms": round(p95, 1),
        "server_mib": page.memory(),
    }


def learn(page: Page) -> dict[str, float]:
    """Seconds from Start, with the sentences that are there: the first picture, the first that moves, the model."""
    with page.browser("learn") as shown:
        shown.click("#learn-start")
        began = time.perf_counter()
        seconds = {}
        for name, there in (
            ("first_picture_s", ".motion[data-at='0']"),
            ("first_movement_s", ".motion:not([data-at='0'])"),
        ):
            shown.wait_for_selector(f"#learn-motion {there}")
            seconds[name] = round(time.perf_counter() - began, 1)
        shown.locator("#learn-status").get_by_text("Done.").wait_for()
        return seconds | {"model_s": round(time.perf_counter() - began, 1)}


def ready(models: Path, runs: Path, sentences: list[str]) -> tuple[Page, dict[str, Any]]:
    """Starts the page; seconds until it listens and until it has compared two sentences."""
    began = time.perf_counter()
    page = Page(models, runs)
    listening = time.perf_counter() - began
    page.visitor().predict(*sentences[:2], api_name="/compare")
    return page, {
        "listening_s": round(listening, 1),
        "first_answer_s": round(time.perf_counter() - began, 1),
        "server_mib": page.memory()["now"],
    }


def search(page: Page, path: Path, lines: int) -> dict[str, Any]:
    """Index a file and ask it."""
    from gradio_client import handle_file

    visitor = page.visitor()
    before = page.memory()["now"]
    began = time.perf_counter()
    job = visitor.submit(handle_file(str(path)), None, "", api_name="/index")
    shown: list[str] = []
    while not job.done():
        time.sleep(0.5)
        for unit in job.status().progress_data or []:
            if unit.desc and unit.desc not in shown[-1:]:
                shown.append(unit.desc)
    status, index = job.result()
    indexed = time.perf_counter() - began
    seconds = []
    for query in ("a man plays music", "war and peace", "the largest city of a country", "a river") * 5:
        began = time.perf_counter()
        visitor.predict(query, index, 10, api_name="/search")
        seconds.append(time.perf_counter() - began)
    p50, p95 = np.percentile(np.array(seconds) * 1000, [50, 95])
    return {
        "lines": lines,
        "seconds_to_index": round(indexed, 1),
        "status": status,
        "progress_messages": len(shown),
        "last_progress": shown[-1:],
        "answer_p50_ms": round(p50, 1),
        "answer_p95_ms": round(p95, 1),
        "server_mib": page.memory() | {"before": before},
    }


def many_lines(directory: Path, sentences: Path, lines: int) -> Path:
    """A file of so many different lines as long as real sentences: real ones, again and again with a number."""
    real = [line for line in sentences.read_text("utf-8").split("\n") if line]
    path = directory / "lines.txt"
    path.write_text("\n".join(f"{real[i % len(real)]} {i // len(real) or ''}".strip() for i in range(lines)), "utf-8")
    return path


def short_lines(directory: Path, sentences: Path) -> Path:
    """As many different lines of a few words as a map takes."""
    real = [line.split()[:4] for line in sentences.read_text("utf-8").split("\n") if line]
    path = directory / "dots.txt"
    path.write_text("\n".join(" ".join([*real[i % len(real)], str(i)]) for i in range(_DOTS)), "utf-8")
    return path


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--models", type=Path, default=ROOT / "saved_models")
    parser.add_argument("--litert", type=Path, help="a folder of LiteRT models, to start the page with it as well")
    parser.add_argument("--only", nargs="+", help="compare_1, compare_20, mixed, map, learn, search; by default all")
    parser.add_argument("--lines", type=int, default=100_000, help="of the file that is indexed")
    parser.add_argument("--requests", type=int, default=1000, help="good and bad ones")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    given = parser.parse_args()
    figures: dict[str, Any] = {}

    def say(name: str, found: dict[str, Any]) -> None:
        figures[name] = found
        print(name, json.dumps(found), flush=True)

    with tempfile.TemporaryDirectory(prefix="simcse_tf_page_") as folder:
        directory = Path(folder)
        prepared = texts.prepare(directory)
        sentences = [line for line in prepared.sts.read_text("utf-8").split("\n") if line]
        if given.litert:
            page, found = ready(given.litert.resolve(), directory / "runs", sentences)
            page.stop()
            say("start_litert", found)
        # What is trained here must not be among the models that were given.
        models = directory / "models"
        models.mkdir()
        for model in given.models.resolve().iterdir():
            (models / model.name).symlink_to(model)
        page, found = ready(models, directory / "runs", sentences)
        say("start", found)
        parts = {
            "compare_1": lambda: compare(page, sentences, 1, 200),
            "compare_20": lambda: compare(page, sentences, _USERS, 25),
            "mixed": lambda: mixed(page, sentences, given.requests, directory),
            "map": lambda: look(page, short_lines(directory, prepared.wiki), sentences),
            "learn": lambda: learn(page),
            "search": lambda: search(page, many_lines(directory, prepared.wiki, given.lines), given.lines),
        }
        try:
            for name, part in parts.items():
                if name in (given.only or parts):
                    say(name, part())
        finally:
            page.stop()
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
