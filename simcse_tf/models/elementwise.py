"""Element-wise passes of the hot path.

They cost as much as the memory that they move, so their gradients are written out where TensorFlow would put them
together from more passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf


def custom_gradient(function: Callable[..., tuple[tf.Tensor, Callable]]) -> Callable[..., tf.Tensor]:
    """`tf.custom_gradient`, typed as a decorator that keeps the function's arguments."""
    return tf.custom_gradient(function)  # pyright: ignore[reportReturnType]


def layer_norm(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float) -> tf.Tensor:
    """Layer normalisation of the rows of a matrix."""

    @custom_gradient
    def normalise(x, gamma, beta):
        centred = x - tf.reduce_mean(x, axis=1, keepdims=True)
        scale = tf.math.rsqrt(tf.reduce_mean(tf.square(centred), axis=1, keepdims=True) + epsilon)
        unit = centred * scale

        def gradient(dy):
            d = dy * gamma
            mean = tf.reduce_mean(d, axis=1, keepdims=True)
            along = tf.reduce_mean(d * unit, axis=1, keepdims=True)
            dx = (d - mean - unit * along) * scale
            return dx, tf.raw_ops.BiasAddGrad(out_backprop=dy * unit), tf.raw_ops.BiasAddGrad(out_backprop=dy)

        return unit * gamma + beta, gradient

    return normalise(x, gamma, beta)


@custom_gradient
def gelu_tanh(x: tf.Tensor):
    """GELU by its tanh formula (Hendrycks & Gimpel 2016, section 2): `(1 + tanh(u)) / 2 = sigmoid(2u)`."""
    a = tf.cast(2 * math.sqrt(2 / math.pi), x.dtype)
    b = tf.cast(2 * math.sqrt(2 / math.pi) * 0.044715, x.dtype)
    gate = tf.sigmoid(x * (a + b * tf.square(x)))

    def gradient(dy):
        # SigmoidGrad(gate, x) = x * gate * (1 - gate)
        slope = tf.raw_ops.SigmoidGrad(y=gate, dy=x) * (a + 3 * b * tf.square(x))
        return dy * (gate + slope)

    return x * gate, gradient


class Dropout:
    """Dropout of a whole forward pass: each call has its own mask, decided by the seed and the number of the call."""

    def __init__(self, rate: float, seed: tf.Tensor | None):
        # An element is kept if its 16 random bits are below this; the rate is met to 1 in 130,000.
        self._below = round((1 - rate) * 2**16)
        self._seed = None if self._below == 2**16 else seed
        self._calls = 0

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        if self._seed is None:
            return x
        self._calls += 1
        seed = tf.random.fold_in(self._seed, self._calls)
        size = tf.size(x)
        words = tf.random.stateless_uniform([(size + 1) // 2], seed, minval=None, maxval=None, dtype=tf.uint32)
        bits = tf.reshape(tf.bitcast(words, tf.uint16), [-1])[:size]
        keep = tf.reshape(bits < tf.constant(self._below, tf.uint16), tf.shape(x))
        # Divided by the rate that is met, so that the expectation is exact.
        scale = tf.cast(2**16 / self._below, x.dtype)

        @custom_gradient
        def dropped(x):
            return tf.where(keep, x * scale, 0), lambda dy: tf.where(keep, dy * scale, 0)

        return dropped(x)
