"""Rows of an index that were written together, in a directory that never changes: a segment. Needs faiss.

    codes.faiss     their vectors, as faiss searches them
    rows.npy        the same in 8 bits a number, where the codes have one: they put in order what the codes have found
    texts.sqlite    ids, texts and metadata; the number of a row is the rowid

faiss maps the codes into memory; the others are read where they are asked for.
"""

from __future__ import annotations

import itertools
import math
import mmap
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args
from urllib.parse import quote

import numpy as np

from simcse_tf.checks import require
from simcse_tf.data.records import Layout, Record
from simcse_tf.errors import UserError
from simcse_tf.files import whole_directory
from simcse_tf.serving import compact

Kind = Literal["flat", "ivf", "hnsw"]
Bits = Literal[32, 8, 1]
KINDS: tuple[Kind, ...] = get_args(Kind)
BITS: tuple[Bits, ...] = get_args(Bits)

_CODES, _ROWS, _TEXTS = "codes.faiss", "rows.npy", "texts.sqlite"
# How vectors in 8 bits are coded where the codes have one.
_CODER = "rows.faiss"
# Rows that are handled at once, and a sample of as many is enough for the range of each dimension.
_BLOCK, _SAMPLE = 16_384, 65_536
# Fewer do not tell it.
_FEW = 1000
# A segment is coded in memory, and one query's segments are searched side by side.
_MOST_ROWS, _MOST_BYTES = 1 << 18, 256 << 20
# Of `ivf`: faiss asks for at least 39 training vectors per cell; a random sample of 64 serves as well as all.
_PER_CELL, _SAMPLE_PER_CELL, _MOST_CELLS = 39, 64, 8192
# Cells that a query looks through, per square root of their number: 84 of 777, which had 96.8 % of the 10 nearest of
# 37,751 real sentences; 107 of 1,264, which had 96.4 % of those of 100,000 generated ones.
_PROBES = 3
# Of `hnsw`: neighbours of a row, and candidates while it is added and searched. Where fewer rows than this share may
# be found, comparing with each of them is faster than the walk.
_NEIGHBOURS, _CONSTRUCTION, _WALK, _NARROW = 32, 80, 128, 0.1
# Rows that codes of one bit find for each answer, and at least.
_CANDIDATES, _LEAST_CANDIDATES = 20, 1000
# What a filter may call.
_FUNCTIONS = """
abs between ceil coalesce floor format glob ifnull iif instr length like lower ltrim max min nullif replace round rtrim
sign substr substring trim typeof unicode upper
"""
# Values of a list in a statement.
_AT_ONCE = 500


def candidates(bits: Bits, k: int) -> int:
    """How many rows have to be found for `k` answers."""
    return max(_LEAST_CANDIDATES, _CANDIDATES * k) if bits == 1 else k


class Vectors(Protocol):
    """Vectors of unit length, read block by block: an array, or what gives arrays when it is sliced."""

    @property
    def shape(self) -> tuple[int, ...]:
        """`(count, dim)`."""
        ...

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        """`(rows, dim)` float32."""
        ...


class Query(NamedTuple):
    """Vectors that are looked for, as segments take them.

    Attributes:
        vectors: `(n, dim)` float32.
        codes: The same as faiss takes them.
        cells: Of `ivf`: the cells that are looked through and their scores, each `(n, probes)`.
        narrow: Few rows may be found.
    """

    vectors: np.ndarray
    codes: np.ndarray
    cells: tuple[np.ndarray, np.ndarray] | None
    narrow: bool


def blocks(vectors: Vectors, begin: int = 0, end: int | None = None) -> Iterator[np.ndarray]:
    """Rows `begin` to `end` of vectors, in blocks `(rows, dim)` float32."""
    end = vectors.shape[0] if end is None else end
    for start in range(begin, end, _BLOCK):
        yield np.ascontiguousarray(vectors[start : min(start + _BLOCK, end)], "float32")


