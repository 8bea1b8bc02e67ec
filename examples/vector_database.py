"""Puts encoded texts into Milvus or LanceDB, and searches there.

    python -m simcse_tf.encode saved_models/quickstart --input texts.jsonl --output texts.parquet
    python examples/vector_database.py texts.db load texts.parquet
    python examples/vector_database.py texts.db search "Who plays music?" --where "year >= 2020"
    python examples/vector_database.py texts.db remove --where "year < 1990"

The database is Milvus where it ends in .db (Milvus Lite, in this process) or begins with http (a server or a cluster;
its token is read from MILVUS_TOKEN); else LanceDB, in a directory or at s3://, gs:// or az://. A row whose id is there
already is replaced. --where is in the database's own language. Needs `pymilvus[milvus_lite]` or `lancedb`.
"""

# The databases are not among what the other examples need.
# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from pyarrow import dataset, types

import simcse_tf
from simcse_tf import UserError, cli

NAME = "texts"


class Found(NamedTuple):
    """A row that was found, and its cosine with the query."""

    score: float
    row: dict[str, Any]


class Database(Protocol):
    """What the command asks of a database."""

    def exists(self) -> bool:
        """Whether anything has been loaded."""
        ...

    def load(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
        """Adds rows, and replaces those whose id is there."""
        ...

    def model(self) -> str:
        """The model that the vectors are from."""
        ...

    def count(self) -> int:
        """How many rows there are."""
        ...

    def search(self, vector: np.ndarray, top_k: int, where: str) -> list[Found]:
        """The nearest of the rows for which the condition holds."""
        ...

    def remove(self, where: str) -> None:
        """Removes the rows for which the condition holds."""
        ...


class Milvus:
    """A collection of Milvus or Milvus Lite."""

    def __init__(self, uri: str):
        from pymilvus import MilvusClient

        self._client = MilvusClient(uri, token=os.environ.get("MILVUS_TOKEN", ""))
        if self.exists():
            self._client.load_collection(NAME)

    def exists(self) -> bool:
        return self._client.has_collection(NAME)

    def load(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
        if not self.exists():
            self._create(schema)
        for batch in batches:
            rows = batch.drop_columns(["vector"]).to_pylist()
            vectors = batch["vector"].flatten().to_numpy().reshape(len(rows), -1)
            self._client.upsert(NAME, [row | {"vector": vector} for row, vector in zip(rows, vectors, strict=True)])
        self._client.flush(NAME)

    def _create(self, schema: pa.Schema) -> None:
        from pymilvus import DataType

        described = self._client.create_schema()
        for field in schema:
            if field.name == "vector":
                described.add_field("vector", DataType.FLOAT_VECTOR, dim=field.type.list_size)
                continue
            options = {"is_primary": True} if field.name == "id" else {"nullable": True}
            if types.is_integer(field.type):
                kind = DataType.INT64
            elif types.is_floating(field.type):
                kind = DataType.DOUBLE
            else:
                kind = DataType.VARCHAR
                options["max_length"] = 65_535
            described.add_field(field.name, kind, **options)
        index = self._client.prepare_index_params()
        graph = {"M": 32, "efConstruction": 200}
        index.add_index("vector", index_type="HNSW", metric_type="COSINE", params=graph)
        self._client.create_collection(
            NAME, schema=described, index_params=index, properties={"model": model_of(schema)}
        )

    def model(self) -> str:
        return self._client.describe_collection(NAME)["properties"]["model"]

    def count(self) -> int:
        return self._client.query(NAME, filter="", output_fields=["count(*)"])[0]["count(*)"]

    def search(self, vector: np.ndarray, top_k: int, where: str) -> list[Found]:
        fields = [field["name"] for field in self._client.describe_collection(NAME)["fields"]]
        (hits,) = self._client.search(
            NAME,
            data=[vector],
            limit=top_k,
            filter=where,
            output_fields=[name for name in fields if name != "vector"],
            search_params={"params": {"ef": 128}},
        )
        return [Found(hit["distance"], dict(hit["entity"])) for hit in hits]

    def remove(self, where: str) -> None:
        self._client.delete(NAME, filter=where)


class Lance:
    """A table of LanceDB."""

    # Rows that are merged together: each time makes a new version of the table.
    _TOGETHER = 65_536
    # A search among fewer rows needs no index.
    _INDEXED = 20_000

    def __init__(self, uri: str):
        import lancedb

        self._database = lancedb.connect(uri)

    def exists(self) -> bool:
        return NAME in self._database.list_tables().tables

    @property
    def _table(self) -> Any:
        return self._database.open_table(NAME)

    def load(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
        from lancedb.index import IvfPq

        table = self._table if self.exists() else self._database.create_table(NAME, schema=schema)
        merge = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        waiting: list[pa.RecordBatch] = []
        for batch in batches:
            waiting.append(batch)
            if sum(map(len, waiting)) >= self._TOGETHER:
                merge.execute(pa.Table.from_batches(waiting))
                waiting = []
        if waiting:
            merge.execute(pa.Table.from_batches(waiting))
        if table.count_rows() >= self._INDEXED and not table.list_indices():
            table.create_index("vector", config=IvfPq(distance_type="cosine"))
        # Makes few files of many, and puts new rows into the index.
        table.optimize()

    def model(self) -> str:
        return model_of(self._table.schema)

    def count(self) -> int:
        return self._table.count_rows()

    def search(self, vector: np.ndarray, top_k: int, where: str) -> list[Found]:
        table = self._table
        names = [name for name in table.schema.names if name != "vector"]
        query = table.search(vector, vector_column_name="vector").distance_type("cosine").select([*names, "_distance"])
        # The index has compressed vectors: of 20 times as many answers as are asked for, the best by whole ones.
        query = query.nprobes(64).refine_factor(20).limit(top_k)
        rows = (query.where(where) if where else query).to_list()
        return [Found(1 - row.pop("_distance"), row) for row in rows]

    def remove(self, where: str) -> None:
        self._table.delete(where)


def connect(uri: str) -> Database:
    """Opens a database, which need not be there yet."""
    return Milvus(uri) if uri.endswith(".db") or uri.startswith("http") else Lance(uri)


def read(files: list[str]) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Parquet files of rows with `id` and `vector`, or a directory of them; vectors as float32, whatever they are.

    Raises:
        UserError: They are of something else, or their vectors are of 1 bit.
    """
    source = dataset.dataset(files if len(files) > 1 else files[0], format="parquet")
    place = source.schema.get_field_index("vector")
    if place < 0 or b"simcse_tf" not in (source.schema.metadata or {}):
        raise UserError(f"{files[0]}: was not written by simcse_tf.encode.")
    stored = source.schema.field(place).type
    if types.is_uint8(stored.value_type):
        raise UserError(
            f"{files[0]}: vectors of 1 bit. Encode without --dtype binary: databases compress by themselves."
        )
    wanted = pa.list_(pa.float32(), stored.list_size)
    schema = source.schema.set(place, pa.field("vector", wanted))

    def batches() -> Iterator[pa.RecordBatch]:
        # One file after the other: memory does not grow with them.
        for batch in source.to_batches(batch_size=2048, batch_readahead=1, fragment_readahead=1):
            yield batch.set_column(place, schema.field(place), batch["vector"].cast(wanted))

    return schema, batches()


def model_of(schema: pa.Schema) -> str:
    """The model that encoded a file."""
    return json.loads(schema.metadata[b"simcse_tf"])["model"]


def main(arguments: list[str]) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database")
    commands = parser.add_subparsers(dest="command", required=True)
    load = commands.add_parser("load", help="add rows, or replace them")
    load.add_argument("files", nargs="+", help="Parquet files, or a directory of them")
    search = commands.add_parser("search", help="find the texts that are nearest to a query")
    search.add_argument("query")
    search.add_argument("--model", help="the encoder, where it is not under the name that it had")
    search.add_argument("--top-k", type=int, default=5)
    search.add_argument("--where", default="", help="of the rows for which this holds")
    remove = commands.add_parser("remove", help="remove rows")
    remove.add_argument("--where", required=True, help="those for which this holds")
    flags = parser.parse_args(arguments)

    database = connect(flags.database)
    if flags.command != "load" and not database.exists():
        raise UserError(f"{flags.database}: nothing has been loaded there.")
    if flags.command == "search":
        model = simcse_tf.load(flags.model or database.model())
        (vector,) = model.encode([flags.query], prompt_name="query" if model.prompt_names else None)
        for score, row in database.search(vector, flags.top_k, flags.where):
            print(f"{score:.3f}  {row}")
        return
    began = time.monotonic()
    if flags.command == "load":
        schema, batches = read(flags.files)
        if database.exists() and database.model() != model_of(schema):
            raise UserError(
                f"{flags.files[0]}: encoded by {model_of(schema)}, but what is in {flags.database} by "
                f"{database.model()}: their vectors cannot be compared."
            )
        database.load(schema, batches)
    else:
        database.remove(flags.where)
    print(f"{database.count():,} rows  {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    cli.run(main)
