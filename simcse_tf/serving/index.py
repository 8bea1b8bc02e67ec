"""Nearest neighbours by cosine: sentences and their vectors in a directory, memory-mapped for search. Needs faiss."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator
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
# How faiss ends the file of an IVF index without vectors.
_NO_CELLS = b"sprs" + bytes(8)
_FORMAT = 1
# Up to so many sentences an exact search is as fast as others, or takes seconds.
_FLAT = 50_000
# faiss asks for at least 39 training vectors per list; a random sample of 64 per list serves as well as all of them.
_PER_LIST, _SAMPLE_PER_LIST = 39, 64
_ROWS = 16_384
# Rows that `first_of_each` compares with each other.
_BLOCK = 1024


def kind_for(count: int) -> Kind:
    """The kind of index for so many sentences: exact while that takes seconds."""
    return "flat" if count <= _FLAT else "ivf"


def batches(sentences: Iterable[str], vectors: np.ndarray) -> Iterator[tuple[list[str], np.ndarray]]:
    """Sentences with the vectors `(n, dim)` that they have already, as `build` takes them."""
    stream = iter(sentences)
    for start in range(0, len(vectors), _ROWS):
        block = vectors[start : start + _ROWS]
        yield list(itertools.islice(stream, len(block))), block


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

    Sentences and vectors go through to disk batch by batch. In memory are all vectors of a `flat` or `hnsw` index; of
    an `ivf` one the sample from which the cells are made, which grows with the square root of their number.

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
            if kind == "ivf":
                _write_ivf(faiss, vectors, new / _FAISS)
            else:
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

    def nearest(
        self, vectors: np.ndarray, top_k: int, *, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Finds the nearest rows.

        Args:
            vectors: `(n, dim)` float32 of unit length.
            top_k: Answers to a row.
            among: `(len(self),)` bool: the rows that may be found, in a `flat` or `ivf` index; by default all.

        Returns:
            `(scores, rows)`, each `(n, top_k)`; row -1 where there are too few, or an approximate index found too few.
        """
        options = {}
        if among is not None:
            faiss = _faiss()
            selector = faiss.IDSelectorBitmap(np.packbits(among, bitorder="little"))
            if self.about["kind"] == "ivf":
                options["params"] = faiss.SearchParametersIVF(sel=selector, nprobe=self._faiss.nprobe)
            else:
                options["params"] = faiss.SearchParameters(sel=selector)
        return self._faiss.search(np.ascontiguousarray(vectors, "float32"), top_k, **options)


def first_of_each(
    index: Index, vectors: np.ndarray, threshold: float, *, progress: Callable[[int], None] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Finds rows that repeat an earlier one.

    In order, a row is kept unless a row that was kept before it has at least the threshold as cosine with it.

    Args:
        index: Of the vectors, `flat` (exact) or `ivf`.
        vectors: `(n, dim)` float32 of unit length, in the order of the index.
        threshold: The least cosine of rows of which one repeats the other.
        progress: Called with the number of rows that are decided.

    Returns:
        `repeats` `(n,)` int: the row that each repeats, -1 if it is kept; and their cosines `(n,)`.
    """
    repeats, cosines = np.full(len(index), -1), np.zeros(len(index), "float32")
    kept = np.zeros(len(index), bool)
    for start in range(0, len(index), _BLOCK):
        at = slice(start, start + _BLOCK)
        block = np.asarray(vectors[at])
        (best,), (before,) = (found.T for found in index.nearest(block, 1, among=kept))
        repeats[at] = np.where((before >= 0) & (best >= threshold), before, -1)
        cosines[at] = best
        inside = block @ block.T
        near = np.tril(inside >= threshold, -1)
        for i in np.flatnonzero(near.any(axis=1) & (repeats[at] < 0)):
            earlier = np.flatnonzero(near[i] & (repeats[at] < 0))
            if earlier.size:
                nearest = earlier[inside[i, earlier].argmax()]
                repeats[start + i], cosines[start + i] = start + nearest, inside[i, nearest]
        kept[at] = repeats[at] < 0
        if progress is not None:
            progress(start + len(block))
    return repeats, cosines


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
    else:
        index = faiss.IndexHNSWFlat(dim, 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = 80, 128
    for start in range(0, count, _ROWS):
        index.add(np.ascontiguousarray(vectors[start : start + _ROWS]))
    return index


def _ivf(faiss: Any, vectors: np.ndarray) -> tuple[Any, np.ndarray]:
    """A trained IVF index without vectors, and the cell of each of `(count, dim)` memory-mapped vectors."""
    count, dim = vectors.shape
    lists = max(1, min(int(4 * math.sqrt(count)), count // _PER_LIST))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists, faiss.METRIC_INNER_PRODUCT)
    index.nprobe = max(1, lists // 32)
    sample = np.random.default_rng(0).choice(count, min(count, lists * _SAMPLE_PER_LIST), replace=False)
    index.train(np.ascontiguousarray(vectors[np.sort(sample)]))
    cells = np.empty(count, "int32")
    for start in range(0, count, _ROWS):
        block = np.ascontiguousarray(vectors[start : start + _ROWS])
        cells[start : start + _ROWS] = index.quantizer.search(block, 1)[1][:, 0]
    return index, cells


def _write_ivf(faiss: Any, vectors: np.ndarray, path: Path) -> None:
    """Writes an IVF index as `faiss.write_index` would, which wants all vectors in memory.

    Such a file ends with the cells: how many vectors each has; then for each its vectors and their numbers.
    """
    index, cells = _ivf(faiss, vectors)
    index.ntotal = len(vectors)
    faiss.write_index(index, str(path))
    order, sizes = np.argsort(cells, kind="stable"), np.bincount(cells, minlength=index.nlist)
    with path.open("r+b") as file:
        end = file.seek(-len(_NO_CELLS), 2)
        if file.read() != _NO_CELLS:
            raise UserError(
                "this version of faiss writes IVF indexes in another format. Build a `flat` or `hnsw` index."
            )
        file.seek(end)
        file.write(b"full" + np.array([index.nlist, *sizes], "<u8").tobytes())
        begin = 0
        for size in sizes.tolist():
            rows = order[begin : begin + size]
            file.write(np.ascontiguousarray(vectors[rows], "<f4").tobytes())
            file.write(rows.astype("<i8").tobytes())
            begin += size
        file.truncate()


def _faiss() -> Any:
    require("faiss", "index", "an index needs faiss")
    import faiss

    return faiss
