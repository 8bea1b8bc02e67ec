"""The server: how long clients wait for the vector of a sentence, alone and twenty at a time, and its memory.

`python -m benchmarks.serve MODEL [--clients N] [--seconds N] [--json FILE]`; needs the extra `serve`. Starts
`python -m simcse_tf.serve MODEL` and asks it over kept connections. Server and clients share 2 cores: the clients take
what an answer's bytes cost and no more, and decode the first one only.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from benchmarks import texts
from benchmarks.workers import ROOT, resident_memory

# Seconds of each case that are not counted, and different requests of a client.
_UNTIMED = 1.0
_REQUESTS = 100


class Server:
    """A running `python -m simcse_tf.serve`."""

    def __init__(self, model: str):
        began = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "simcse_tf.serve", model, "--port", "0", "--name", "model"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the server did not start")
        self.starting = time.perf_counter() - began
        self.port = int(line.split("/")[2].rpartition(":")[2])

    def memory(self) -> int:
        """MiB that it has had resident at most."""
        return resident_memory(self._process.pid) // 2**20

    def stop(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait(30)


class Connection(asyncio.Protocol):
    """A client that asks again when it has its answer.

    Args:
        requests: What it sends, one after the other, again and again.
        until: When it stops.
    """

    def __init__(self, requests: list[bytes], until: float):
        self._requests, self._until = itertools.cycle(requests), until
        self._received = bytearray()
        self._expected = 0
        self._began = 0.0
        # When each answer was complete, and after how many seconds.
        self.answers: list[tuple[float, float]] = []
        self.first = b""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._expected:
            end = self._received.find(b"\r\n\r\n") + 4
            if end < 4:
                return
            head = bytes(self._received[:end])
            if not head.startswith(b"HTTP/1.1 200 "):
                self.ended.set_exception(RuntimeError(self._received.decode()))
                self._transport.close()
                return
            self._expected = end + int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            self._head = end
        if len(self._received) == self._expected:
            now = time.perf_counter()
            self.answers.append((now, now - self._began))
            self.first = self.first or bytes(self._received[self._head :])
            self._received.clear()
            self._expected = 0
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(exc or RuntimeError("the server closed the connection"))

    def _send(self) -> None:
        self._began = time.perf_counter()
        if self._began > self._until:
            self.ended.set_result(None)
            self._transport.close()
        else:
            self._transport.write(next(self._requests))


def predict(sentences: list[str]) -> tuple[str, dict[str, Any]]:
    """A request to TF Serving's interface."""
    return "/v1/models/model:predict", {"inputs": {"text": sentences}}


def embeddings(sentences: list[str]) -> tuple[str, dict[str, Any]]:
    """A request to OpenAI's interface, as its client makes it."""
    return "/v1/embeddings", {"input": sentences, "model": "model", "encoding_format": "base64"}


def vectors(answer: bytes) -> np.ndarray:
    """Those of either interface."""
    given = json.loads(answer)
    if "outputs" in given:
        return np.array(given["outputs"], "float32")
    return np.array([np.frombuffer(base64.b64decode(x["embedding"]), "<f4") for x in given["data"]])


async def load(
    port: int,
    sentences: list[str],
    ask: Callable[[list[str]], tuple[str, dict[str, Any]]],
    *,
    clients: int,
    seconds: float,
    size: int,
) -> dict[str, float]:
    """Milliseconds that clients wait, and sentences per second; each client has its own connection."""

    def request(chosen: list[str]) -> bytes:
        path, content = ask(chosen)
        body = json.dumps(content).encode()
        return b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (path.encode(), len(body), body)

    made = [
        [request(random.Random(f"{client} {i}").sample(sentences, size)) for i in range(_REQUESTS)]
        for client in range(clients)
    ]
    loop = asyncio.get_running_loop()
    began = time.perf_counter() + _UNTIMED
    ended = began + seconds
    connections = [(await loop.create_connection(lambda r=r: Connection(r, ended), "127.0.0.1", port))[1] for r in made]
    await asyncio.gather(*(connection.ended for connection in connections))
    for connection in connections:
        np.testing.assert_allclose(np.linalg.norm(vectors(connection.first), axis=1), 1, atol=1e-3)
    waited = [s for connection in connections for at, s in connection.answers if began < at <= ended]
    p50, p95, p99 = np.percentile(np.array(waited) * 1000, [50, 95, 99])
    return {
        "p50_ms": round(float(p50), 1),
        "p95_ms": round(float(p95), 1),
        "p99_ms": round(float(p99), 1),
        "sentences_per_s": round(len(waited) * size / seconds),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__)
    parser.add_argument("model", help="what simcse_tf.serve serves")
    parser.add_argument("--clients", type=int, default=20, help="at the same time")
    parser.add_argument("--seconds", type=float, default=10.0, help="that each case is measured")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    given = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    with tempfile.TemporaryDirectory(prefix="simcse_tf_serve_") as directory:
        sentences = [s for s in texts.prepare(Path(directory)).sts.read_text("utf-8").split("\n") if s]
    server = Server(given.model)
    cases = {
        "predict, 1 client": (predict, 1, 1),
        f"predict, {given.clients} clients": (predict, given.clients, 1),
        f"embeddings, {given.clients} clients": (embeddings, given.clients, 1),
        "predict, 2 clients, 64 sentences a request": (predict, 2, 64),
    }
    figures: dict[str, Any] = {}
    print("| requests | p50 ms | p95 ms | p99 ms | sentences/s |\n|---|---|---|---|---|")
    try:
        for name, (ask, clients, size) in cases.items():
            part = uvloop.run(load(server.port, sentences, ask, clients=clients, seconds=given.seconds, size=size))
            figures[name] = part
            print(f"| {name} | " + " | ".join(map(str, part.values())) + " |", flush=True)
        figures["server"] = {"starting_s": round(server.starting, 2), "most_mib": server.memory()}
    finally:
        server.stop()
    print(json.dumps(figures))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
