"""Large batches in the memory of small ones: GradCache.

The loss compares every anchor with the whole batch, but it reads vectors only, and those are small. So a batch is
encoded chunk by chunk without keeping what backpropagation needs, the loss is differentiated with respect to the
vectors, and every chunk is then encoded once more, under the same dropout masks, to carry those gradients to the
weights. The gradients are the plain step's; the price is a second forward pass.

Source: Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

Inputs = dict[str, tf.Tensor]


def encode(
    encoder: Callable[[Inputs], tf.Tensor], batch: Inputs, chunk_size: int, seeds: Sequence[keras.Variable]
) -> tuple[tf.Tensor, Callable[[tf.Tensor, list[keras.Variable]], list[tf.Tensor]]]:
    """Encodes a batch chunk by chunk, outside any gradient tape.

    Args:
        encoder: `(chunk_size, ...)` tensors to `(chunk_size, views, dim)` float32.
        batch: Tensors `(batch, ...)`.
        chunk_size: Rows per chunk; divides the batch.
        seeds: The states that decide the encoder's dropout masks; nothing else in it may be random.

    Returns:
        The vectors `(batch, views, dim)`, and a function of the loss's gradients with respect to them (same shape) and
        of the variables, which gives the loss's gradients with respect to the variables: dense, in their order. Call
        it once, before anything else moves the seeds.

    Raises:
        ValueError: The chunks do not divide the batch.
    """
    chunks = {name: _cut(x, chunk_size) for name, x in batch.items()}
    start = [tf.identity(seed.value) for seed in seeds]
    # One chunk at a time: chunks side by side would need the memory of as many, and take each other's masks.
    vectors = tf.map_fn(encoder, chunks, fn_output_signature=tf.float32, parallel_iterations=1)
    vectors = tf.reshape(vectors, [-1, *vectors.shape[2:]])

    def backpropagate(vector_gradients: tf.Tensor, variables: list[keras.Variable]) -> list[tf.Tensor]:
        def add_chunk(sums: list[tf.Tensor], chunk: tuple[Inputs, tf.Tensor]) -> list[tf.Tensor]:
            inputs, output_gradients = chunk
            with tf.GradientTape() as tape:
                outputs = encoder(inputs)
            gradients = tape.gradient([outputs], variables, [output_gradients])
            return [_add(total, gradient) for total, gradient in zip(sums, gradients, strict=True)]

        # The same chunks in the same order draw the same masks, and leave the seeds where the first pass did.
        for seed, value in zip(seeds, start, strict=True):
            seed.assign(value)
        zeros = [tf.zeros(v.shape, v.dtype) for v in variables]
        elements = (chunks, _cut(vector_gradients, chunk_size))
        return tf.foldl(add_chunk, elements, initializer=zeros, parallel_iterations=1)

    return vectors, backpropagate


def _cut(x: tf.Tensor, chunk_size: int) -> tf.Tensor:
    """`(batch, ...)` to `(chunks, chunk_size, ...)`."""
    rows = x.shape[0]
    if rows is not None and rows % chunk_size:
        raise ValueError(
            f"chunks of {chunk_size} rows do not divide a batch of {rows} (with several replicas, each one's share)"
        )
    return tf.reshape(x, [-1, chunk_size, *x.shape[1:]])


def _add(total: tf.Tensor, gradient: tf.Tensor | tf.IndexedSlices) -> tf.Tensor:
    if isinstance(gradient, tf.IndexedSlices):
        # In place: an embedding table's gradient made dense would be a second table in memory for every chunk.
        return tf.tensor_scatter_nd_add(total, gradient.indices[:, tf.newaxis], gradient.values)
    return total + gradient
