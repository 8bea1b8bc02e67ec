"""Nearest neighbours by cosine: texts, ids, metadata and vectors in a directory that can change while it is searched.

    index.json      what is in it: the model, the columns, the segments, which rows were removed
    000001-trained  how vectors are coded
    000001-0000     a segment; the first number counts the changes

Nothing but `index.json` is ever overwritten, in one step, when everything that it names is on the disk: whoever
searches goes on with the files that were open. What a killed process has finished is continued by the next one that
does the same, and removed by one that does anything else. Needs faiss.
"""

from __future__ import annotations

import fcntl
import io
import itertools
import json
import os
import re
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from simcse_tf.checks import check_choice
from simcse_tf.data.records import Layout, Record, Value
from simcse_tf.data.strings import PromptName
from simcse_tf.errors import UserError
from simcse_tf.files import read_json_object, write_whole
from simcse_tf.serving import compact, probes, segment
from simcse_tf.serving.segment import Bits, Kind, Segment, Trained, Vectors

ABOUT = "index.json"
_LOCK, _BUILD, _ADD = ".lock", ".build", ".add"
_TRAINED, _STATE, _DONE = "trained", "state.json", "done"
# Directories and files of changes, were they cut off.
_OURS = re.compile(r"\.?\d{6}-[\w.-]+")
_FORMAT = 2
# Up to so many texts an exact search is as fast as others, or takes seconds.
_FLAT = 50_000
# Rows that `first_of_each` compares with each other.
_BLOCK = 1024
# Filters whose rows are remembered.
_FILTERS = 8


@dataclass(frozen=True)
class Part:
    """A segment, or what was trained, as `index.json` has it.

    Attributes:
        name: Of its directory.
        count: Rows.
        files: Their names and bytes.
        removed: How many of the rows are there no longer.
        removals: The file that says which.
    """

    name: str
    count: int
    files: tuple[tuple[str, int], ...]
    removed: int = 0
    removals: str | None = None


@dataclass(frozen=True)
class About:
    """`index.json`.

    Attributes:
        kind: `flat` compares with every vector; `ivf` with those of the nearest cells; `hnsw` walks a graph.
        bits: Of a number of a vector.
        dim: Numbers of a vector.
        model: The model's name.
        fingerprint: `(probes, dim)`: what it makes of `probes.PROBES`, as it makes vectors.
        prompts: The vectors were made with its passage prompt, so that queries need its query prompt.
        layout: The columns.
        trained: How vectors are coded.
        segments: In the order in which they are searched.
        version: How often the index has changed.
        next_id: The id of the next text that has none of its own.
        made_of: The last texts that were added, in short.
    """

    kind: Kind
    bits: Bits
    dim: int
    model: str
    fingerprint: Sequence[Sequence[float]]
    prompts: bool
    layout: Layout
    trained: Part
    segments: tuple[Part, ...]
    version: int
    next_id: int
    made_of: str = ""
    format: int = _FORMAT

    @property
    def count(self) -> int:
        """Texts that are there."""
        return sum(part.count - part.removed for part in self.segments)

    @property
    def bytes(self) -> int:
        """Of the files, without those that say what was removed."""
        return sum(size for part in (self.trained, *self.segments) for _, size in part.files)

    def side(self, prompt_name: PromptName) -> dict[str, PromptName]:
        """What a model's `encode` takes beside the texts on one side of a search."""
        return {"prompt_name": prompt_name} if self.prompts else {}


class Answer(tuple[str, float]):
    """A text of an index and its cosine with a query: a pair.

    Attributes:
        id: The text's id.
        metadata: What stands beside it, by column.
    """

    id: str
    metadata: dict[str, Value]

    def __new__(cls, text: str, cosine: float, id: str, metadata: dict[str, Value]) -> Answer:
        answer = super().__new__(cls, (text, cosine))
        answer.id, answer.metadata = id, metadata
        return answer

    @property
    def text(self) -> str:
        """The text."""
        return self[0]

    @property
    def cosine(self) -> float:
        """Its cosine with the query."""
        return self[1]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"id": self.id, "text": self.text, "cosine": self.cosine, "metadata": self.metadata}


