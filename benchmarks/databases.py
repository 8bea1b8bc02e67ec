"""What examples/vector_database.py takes in Milvus Lite and LanceDB: `python -m benchmarks.databases FILE.parquet`.

Loads the file by the example's own command, replaces a part of its rows and removes another, and compares the answers
with those of a flat search. Needs `pymilvus[milvus_lite]` and `lancedb`; a file is made by
`python -m simcse_tf.encode MODEL --input texts.txt --output FILE.parquet`.
"""

from __future__ import annotations

import argparse
import json
import runpy
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from benchmarks.workers import ROOT

_TOP = 10


def timed(run: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Seconds, and what a function returned."""
    began = time.perf_counter()
    found = run(*arguments)
    return time.perf_counter() - began, found


def measure(example: dict[str, Any], uri: str, file: Path, scratch: Path, queries: int) -> dict[str, Any]:
    """Loads, searches, replaces and removes."""
    table = parquet.read_table(file)
    rows = len(table)
    vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(rows, -1)
    chosen = np.sort(np.random.default_rng(0).choice(rows, queries, replace=False))
    ids = np.array(table["id"].to_pylist())
    load, _ = timed(example["main"], [uri, "load", str(file)])
    database = example["connect"](uri)
    database.search(vectors[0], _TOP, "")
    seconds, shared = [], []
    for query in vectors[chosen]:
        took, found = timed(database.search, query, _TOP, "")
        nearest = ids[np.argsort(-(vectors @ query), kind="stable")[:_TOP]]
        seconds.append(took)
        shared.append(len({row["id"] for _, row in found} & set(nearest.tolist())) / _TOP)

    # A hundredth of the rows again, under the vectors of their neighbours.
    part = table.slice(0, rows // 100)
    moved = part.set_column(part.schema.get_field_index("vector"), "vector", table["vector"].slice(1, len(part)))
    parquet.write_table(moved.cast(table.schema), scratch / "again.parquet")
    again, _ = timed(example["main"], [uri, "load", str(scratch / "again.parquet")])
    equal = "==" if uri.endswith(".db") else "="
    ((score, row),) = example["connect"](uri).search(vectors[1], 1, f"id {equal} {ids[0]}")
    assert row["id"] == ids[0]
    assert score > 0.999
    remove, _ = timed(example["main"], [uri, "remove", "--where", f"id < {rows // 10}"])
    left = example["connect"](uri).count()
    assert left == rows - rows // 10, left
    return {
        "database": uri.rpartition("/")[2],
        "rows": rows,
        "load_s": round(load, 1),
        "recall_at_10": round(float(np.mean(shared)), 4),
        "query_ms": round(1000 * median(seconds), 1),
        "replaced": len(part),
        "replace_s": round(again, 1),
        "removed": rows - left,
        "remove_s": round(remove, 1),
        "mib": round(sum(f.stat().st_size for f in Path(uri).rglob("*") if f.is_file()) / 2**20),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="with row numbers as ids, as of a text file")
    parser.add_argument("--queries", type=int, default=200, help="that many of the rows are searched for")
    arguments = parser.parse_args()
    if not pa.types.is_integer(parquet.read_schema(arguments.file).field("id").type):
        parser.error("the file's ids must be row numbers")
    example = runpy.run_path(str(ROOT / "examples" / "vector_database.py"))
    for name in ("milvus.db", "lance"):
        with tempfile.TemporaryDirectory(prefix="simcse_tf_databases_") as scratch:
            print(json.dumps(measure(example, f"{scratch}/{name}", arguments.file, Path(scratch), arguments.queries)))


if __name__ == "__main__":
    main()
