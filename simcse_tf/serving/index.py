"""Nearest neighbours by cosine: sentences and their vectors in a directory, memory-mapped for search. Needs faiss."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from simcse_tf.checks import require
from simcse_tf.errors import UserError, did_you_mean
from simcse_tf.files import whole_directory
from simcse_tf.serving import probes

Kind = Literal["flat", "ivf", "hnsw"]

_ABOUT, _FAISS, _FINGERPRINT = "index.json", "index.faiss", "fingerprint.npy"
_SENTENCES, _OFFSETS = "sentences.utf8", "offsets.npy"
_FORMAT = 1
# faiss asks for at least 39 training vectors per list; a random sample of 64 per list serves as well as all of them.
_PER_LIST, _SAMPLE_PER_LIST = 39, 64
_ROWS = 16_384


def build(
    directory: Path,
    batches: Iterable[tuple[list[str], np.ndarray]],
    *,
    fingerprint: np.ndarray,
    model: str,
    kind: Kind = "flat",
    prompts: bool = False,
) -> Index:
    """Writes an index, all of it or nothing, and opens it.

    Sentences and vectors go through to disk batch by batch; in memory is at most what faiss holds of the finished
    index.

    Args:
        directory: Must not exist.
        batches: Sentences with their vectors, `(len(sentences), dim)` float32 of unit length.
        fingerprint: `(probes, dim)`: what the model makes of `probes.PROBES`.
        model: The model's name, for messages.
        kind: `flat` compares with every vector: exact; `ivf` with those of the nearest cells; `hnsw` walks a graph of
            neighbours.
        prompts: The vectors were made with the model's passage prompt, so that queries need its query prompt.

    Raises:
        UserError: faiss is missing, the kind is unknown, the directory exists or cannot be written, or there are no
            sentences.
    """
    if kind not in get_args(Kind):
        raise UserError(f"`kind` {kind}: unknown. {did_you_mean(kind, get_args(Kind))}")
    if directory.exists():
        raise UserError(f"{directory}: exists. Delete it, or choose another name for the index.")
    faiss = _faiss()
    try:
        with whole_directory(directory) as new:
            count, dim = _spool(new, batches)
            vectors = np.memmap(new / "vectors", "float32", "r", shape=(count, dim))
            faiss.write_index(_index(faiss, kind, vectors), str(new / _FAISS))
            del vectors
            (new / "vectors").unlink()
            np.save(new / _FINGERPRINT, fingerprint)
            about = {"format": _FORMAT, "kind": kind, "count": count, "dim": dim, "model": model}
            if prompts:
                about["prompts"] = True
            (new / _ABOUT).write_text(json.dumps(about, indent=2) + "\n", "utf-8")
    except OSError as e:
        raise UserError(f"{directory}: cannot be written ({e}). Choose another directory or free some space.") from e
    return Index(directory, fingerprint)


class Index:
    """An index on disk. `len(index)` is the number of its sentences.

    Args:
        directory: Written by `build`.
        fingerprint: `(probes, dim)`: what the model that queries come from makes of `probes.PROBES`.

    Raises:
        UserError: faiss is missing, there is no index, it is damaged, or another model made it.
    """

    def __init__(self, directory: Path, fingerprint: np.ndarray):
        faiss = _faiss()
        if not (directory / _ABOUT).is_file():
            raise UserError(f"{directory}: no index there (no {_ABOUT}). Make one with build_index.")
        try:
            self.about: dict[str, Any] = json.loads((directory / _ABOUT).read_text("utf-8"))
            made_by, then = self.about["model"], np.load(directory / _FINGERPRINT)
            self._offsets = np.load(directory / _OFFSETS, mmap_mode="r")
            self._text = np.memmap(directory / _SENTENCES, "uint8", "r")
            self._faiss = faiss.read_index(str(directory / _FAISS), faiss.IO_FLAG_MMAP_IFC)
            counts = {self.about["count"], len(self._offsets) - 1, self._faiss.ntotal}
            if len(counts) != 1 or self._offsets[-1] != len(self._text) - 1:
                raise ValueError(f"files of different length: {sorted(counts)} rows")
        except (OSError, ValueError, KeyError, RuntimeError) as e:
            raise UserError(f"{directory}: the index is damaged ({e}). Build it again.") from e
        if difference := probes.difference(then, fingerprint, tolerance=probes.SAME_ANY_FORMAT):
            raise UserError(
                f"{directory}: made by another model ({made_by}: {difference}). Open it with the model that made it, "
                "or build it again."
            )
        self.directory = directory

    def __len__(self) -> int:
        return self.about["count"]

    @property
    def prompts(self) -> bool:
        """Whether its vectors were made with the model's passage prompt, so that queries need its query prompt."""
        return self.about.get("prompts", False)

    def sentence(self, row: int) -> str:
        """The sentence of a row, in the order in which they were added."""
        begin, end = self._offsets[row : row + 2]
        return self._text[begin:end].tobytes().decode()

    def search(self, vectors: np.ndarray, *, top_k: int, threshold: float) -> list[list[tuple[str, float]]]:
        """Finds the nearest sentences.

        Args:
            vectors: `(n, dim)` float32 of unit length.
            top_k: Most answers to a row.
            threshold: Cosine below which a sentence is not an answer.

        Returns:
            For every row its `(sentence, cosine)` pairs, best first.
        """
        scores, rows = self.nearest(vectors, min(top_k, len(self)))
        return [
            [
                (self.sentence(row), float(score))
                for score, row in zip(*found, strict=True)
                if row >= 0 and score >= threshold
            ]
            for found in zip(scores, rows, strict=True)
        ]

    def nearest(self, vectors: np.ndarray, top_k: int) -> tuple[np.ndarray, np.ndarray]:
        """`(scores, rows)`, each `(n, top_k)`; row -1 where an approximate index found too few."""
        return self._faiss.search(np.ascontiguousarray(vectors, "float32"), top_k)


