"""An index of a million generated vectors: time to build, load and search, size on disk, recall against the exact one.

`python -m benchmarks.index [--rows N] [--dim D] [--kinds flat ivf hnsw] [--json FILE]`; needs the extra `index`.

The vectors are of unit length and come in groups, as sentences do: a direction at random for each of `rows / 100`
groups, and around it noise of the same length. Queries are made in the same way from the same groups.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from simcse_tf.serving import index

_BATCH = 10_000
_QUERIES = 500
_TOP = 10


def vectors(centres: np.ndarray, count: int, seed: int) -> Iterator[np.ndarray]:
    """`(at most _BATCH, dim)` arrays, `count` rows in all."""
    rng = np.random.default_rng(seed)
    dim = centres.shape[1]
    for start in range(0, count, _BATCH):
        rows = min(_BATCH, count - start)
        noise = rng.standard_normal((rows, dim), dtype="float32") / np.float32(dim**0.5)
        found = centres[rng.integers(len(centres), size=rows)] + noise
        yield found / np.linalg.norm(found, axis=1, keepdims=True)


def measure(directory: Path, kind: index.Kind, centres: np.ndarray, rows: int, queries: np.ndarray) -> dict[str, Any]:
    """Builds, loads and searches one index."""
    fingerprint = np.ones((1, centres.shape[1]), "float32")
    batches = (([f"sentence {i}" for i in range(len(v))], v) for v in vectors(centres, rows, seed=1))
    began = time.perf_counter()
    index.build(directory, batches, fingerprint=fingerprint, model="generated", kind=kind)
    build = time.perf_counter() - began
    began = time.perf_counter()
    opened = index.Index(directory, fingerprint)
    load = time.perf_counter() - began
    opened.nearest(queries[:2], _TOP)
    seconds = []
    for query in queries[:100]:
        began = time.perf_counter()
        opened.search(query[np.newaxis], top_k=_TOP, threshold=-1.0)
        seconds.append(time.perf_counter() - began)
    began = time.perf_counter()
    nearest = opened.nearest(queries, _TOP)[1]
    together = time.perf_counter() - began
    size = sum(f.stat().st_size for f in directory.iterdir()) / 2**20
    return {
        "kind": kind,
        "build_s": build,
        "load_ms": 1000 * load,
        "one_query_ms": 1000 * median(seconds),
        "queries_per_s": len(queries) / together,
        "size_mib": size,
        "nearest": nearest,
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--kinds", nargs="+", default=["flat", "ivf", "hnsw"], choices=["flat", "ivf", "hnsw"])
    parser.add_argument("--json", type=Path, default=Path("index.json"))
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((max(1, arguments.rows // 100), arguments.dim), dtype="float32")
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    queries = np.concatenate(list(vectors(centres, _QUERIES, seed=2)))
    results, exact = [], None
    print("kind    build s   load ms   one query ms   queries/s   MiB on disk   recall@10")
    for kind in dict.fromkeys(["flat", *arguments.kinds]):
        with tempfile.TemporaryDirectory(prefix="simcse_tf_index_") as scratch:
            found = measure(Path(scratch) / "index", kind, centres, arguments.rows, queries)
            shutil.rmtree(Path(scratch) / "index")
        nearest = found.pop("nearest")
        exact = nearest if exact is None else exact
        found["recall_at_10"] = float(
            np.mean([len(set(a) & set(b)) / _TOP for a, b in zip(nearest, exact, strict=True)])
        )
        results.append(found)
        print(
            f"{kind:5} {found['build_s']:9.1f} {found['load_ms']:9.1f} {found['one_query_ms']:14.2f} "
            f"{found['queries_per_s']:11.0f} {found['size_mib']:13.0f} {found['recall_at_10']:11.3f}",
            flush=True,
        )
    arguments.json.write_text(json.dumps({"rows": arguments.rows, "dim": arguments.dim, "results": results}, indent=2))


if __name__ == "__main__":
    main()
