"""The page: time until it can be used, Compare under load, good and bad requests mixed, an index of many lines.

`python -m benchmarks.page [--models saved_models] [--lines N] [--requests N] [--json FILE]`; needs the extras `demo`
and `index`, and an exported model. Starts `python -m demo` and talks to it with gradio_client, as visitors do.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import texts
from benchmarks.workers import ROOT, free_port, resident_memory

_USERS = 20


class Page:
    """A running `python -m demo`."""

    def __init__(self, models: Path):
        port = free_port()
        self.address = f"http://127.0.0.1:{port}/"
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-m", "demo", "--models", str(models.resolve()), "--port", str(port)],
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


def mixed(page: Page, sentences: list[str], requests: int) -> dict[str, Any]:
    """Requests that are right and wrong, eight at a time, and how they ended."""
    from gradio_client.exceptions import AppError

    good = {
        "/compare": lambda r: r.sample(sentences, 2),
        "/rank": lambda r: [r.choice(sentences), r.sample(sentences, 20)],
        "/matrix": lambda r: [r.sample(sentences, 10)],
        "/map": lambda r: [r.sample(sentences, 40)],
        "/duplicates": lambda r: [r.sample(sentences, 40)],
        "/size": lambda r: [r.sample(sentences, 40), 8 * r.randint(1, 8), r.choice(["float32", "int8", "binary"])],
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
        "/search": lambda r: [r.choice(sentences), "../../etc/passwd"],
    }

    def ask(visitor: Any, i: int) -> str:
        chosen = random.Random(i)
        wrong = i % 2 == 1
        endpoint = chosen.choice(list(bad if wrong else good))
        try:
            visitor.predict(*(bad if wrong else good)[endpoint](chosen), api_name=endpoint)
        except AppError as e:
            # gradio_client's words for an exception that nobody foresaw.
            ended = "server error" if "has raised an exception" in str(e) else "refused with a reason"
        else:
            ended = "answered"
        return f"{'bad' if wrong else 'good'}: {ended}"

    def visit(first: int) -> list[str]:
        # A client loses answers when two threads share it.
        visitor = page.visitor()
        return [ask(visitor, i) for i in range(first, requests, 8)]

    with ThreadPoolExecutor(8) as pool:
        ended = Counter(itertools.chain.from_iterable(pool.map(visit, range(8))))
    return dict(ended) | {"tracebacks": sum("Traceback" in line for line in page.said)}


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


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--models", type=Path, default=ROOT / "saved_models")
    parser.add_argument("--lines", type=int, default=100_000, help="of the file that is indexed")
    parser.add_argument("--requests", type=int, default=1000, help="good and bad ones")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="simcse_tf_page_") as directory:
        prepared = texts.prepare(Path(directory))
        sentences = [line for line in prepared.sts.read_text("utf-8").split("\n") if line]
        began = time.perf_counter()
        page = Page(given.models)
        try:
            listening = time.perf_counter() - began
            page.visitor().predict(*sentences[:2], api_name="/compare")
            figures: dict[str, Any] = {
                "start": {
                    "listening_s": round(listening, 1),
                    "first_answer_s": round(time.perf_counter() - began, 1),
                    "server_mib": page.memory()["now"],
                }
            }
            print(json.dumps(figures["start"]), flush=True)
            parts = {
                "compare_1": lambda: compare(page, sentences, 1, 200),
                "compare_20": lambda: compare(page, sentences, _USERS, 25),
                "mixed": lambda: mixed(page, sentences, given.requests),
                "search": lambda: search(page, many_lines(Path(directory), prepared.wiki, given.lines), given.lines),
            }
            for name, part in parts.items():
                figures[name] = part()
                print(name, json.dumps(figures[name]), flush=True)
        finally:
            page.stop()
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
