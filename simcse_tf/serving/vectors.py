"""Vectors of texts on disk, written block by block: a process that was killed goes on after the last whole block.

Rows are appended rather than mapped into memory, so that memory use does not grow with their number.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from simcse_tf.data.strings import PromptName
from simcse_tf.errors import UserError
from simcse_tf.files import write_whole
from simcse_tf.serving import compact, probes
from simcse_tf.serving.compact import Dtype

ABOUT = "embeddings.json"
# Calls of the model whose texts are sorted by length together, so that a call has little padding. What they give is
# written at once: a kill loses no more.
_CALLS = 32

# `encode(texts, batch_size=...)`: `(len(texts), dim)` float32 of unit length, or what `compact.quantized` makes of it.
Encode = Callable[..., np.ndarray]


@dataclass(frozen=True)
class About:
    """What the vectors in a directory are of, and how many are there: `embeddings.json`."""

    # Of the texts.
    rows: int
    sha256: str
    # Rows per array.
    shard_size: int
    # Rows that are written.
    done: int = 0
    # Of the model: its name, for people; what it makes of the probes, `(probes, dim)`.
    model: str = ""
    fingerprint: tuple[tuple[float, ...], ...] = ()
    # Of the vectors. Version 0.1.0 knew float32 alone.
    dtype: Dtype = "float32"
    # The model's prompt that was put before each text; 0.1.0 had none.
    prompt_name: PromptName | None = None

    @property
    def dim(self) -> int:
        """Numbers per vector, however they are stored."""
        return len(self.fingerprint[0])

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return compact.width(self.dim, self.dtype) * compact.stored_as(self.dtype).itemsize

    @property
    def shards(self) -> int:
        """Number of arrays."""
        return -(-self.rows // self.shard_size)

    def shard(self, i: int) -> tuple[str, int]:
        """File name and rows of an array."""
        name = f"embeddings-{i:05d}-of-{self.shards:05d}.npy"
        return name, min(self.shard_size, self.rows - i * self.shard_size)

    @classmethod
    def of_json(cls, values: dict[str, Any]) -> About:
        """What is in such a file, whichever version wrote it."""
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})

    def of_model(self, name: str, fingerprint: np.ndarray, prompt_name: PromptName | None = None) -> About:
        """The same texts, and the model that their vectors come from."""
        rows = tuple(tuple(row) for row in fingerprint.tolist())
        return replace(self, model=name, fingerprint=rows, prompt_name=prompt_name)


def read_about(directory: Path) -> About:
    """What a directory holds.

    Raises:
        UserError: It cannot be told.
    """
    path = directory / ABOUT
    try:
        return About.of_json(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path}: not a list of vectors ({e}). Delete {directory} to start anew.") from e


def check_free(directory: Path) -> None:
    """Checks that vectors may be put into a directory: it has some already, or has nothing, or is not there.

    Raises:
        UserError: It has something else.
    """
    if not directory.is_dir() or (directory / ABOUT).is_file():
        return
    # What `begin` leaves if it is killed.
    others = sorted(path.name for path in directory.iterdir() if path.name != f".{ABOUT}.partial")
    if others:
        raise UserError(
            f"{directory}: holds no vectors but {', '.join(others[:3])}{', ...' if len(others) > 3 else ''}. Name a "
            "directory in which nothing of this name stands."
        )


def begin(directory: Path, about: About) -> About:
    """Makes an empty directory for the vectors; what was there goes."""
    with _writing(directory):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        return _save(directory, about)


def resume(directory: Path, now: About) -> About:
    """What is there already.

    Raises:
        UserError: Another model began it, or rows that were recorded are missing.
    """
    before = read_about(directory)
    then, new = np.array(before.fingerprint), np.array(now.fingerprint)
    if probes.difference(then, new, tolerance=probes.SAME_FLOAT32):
        raise UserError(
            f"{directory}: begun with another model ({before.model}), another `dim` or another prompt, which give the "
            f"same texts other vectors. Give those that it was begun with, or delete {directory} to start anew."
        )
    _check_written(directory, before)
    return before


class Stored:
    """All vectors in a directory, as rows that are read when they are sliced: none is mapped into memory.

    Args:
        directory: What `fill` has filled, or `simcse_tf.encode` has written.

    Raises:
        UserError: There are no vectors, they are not complete, or rows are missing.
    """

    def __init__(self, directory: Path):
        self.directory, self.about = directory, read_about(directory)
        if self.about.done != self.about.rows:
            raise UserError(f"{directory}: has {self.about.done} of {self.about.rows} vectors. Encode the rest first.")
        _check_written(directory, self.about)
        self.shape = (self.about.rows, self.about.dim)

    def __len__(self) -> int:
        return self.about.rows

    def __getitem__(self, rows: slice) -> np.ndarray:
        """`(rows, dim)` float32 of unit length."""
        begin, end, _ = rows.indices(len(self))
        dtype, width, read = compact.stored_as(self.about.dtype), compact.width(self.about.dim, self.about.dtype), []
        while begin < end:
            shard, row = divmod(begin, self.about.shard_size)
            name, there = self.about.shard(shard)
            count = min(there - row, end - begin)
            offset = len(_header(there, self.about)) + row * self.about.row_bytes
            read.append(np.fromfile(self.directory / name, dtype, count * width, offset=offset).reshape(count, width))
            begin += count
        return compact.floats(np.concatenate(read), self.about.dim)


def fill(
    directory: Path,
    about: About,
    texts: Iterator[str],
    encode: Encode,
    *,
    batch_size: int,
    progress: Callable[[int], None],
) -> About:
    """Encodes the texts that have no vector yet.

    Args:
        directory: What `begin` or `resume` has looked at.
        about: What they returned.
        texts: All texts, those included that have a vector.
        encode: The model's.
        batch_size: Texts per call of the model.
        progress: Called with the number of rows that are written, at the beginning too.

    Raises:
        UserError: There are fewer texts than there were, or the directory cannot be written.
    """
    progress(about.done)
    stream = itertools.islice(texts, about.done, about.rows)
    while block := list(itertools.islice(stream, _CALLS * batch_size)):
        about = _append(directory, about, encode(block, batch_size=batch_size))
        progress(about.done)
    if about.done != about.rows:
        raise UserError(f"the texts changed while they were being read. Delete {directory} to start anew.")
    return about


def check_texts(directory: Path, before: About, now: About, source: str) -> None:
    """Checks that the vectors in a directory are of these texts.

    Raises:
        UserError: They are not.
    """
    if (before.rows, before.sha256) != (now.rows, now.sha256):
        difference = "other texts" if before.rows == now.rows else f"{before.rows} then, {now.rows} now"
        raise UserError(
            f"{source}: its texts are not those that the vectors in {directory} are of ({difference}). Give the same "
            f"file, or delete {directory} to start anew."
        )


def _check_written(directory: Path, about: About) -> None:
    """Checks that the rows that were recorded are there.

    Raises:
        UserError: They are not.
    """
    for i in range(-(-about.done // about.shard_size)):
        name, rows = about.shard(i)
        written = min(rows, about.done - i * about.shard_size)
        path, size = directory / name, len(_header(rows, about)) + written * about.row_bytes
        if not path.is_file() or path.stat().st_size < size:
            raise UserError(f"rows that were written are missing from {path}. Delete {directory} to start anew.")


def _append(directory: Path, about: About, vectors: np.ndarray) -> About:
    """Writes rows, then that they are there. A kill in between leaves rows that the next process writes again."""
    done = about.done
    with _writing(directory):
        while len(vectors):
            shard, row = divmod(done, about.shard_size)
            name, rows = about.shard(shard)
            header, here = _header(rows, about), vectors[: rows - row]
            with open(directory / name, "r+b" if row else "wb") as file:
                if row == 0:
                    file.write(header)
                file.seek(len(header) + row * about.row_bytes)
                file.truncate()
                file.write(np.ascontiguousarray(here, compact.stored_as(about.dtype)).tobytes())
                file.flush()
                os.fsync(file.fileno())
            done, vectors = done + len(here), vectors[len(here) :]
        return _save(directory, replace(about, done=done))


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise UserError(
            f"{directory}: cannot be written ({e.strerror}). What is there is kept: when there is space, give the same "
            "command again, with `resume` if it has that."
        ) from e


def _save(directory: Path, about: About) -> About:
    write_whole(directory / ABOUT, json.dumps(asdict(about)) + "\n")
    return about


def _header(rows: int, about: About) -> bytes:
    file = io.BytesIO()
    shape = (rows, compact.width(about.dim, about.dtype))
    described = {"descr": compact.stored_as(about.dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)
    return file.getvalue()