def _spool(directory: Path, batches: Iterable[tuple[list[str], np.ndarray]]) -> tuple[int, int]:
    """Writes sentences and vectors as they come; returns the number of rows and of dimensions."""
    lengths, dim = [], 0
    with (directory / "vectors").open("wb") as vectors_file, (directory / _SENTENCES).open("wb") as text_file:
        for sentences, vectors in batches:
            dim = vectors.shape[1]
            vectors_file.write(np.ascontiguousarray(vectors, "<f4").tobytes())
            encoded = [sentence.encode("utf-8", "replace") for sentence in sentences]
            text_file.write(b"".join(encoded))
            lengths.append(np.array([len(e) for e in encoded], "int64"))
        # A file without a byte cannot be memory-mapped, and all sentences may be empty.
        text_file.write(b"\n")
    lengths = np.concatenate(lengths) if lengths else np.zeros(0, "int64")
    if len(lengths) == 0:
        raise UserError("nothing to index: there are no sentences.")
    np.save(directory / _OFFSETS, np.concatenate([[0], np.cumsum(lengths)]))
    return len(lengths), dim


def _index(faiss: Any, kind: Kind, vectors: np.ndarray) -> Any:
    """A faiss index over `(count, dim)` memory-mapped vectors, compared by inner product."""
    count, dim = vectors.shape
    if kind == "flat":
        index = faiss.IndexFlatIP(dim)
    elif kind == "hnsw":
        index = faiss.IndexHNSWFlat(dim, 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = 80, 128
    else:
        lists = max(1, min(int(4 * math.sqrt(count)), count // _PER_LIST))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = max(1, lists // 32)
        sample = np.random.default_rng(0).choice(count, min(count, lists * _SAMPLE_PER_LIST), replace=False)
        index.train(np.ascontiguousarray(vectors[np.sort(sample)]))
    for start in range(0, count, _ROWS):
        index.add(np.ascontiguousarray(vectors[start : start + _ROWS]))
    return index


def _faiss() -> Any:
    require("faiss", "index", "an index needs faiss")
    import faiss

    return faiss
