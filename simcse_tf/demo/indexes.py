"""Indexes that visitors built, in the server's folder, each under an unguessable name; the oldest are deleted."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from simcse_tf.demo import text
from simcse_tf.demo.models import Model
from simcse_tf.errors import UserError
from simcse_tf.serving.client import Client
from simcse_tf.serving.index import Index
from simcse_tf.serving.segment import Bits, Kind

_KEPT = 10
# Rows of a new index that are looked for, one at a time, to say how long that takes.
_TIMED = 20


class Built(NamedTuple):
    """An index and what it was made with."""

    client: Client
    index: Index
    model: str
    file: str
    lines: int
    # Of a search, without encoding the query.
    milliseconds: float
    directory: Path
    # Held while its files are packed, so that they are packed once, and not deleted meanwhile.
    packing: threading.Lock


class Indexes:
    """Builds and keeps indexes.

    Args:
        folder: Where they are kept; belongs to this process.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._built: OrderedDict[str, Built] = OrderedDict()
        self._lock = threading.Lock()

    def build(
        self,
        path: Path,
        column: str | None,
        model: Model,
        progress: Callable[[int, int], None],
        kind: Kind = "flat",
        bits: Bits = 32,
    ) -> tuple[str, Built]:
        """Reads the file through, so that a bad line is found before anything is encoded, then encodes it.

        Args:
            path: An uploaded file.
            column: Of a table.
            model: What encodes.
            progress: Called with lines done and lines in all.
            kind: Of the index.
            bits: Of a number of a vector.

        Returns:
            The index's name and the index.

        Raises:
            UserError: A bad line, none, too many; faiss is missing.
        """
        records = text.records(path, column)
        total = records.count
        progress(0, total)
        name = secrets.token_urlsafe(12)
        directory = self._folder / name
        client = model.borrow()
        index = client.build_index(
            records, to=directory / "index", kind=kind, bits=bits, progress=lambda done: progress(done, total)
        )
        built = Built(client, index, model.key, path.name, total, _timed(index), directory, threading.Lock())
        with self._lock:
            self._built[name] = built
            gone = [self._built.popitem(last=False)[1] for _ in range(len(self._built) - _KEPT)]
        for old in gone:
            with old.packing:
                shutil.rmtree(old.directory, ignore_errors=True)
        return name, built

    def get(self, name: str | None) -> Built:
        """An index by its name.

        Raises:
            UserError: There is no index of that name, or no longer.
        """
        if not name:
            raise UserError("No index yet. Upload a file and press 'Build the index'.")
        with self._lock:
            if not isinstance(name, str) or name not in self._built:
                raise UserError("This index is no longer held here. Upload the file and build it again.")
            self._built.move_to_end(name)
            return self._built[name]

    def downloads(self, name: str | None) -> list[str]:
        """Packs what can be downloaded: the vectors as `.npy`, one row per sentence of the file, and the index.

        Searches go on meanwhile: packing a large index takes seconds.

        Raises:
            UserError: There is no such index.
        """
        built = self.get(name)
        vectors, packed = built.directory / "embeddings.npy", built.directory / "index.zip"
        with built.packing:
            # It may have been deleted while this waited.
            self.get(name)
            if not vectors.exists():
                np.save(vectors, np.concatenate(list(built.index.vectors())))
            if not packed.exists():
                shutil.make_archive(str(packed.with_suffix("")), "zip", built.directory, "index")
        return [str(vectors), str(packed)]


def _timed(index: Index) -> float:
    """Milliseconds of a search."""
    vectors, took = next(index.vectors())[:_TIMED], []
    for row in range(len(vectors)):
        begun = time.perf_counter()
        index.search(vectors[row : row + 1], top_k=10, threshold=-1)
        took.append(time.perf_counter() - begun)
    return 1000 * float(np.median(took))
