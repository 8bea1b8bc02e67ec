"""What every evaluation asks of an encoder: a function `list[str] -> (n, dim)`, whose answer is checked before use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from simcse_tf.data.strings import PromptName
from simcse_tf.errors import UserError

Encode = Callable[[list[str]], Any]


def with_prompts(encode: Encode) -> Callable[[list[str], PromptName | None], Any]:
    """An encoder as a function of texts and of the side of a search that they are on; None if there are no sides.

    A model whose method it is puts its prompt for that side before them, if it has prompts. A function puts nothing.
    """
    known = getattr(getattr(encode, "__self__", None), "prompt_names", ())

    def asked(texts: list[str], side: PromptName | None) -> Any:
        prompt = {"prompt_name": side} if side in known else {}
        return encode(texts, **prompt)

    return asked


def check(embeddings: Any, sentences: list[str], task: str) -> np.ndarray:
    """`embeddings` as a float array `(n, dim)`, if it is one vector per sentence.

    Raises:
        UserError: Another shape, or NaN or infinity; names the task and the sentence.
    """
    expected = f"Expected {len(sentences)} finite vectors of one length, one per sentence."
    try:
        vectors = np.asarray(embeddings)
        if vectors.dtype not in (np.float32, np.float64):
            vectors = vectors.astype(np.float32)
    except (TypeError, ValueError) as e:
        lengths = [len(v) if hasattr(v, "__len__") else 1 for v in embeddings] if isinstance(embeddings, list) else [0]
        odd = next((i for i, length in enumerate(lengths) if length != lengths[0]), 0)
        raise UserError(
            f"{task}: the encoder did not give a table of numbers ({e}), {lengths[odd]} value(s) for "
            f"{_name(sentences, odd)}. {expected}"
        ) from e
    if vectors.ndim != 2 or len(vectors) != len(sentences) or vectors.shape[1] == 0:
        raise UserError(
            f"{task}: the encoder gave shape {vectors.shape} for {len(sentences)} sentences, "
            f"the first of them {_name(sentences, 0)}. {expected}"
        )
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if bad.size:
        raise UserError(
            f"{task}: the encoder gave NaN or infinity for {bad.size} sentence(s), "
            f"the first of them {_name(sentences, bad[0])}. {expected} Nothing was scored."
        )
    return vectors


def embed(encode: Encode, sentences: list[str], task: str) -> np.ndarray:
    """Embeds each distinct sentence once.

    Returns:
        `(n, dim)` float, a row for every one of `sentences`, repeated ones included.

    Raises:
        UserError: As `check`.
    """
    row = {sentence: i for i, sentence in enumerate(dict.fromkeys(sentences))}
    vectors = check(encode(list(row)), list(row), task)
    return vectors[[row[sentence] for sentence in sentences]]


def unit(vectors: np.ndarray, sentences: Sequence[str] = (), task: str = "vectors") -> np.ndarray:
    """`vectors` `(n, dim)` scaled to length 1, in float64.

    Args:
        vectors: Any length but 0.
        sentences: What they are vectors of; with `task`, for the message.
        task: What they are needed for.

    Raises:
        UserError: A vector of length 0; names the task and the sentence.
    """
    vectors = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    zero = np.flatnonzero(lengths == 0)
    if zero.size:
        raise UserError(
            f"{task}: {zero.size} of length 0, the first of them for {_name(sentences, zero[0])}. Such a vector has no "
            "direction, hence no cosine similarity. Nothing was scored."
        )
    return vectors / lengths


def _name(sentences: Sequence[str], index: int) -> str:
    return f"{sentences[index][:80]!r}" if index < len(sentences) else f"number {index + 1}"