def capacity(dim: int, bits: Bits) -> int:
    """Most rows of a segment."""
    return min(_MOST_ROWS, 8 * _MOST_BYTES // (dim * bits))


class Trained:
    """How the vectors of an index are coded, and what was learned for it: cells, the range of each dimension.

    Args:
        directory: Written by `write`.
        kind: Of the index.
        bits: Of a number.
    """

    def __init__(self, directory: Path, kind: Kind, bits: Bits):
        faiss = load_faiss()
        self.kind, self.bits, self._path = kind, bits, directory / _CODES
        self._empty = self.empty()
        self.rows: Any = faiss.read_index(str(directory / _CODER)) if bits == 1 else None
        if bits == 1:
            # A code c is least + (c + 0.5) / 255 x range.
            least, ranges = np.split(faiss.vector_to_array(self.rows.sq.trained), 2)
            self._step = ranges / 255
            self._least = least + self._step / 2

    @staticmethod
    def write(directory: Path, vectors: Vectors, kind: Kind, bits: Bits) -> None:
        """Learns from a sample of the vectors, the same for the same vectors."""
        faiss = load_faiss()
        count, dim = vectors.shape
        cells = max(1, min(int(4 * math.sqrt(count)), count // _PER_CELL, _MOST_CELLS))
        empty = _empty(faiss, kind, bits, dim, cells)
        sample = None
        if bits < 32 or kind == "ivf":
            size = min(count, max(_SAMPLE, cells * _SAMPLE_PER_CELL if kind == "ivf" else 0))
            chosen = np.sort(np.random.default_rng(0).choice(count, size, replace=False))
            sample = _at(vectors, chosen)
            if bits < 32 and count < _FEW:
                # Those that are added later are not in the range of these.
                wide = np.full((1, dim), 4 / math.sqrt(dim), "float32")
                sample = np.concatenate([sample, wide, -wide])
        with whole_directory(directory) as new:
            if kind == "ivf":
                empty.nprobe = min(cells, round(_PROBES * math.sqrt(cells)))
                # No warning for texts that are too few for one cell.
                empty.cp.min_points_per_centroid = 1
                if bits == 1:
                    # Of a number of a query; 4, by default, finds less and takes three quarters of the time.
                    empty.qb = 8
            if not empty.is_trained:
                empty.train(sample)
            _write(faiss, empty, new / _CODES)
            if bits == 1:
                rows = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
                rows.train(sample)
                faiss.write_index(rows, str(new / _CODER))

    def empty(self) -> Any:
        """A faiss index without vectors."""
        return _read(load_faiss(), self._path, self.kind, self.bits)

    def codes(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors `(n, dim)` as the faiss index takes them."""
        return compact.quantized(vectors, "binary") if _is_binary(self.kind, self.bits) else vectors

    def query(self, vectors: np.ndarray, share: float) -> Query:
        """Vectors `(n, dim)` that are looked for, among this share of all rows."""
        vectors = np.ascontiguousarray(vectors, "float32")
        cells = None
        if self.kind == "ivf":
            # As many rows are looked at, however few of a cell's may be found.
            probes = min(self._empty.nlist, math.ceil(self._empty.nprobe / max(share, 1e-6)))
            scores, found = self._empty.quantizer.search(vectors, probes)
            cells = (found, scores)
        return Query(vectors, self.codes(vectors), cells, share < _NARROW)

    def scores(self, vector: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The cosines `(n,)` of a vector `(dim,)` with rows `(n, dim)` in 8 bits."""
        return rows.astype("float32") @ (vector * self._step) + vector @ self._least

    def decoded(self, rows: np.ndarray) -> np.ndarray:
        """Rows in 8 bits as vectors `(n, dim)` float32."""
        return rows * self._step + self._least


def write(
    directory: Path, trained: Trained, layout: Layout, records: Iterator[Record], batches: Iterable[np.ndarray]
) -> None:
    """Writes a segment, all of it or nothing.

    Args:
        directory: Must not exist.
        trained: How vectors are coded.
        layout: What the records are made of.
        records: Each with an id; as many as there are vectors, or more.
        batches: Their vectors, `(n, dim)` float32 of unit length.
    """
    faiss = load_faiss()
    with whole_directory(directory) as new:
        codes, count = trained.empty(), 0
        names = ", ".join(map(_quoted, layout.names))
        kinds = ["TEXT", "TEXT", *("NUMERIC" if kind == "number" else "TEXT" for kind in layout.metadata.values())]
        with closing(sqlite3.connect(new / _TEXTS)) as texts, open(new / _ROWS, "wb") as rows:
            texts.execute("PRAGMA journal_mode = OFF")
            texts.execute("PRAGMA synchronous = OFF")
            columns = ", ".join(f"{_quoted(name)} {kind}" for name, kind in zip(layout.names, kinds, strict=True))
            texts.execute(f"CREATE TABLE rows ({columns})")
            holes = ", ".join("?" for _ in range(1 + len(layout.names)))
            insert = f"INSERT INTO rows (_rowid_, {names}) VALUES ({holes})"
            for vectors in batches:
                codes.add(trained.codes(vectors))
                if trained.bits == 1:
                    rows.write(trained.rows.sa_encode(vectors).tobytes())
                block = enumerate(itertools.islice(records, len(vectors)), count)
                texts.executemany(insert, ((row, each.id, each.text, *each.metadata) for row, each in block))
                count += len(vectors)
            texts.execute(f"CREATE UNIQUE INDEX ids ON rows ({_quoted(layout.names[0])})")
            texts.commit()
        _write(faiss, codes, new / _CODES)


class Segment:
    """A segment on disk.

    Args:
        directory: Written by `write`.
        trained: How its vectors are coded.
        layout: What its records are made of.
        count: How many there are.
        removed: `(count,)` bool: those that are there no longer; None if all are.
    """

    def __init__(self, directory: Path, trained: Trained, layout: Layout, count: int, removed: np.ndarray | None):
        self.directory, self.count, self.layout, self._trained = directory, count, layout, trained
        self.alive = None if removed is None else ~removed
        self._faiss = load_faiss()
        self._codes = _read(self._faiss, directory / _CODES, trained.kind, trained.bits, mapped=True)
        if isinstance(self._codes, self._faiss.IndexBinaryFlat):
            # Counting distances, of which there are few: faster than a heap for many candidates.
            self._codes.use_heap = False
        if isinstance(self._codes, self._faiss.IndexIVF):
            # Several queries on several cores; by default that needs a call that chooses the cells itself.
            self._codes.parallel_mode = 3
        if self._codes.ntotal != count:
            raise ValueError(f"{directory.name}: {self._codes.ntotal} vectors, expected {count}")
        if trained.bits == 1:
            with open(directory / _ROWS, "rb") as file:
                self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._rows = np.frombuffer(self._mapped, "uint8").reshape(count, -1)
        self._texts = self._connect()

    def nearest(self, query: Query, k: int, among: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Finds the rows whose codes are nearest.

        Args:
            query: What is looked for.
            k: Rows for each.
            among: `(count,)` bool: the rows that may be found; by default those that were not removed.

        Returns:
            `(scores, rows)`, each `(n, at most k)`; row -1 where there are too few, or too few were found. Of codes of
            more than one bit scores are cosines; of others they only put rows in order.
        """
        faiss, codes, k = self._faiss, self._codes, min(k, self.count)
        among = self.alive if among is None else among
        selector = None if among is None else faiss.IDSelectorBitmap(np.packbits(among, bitorder="little"))
        if query.cells is not None:
            cells, scores = query.cells
            options = faiss.SearchParametersIVF(sel=selector, nprobe=cells.shape[1])
            found = np.empty((len(cells), k), "float32"), np.empty((len(cells), k), "int64")
            # The method without this suffix takes no selector.
            arrays = map(faiss.swig_ptr, (cells, scores, *found))
            codes.search_preassigned_c(len(cells), faiss.swig_ptr(query.codes), k, *arrays, False, options)
            return found
        if self._trained.kind == "hnsw" and not query.narrow:
            options = faiss.SearchParametersHNSW(sel=selector, efSearch=codes.hnsw.efSearch)
        else:
            options = faiss.SearchParameters(sel=selector)
            if self._trained.kind == "hnsw":
                codes = (faiss.downcast_IndexBinary if self._trained.bits == 1 else faiss.downcast_index)(codes.storage)
        scores, rows = codes.search(query.codes, k, params=options)
        # The nearer, the smaller is a distance.
        return (-scores.astype("float32") if scores.dtype == np.int32 else scores), rows

    def scores(self, vector: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The cosines `(n,)` of a vector `(dim,)` with rows of which 8 bits are kept."""
        # In the order of the file.
        order = np.argsort(rows)
        found = np.empty(len(rows), "float32")
        found[order] = self._trained.scores(vector, self._rows[rows[order]])
        # What was read stays in the system's cache, but is no longer this process's memory.
        self._mapped.madvise(mmap.MADV_DONTNEED)
        return found

    def records(self, rows: Sequence[int]) -> dict[int, Record]:
        """The records of some rows, by row."""
        names, found = ", ".join(map(_quoted, self.layout.names)), {}
        for start in range(0, len(rows), _AT_ONCE):
            wanted = [int(row) for row in rows[start : start + _AT_ONCE]]
            cursor = self._texts.execute(
                f"SELECT _rowid_, {names} FROM rows WHERE _rowid_ IN ({_holes(wanted)})", wanted
            )
            found |= {row: Record(name, text, tuple(values)) for row, name, text, *values in cursor}
        return found

    def all_records(self) -> Iterator[Record]:
        """Those that were not removed, in their order."""
        names = ", ".join(map(_quoted, self.layout.names))
        for row, name, text, *values in self._texts.execute(f"SELECT _rowid_, {names} FROM rows ORDER BY _rowid_"):
            if self.alive is None or self.alive[row]:
                yield Record(name, text, tuple(values))

    def all_vectors(self) -> Iterator[np.ndarray]:
        """Their vectors, as far as the codes tell, in blocks `(n, dim)` float32."""
        for start in range(0, self.count, _BLOCK):
            end = min(start + _BLOCK, self.count)
            if self._trained.bits == 1:
                vectors = self._trained.decoded(self._rows[start:end])
            else:
                vectors = self._codes.reconstruct_n(start, end - start)
            yield vectors if self.alive is None else vectors[self.alive[start:end]]

    def rows_of(self, ids: Sequence[str]) -> dict[str, int]:
        """The rows that have these ids and were not removed, by id."""
        name, found = _quoted(self.layout.names[0]), {}
        for start in range(0, len(ids), _AT_ONCE):
            wanted = ids[start : start + _AT_ONCE]
            cursor = self._texts.execute(f"SELECT {name}, _rowid_ FROM rows WHERE {name} IN ({_holes(wanted)})", wanted)
            found |= {one: row for one, row in cursor if self.alive is None or self.alive[row]}
        return found

    def rows_in(self, other: Path) -> list[int]:
        """The rows that were not removed and whose ids another segment has."""
        name = _quoted(self.layout.names[0])
        with closing(self._connect()) as connection:
            connection.execute("ATTACH ? AS other", [_address(other)])
            ids = f"SELECT {name} FROM other.rows"
            found = connection.execute(f"SELECT _rowid_ FROM main.rows WHERE {name} IN ({ids})").fetchall()
        return [row for (row,) in found if self.alive is None or self.alive[row]]

    def matching(self, where: str) -> np.ndarray:
        """`(count,)` bool: the rows that were not removed and for which an SQL expression holds.

        Raises:
            UserError: It is not an expression over the columns.
        """
        selects = 0

        def allowed(action: int, subject: str | None, name: str | None, *_: str | None) -> int:
            nonlocal selects
            if action == sqlite3.SQLITE_SELECT:
                # A query within the expression would be a second one.
                selects += 1
                return sqlite3.SQLITE_OK if selects == 1 else sqlite3.SQLITE_DENY
            reads = action == sqlite3.SQLITE_READ and subject == "rows"
            calls = action == sqlite3.SQLITE_FUNCTION and name in _FUNCTIONS.split()
            return sqlite3.SQLITE_OK if reads or calls else sqlite3.SQLITE_DENY

        among = np.zeros(self.count, bool)
        with closing(self._connect()) as connection:
            connection.set_authorizer(allowed)
            try:
                # On a line of its own: a comment in it ends there.
                found = connection.execute(f"SELECT _rowid_ FROM rows WHERE (\n{where}\n)")
                among[np.fromiter((row for (row,) in found), "int64")] = True
            except (sqlite3.Error, sqlite3.Warning, ValueError) as e:
                kinds = ["text", *self.layout.metadata.values()]
                names = [name if name.isidentifier() else _quoted(name) for name in self.layout.names]
                example = "7" if kinds[-1] == "number" else "'this'"
                raise UserError(
                    f"`where` {where}: {e}. Expected an SQL expression over {', '.join(names)}, such as "
                    f"{names[-1]} = {example}."
                ) from e
        return among if self.alive is None else among & self.alive

    def _connect(self) -> sqlite3.Connection:
        texts = sqlite3.connect(_address(self.directory), uri=True, check_same_thread=False)
        # KiB, instead of 2,000: the system keeps what is read often.
        texts.execute("PRAGMA cache_size = -256")
        return texts


def _is_binary(kind: Kind, bits: Bits) -> bool:
    """Whether faiss compares signs by Hamming distance; `ivf` has a better way."""
    return bits == 1 and kind != "ivf"


def _empty(faiss: Any, kind: Kind, bits: Bits, dim: int, cells: int) -> Any:
    """A faiss index without vectors, not trained."""
    hnsw = f"HNSW{_NEIGHBOURS}"
    if _is_binary(kind, bits):
        empty = faiss.index_binary_factory(8 * compact.width(dim, "binary"), "BFlat" if kind == "flat" else f"B{hnsw}")
    else:
        coded = {32: "Flat", 8: "SQ8", 1: "RaBitQ"}[bits]
        name = {"flat": coded, "ivf": f"IVF{cells},{coded}", "hnsw": f"{hnsw},{coded}"}[kind]
        empty = faiss.index_factory(dim, name, faiss.METRIC_INNER_PRODUCT)
    if kind == "hnsw":
        empty.hnsw.efConstruction, empty.hnsw.efSearch = _CONSTRUCTION, _WALK
    return empty


def _read(faiss: Any, path: Path, kind: Kind, bits: Bits, *, mapped: bool = False) -> Any:
    read = faiss.read_index_binary if _is_binary(kind, bits) else faiss.read_index
    return read(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)


def _write(faiss: Any, index: Any, path: Path) -> None:
    (faiss.write_index_binary if isinstance(index, faiss.IndexBinary) else faiss.write_index)(index, str(path))


def _at(vectors: Vectors, chosen: np.ndarray) -> np.ndarray:
    """Some rows of vectors, in order."""
    found, begin = np.empty((len(chosen), vectors.shape[1]), "float32"), 0
    for start, block in zip(range(0, vectors.shape[0], _BLOCK), blocks(vectors), strict=True):
        end = np.searchsorted(chosen, start + len(block))
        found[begin:end] = block[chosen[begin:end] - start]
        begin = end
    return found


def _address(directory: Path) -> str:
    """Where SQLite finds a segment's texts; without locks, since the file never changes."""
    return f"file:{quote(str((directory / _TEXTS).absolute()))}?mode=ro&immutable=1"


def _holes(values: Sequence[object]) -> str:
    return ", ".join("?" for _ in values)


def _quoted(name: str) -> str:
    """A column's name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def load_faiss() -> Any:
    """The library.

    Raises:
        UserError: It is not installed.
    """
    require("faiss", "index", "an index needs faiss")
    import faiss

    return faiss
