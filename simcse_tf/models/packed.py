"""The hot path: what a keras-hub backbone of the BERT family computes, over its own variables, in fewer operations.

Padding exists inside attention alone: all dense layers see a matrix of the real tokens, `(tokens, dim)`. Query, key and
value are one product. Where only [CLS] is asked for, the last layer computes only [CLS].

`tests/models/test_packed.py` holds values and gradients against keras-hub's own forward for every family.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import tensorflow as tf
from keras_hub.layers import TransformerEncoder

from simcse_tf.models.backbone import Parts, TransformerLayer, UnknownBackboneError, parts
from simcse_tf.models.elementwise import Dropout, custom_gradient, gelu_tanh, layer_norm

# Those whose forward was compared to `_Forward`: other backbones may have the same layers in another order.
_COMPARED = ("BertBackbone", "ElectraBackbone", "RobertaBackbone", "XLMRobertaBackbone", "DistilBertBackbone")


def unsupported_reason(backbone: keras.Model) -> str | None:
    """Why `hidden_states` cannot compute a backbone; None if it can."""
    if type(backbone).__name__ not in _COMPARED:
        return f"{type(backbone).__name__} is not one of {', '.join(_COMPARED)}"
    try:
        parts(backbone)
    except UnknownBackboneError as e:
        return str(e)
    for layer in backbone.transformer_layers:
        if type(layer) is not TransformerEncoder or getattr(layer, "normalize_first", True):
            return f"{layer.name} is not a TransformerEncoder that normalises last"
    return None


def hidden_states(
    backbone: keras.Model,
    inputs: dict[str, tf.Tensor],
    layers: Sequence[int],
    *,
    first_only: bool = False,
    seed: tf.Tensor | None = None,
    snapshot: Snapshot | None = None,
    pack: bool = True,
) -> list[tf.Tensor]:
    """The outputs of some transformer layers.

    Args:
        backbone: One for which `unsupported_reason` is None.
        inputs: `token_ids` and `padding_mask`, each `(n, length)` int; every row begins with a token.
        layers: Which layers' outputs, in their order; -1 is the last.
        first_only: Only the first token is needed; `layers` is then one layer.
        seed: `(2,)` int, decides the dropout masks; None for inference.
        snapshot: Where the graph takes all weights from but the tables of words and positions.
        pack: Leave the padding out. Shapes then depend on the data, which XLA cannot compile.

    Returns:
        One `(n, length, dim)` tensor a layer, `(n, 1, dim)` if `first_only`. Slots of padding hold arbitrary finite
        numbers.
    """
    slots = _Packed(inputs["padding_mask"]) if pack else _Slots(inputs["padding_mask"])
    found = parts(backbone)
    forward = _Forward(found, slots, seed, snapshot)
    wanted = [i % len(found.layers) for i in layers]
    outputs = []
    x = forward.embeddings(inputs["token_ids"])
    for i, layer in enumerate(found.layers[: wanted[-1] + 1]):
        only = first_only and i == wanted[-1]
        x = forward.layer(layer, x, first_only=only)
        if i in wanted:
            outputs.append(x[:, tf.newaxis] if only else slots.padded(x))
    return outputs


class Snapshot(tf.Module):
    """The weights of an exported graph, as they are when it is traced and in the layout that its operations use.

    Query, key and value are concatenated once, instead of in every call. They are variables and not constants:
    TensorFlow copies a graph a dozen times before it runs it, and a graph must stay under 2 GB.
    """

    def __init__(self):
        super().__init__()
        self.taken: dict[str, list[tf.Variable]] = {}

    def take(self, name: str, weights: Callable[[], list[tf.Tensor]]) -> list[tf.Tensor]:
        """What a function makes of weights, computed when this name is first asked for."""
        if name not in self.taken:
            # In another thread, which is outside the graph being traced: inside tf.init_scope, TensorFlow would record
            # the encoder's own variables as the graph's, and save them too.
            with ThreadPoolExecutor(1) as elsewhere:
                self.taken[name] = elsewhere.submit(
                    lambda: [tf.Variable(value.numpy(), trainable=False, name="weight") for value in weights()]
                ).result()
        return [tf.convert_to_tensor(variable) for variable in self.taken[name]]


# ---- Slots: a padded batch has n * length of them, and not all hold a token ----


class _Slots:
    """Every slot is computed, whether it holds a token or not; shapes are those of the batch."""

    def __init__(self, padding_mask: tf.Tensor):
        self.mask = tf.cast(padding_mask, tf.bool)
        self.rows, self.length = (known or tf.shape(padding_mask)[i] for i, known in enumerate(padding_mask.shape))
        # Added to attention's logits; the exponential of the difference is 0.
        self.bias = tf.where(self.mask, 0.0, -1e9)[:, tf.newaxis, tf.newaxis, :]

    def pack(self, x: tf.Tensor) -> tf.Tensor:
        """`(n * length, ...)` to `(tokens, ...)`."""
        return x

    def unpack(self, x: tf.Tensor) -> tf.Tensor:
        """`(tokens, ...)` to `(n * length, ...)`; what is in slots of padding is arbitrary, but finite."""
        return x

    def first(self, x: tf.Tensor) -> tf.Tensor:
        """`(tokens, dim)` to `(n, dim)`: the first token of every row."""
        return self.padded(x)[:, 0]

    def padded(self, x: tf.Tensor) -> tf.Tensor:
        """`(tokens, dim)` to `(n, length, dim)`."""
        return tf.reshape(self.unpack(x), [self.rows, self.length, x.shape[-1]])

    def positions(self) -> tf.Tensor:
        """`(tokens,)`: the place of every token in its row."""
        return self.pack(tf.tile(tf.range(self.length), [self.rows]))


class _Packed(_Slots):
    """Only slots that hold a token are computed, and a few more: see `_rounded`."""

    def __init__(self, padding_mask: tf.Tensor):
        super().__init__(padding_mask)
        real = tf.reshape(self.mask, [-1])
        # The slot of each token, and the token of each slot; a slot of padding has the token before it.
        slot = tf.cast(tf.where(real)[:, 0], tf.int32)
        token = tf.maximum(tf.cumsum(tf.cast(real, tf.int32)) - 1, 0)
        self._first = tf.reshape(token, [self.rows, self.length])[:, 0]
        # The rest repeats slot 0; nothing reads it.
        count = tf.size(slot)
        slot = tf.pad(slot, [[0, _rounded(count) - count]])
        counts = (tf.range(tf.size(slot)) < count)[:, tf.newaxis]

        # Each is nearly the gradient of the other, and both are gathers, where TensorFlow would scatter. Nothing comes
        # back to a slot of padding from attention (its weight is 0), and nothing may go there.
        @custom_gradient
        def pack(x):
            return tf.gather(x, slot), lambda dy: tf.where(real[:, tf.newaxis], tf.gather(dy, token), 0)

        @custom_gradient
        def unpack(x):
            return tf.gather(x, token), lambda dy: tf.where(counts, tf.gather(dy, slot), 0)

        self._pack, self._unpack = pack, unpack

    def pack(self, x: tf.Tensor) -> tf.Tensor:
        return self._pack(x)

    def unpack(self, x: tf.Tensor) -> tf.Tensor:
        return self._unpack(x)

    def first(self, x: tf.Tensor) -> tf.Tensor:
        return tf.gather(x, self._first)


def _rounded(count: tf.Tensor) -> tf.Tensor:
    """Rounds up to one of few numbers: oneDNN prepares a product anew for every shape, and keeps what it prepared."""
    multiple = tf.where(count <= 512, 8, 64)
    return -(-count // multiple) * multiple


# ---- The layers, as in keras-hub ----


class _Forward:
    """One pass of a batch through a backbone."""

    def __init__(self, backbone: Parts, slots: _Slots, seed: tf.Tensor | None, snapshot: Snapshot | None):
        self._backbone = backbone
        self._slots = slots
        self._training = seed is not None
        self._drop = Dropout(backbone.dropout, seed)
        self._snapshot = snapshot

    def embeddings(self, token_ids: tf.Tensor) -> tf.Tensor:
        """`(n, length)` to `(tokens, dim)`."""
        backbone, slots = self._backbone, self._slots
        words = tf.convert_to_tensor(backbone.words.embeddings)
        positions = tf.convert_to_tensor(backbone.positions.position_embeddings)
        x = tf.gather(words, slots.pack(tf.reshape(token_ids, [-1]))) + tf.gather(positions, slots.positions())
        segments = backbone.segments
        if segments is not None:
            # A text alone is segment 0.
            (segment,) = self._weights([segments], lambda: [tf.convert_to_tensor(segments.embeddings)[0]])
            x += segment
        x = self._drop(self._norm(backbone.norm, tf.cast(x, backbone.words.compute_dtype)))
        return x if backbone.projection is None else self._dense(x, backbone.projection)

    def layer(self, layer: TransformerLayer, x: tf.Tensor, *, first_only: bool) -> tf.Tensor:
        """`(tokens, dim)` to `(tokens, dim)`, or to `(n, dim)` if `first_only`."""
        attended = self._attention(layer, x, first_only=first_only)
        residual = self._slots.first(x) if first_only else x
        x = self._norm(layer.attention_norm, self._drop(attended) + residual)
        inner = self._activation(layer.intermediate.activation, self._dense(x, layer.intermediate))
        outer = self._drop(self._dense(inner, layer.output))
        return self._norm(layer.output_norm, outer + x)

    def _attention(self, layer: TransformerLayer, x: tf.Tensor, *, first_only: bool) -> tf.Tensor:
        """As `layer`."""
        query, key, value = layer.query, layer.key, layer.value
        heads, size = query.kernel.shape[1:]
        slots = self._slots

        def by_head(y: tf.Tensor, length: Any, count: int) -> list[tf.Tensor]:
            y = tf.reshape(y, [slots.rows, length, count, heads, size])
            return tf.unstack(tf.transpose(y, [2, 0, 3, 1, 4]), num=count)

        if first_only:
            (q,) = by_head(self._dense(slots.first(x), query), 1, 1)
            k, v = by_head(slots.unpack(self._dense(x, key, value)), slots.length, 2)
        else:
            q, k, v = by_head(slots.unpack(self._dense(x, query, key, value)), slots.length, 3)
        # Not scaled queries: the gradient would need them kept. In inference scale and bias become part of the product.
        logits = tf.matmul(q, k, transpose_b=True) * tf.cast(size**-0.5, q.dtype)
        weights = self._drop(tf.cast(tf.nn.softmax(tf.cast(logits, tf.float32) + slots.bias), x.dtype))
        attended = tf.reshape(tf.transpose(tf.matmul(weights, v), [0, 2, 1, 3]), [-1, heads * size])
        return self._dense(attended if first_only else slots.pack(attended), layer.attention_output)

    def _dense(self, x: tf.Tensor, *layers: Any) -> tf.Tensor:
        """The concatenated outputs of dense layers: `(tokens, inputs)` to `(tokens, outputs)`."""

        def weights() -> list[tf.Tensor]:
            kernels, biases = [_kernel(layer) for layer in layers], [_bias(layer) for layer in layers]
            return [kernels[0], biases[0]] if len(layers) == 1 else [tf.concat(kernels, 1), tf.concat(biases, 0)]

        kernel, bias = self._weights(layers, weights)
        return tf.nn.bias_add(tf.matmul(x, kernel), bias)

    def _norm(self, layer: Any, x: tf.Tensor) -> tf.Tensor:
        # In 32 bits, as keras does: 16 are too few for a variance.
        gamma, beta = self._weights([layer], lambda: [tf.cast(w, tf.float32) for w in (layer.gamma, layer.beta)])
        return tf.cast(layer_norm(tf.cast(x, tf.float32), gamma, beta, layer.epsilon), x.dtype)

    def _activation(self, activation: Callable, x: tf.Tensor) -> tf.Tensor:
        # In inference TensorFlow recognises keras' formula and makes it a part of the matrix product.
        tanh = getattr(activation, "__name__", "") == "gelu_approximate"
        return gelu_tanh(x) if tanh and self._training else activation(x)

    def _weights(self, layers: Sequence[Any], weights: Callable[[], list[tf.Tensor]]) -> list[tf.Tensor]:
        """What a function makes of these layers' weights, now or when the snapshot was taken."""
        if self._snapshot is None:
            return weights()
        return self._snapshot.take("+".join(layer.path for layer in layers), weights)


def _kernel(layer: Any) -> tf.Tensor:
    """`(inputs, outputs)`. Attention's kernels keep the heads apart, in their outputs or (at its end) their inputs."""
    kernel = tf.cast(layer.kernel, layer.compute_dtype)
    return kernel if len(kernel.shape) == 2 else tf.reshape(kernel, [-1, math.prod(layer.bias.shape)])


def _bias(layer: Any) -> tf.Tensor:
    return tf.reshape(tf.cast(layer.bias, layer.compute_dtype), [-1])
