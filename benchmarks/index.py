"""Every kind of index with every number of bits: recall against exact float32, bytes, memory, milliseconds.

`python -m benchmarks.index [--rows N] [--only flat:1 ivf:8 ...] [--directory DIR] [--json FILE]`; needs the extra
`index` and the preset `minilm`.

The vectors are MiniLM's, of the benchmark's real sentences (Wikipedia, SNLI, STS). For more rows than there are
sentences, a row is made of two of them at random, a + w b with w from 0 to 0.7, scaled to unit length: nearer to its
first sentence than to any other, and between real ones as a sentence about two things is. Queries are real sentences
that no row is made of. Indexes are built by the command, `simcse_tf.index build --vectors`; each is searched by a
process of its own, a query at a time, texts included, after as many queries that are not counted.

`memory` is what this process has beyond what it had before the index was opened, with the pages of mapped files;
`build` is the peak of the whole command, Python and faiss (about 90 MiB) included.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import texts
from benchmarks.workers import ROOT
from simcse_tf.serving import segment, vectors
from simcse_tf.serving.index import Index, read_about

_EVERY = [f"{kind}:{bits}" for kind in segment.KINDS for bits in segment.BITS]
_BLOCK, _QUERIES, _TOP = 50_000, 500, 10


def real_vectors(directory: Path) -> vectors.Stored:
    """MiniLM's vectors of the benchmark's sentences."""
    place = directory / "real"
    if not place.is_dir():
        found = texts.prepare(directory)
        lines = found.wiki.read_text("utf-8").split("\n") + found.sts.read_text("utf-8").split("\n")
        for row in found.triplets.read_text("utf-8").split("\n")[1:]:
            lines += row.split(",")
        lines = list(dict.fromkeys(line.strip(' "') for line in lines if len(line) > 10))
        (directory / "real.txt").write_text("\n".join(lines) + "\n", "utf-8")
        flags = ["--input", str(directory / "real.txt"), "--output", str(place), "--shard-size", "1000000", "--resume"]
        _run("simcse_tf.encode", "minilm", *flags)
    return vectors.Stored(place)


def generated(real: np.ndarray, begin: int, end: int) -> np.ndarray:
    """Rows of the set, the same for the same numbers; `begin` is a multiple of `_BLOCK`."""
    rng = np.random.default_rng([7, begin])
    a, b = rng.integers(len(real), size=(2, end - begin))
    made = real[a] + rng.uniform(0, 0.7, size=(end - begin, 1)).astype("float32") * real[b]
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def prepare(directory: Path, rows: int) -> None:
    """Writes vectors and texts as `simcse_tf.encode` does, queries and what the exact answers are."""
    source = real_vectors(directory)
    shuffled = source[0 : len(source)][np.random.default_rng(0).permutation(len(source))]
    queries, real = shuffled[:_QUERIES], shuffled[_QUERIES:]
    digest = hashlib.sha256()
    with open(directory / "texts.txt", "w", encoding="utf-8") as file:
        for i in range(rows):
            line = f"sentence {i} of a set that stands for sentences of about a hundred characters, as people write\n"
            digest.update(line.encode())
            file.write(line)
    about = vectors.About(rows, digest.hexdigest(), 1_000_000)
    probes = np.array(source.about.fingerprint, "float32")
    about = vectors.begin(directory / "vectors", about.of_model("minilm", probes))
    best_scores, best = np.empty((_QUERIES, 0), "float32"), np.empty((_QUERIES, 0), "int64")
    done = 0

    def encode(block: list[str], *, batch_size: int) -> np.ndarray:
        nonlocal best_scores, best, done
        begin, end = done, done + len(block)
        made = real[begin:end] if rows <= len(real) else generated(real, begin, end)
        best_scores = np.concatenate([best_scores, queries @ made.T], axis=1)
        best = np.concatenate([best, np.broadcast_to(np.arange(begin, end), (_QUERIES, end - begin))], axis=1)
        order = np.argpartition(-best_scores, min(_TOP, best.shape[1]) - 1, axis=1)[:, :_TOP]
        best_scores, best = np.take_along_axis(best_scores, order, axis=1), np.take_along_axis(best, order, axis=1)
        done = end
        return made

    def lines() -> Iterator[str]:
        yield from ("" for _ in range(rows))

    vectors._CALLS = 1
    vectors.fill(directory / "vectors", about, lines(), encode, batch_size=_BLOCK, progress=lambda done: None)
    np.savez(directory / "queries.npz", queries=queries, best=best)


def build(directory: Path, kind: str, bits: str) -> dict[str, Any]:
    """Builds an index by the command."""
    shutil.rmtree(directory / "index", ignore_errors=True)
    flags = ["--vectors", str(directory / "vectors"), "--to", str(directory / "index"), "--kind", kind, "--bits", bits]
    began = time.perf_counter()
    peak = _run("simcse_tf.index", "build", str(directory / "texts.txt"), *flags)
    seconds = time.perf_counter() - began
    about = read_about(directory / "index")
    sizes: dict[str, int] = {}
    for part in (about.trained, *about.segments):
        for name, size in part.files:
            sizes[name] = sizes.get(name, 0) + size
    return {"build_s": seconds, "build_mib": peak, "segments": len(about.segments), "bytes": sizes}


def search(directory: Path) -> None:
    """Searches an index; prints what it takes."""
    known = np.load(directory / "queries.npz")
    queries, best = known["queries"], known["best"]
    segment.load_faiss()
    before = _resident()
    began = time.perf_counter()
    opened = Index(directory / "index", np.array(read_about(directory / "index").fingerprint, "float32"))
    load = time.perf_counter() - began
    found, seconds = [], []
    for query in [*queries, *queries]:
        began = time.perf_counter()
        (answers,) = opened.search(query[np.newaxis], top_k=_TOP, threshold=-1.0)
        seconds.append(time.perf_counter() - began)
        found.append([int(answer.id) for answer in answers])
    after = _resident()
    began = time.perf_counter()
    opened.nearest(queries, _TOP)
    together = time.perf_counter() - began
    right = [len(set(a) & set(b)) / _TOP for a, b in zip(found, best.tolist(), strict=False)]
    seconds = sorted(seconds[len(queries) :])
    result = {
        "open_ms": 1000 * load,
        "recall_at_10": float(np.mean(right)),
        "p50_ms": 1000 * median(seconds),
        "p99_ms": 1000 * seconds[int(0.99 * len(seconds))],
        "queries_per_s": len(queries) / together,
        "memory_mib": sum(after.values()) - sum(before.values()),
        "private_mib": after["RssAnon"] - before["RssAnon"],
    }
    print(json.dumps(result))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", nargs="+", default=_EVERY, choices=_EVERY, metavar="KIND:BITS")
    parser.add_argument("--directory", type=Path, help="kept, with the vectors; by default a temporary one")
    parser.add_argument("--json", type=Path, default=Path("index.json"))
    parser.add_argument("--search", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.search:
        search(given.directory)
        return
    with tempfile.TemporaryDirectory(prefix="simcse_tf_index_") as scratch:
        directory = given.directory or Path(scratch)
        directory.mkdir(exist_ok=True)
        if not (directory / "queries.npz").is_file() or vectors.read_about(directory / "vectors").rows != given.rows:
            prepare(directory, given.rows)
        results = []
        print("kind bits  recall@10  ms p50  ms p99  queries/s  memory MiB  codes MiB  all MiB  build s  build MiB")
        for name in given.only:
            kind, bits = name.split(":")
            made = build(directory, kind, bits)
            command = [sys.executable, "-m", "benchmarks.index", "--search", "--directory", str(directory)]
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
            found = {"kind": kind, "bits": int(bits), **made, **json.loads(done.stdout)}
            results.append(found)
            size = {name: size / 2**20 for name, size in found["bytes"].items()}
            print(
                f"{kind:4} {bits:>4} {found['recall_at_10']:10.4f} {found['p50_ms']:7.2f} {found['p99_ms']:7.2f} "
                f"{found['queries_per_s']:10.0f} {found['memory_mib']:11.0f} {size['codes.faiss']:10.0f} "
                f"{sum(size.values()):8.0f} {found['build_s']:8.0f} {found['build_mib']:10.0f}",
                flush=True,
            )
        given.json.write_text(
            json.dumps({"rows": given.rows, "command": sys.argv, "results": results}, indent=2) + "\n"
        )


def _run(module: str, *arguments: str) -> float:
    """Runs a command; returns the peak of its memory in MiB."""
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)
    peak = 0.0
    # What the system says of it at its end would be this process's, from which it was forked, if that was higher.
    while process.poll() is None:
        peak = max(peak, _status(process.pid).get("VmHWM:", 0))
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(process.returncode)
    return peak


def _resident() -> dict[str, float]:
    """The memory of this process in MiB: its own, and that of mapped files."""
    return {name: _status(os.getpid())[f"{name}:"] for name in ("RssAnon", "RssFile")}


def _status(process: int) -> dict[str, float]:
    """What the system says of a process's memory, in MiB; nothing if it has ended."""
    try:
        lines = (line.split() for line in Path(f"/proc/{process}/status").read_text().splitlines())
        return {words[0]: int(words[1]) / 1024 for words in lines if words[0].startswith(("Vm", "Rss"))}
    except ProcessLookupError:
        return {}


if __name__ == "__main__":
    main()
