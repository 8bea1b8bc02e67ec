"""A command's texts as vectors in a directory and as an index: what is there is taken, the rest is made and shown."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from simcse_tf import cli
from simcse_tf.data.records import Layout, Record
from simcse_tf.data.strings import PromptName
from simcse_tf.loading import Encodes
from simcse_tf.serving import compact, index, probes, vectors
from simcse_tf.serving.index import Index, Writer
from simcse_tf.serving.segment import Kind


class Indexer:
    """Encodes texts and makes indexes of them. What a killed process did is continued.

    Args:
        model: The encoder.
        name: Its name, for messages.
        batch_size: Texts per call of the model.
        console: Where progress is shown.
        dim: How many numbers of each vector to keep, scaled to unit length again; None: all, and never more than all.
    """

    def __init__(self, model: Encodes, name: str, *, batch_size: int, console: Console, dim: int | None = None):
        self._model, self._name, self._batch_size, self._console, self._dim = model, name, batch_size, console, dim
        self._fingerprint = self._encode(probes.PROBES)

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return self._fingerprint.shape[-1]

    def encode(
        self,
        directory: Path,
        texts: Iterator[str],
        count: int,
        sha256: str,
        *,
        source: str,
        side: PromptName | None = None,
    ) -> np.ndarray:
        """The vectors of texts.

        Args:
            directory: Where they are or go. Its name says what is being encoded.
            texts: All of them.
            count: How many there are.
            sha256: Of what they are made from.
            source: Where they are from, for messages.
            side: Of a search, on which they are: if the model has prompts, with the one for that side.

        Returns:
            `(count, dim)` float32 of unit length, mapped into memory.

        Raises:
            UserError: The directory has vectors of other texts or by another model, or cannot be written.
        """
        encode, fingerprint = self._encode, self._fingerprint
        side = side if side in self._model.prompt_names else None
        if side is not None:
            encode = functools.partial(encode, prompt_name=side)
            fingerprint = encode(probes.PROBES)
        about = vectors.About(count, sha256, count).of_model(self._name, fingerprint, side)
        with cli.Counted(self._console, f"encoding {directory.name}", "texts", count) as shown:
            if (directory / vectors.ABOUT).is_file():
                vectors.check_texts(directory, vectors.read_about(directory), about, source)
                about = vectors.resume(directory, about)
            else:
                vectors.check_free(directory)
                vectors.begin(directory, about)
            about = vectors.fill(directory, about, texts, encode, batch_size=self._batch_size, progress=shown.update)
        return np.load(directory / about.shard(0)[0], mmap_mode="r")

    def index(self, directory: Path, texts: Iterator[str], vectors: np.ndarray, kind: Kind | None) -> Index:
        """An index of texts that are encoded.

        Args:
            directory: Of their vectors; the index lies inside, so that it goes when they do.
            texts: All of them.
            vectors: What `encode` returned.
            kind: By default what suits their number.

        Raises:
            UserError: faiss is missing, or the index cannot be written.
        """
        kind = kind or index.kind_for(len(vectors))
        if not index.exists(directory / kind):
            records = (Record(None, text) for text in texts)
            with cli.phase(self._console, f"indexing {len(vectors):,} texts ({kind})"), Writer(directory / kind) as new:
                new.build(Layout(), records, vectors, fingerprint=self._fingerprint, model=self._name, kind=kind)
        return Index(directory / kind, self._fingerprint)

    def _encode(self, texts: Sequence[str], **how: Any) -> np.ndarray:
        found = self._model.encode(texts, **how)
        return found if self._dim is None else compact.shortened(found, self._dim)
