"""Rows with their vectors as Parquet files, which vector databases, warehouses and data frames load. Needs pyarrow."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simcse_tf.data.records import ID, Records
from simcse_tf.errors import UserError
from simcse_tf.serving import compact
from simcse_tf.serving.vectors import About

if TYPE_CHECKING:
    import pyarrow

VECTOR = "vector"
# What the vectors are of: a key of the file's own metadata.
_ABOUT = b"simcse_tf"
# Rows that are written together: a row group.
_ROWS = 8192


def columns(records: Records) -> pyarrow.Schema:
    """The columns of a file's rows, without the vectors: `id`, text, and what stands beside it.

    `id` is the row's number where the file has no ids.

    Raises:
        UserError: A column has a name that is taken.
    """
    import pyarrow as pa

    _, text, *beside = records.layout.names
    for name in (text, *beside):
        if name in (ID, VECTOR):
            raise UserError(
                f"{records.path}: '{name}' is what the {name}s are called in the output. Rename the column."
            )
    whole = {name for name, kind in records.layout.metadata.items() if kind == "number"}
    for record in records.read() if whole else ():
        whole -= {name for name, value in zip(beside, record.metadata, strict=True) if isinstance(value, float)}
    kinds = {"number": pa.float64(), "text": pa.string()}
    fields = {name: pa.int64() if name in whole else kinds[kind] for name, kind in records.layout.metadata.items()}
    return pa.schema({ID: pa.string() if records.layout.id else pa.int64(), text: pa.string(), **fields})


def write(records: Records, names: pyarrow.Schema, directory: Path, about: About, to: Path) -> None:
    """Writes a file for each array of vectors.

    Args:
        records: What they are of.
        names: What `columns` returned.
        directory: Where the arrays are.
        about: What they are.
        to: The directory for the files.

    Raises:
        UserError: There are fewer records than vectors.
    """
    import pyarrow as pa
    from pyarrow import parquet

    width = compact.width(about.dim, about.dtype)
    kind = pa.list_(pa.from_numpy_dtype(compact.stored_as(about.dtype)), width)
    schema = names.append(pa.field(VECTOR, kind)).with_metadata({_ABOUT: json.dumps(asdict(about))})
    rows = enumerate(records.read())
    for i in range(about.shards):
        vectors = np.load(directory / about.shard(i)[0], mmap_mode="r")
        # Vectors repeat nothing.
        options: dict[str, Any] = {"compression": "zstd", "use_dictionary": names.names}
        with parquet.ParquetWriter(to / name(about, i), schema, **options) as writer:
            for start in range(0, len(vectors), _ROWS):
                part = np.ascontiguousarray(vectors[start : start + _ROWS])
                block = list(itertools.islice(rows, len(part)))
                if len(block) < len(part):
                    raise UserError(f"{records.path}: changed while it was being read. Start anew with `overwrite`.")
                cells = ((number if row.id is None else row.id, row.text, *row.metadata) for number, row in block)
                arrays = [
                    pa.array(column, field.type) for column, field in zip(zip(*cells, strict=True), names, strict=True)
                ]
                arrays.append(pa.FixedSizeListArray.from_arrays(part.reshape(-1), type=kind))
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def name(about: About, i: int) -> str:
    """The file of an array's rows."""
    return str(Path(about.shard(i)[0]).with_suffix(".parquet"))


def read_about(path: Path) -> About:
    """What the vectors of a file are.

    Raises:
        UserError: It is no file that `write` wrote.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return About.of_json(json.loads((parquet.read_schema(path).metadata or {})[_ABOUT]))
    except (OSError, pa.ArrowInvalid, KeyError, ValueError, TypeError) as e:
        raise UserError(f"{path}: not a Parquet file of vectors ({e}). Replace it with `overwrite`.") from e