def kind_for(count: int) -> Kind:
    """The kind of index for so many texts: exact while that takes seconds."""
    return "flat" if count <= _FLAT else "ivf"


def exists(directory: Path) -> bool:
    """Whether there is an index, rather than one that is being built."""
    return (directory / ABOUT).is_file()


def read_about(directory: Path) -> About:
    """What an index consists of.

    Raises:
        UserError: There is none, it is damaged, or of another version of this package.
    """
    if not exists(directory):
        raise UserError(f"{directory}: no index there (no {ABOUT}). Make one with `simcse-tf index build`.")
    about = read_json_object(directory / ABOUT)
    if about.get("format") != _FORMAT:
        raise UserError(
            f"{directory}: an index of format {about.get('format')}, which this version does not read. Build it again."
        )
    try:
        layout, trained = Layout(**about.pop("layout")), _part(about.pop("trained"))
        segments = tuple(map(_part, about.pop("segments")))
        return About(**about, layout=layout, trained=trained, segments=segments)
    except (KeyError, TypeError) as e:
        raise _damaged(directory, e) from e


def is_begun(directory: Path) -> bool:
    """Whether a process that was building an index there was killed."""
    return (directory / _BUILD).is_dir()


def check_free(directory: Path) -> None:
    """Checks that an index may be built in a directory: it has one or a part of one, or has nothing, or is not there.

    Raises:
        UserError: It has something else.
    """
    if directory.is_dir() and not exists(directory) and not is_begun(directory):
        others = sorted(path.name for path in directory.iterdir() if path.name != _LOCK)
        if others:
            raise UserError(f"{directory}: holds no index but {', '.join(others[:3])}. Name another directory.")


def check_model(directory: Path, about: About, fingerprint: np.ndarray) -> None:
    """Checks that a model made an index.

    Args:
        directory: Of the index.
        about: What it is.
        fingerprint: What the model makes of `probes.PROBES`, as passages if the index has prompts. `(probes, dim)`, of
            which more than the index has are cut.

    Raises:
        UserError: Another one did.
    """
    if fingerprint.shape[-1] > about.dim:
        fingerprint = compact.shortened(fingerprint, about.dim)
    then = np.array(about.fingerprint, "float32")
    if difference := probes.difference(then, fingerprint, tolerance=probes.SAME_ANY_FORMAT):
        raise UserError(
            f"{directory}: made by another model ({about.model}: {difference}). Open it with the model that made it, "
            "or build it again."
        )


@dataclass(frozen=True, eq=False)
class _Snapshot:
    """An index as it was at some time. Its files stay readable, whatever becomes of their names."""

    about: About
    trained: Trained
    segments: list[Segment]
    # Of each segment, the number of its first row among all; and their sum.
    starts: np.ndarray


