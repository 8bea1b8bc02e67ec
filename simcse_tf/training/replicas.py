"""Replicas: choosing a tf.distribute strategy, and making N replicas compute what one would with the whole batch.

The one place that knows replicas exist. The mathematics: each replica compares its own anchors with candidates gathered
from all replicas and sums its losses divided by the global batch; gradients are summed. `all_gather` has the gradient
that this needs (sum over replicas, then the own rows).
"""

from __future__ import annotations

import tensorflow as tf


def choose_strategy() -> tf.distribute.Strategy:
    """The strategy for this machine: TPU, several GPUs, or one device."""
    if tf.config.list_logical_devices("TPU"):
        return tf.distribute.TPUStrategy()
    gpus = tf.config.list_logical_devices("GPU")
    if len(gpus) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def count() -> int:
    """How many replicas there are, in replica context."""
    return tf.distribute.get_replica_context().num_replicas_in_sync


def gather(x: tf.Tensor) -> tf.Tensor:
    """Rows of all replicas, in the order of the replicas: `(n, ...)` to `(replicas * n, ...)`; differentiable."""
    if count() == 1:
        return x
    gathered = tf.distribute.get_replica_context().all_gather(x, axis=0)
    # all_gather forgets what is known of the shape.
    return tf.ensure_shape(gathered, [None, *x.shape[1:]])


def first_row(rows: tf.Tensor | int) -> tf.Tensor | int:
    """Where this replica's rows begin among the gathered ones, given that every replica has as many."""
    context = tf.distribute.get_replica_context()
    return 0 if context.num_replicas_in_sync == 1 else context.replica_id_in_sync_group * rows


def total(x: tf.Tensor) -> tf.Tensor:
    """The sum of a tensor over all replicas, known to each of them."""
    return x if count() == 1 else tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, x)


def shared_gradients(gradients: list[tf.Tensor]) -> list[tf.Tensor]:
    """Gradients of the whole batch, divided by the number of replicas.

    A Keras optimizer clips before it sums over replicas, so that clipping would depend on how a batch is cut. Handing
    every replica the sum divided by their number makes the optimizer's own sum give the sum; `clip_norm` below is its
    counterpart.

    Args:
        gradients: This replica's, dense.
    """
    if count() == 1:
        return gradients
    context = tf.distribute.get_replica_context()
    return [g / count() for g in context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)]


def clip_norm(norm: float, strategy: tf.distribute.Strategy) -> float:
    """The `global_clipnorm` for an optimizer whose gradients come from `shared_gradients`."""
    return norm / strategy.num_replicas_in_sync
