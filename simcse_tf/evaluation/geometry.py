"""Alignment and uniformity of an embedding space (Wang & Isola, ICML 2020), as the SimCSE paper plots them.

Lower is better for both: alignment says how close sentences of the same meaning are, uniformity how evenly all
sentences spread over the sphere (the more evenly, the more negative). Positives are the pairs graded above 4,
uniformity is over every distinct sentence (Gao et al. 2021, section 5 and figure 3; there the pairs are STS-B's).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from simcse_tf.errors import UserError
from simcse_tf.evaluation.embedding import Encode, check, unit
from simcse_tf.evaluation.sts import Pairs, embed_pairs

_BLOCK = 1024  # rows; a block of similarities takes 8 MB, however many sentences there are


class Geometry(NamedTuple):
    """Alignment over `positives` pairs and uniformity over `sentences` distinct sentences."""

    alignment: float
    uniformity: float
    positives: int
    sentences: int


def alignment(x: np.ndarray, y: np.ndarray) -> float:
    """Mean squared distance between the unit vectors of positive pairs, from 0 (equal) to 4 (opposite).

    Args:
        x: `(n, dim)` float, any length but 0; normalised here.
        y: `(n, dim)` float, the other side of each pair.

    Raises:
        ValueError: No pairs, unequal shapes, or a vector of length 0.
    """
    if x.shape != y.shape or len(x) < 1:
        raise ValueError(f"alignment takes two arrays of one shape (n, dim), n > 0, not {x.shape} and {y.shape}")
    return float(np.mean(np.sum((unit(x) - unit(y)) ** 2, axis=1)))


def uniformity(x: np.ndarray, *, t: float = 2.0) -> float:
    """Logarithm of the mean of exp(-t ||x_i - x_j||^2) over all pairs i < j: from -4t to 0 (all equal).

    Exact, over blocks of rows, so that memory does not grow with `n` squared.

    Args:
        x: `(n, dim)` float, any length but 0; normalised here.
        t: Sharpness of the Gaussian; 2 in both papers.

    Raises:
        ValueError: Fewer than 2 vectors, or one of length 0.
    """
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"uniformity takes an array (n, dim) with n > 1, not {x.shape}")
    x = unit(x)
    total = 0.0
    for i in range(0, len(x), _BLOCK):
        for j in range(i, len(x), _BLOCK):
            cosines = x[i : i + _BLOCK] @ x[j : j + _BLOCK].T
            potentials = np.exp(t * (2 * cosines - 2))  # ||x - y||^2 = 2 - 2 cos for unit vectors
            total += float(np.sum(np.triu(potentials, 1) if i == j else potentials))
    return float(np.log(total / (len(x) * (len(x) - 1) / 2)))


def measure(embeddings_a: np.ndarray, embeddings_b: np.ndarray, pairs: Pairs) -> Geometry:
    """Alignment and uniformity of pairs already embedded, for example by `sts.embed_pairs`.

    Args:
        embeddings_a: `(n, dim)` float, for `pairs.a`.
        embeddings_b: The same for `pairs.b`.
        pairs: The sentences and grades.

    Raises:
        UserError: An embedding is missing, not finite or zero, or no pair is graded above 4; names the task.
    """
    a = unit(check(embeddings_a, pairs.a, pairs.name), pairs.a, pairs.name)
    b = unit(check(embeddings_b, pairs.b, pairs.name), pairs.b, pairs.name)
    check_positives(pairs)
    positive = pairs.gold > 4
    first: dict[str, int] = {}
    for i, sentence in enumerate(pairs.a + pairs.b):
        first.setdefault(sentence, i)
    if len(first) < 2:
        raise UserError(f"{pairs.name} ({pairs.source}): uniformity needs at least 2 distinct sentences.")
    return Geometry(
        alignment=alignment(a[positive], b[positive]),
        uniformity=uniformity(np.concatenate([a, b])[list(first.values())]),
        positives=int(positive.sum()),
        sentences=len(first),
    )


def is_measurable(pairs: Pairs) -> bool:
    """Whether the grades are on STS' scale, 0 to 5, and some are above 4, which are the positives."""
    return bool(pairs.gold.min() >= 0 and pairs.gold.max() <= 5 and (pairs.gold > 4).any())


def check_positives(pairs: Pairs) -> None:
    """Checks that there are pairs to measure alignment on.

    Raises:
        UserError: None is graded above 4.
    """
    if not (pairs.gold > 4).any():
        raise UserError(
            f"{pairs.name} ({pairs.source}): none of {len(pairs.gold)} pairs is graded above 4, and alignment is "
            "measured on those. Use STS-B's development set."
        )


def geometry(encode: Encode, pairs: Pairs) -> Geometry:
    """Embeds `pairs`, each distinct sentence once, and measures them.

    Raises:
        UserError: As `measure`.
    """
    return measure(*embed_pairs(encode, pairs), pairs)
