"""Indexes that visitors built: on disk in a folder of the server's, found by an unguessable name, oldest deleted."""

from __future__ import annotations

import secrets
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from simcse_tf.demo import text
from simcse_tf.demo.models import Model
from simcse_tf.errors import UserError
from simcse_tf.serving.client import Client

_KEPT = 10


class Built(NamedTuple):
    """An index and what it was made with."""

    client: Client
    model: str
    file: str
    lines: int
    directory: Path


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
        self, path: Path, column: str | None, model: Model, progress: Callable[[int, int], None]
    ) -> tuple[str, Built]:
        """Reads the file through once, so that a bad line is found at once, then encodes it.

        Args:
            path: An uploaded file.
            column: Of a table.
            model: What encodes.
            progress: Called with lines done and lines in all.

        Returns:
            The index's name and the index.

        Raises:
            UserError: A bad line, none, too many; faiss is missing.
        """
        column = column or text.guess_column(path, text.columns(path))
        total = sum(1 for _ in _sentences(path, column))
        if total == 0:
            raise UserError(f"{path.name}: no sentences. Expected one a line.")
        progress(0, total)
        name = secrets.token_urlsafe(12)
        directory = self._folder / name
        client = model.borrow()
        client.build_index(
            _sentences(path, column), to=directory / "index", progress=lambda done: progress(done, total)
        )
        built = Built(client, model.key, path.name, total, directory)
        with self._lock:
            self._built[name] = built
            gone = [self._built.popitem(last=False)[1] for _ in range(len(self._built) - _KEPT)]
        for old in gone:
            shutil.rmtree(old.directory, ignore_errors=True)
        return name, built

    def get(self, name: str | None) -> Built:
        """An index by its name.

        Raises:
            UserError: There is none of that name (any more).
        """
        if not name:
            raise UserError("No index yet. Upload a file and press 'Build the index'.")
        with self._lock:
            if not isinstance(name, str) or name not in self._built:
                raise UserError("This index is no longer held here. Upload the file and build it again.")
            self._built.move_to_end(name)
            return self._built[name]

    def downloads(self, name: str | None) -> list[str]:
        """Writes what can be taken away: the vectors as `.npy`, row by row as the file's sentences, and the index.

        Raises:
            UserError: There is no such index.
        """
        import faiss

        built = self.get(name)
        vectors, packed = built.directory / "embeddings.npy", built.directory / "index.zip"
        with self._lock:
            if not vectors.exists():
                index = faiss.read_index(str(built.directory / "index" / "index.faiss"))
                np.save(vectors, index.reconstruct_n(0, index.ntotal))
            if not packed.exists():
                shutil.make_archive(str(packed.with_suffix("")), "zip", built.directory, "index")
        return [str(vectors), str(packed)]


def _sentences(path: Path, column: str | None) -> Iterator[str]:
    for number, (sentence, *_rest) in enumerate(text.rows(path, (column,) if column else ()), 1):
        if number > text.MAX_INDEX:
            raise UserError(
                f"{path.name}: more than {text.MAX_INDEX:,} lines; at most {text.MAX_INDEX:,} are taken. From Python, "
                "Client.build_index takes any number."
            )
        if len(sentence) > text.MAX_CHARACTERS:
            raise UserError(
                f"{path.name}: sentence {number} has {len(sentence):,} characters; at most {text.MAX_CHARACTERS:,} are "
                "taken. Split it into lines."
            )
        yield sentence
