"""Small vectors: fewer dimensions and fewer bits, in NumPy.

An encoder that was trained for it (Matryoshka) puts what matters most into the first numbers of a vector: the rest may
be cut off. What is left may be stored in 8 bits a number, or in one. `simcse_tf.models.matryoshka` and
`simcse_tf.formats.savedmodel` do the same in graphs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from simcse_tf.checks import check_choice, check_range
from simcse_tf.errors import UserError

# float32; int8: 128 times the numbers, as MediaPipe's Text Embedder has it; binary: the signs, 8 to a byte.
Dtype = Literal["float32", "int8", "binary"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
_STORED = {"float32": "<f4", "int8": "|i1", "binary": "|u1"}
SCALE = 128


def check_dim(dim: int, full: int | None, trained: Sequence[int] | None = None) -> None:
    """Checks how many numbers of a vector are to be kept.

    Warns where training has not prepared an encoder for it.

    Args:
        dim: How many.
        full: How many a vector has; None where that is not known yet.
        trained: The sizes that the encoder was trained for, if any; None if that is no concern here.

    Raises:
        UserError: Less than 1, or more than there are.
    """
    known = f" This encoder was trained for {', '.join(map(str, trained))}." if trained else ""
    if full is not None and dim > full:
        raise UserError(f"`dim` {dim}: the vectors of this encoder have {full} numbers.{known} Give no more than that.")
    check_range("dim", dim, low=1)
    if trained is not None and dim not in (*trained, full):
        was = known or " This encoder was trained without `matryoshka`, so its first numbers say no more than others."
        logging.getLogger(__name__).warning("dim %d: no size that training prepared.%s", dim, was.replace("`", ""))


def shortened(vectors: np.ndarray, dim: int) -> np.ndarray:
    """The first numbers of vectors, scaled to unit length again.

    Args:
        vectors: `(..., full)` float, of unit length.
        dim: How many to keep; `full` leaves the vectors as they are.

    Returns:
        `(..., dim)` float32. A vector whose first numbers are all 0 stays 0.
    """
    if dim == vectors.shape[-1]:
        return vectors
    vectors = vectors[..., :dim]
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(lengths, np.finfo("float32").tiny)


def smaller(sizes: Sequence[int], dim: int) -> tuple[int, ...]:
    """Those below `dim`, the largest first."""
    return tuple(sorted((size for size in sizes if size < dim), reverse=True))


def width(dim: int, dtype: Dtype) -> int:
    """How many elements of an array a vector of `dim` numbers takes."""
    return -(-dim // 8) if dtype == "binary" else dim


def stored_as(dtype: Dtype) -> np.dtype:
    """The elements of an array of such vectors."""
    return np.dtype(_STORED[dtype])


def quantized(vectors: np.ndarray, dtype: Dtype) -> np.ndarray:
    """Vectors in fewer bits.

    Args:
        vectors: `(..., dim)` float of unit length.
        dtype: `int8`: 128 times each number, rounded, from -128 to 127; `binary`: 1 for each number above 0, packed
            from the highest bit of a byte on, the last byte filled up with 0, as `np.packbits` does and faiss expects.

    Returns:
        `(..., dim)` float32 or int8, or `(..., ceil(dim / 8))` uint8.

    Raises:
        UserError: Another dtype.
    """
    check_choice("dtype", dtype, DTYPES)
    if dtype == "int8":
        return np.clip(np.rint(vectors * SCALE), -SCALE, SCALE - 1).astype("int8")
    return np.packbits(vectors > 0, axis=-1) if dtype == "binary" else vectors


def signature_of(prompt_name: str | None, dtype: Dtype) -> str:
    """The signature of an exported model that gives such embeddings: `serving_default`, `int8`, `query_int8`, ..."""
    parts = [prompt_name or "", "" if dtype == "float32" else dtype]
    return "_".join(filter(None, parts)) or "serving_default"


def output_of(dtype: Dtype) -> str:
    """That signature's output: numbers, or of fewer bits a string of bytes for each text."""
    return "embedding" if dtype == "float32" else f"embedding_{dtype}_bytes"


def from_bytes(rows: Sequence[bytes], dtype: Dtype) -> np.ndarray:
    """What `quantized` returns, from such strings, one for each text.

    Raises:
        ValueError: They are not of one length.
    """
    return np.array([np.frombuffer(row, stored_as(dtype)) for row in rows])


def floats(vectors: np.ndarray, dim: int) -> np.ndarray:
    """The unit vectors that quantized ones stand for.

    Args:
        vectors: As `quantized` returns them; their type says how they are stored.
        dim: How many numbers a vector had.

    Returns:
        `(..., dim)` float32 of unit length.
    """
    if vectors.dtype == np.uint8:
        signs = np.unpackbits(vectors, axis=-1, count=dim).astype("float32") * 2 - 1
        return signs / np.float32(np.sqrt(dim))
    if vectors.dtype != np.int8:
        return vectors
    vectors = vectors.astype("float32")
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1)