class Index:
    """An index on disk. `len(index)` is the number of its texts.

    Every search sees the index as the last change left it. Threads may share one.

    Args:
        directory: Of the index.
        fingerprint: `(probes, dim)`: what the model that queries come from makes of `probes.PROBES`, as passages if the
            index has prompts. If its vectors have more numbers than those of the index, they are cut. None: before
            there is a model, to see whether the index is whole.

    Raises:
        UserError: faiss is missing, there is no index, it is damaged, or another model made it.
    """

    def __init__(self, directory: Path, fingerprint: np.ndarray | None = None):
        segment.load_faiss()
        self.directory, self._fingerprint = directory, fingerprint
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._snapshot: _Snapshot | None = None
        self._matching = lru_cache(_FILTERS)(_matching)
        self._now()

    def __len__(self) -> int:
        return self.about.count

    @property
    def about(self) -> About:
        """What it consists of."""
        return self._now().about

    @property
    def prompts(self) -> bool:
        """Whether its vectors were made with the model's passage prompt, so that queries need its query prompt."""
        return self.about.prompts

    def check_filter(self, where: str) -> None:
        """Checks what `search` takes.

        Raises:
            UserError: It is not an SQL expression over the columns.
        """
        self._matching(self._now(), where)

    def search(
        self, vectors: np.ndarray, *, top_k: int, threshold: float, where: str | None = None
    ) -> list[list[Answer]]:
        """Finds the nearest texts.

        Args:
            vectors: `(n, dim)` float32 of unit length.
            top_k: Most answers to a row.
            threshold: Cosine below which a text is not an answer.
            where: An SQL expression over the columns that must hold for an answer.

        Returns:
            For every row its answers, best first.

        Raises:
            UserError: `where` is not such an expression.
        """
        now = self._now()
        among = None if where is None else self._matching(now, where)
        scores, rows = _nearest(now, vectors, min(top_k, int(now.starts[-1])), among)
        found = (rows >= 0) & (scores >= threshold)
        records = _records(now, np.unique(rows[found]))
        names = tuple(now.about.layout.metadata)

        def answer(row: int, score: float) -> Answer:
            name, text, values = records[row]
            return Answer(text, score, str(name), dict(zip(names, values, strict=True)))

        return [
            [answer(row, score) for row, score in zip(rows[i][good].tolist(), scores[i][good].tolist(), strict=True)]
            for i, good in enumerate(found)
        ]

    def nearest(
        self, vectors: np.ndarray, top_k: int, *, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Finds the nearest rows, numbered in the order in which they were added, of an index that does not change.

        Args:
            vectors: `(n, dim)` float32 of unit length.
            top_k: Answers to a row.
            among: `(len(self),)` bool: the rows that may be found; by default all.

        Returns:
            `(scores, rows)`, each `(n, top_k)`; row -1 where there are too few, or an approximate index found too few.
        """
        now = self._now()
        return _nearest(now, vectors, top_k, None if among is None else np.split(among, now.starts[1:-1]))

    def texts(self, rows: np.ndarray) -> list[list[str]]:
        """The texts of rows `(n, k)` that `nearest` has found."""
        records = _records(self._now(), np.unique(rows))
        return [[records[row].text for row in of_query] for of_query in rows.tolist()]

    def vectors(self) -> Iterator[np.ndarray]:
        """All vectors, as far as their bits tell, in blocks `(n, dim)` float32."""
        for each in self._now().segments:
            yield from each.all_vectors()

    def _now(self) -> _Snapshot:
        """The index as the last change left it."""
        with self._lock:
            while self._snapshot is None or _stamp(self.directory) != self._stamp:
                stamp = _stamp(self.directory)
                try:
                    self._snapshot = self._open()
                except FileNotFoundError as e:
                    # Unless it has changed meanwhile.
                    if _stamp(self.directory) == stamp:
                        raise _damaged(self.directory, e) from e
                else:
                    self._stamp = stamp
                    # What they are of keeps files open.
                    self._matching.cache_clear()
            return self._snapshot

    def _open(self) -> _Snapshot:
        about, before = read_about(self.directory), self._snapshot
        if self._fingerprint is not None:
            check_model(self.directory, about, self._fingerprint)
        if before is not None and before.about.trained == about.trained:
            trained, known = before.trained, dict(zip(before.about.segments, before.segments, strict=True))
        else:
            trained, known = None, {}
        segments = []
        with _reading(self.directory):
            trained = trained or _trained(self.directory, about)
            segments = [known.get(part) or _segment(self.directory, about, trained, part) for part in about.segments]
        return _Snapshot(about, trained, segments, np.cumsum([0, *(each.count for each in segments)]))


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


class Writer:
    """Changes an index, or builds one: one process at a time.

        with Writer(directory) as writer:
            writer.add(...)

    Args:
        directory: Of the index. It is made if it is not there.

    Raises:
        UserError: Another process is changing it, or it cannot be written.
    """

    def __init__(self, directory: Path):
        self.directory = directory

    def __enter__(self) -> Writer:
        segment.load_faiss()
        with _writing(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.directory / _LOCK, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise UserError(f"{self.directory}: another process is changing this index. Wait until it ends.") from None
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._lock)

    def work(self, what: Literal["build", "add"]) -> Path:
        """Where what is needed for a change lies until it is done."""
        return self.directory / (_BUILD if what == "build" else _ADD)

    def build(
        self,
        layout: Layout,
        records: Iterable[Record],
        vectors: Vectors,
        *,
        fingerprint: np.ndarray,
        model: str,
        kind: Kind = "flat",
        bits: Bits = 32,
        prompts: bool = False,
        sha256: str = "",
        progress: Callable[[int], None] | None = None,
    ) -> About:
        """Writes all segments; then they are the index, in place of those that were there.

        Args:
            layout: What the records are made of.
            records: As many as there are vectors.
            vectors: `(count, dim)` of unit length, of which a block at a time is held.
            fingerprint: `(probes, dim)`: what the model makes of `probes.PROBES`.
            model: The model's name, for messages.
            kind: See `About`.
            bits: Of a number: 32; 8, from the least to the greatest of each dimension; or 1, the sign. Of 1 all numbers
                are kept in 8 bits too, to put in order what was found.
            prompts: The vectors were made with the model's passage prompt.
            sha256: Of the records: what a killed process did with the same is continued.
            progress: Called with the number of rows that are written.

        Raises:
            UserError: An unknown kind, no records, or the disk cannot be written.
        """
        check_choice("kind", kind, segment.KINDS)
        if bits not in segment.BITS:
            raise UserError(f"`bits` {bits}: must be {', '.join(map(str, segment.BITS))}.")
        count, dim = vectors.shape
        if count == 0:
            raise UserError("nothing to index: there are no texts.")
        about = read_about(self.directory) if exists(self.directory) else None
        version = about.version + 1 if about else 1
        work, made_of = self.work("build"), ""
        if sha256:
            made_of = f"{sha256} {count} x {dim} {kind} {bits} {fingerprint[:, :4].round(3).tolist()}"
        if about is not None and made_of and about.made_of == made_of:
            self._end(work, about)
            return about
        self._begin(work, made_of, about, version)
        with _writing(self.directory):
            place = self.directory / f"{version:06d}-{_TRAINED}"
            if not place.is_dir():
                Trained.write(place, vectors, kind, bits)
            trained = Trained(place, kind, bits)
            parts = self._write(version, trained, layout, _numbered(records, 0), vectors, progress)
            parts_of = (Part(place.name, 0, _files(place)), parts, version, count, made_of)
            about = About(kind, bits, dim, model, fingerprint.tolist(), prompts, layout, *parts_of)
            self._commit(about)
            self._end(work, about)
        return about

    def add(
        self,
        records: Iterable[Record],
        vectors: Vectors,
        *,
        fingerprint: np.ndarray,
        sha256: str = "",
        progress: Callable[[int], None] | None = None,
    ) -> tuple[About, int]:
        """Adds texts; one of which the id is there already replaces what has it. Small segments become one.

        Args:
            records: As many as there are vectors, with the columns of the index.
            vectors: `(count, dim)` of unit length.
            fingerprint: `(probes, dim)`: what the model that made them makes of `probes.PROBES`.
            sha256: Of the records: what a killed process did with the same is continued, and nothing is done if these
                were the last that were added.
            progress: Called with the number of rows that are written.

        Returns:
            What the index is now, and how many texts were replaced.

        Raises:
            UserError: There is no index, another model made it, or the disk cannot be written.
        """
        about = read_about(self.directory)
        check_model(self.directory, about, fingerprint)
        if vectors.shape[1] != about.dim:
            raise UserError(f"{self.directory}: vectors of {about.dim} numbers; the new ones have {vectors.shape[1]}.")
        version, count, work = about.version + 1, vectors.shape[0], self.work("add")
        if self.was_added(sha256, count):
            return about, 0
        made_of = _added(sha256, count)
        self._begin(work, made_of, about, version)
        trained, old = self._open(about)
        with _writing(self.directory):
            numbered = _numbered(records, about.next_id)
            new = self._write(version, trained, about.layout, numbered, vectors, progress)
            left, replaced = about.segments, 0
            if about.layout.id is not None:
                left, replaced = self._without(about, [self._in_common(each, new) for each in old], version)
            parts = self._merged(replace(about, segments=(*left, *new), version=version), trained)
            about = replace(about, segments=parts, version=version, next_id=about.next_id + count, made_of=made_of)
            self._commit(about)
            self._end(work, about)
        return about, replaced

    def was_added(self, sha256: str, count: int) -> About | None:
        """What the index is, if these texts were the last that were added: then nothing is left to do.

        Args:
            sha256: Of the records, as `add` takes it.
            count: How many there are.
        """
        about = read_about(self.directory)
        if count and (not sha256 or about.made_of != _added(sha256, count)):
            return None
        self._end(self.work("add"), about)
        return about

    def remove(self, ids: Sequence[str] = (), where: str | None = None) -> tuple[About, int]:
        """Removes texts.

        Args:
            ids: Those with these ids, all of which must be there.
            where: And those for which an SQL expression over the columns holds.

        Returns:
            What the index is now, and how many texts were removed.

        Raises:
            UserError: There is no index, an id is not there, or `where` is no such expression: nothing is removed.
        """
        about = read_about(self.directory)
        version = about.version + 1
        removed, missing = [], set(ids)
        for each in self._open(about)[1]:
            found = each.rows_of(list(ids))
            missing -= found.keys()
            gone = np.zeros(each.count, bool) if where is None else each.matching(where)
            gone[list(found.values())] = True
            removed.append(gone)
        if missing:
            named = ", ".join(f"'{name}'" for name in [name for name in ids if name in missing][:3])
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise UserError(f"{self.directory}: no text with the id {named}{more}. Nothing was removed.")
        with _writing(self.directory):
            parts, count = self._without(about, removed, version)
            if count:
                about = replace(about, segments=parts, version=version, made_of="")
                self._commit(about)
                self._tidy(about)
        return about, count

    def _open(self, about: About) -> tuple[Trained, list[Segment]]:
        """The index, which nobody else changes.

        Raises:
            UserError: It is damaged.
        """
        try:
            with _reading(self.directory):
                trained = _trained(self.directory, about)
                return trained, [_segment(self.directory, about, trained, part) for part in about.segments]
        except FileNotFoundError as e:
            raise _damaged(self.directory, e) from e

    def _write(
        self,
        version: int,
        trained: Trained,
        layout: Layout,
        records: Iterator[Record],
        vectors: Vectors,
        progress: Callable[[int], None] | None,
    ) -> tuple[Part, ...]:
        """Writes what is not there yet of the segments of these vectors."""
        count, dim = vectors.shape
        parts, size = [], segment.capacity(dim, trained.bits)
        for i, begin in enumerate(range(0, count, size)):
            place, end = self.directory / f"{version:06d}-{i:04d}", min(begin + size, count)
            if place.is_dir():
                _skip(records, end - begin)
            else:
                batches = segment.blocks(vectors, begin, end)
                segment.write(place, trained, layout, records, _counted(batches, begin, progress))
            parts.append(Part(place.name, end - begin, _files(place)))
        return tuple(parts)

    def _in_common(self, each: Segment, new: Sequence[Part]) -> np.ndarray:
        """`(count,)` bool: the rows of a segment whose ids new ones have."""
        gone = np.zeros(each.count, bool)
        for other in new:
            gone[each.rows_in(self.directory / other.name)] = True
        return gone

    def _without(self, about: About, removed: Sequence[np.ndarray], version: int) -> tuple[tuple[Part, ...], int]:
        """The segments without more of their rows, and how many rows those are."""
        parts, count = [], 0
        for part, more in zip(about.segments, removed, strict=True):
            before = _removed(self.directory, part)
            gone = more if before is None else before | more
            total = int(np.count_nonzero(gone))
            count += total - part.removed
            if total > part.removed and total < part.count:
                name, file = f"{part.name}-removed-{version:06d}.npy", io.BytesIO()
                np.save(file, np.packbits(gone))
                write_whole(self.directory / name, file.getvalue())
                part = replace(part, removed=total, removals=name)
            if total < part.count:
                parts.append(part)
        return tuple(parts), count

    def _merged(self, about: About, trained: Trained) -> tuple[Part, ...]:
        """The segments, of which the last ones have become one if they are small."""
        parts, size = list(about.segments), segment.capacity(about.dim, about.bits)
        small = [parts.pop()] if parts else []
        total = sum(_left(part) for part in small)
        # Of segments that grow, each row is copied as often as they double.
        while parts and _left(parts[-1]) <= 2 * total and _left(parts[-1]) + total <= size:
            small.insert(0, parts.pop())
            total += _left(small[0])
        if len(small) > 1:
            place = self.directory / f"{about.version:06d}-merged"
            # What a killed process has made had other rows removed.
            shutil.rmtree(place, ignore_errors=True)
            each = [_segment(self.directory, about, trained, part) for part in small]
            records = itertools.chain.from_iterable(one.all_records() for one in each)
            batches = itertools.chain.from_iterable(one.all_vectors() for one in each)
            segment.write(place, trained, about.layout, records, batches)
            small = [Part(place.name, total, _files(place))]
        return (*parts, *small)

    def _begin(self, work: Path, made_of: str, about: About | None, version: int) -> None:
        """Removes what is not finished, unless a killed process has left it that made the same of the same."""
        state = {"made_of": made_of, "version": version}
        file = work / _STATE
        with _writing(self.directory):
            if not made_of or not file.is_file() or read_json_object(file) != state:
                self._tidy(about)
            work.mkdir(exist_ok=True)
            write_whole(file, json.dumps(state))

    def _commit(self, about: About) -> None:
        """From here on it is the index."""
        write_whole(self.directory / ABOUT, json.dumps(asdict(about), ensure_ascii=False) + "\n")

    def _end(self, work: Path, about: About) -> None:
        """Removes what was needed for a change, and what the index no longer names."""
        with _writing(self.directory):
            self._tidy(about)
            if work.is_dir():
                # In one step: of what is left of it nothing could be continued.
                done = self.directory / f"{about.version:06d}-{_DONE}"
                os.rename(work, done)
                shutil.rmtree(done)

    def _tidy(self, about: About | None) -> None:
        """Removes the files that the index does not name."""
        named: set[str | None] = set()
        if about is not None:
            for part in (about.trained, *about.segments):
                named |= {part.name, part.removals}
        for path in self.directory.iterdir():
            if path.name not in named and _OURS.fullmatch(path.name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _nearest(
    now: _Snapshot, vectors: np.ndarray, k: int, among: Sequence[np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest rows of all segments, numbered through."""
    total, dim = int(now.starts[-1]), now.about.dim
    if vectors.shape[-1] > dim:
        vectors = compact.shortened(vectors, dim)
    allowed = now.about.count if among is None else sum(np.count_nonzero(each) for each in among)
    query = now.trained.query(vectors, allowed / max(total, 1))
    wide = min(segment.candidates(now.about.bits, k), total)
    each_among = [None] * len(now.segments) if among is None else among
    # Of one query each segment is searched by a thread of its own; of several, faiss has a thread for each query.
    spread = _threads().map if len(vectors) == 1 else map
    found = list(spread(lambda each, some: each.nearest(query, wide, some), now.segments, each_among))
    # Of an index without texts there are no segments.
    scores = [np.empty((len(vectors), 0), "float32"), *(of_each for of_each, _ in found)]
    rows = [np.empty((len(vectors), 0), "int64")]
    for (_, of_each), start in zip(found, now.starts[:-1], strict=True):
        rows.append(np.where(of_each >= 0, of_each + start, -1))
    scores, rows = _best(np.concatenate(scores, axis=1), np.concatenate(rows, axis=1), wide)
    if now.about.bits == 1:
        for i, of_query in enumerate(rows):
            of = np.searchsorted(now.starts, of_query, side="right") - 1
            for j in np.unique(of[of_query >= 0]).tolist():
                here = of == j
                scores[i, here] = now.segments[j].scores(query.vectors[i], of_query[here] - now.starts[j])
        scores, rows = _best(scores, rows, k)
    missing = ((0, 0), (0, k - rows.shape[1]))
    return np.pad(scores, missing, constant_values=-np.inf), np.pad(rows, missing, constant_values=-1)


def _best(scores: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The best `k` of each query, best first."""
    scores = np.where(rows >= 0, scores, -np.inf)
    if k < scores.shape[1]:
        some = np.sort(np.argpartition(-scores, k - 1, axis=1)[:, :k], axis=1)
        scores, rows = np.take_along_axis(scores, some, axis=1), np.take_along_axis(rows, some, axis=1)
    best = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1)


@cache
def _threads() -> ThreadPoolExecutor:
    """Threads that faiss starts no threads from: for one query that would only cost."""
    return ThreadPoolExecutor(os.cpu_count(), initializer=segment.load_faiss().omp_set_num_threads, initargs=(1,))


def _matching(now: _Snapshot, where: str) -> list[np.ndarray]:
    """Of each segment, the rows for which an expression holds."""
    return [each.matching(where) for each in now.segments]


def _records(now: _Snapshot, rows: np.ndarray) -> dict[int, Record]:
    """The records of some rows, by row."""
    found, of = {}, np.searchsorted(now.starts, rows, side="right") - 1
    for i in np.unique(of).tolist():
        start = int(now.starts[i])
        each = now.segments[i].records((rows[of == i] - start).tolist())
        found |= {start + row: record for row, record in each.items()}
    return found


def _trained(directory: Path, about: About) -> Trained:
    _check_files(directory, about.trained)
    return Trained(directory / about.trained.name, about.kind, about.bits)


def _segment(directory: Path, about: About, trained: Trained, part: Part) -> Segment:
    _check_files(directory, part)
    return Segment(directory / part.name, trained, about.layout, part.count, _removed(directory, part))


def _removed(directory: Path, part: Part) -> np.ndarray | None:
    """`(count,)` bool: the rows that are there no longer; None if all are."""
    if part.removals is None:
        return None
    return np.unpackbits(np.load(directory / part.removals), count=part.count).astype(bool)


def _left(part: Part) -> int:
    return part.count - part.removed


def _part(values: dict[str, Any]) -> Part:
    return Part(**values | {"files": tuple(map(tuple, values["files"]))})


def _files(directory: Path) -> tuple[tuple[str, int], ...]:
    """The files of a directory and their bytes."""
    return tuple(sorted((path.name, path.stat().st_size) for path in directory.iterdir()))


def _check_files(directory: Path, part: Part) -> None:
    """Checks that the files of a part are whole, as far as their sizes tell.

    Raises:
        FileNotFoundError: One is not there.
        ValueError: One has another size.
    """
    for name, size in part.files:
        found = (directory / part.name / name).stat().st_size
        if found != size:
            raise ValueError(f"{part.name}/{name} has {found:,} bytes, expected {size:,}")


def _numbered(records: Iterable[Record], start: int) -> Iterator[Record]:
    """Records, with a number for an id where they have none."""
    for number, record in enumerate(records, start):
        yield record if record.id is not None else record._replace(id=str(number))


def _added(sha256: str, count: int) -> str:
    """What an index was made of last, when these texts were added."""
    return f"{sha256} {count} added" if sha256 else ""


def _skip(records: Iterator[Record], count: int) -> None:
    next(itertools.islice(records, count - 1, count), None)


def _counted(batches: Iterable[np.ndarray], done: int, progress: Callable[[int], None] | None) -> Iterator[np.ndarray]:
    """Batches of vectors; says when one has been used."""
    for batch in batches:
        yield batch
        done += len(batch)
        if progress is not None:
            progress(done)


def _stamp(directory: Path) -> tuple[int, int] | None:
    """What differs when the index has changed."""
    try:
        stat = (directory / ABOUT).stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino


@contextmanager
def _reading(directory: Path) -> Iterator[None]:
    """What cannot be read is damaged; what is not there may have been replaced."""
    try:
        yield
    except FileNotFoundError:
        raise
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError, sqlite3.Error) as e:
        raise _damaged(directory, e) from e


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    """Errors of the disk as those of the user. The index is what it was."""
    try:
        yield
    except sqlite3.IntegrityError as e:
        raise UserError(f"{directory}: two texts have one id ({e}). Ids must differ.") from e
    except (OSError, RuntimeError, sqlite3.OperationalError) as e:
        raise UserError(
            f"{directory}: cannot be written ({e}). The index is what it was. Free some space, or choose another "
            "directory, and do it again: what is finished is kept."
        ) from e


def _damaged(directory: Path, error: Exception) -> UserError:
    return UserError(f"{directory}: the index is damaged ({error}). Build it again.")
