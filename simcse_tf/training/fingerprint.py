"""Fingerprints of what a run is made from, so that it is not resumed with something else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from simcse_tf.evaluation.development import DevelopmentSet

if TYPE_CHECKING:
    from simcse_tf.formats.encoders import SentenceEncoder

# What each fingerprint is of, for messages; `{}` is filled from the configuration.
MEANING = {
    "rows": "the rows that it reads from `data` {data}",
    "test_rows": "the rows that it holds out of `data` {data}",
    "development_set": "the development set, or one of several,",
    "starting_weights": "the weights or the vocabulary of `preset` {preset}",
    "watched": "the texts of `watch` {watch}",
}


def of_text(text: str) -> str:
    """Of one text."""
    return _of(text)


def of_development_sets(sets: Iterable[DevelopmentSet]) -> str:
    """Of all their content, in order."""
    return _of(*(part for each in sets for part in each.content()))


def of_encoder(encoder: SentenceEncoder) -> str:
    """Of a backbone's weights and its vocabulary."""
    vocabulary = "\0".join(encoder.tokenizer.get_vocabulary())
    return _of(vocabulary, *(np.asarray(v) for v in encoder.backbone.weights if not v.path.endswith("_state")))


def _of(*parts: str | np.ndarray) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else np.ascontiguousarray(part).data)
        digest.update(b"\0\0")
    return digest.hexdigest()
