"""A teacher's vectors of a run's rows: computed once, before the first step, and kept in the run directory.

They are arrays on the disk, one for each text of a row, of which a step reads its own rows: memory does not grow with
them. What a killed run has computed stays. The model that computes them comes from the command: every format that can
be opened is above this folder.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from simcse_tf.config import TrainConfig
from simcse_tf.data.columns import names_of_views
from simcse_tf.data.sources import Scan, Source
from simcse_tf.data.strings import PromptName
from simcse_tf.evaluation.embedding import with_prompts

# In the run directory.
DIRECTORY = "teacher"


class Teacher(Protocol):
    """A model, and where it keeps the vectors that it has made: `simcse_tf.indexing.Indexer`."""

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        ...

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
        """`(count, dim)` float32 of unit length, from the directory as far as they are there."""
        ...


def vectors_of_rows(
    teacher: Teacher, directory: Path, source: Source, scan: Scan, config: TrainConfig
) -> list[np.ndarray]:
    """Computes what is not there yet.

    A teacher with prompts reads the first text of a row with the one for queries, the others with that for passages.

    Args:
        teacher: The model.
        directory: Of the vectors.
        source: The rows, the same in every epoch.
        scan: Of them.
        config: The run's.

    Returns:
        For each text of a row `(rows, dim)` float32, mapped into memory.

    Raises:
        UserError: The directory has vectors of other texts or by another model, or cannot be written.
    """
    on_bad = (lambda message: None) if config.skip_bad_rows else None
    names = names_of_views(max(source.views, 2))[: 1 if config.translations else source.views]

    def encoded(view: int, name: str) -> np.ndarray:
        texts = (row[view] for row in itertools.islice(source.rows(on_bad), scan.rows))
        side: PromptName = "passage" if view else "query"
        return teacher.encode(directory / name, texts, scan.rows, scan.fingerprint, source=config.data, side=side)

    arrays = [encoded(view, name) for view, name in enumerate(names)]
    return arrays * source.views if config.translations else arrays


def vectors_of_texts(teacher: Any, texts: np.ndarray) -> np.ndarray:
    """Encodes rows in memory, as `vectors_of_rows` does those of a run.

    Args:
        teacher: Anything with `encode(texts)`, and with `prompt_names` if it has prompts.
        texts: `(n, views)` of bytes.

    Returns:
        `(n, views, dim)` float32.
    """
    ask = with_prompts(teacher.encode)

    def encoded(view: int) -> np.ndarray:
        column = [text.decode("utf-8", "replace") for text in texts[:, view]]
        return ask(column, "passage" if view else "query")

    return np.stack([encoded(view) for view in range(texts.shape[1])], axis=1).astype("float32")
