"""How the machine is used: memory between steps, and what `auto` in the configuration means."""

from __future__ import annotations

import ctypes
import functools
import math

import tensorflow as tf

from simcse_tf.config import TrainConfig
from simcse_tf.training import replicas

# NVIDIA GPUs multiply bfloat16 in hardware from this compute capability on (Ampere).
_BFLOAT16 = (8, 0)
# Most steps that an accelerator takes in one call from Python.
_MOST_STEPS = 32


# mallopt's numbers in glibc's malloc.h, and what they are set to: blocks up to 32 MiB, the most that glibc allows, come
# from the heap, whose end is given back when 128 MiB are free there.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_TRIM_THRESHOLD, _MMAP_THRESHOLD = 128 * 2**20, 32 * 2**20


@functools.cache
def keep_freed_memory() -> None:
    """Keeps the memory of one step for the next.

    TensorFlow's generator data set, when the first one starts, tells malloc to give back all but 128 KiB; with that,
    malloc also stops learning which sizes come again. From then on the tensors of every step are new pages of the
    system, zeroed one by one: a quarter to a half of a step's time on a CPU (benchmarks/LOG.md). Nothing happens where
    there is no glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    # The first generator data set: later ones leave what is set here.
    nothing = tf.data.Dataset.from_generator(lambda: [0], output_signature=tf.TensorSpec([], tf.int32))
    for _ in nothing:
        pass
    mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)
    mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)


def precision(config: TrainConfig, strategy: tf.distribute.Strategy) -> str:
    """`off`, `bfloat16` or `float16`. By default bfloat16 on TPUs and on GPUs that have it, else off."""
    if config.mixed_precision != "auto":
        return config.mixed_precision
    details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    capable = bool(details) and all(one.get("compute_capability", (0, 0)) >= _BFLOAT16 for one in details)
    return "bfloat16" if capable or replicas.on_tpu(strategy) else "off"


def use_xla(config: TrainConfig, strategy: tf.distribute.Strategy) -> bool:
    """By default on one GPU: on CPU a step is no faster, and XLA cannot compile a step across replicas."""
    if config.jit_compile == "auto":
        return strategy.num_replicas_in_sync == 1 and bool(tf.config.list_physical_devices("GPU"))
    return config.jit_compile == "on"


def steps_per_execution(config: TrainConfig, strategy: tf.distribute.Strategy, start: int, steps: int) -> int:
    """How many steps run in one call from Python, which takes an accelerator as long as computing a small step.

    On CPU it is 1. The number divides all intervals after which something has to happen: evaluations, saving, the end.

    Args:
        config: The run.
        strategy: Where it runs.
        start: Steps taken before.
        steps: The last step.
    """
    if not (tf.config.list_physical_devices("GPU") or replicas.on_tpu(strategy)):
        return 1
    common = math.gcd(start, steps, config.eval_every, config.save_every or 0)
    return max(n for n in range(1, _MOST_STEPS + 1) if common % n == 0)
