"""What a model makes of many texts, encoded once for all tabs and visitors; and who is near to whom in it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from simcse_tf.demo.kept import Kept
from simcse_tf.demo.models import Model

# Texts of one request, after which progress is told; sets of vectors that are kept: 50,000 take 80 MB.
_ROWS, _KEPT = 512, 4


class Vectors:
    """Encodes texts, and keeps what it has encoded last."""

    def __init__(self):
        self._kept: Kept[np.ndarray] = Kept(_KEPT)

    def of(self, texts: Sequence[str], model: Model, progress: Callable[[float, str], None]) -> np.ndarray:
        """`(n, dim)` float32 of unit length.

        Args:
            texts: `n`, any number of times the same.
            model: What encodes.
            progress: Called with the share done and what is being done.
        """

        def encode() -> np.ndarray:
            blocks = []
            for start in range(0, len(texts), _ROWS):
                progress(start / len(texts), f"encoding {len(texts):,} sentences with {model.key}")
                blocks.append(model.encode(texts[start : start + _ROWS]))
            return np.concatenate(blocks)

        return self._kept.get((digest(texts), model), encode)


def digest(texts: Sequence[str]) -> str:
    """Equal for equal texts."""
    made = hashlib.sha256()
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        made.update(len(encoded).to_bytes(8, "little") + encoded)
    return made.hexdigest()


def nearest(vectors: np.ndarray, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows nearest to some, themselves left out, by cosine.

    Args:
        vectors: `(n, dim)` of unit length.
        rows: `(m,)` int: whose neighbours.
        count: How many; less than `n`.

    Returns:
        Cosines and rows, each `(m, count)`, nearest first.
    """
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    scores, found = index.search(vectors[rows], count + 1)
    # Of equal vectors another one may come first: then the last is left out.
    other = found != rows[:, None]
    other[other.all(axis=1), -1] = False
    shape = (len(rows), count)
    return scores[other].reshape(shape), found[other].reshape(shape)
