"""Fewer dimensions and fewer bits, in NumPy."""

import logging
import re

import numpy as np
import pytest

from simcse_tf.errors import UserError
from simcse_tf.serving import compact

RNG = np.random.default_rng(0)
VECTORS = compact.shortened(RNG.normal(size=(50, 21)).astype("float32"), 20)


def test_what_is_left_has_unit_length_again_and_the_same_direction():
    found = compact.shortened(VECTORS, 7)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(found[:, 1:] / found[:, :1], VECTORS[:, 1:7] / VECTORS[:, :1], rtol=1e-5)
    assert compact.shortened(VECTORS, 20) is VECTORS
    np.testing.assert_array_equal(compact.shortened(np.eye(3, dtype="float32"), 2)[2], [0, 0])
    np.testing.assert_array_equal(compact.shortened(VECTORS[0], 7), found[0])


def test_int8_is_128_times_the_numbers_rounded_and_within_what_a_byte_holds():
    vectors = np.array([[1.0, -1.0, 0.5, 0.0, 0.004, -0.003, 0.997]], "float32")
    found = compact.quantized(vectors, "int8")
    assert found.dtype == np.int8
    assert found.tolist() == [[127, -128, 64, 0, 1, 0, 127]]
    assert np.abs(compact.quantized(VECTORS, "int8") / 128 - VECTORS).max() <= 0.5 / 128 + 1e-7


@pytest.mark.parametrize("dim", [1, 8, 20])
def test_binary_is_the_signs_packed_as_numpy_packs_them(dim):
    found = compact.quantized(VECTORS[:, :dim], "binary")
    assert (found.dtype, found.shape) == (np.uint8, (50, compact.width(dim, "binary")))
    for i, bits in enumerate(VECTORS[:, :dim] > 0):
        whole = "".join("01"[int(bit)] for bit in bits).ljust(8 * found.shape[1], "0")
        assert bytes(found[i]) == int(whole, 2).to_bytes(found.shape[1], "big")


@pytest.mark.parametrize(("dtype", "least"), [("float32", 1 - 1e-6), ("int8", 0.99), ("binary", 0.6)])
def test_quantized_vectors_stand_for_unit_vectors_near_their_own(dtype, least):
    floats = compact.floats(compact.quantized(VECTORS, dtype), 20)
    assert floats.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(floats, axis=1), 1, rtol=1e-5)
    assert np.sum(floats * VECTORS, axis=1).min() > least
    np.testing.assert_array_equal(compact.floats(compact.quantized(VECTORS[0], dtype), 20), floats[0])


@pytest.mark.parametrize("dtype", ["int8", "binary"])
def test_strings_of_bytes_are_read_as_they_were_written(dtype):
    expected = compact.quantized(VECTORS, dtype)
    np.testing.assert_array_equal(compact.from_bytes([row.tobytes() for row in expected], dtype), expected)


def test_an_unknown_dtype_is_named():
    with pytest.raises(UserError, match="`dtype` int4: unknown. Did you mean 'int8'"):
        compact.quantized(VECTORS, "int4")


@pytest.mark.parametrize(("dim", "trained"), [(385, None), (400, (384, 128)), (0, None), (-3, ())])
def test_a_size_that_cannot_be_is_refused_with_those_that_are_known(dim, trained):
    message = "have 384 numbers" if dim > 0 else "must be at least 1"
    with pytest.raises(UserError, match=f"`dim` {dim}: .*{message}") as e:
        compact.check_dim(dim, 384, trained)
    assert ("384, 128" in str(e.value)) == (trained == (384, 128))


@pytest.mark.parametrize(
    ("dim", "full", "trained", "said"),
    [
        (128, 384, (384, 128), ""),
        (384, 384, (), ""),
        (100, 384, None, ""),
        (100, None, (384, 128), "dim 100: .*384, 128"),
        (100, 384, (), "dim 100: .*without matryoshka"),
    ],
)
def test_a_size_that_training_did_not_prepare_is_warned_of(dim, full, trained, said, caplog):
    with caplog.at_level(logging.WARNING):
        compact.check_dim(dim, full, trained)
    assert bool(caplog.messages) == bool(said)
    if said:
        (message,) = caplog.messages
        assert re.search(said, message)
