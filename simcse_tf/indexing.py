"""What the commands share that encode a file and write another: flags, vectors in a directory, an index.

What is there is taken, the rest is made and shown.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from simcse_tf import cli
from simcse_tf.checks import check_range
from simcse_tf.data.records import Layout, Record
from simcse_tf.data.strings import PromptName
from simcse_tf.errors import UserError
from simcse_tf.files import Output, check_writable
from simcse_tf.loading import Encodes
from simcse_tf.serving import compact, index, probes, vectors
from simcse_tf.serving.index import Index, Writer
from simcse_tf.serving.segment import Kind


@dataclass(frozen=True, kw_only=True)
class Running:
    """Flags of commands that encode a file and write what they make of it."""

    # --- Running ---

    # Texts per call of the model.
    batch_size: int = 64
    # Write the result as JSON here instead of printing it; replaces an older file.
    json: Path | None = None
    # Start, continue what a killed run left, or find the output complete.
    resume: bool = False
    # Replace the output, and discard what a killed run left.
    overwrite: bool = False

    def output(self, to: Path, *, read: Sequence[Path], endings: Sequence[str]) -> Output:
        """The file that is written.

        Args:
            to: Its name.
            read: The files that are read.
            endings: Those of the formats that it may have.

        Raises:
            UserError: It cannot be written, is one of those that are read, or a flag is wrong.
        """
        check_range("batch_size", self.batch_size, low=1)
        check_name("to", to, read, endings)
        output = Output(to, self.resume, self.overwrite)
        output.check()
        if self.json is not None:
            check_writable(self.json, "json")
        return output


def check_name(setting: str, file: Path, read: Sequence[Path], endings: Sequence[str]) -> None:
    """Checks that a file that is written has the name of a format, and is none of those that are read.

    Raises:
        UserError: It has not, or is.
    """
    if file.suffix.lower() not in endings:
        raise UserError(f"`{setting}` {file}: must end in {', '.join(endings)}.")
    if file.exists() and any(each.exists() and file.samefile(each) for each in read):
        raise UserError(f"`{setting}` {file}: is a file that is read. Choose another name.")


class Indexer:
    """Encodes texts and makes indexes of them. What a killed process did is continued.

    Args:
        load: Loads the encoder; TensorFlow is imported only now, where that needs it.
        name: Its name, for messages.
        batch_size: Texts per call of the model.
        console: Where progress is shown.
        dim: How many numbers of each vector to keep, scaled to unit length again; None: all, and never more than all.
    """

    def __init__(
        self, load: Callable[[], Encodes], name: str, *, batch_size: int, console: Console, dim: int | None = None
    ):
        with cli.lean_imports():
            self._model = load()
        self._name, self._batch_size, self._console, self._dim = name, batch_size, console, dim
        self._fingerprint = self._encode(probes.PROBES)

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return self._fingerprint.shape[-1]

    def fingerprint(self, side: PromptName | None = None) -> np.ndarray:
        """What the model makes of `probes.PROBES` on a side of a search: `(probes, dim)`."""
        prompt = self._prompt(side)
        return self._encode(probes.PROBES, **prompt) if prompt else self._fingerprint

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
        prompt = self._prompt(side)
        encode = functools.partial(self._encode, **prompt)
        about = vectors.About(count, sha256, count).of_model(self._name, self.fingerprint(side), *prompt.values())
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

    def _prompt(self, side: PromptName | None) -> dict[str, PromptName]:
        """What the model's `encode` takes beside the texts on a side of a search."""
        return {"prompt_name": side} if side is not None and side in self._model.prompt_names else {}

    def _encode(self, texts: Sequence[str], **how: Any) -> np.ndarray:
        found = self._model.encode(texts, **how)
        return found if self._dim is None else compact.shortened(found, self._dim)
