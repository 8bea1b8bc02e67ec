"""Replicas: choosing a tf.distribute strategy, and making N replicas compute what one would with the whole batch.

The one place that knows replicas exist. The mathematics: each replica compares its own anchors with candidates gathered
from all replicas and sums its losses divided by the global batch; gradients are summed. `all_gather` has the gradient
that this needs (sum over replicas, then the own rows).
"""

from __future__ import annotations

import contextlib
import signal
import sys

import keras
import numpy as np
import tensorflow as tf

from simcse_tf.config import Strategy
from simcse_tf.errors import UserError
from simcse_tf.training.cluster import Cluster


def choose_strategy(name: Strategy = "auto", cluster: Cluster | None = None) -> tf.distribute.Strategy:
    """The strategy of that name. Call it before any other use of TensorFlow: several workers must connect first.

    Args:
        name: `auto` is TPU if there is one, multiworker if there are several workers, mirrored if there are several
            GPUs, else one.
        cluster: The workers; one if not given.

    Raises:
        UserError: There is no TPU for `tpu`, or this worker cannot listen at its address.
    """
    tpus, gpus = (tf.config.list_physical_devices(kind) for kind in ("TPU", "GPU"))
    if name == "tpu" and not tpus:
        raise UserError("`strategy` tpu: TensorFlow finds no TPU here. Omit it to use the devices that are there.")
    if name == "tpu" or (name == "auto" and tpus):
        return tf.distribute.TPUStrategy(tf.distribute.cluster_resolver.TPUClusterResolver.connect("local"))
    if name == "multiworker" or (name == "auto" and cluster is not None and len(cluster.workers) > 1):
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except tf.errors.UnknownError as e:
            raise UserError(f"{cluster.name if cluster else 'worker'}: {e.message}. Is its port in use?") from e
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        # Without GPUs: every logical CPU, of which there is one unless a program has made more.
        devices = tf.config.list_logical_devices("GPU" if gpus else "CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    if gpus:
        # As without a strategy, and batches are copied to the GPU ahead of their step.
        return tf.distribute.OneDeviceStrategy("/GPU:0")
    return tf.distribute.get_strategy()


def on_tpu(strategy: tf.distribute.Strategy) -> bool:
    """Whether a strategy's replicas are TPUs."""
    return isinstance(strategy, tf.distribute.TPUStrategy)


def check_batch_size(batch_size: int, strategy: tf.distribute.Strategy) -> None:
    """Checks that every replica gets as many rows of a batch.

    Raises:
        UserError: It does not.
    """
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        below = batch_size - batch_size % replicas
        nearest = [str(n) for n in (below, below + replicas) if n > 0]
        raise UserError(
            f"`batch_size` {batch_size}: cannot be shared equally among {replicas} replicas; {' or '.join(nearest)} "
            "can."
        )


class Model(keras.Model):
    """A Keras model, built by its constructor, whose `fit` works under MultiWorkerMirroredStrategy too."""

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Under a strategy Keras takes a first batch, averages it over the replicas and builds the model with it.
        # Between workers that average of token ids fails in the collective, and nothing is left to build anyway.
        del iterator, data_batch

    def _make_function(self, step_function):
        # Between workers Keras averages the logs with `reduce("MEAN", log, axis=0)`, which takes no scalar.
        def vector_logs(data):
            return {name: tf.reshape(value, [1]) for name, value in step_function(data).items()}

        several = isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy)
        return super()._make_function(vector_logs if several else step_function)


def distribute(
    batches: tf.data.Dataset, batch_size: int, strategy: tf.distribute.Strategy
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """Hands every replica its rows of each global batch: replica i of N has the i-th of N equal pieces.

    Every worker reads all the text and keeps its own share: reading is cheap beside training, and only so is a global
    batch the same however many workers there are. (Keras would let TensorFlow shard the data by elements or files.)

    Args:
        batches: The same global batches on every worker: dictionaries of `(batch_size, ...)`.
        batch_size: A multiple of the number of replicas.
        strategy: Whose replicas.

    Returns:
        What `fit` takes.
    """
    if strategy.num_replicas_in_sync == 1:
        return batches
    rows = batch_size // strategy.num_replicas_in_sync

    def own_share(context: tf.distribute.InputContext) -> tf.data.Dataset:
        local = context.num_replicas_in_sync // context.num_input_pipelines
        first = context.input_pipeline_id * local * rows

        def cut(batch):
            own = {name: x[first : first + local * rows] for name, x in batch.items()}
            return {name: tf.reshape(x, [local, rows, *x.shape[1:]]) for name, x in own.items()}

        return batches.map(cut).unbatch()

    return strategy.distribute_datasets_from_function(own_share)


class Workers:
    """The workers of a strategy, between steps: each gets the numbers of all.

    Args:
        strategy: Whose workers.
        count: How many there are.
    """

    def __init__(self, strategy: tf.distribute.Strategy, count: int):
        self._count = count

        @tf.function
        def gather(numbers: tf.Tensor) -> tf.Tensor:
            def all_rows(own: tf.Tensor) -> tf.Tensor:
                return tf.distribute.get_replica_context().all_gather(tf.identity(own), axis=0)

            return strategy.experimental_local_results(strategy.run(all_rows, args=(numbers,)))[0]

        self._gather = gather

    def all_gather(self, *numbers: int) -> np.ndarray:
        """Gathers numbers from all workers; all must call it, and it waits until they do.

        Args:
            numbers: As many on every worker.

        Returns:
            `(replicas, len(numbers))` int64, equal on all workers; the chief's first.
        """
        own = np.array([numbers], "int64")
        return own if self._count == 1 else self._gather(tf.constant(own)).numpy()


@contextlib.contextmanager
def rendezvous_timeout(cluster: Cluster, seconds: int = 600):
    """Ends the process if the workers have not connected in time; TensorFlow would wait for an hour.

    Args:
        cluster: The workers; a single one waits for nothing.
        seconds: How far apart they may start.
    """
    if len(cluster.workers) == 1:
        yield
        return
    print(f"{cluster.name}: waiting for the others, at most {seconds} s", file=sys.stderr, flush=True)
    # The signal's default action ends the process: TensorFlow waits in C++, where no Python handler runs.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        # TensorFlow has installed a handler of its own.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class LostError(Exception):
    """Another worker is gone, so that nothing can be summed or gathered any more."""


@contextlib.contextmanager
def noticing_lost_workers():
    """Turns the errors that TensorFlow raises when a worker is gone into a `LostError`."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError) as e:
        reason = next((line for line in e.message.splitlines() if "aborted" in line), e.message.strip().split("\n")[0])
        raise LostError(f"another worker is gone ({reason}).") from None


def count() -> int:
    """How many replicas there are, in replica context."""
    return tf.distribute.get_replica_context().num_replicas_in_sync


def gather(x: tf.Tensor) -> tf.Tensor:
    """Rows of all replicas, in the order of the replicas: `(n, ...)` to `(replicas * n, ...)`; differentiable."""
    if count() == 1:
        return x
    # Between workers TensorFlow asks on which device a tensor is: an argument of a function cannot tell, its copy can.
    gathered = tf.distribute.get_replica_context().all_gather(tf.identity(x), axis=0)
    # all_gather forgets what is known of the shape.
    return tf.ensure_shape(gathered, [None, *x.shape[1:]])


def row_offset(rows: tf.Tensor | int) -> tf.Tensor | int:
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
