"""How the machine's devices are used where the configuration says `auto`: 16-bit arithmetic, XLA, steps per call."""

from __future__ import annotations

import math

import tensorflow as tf

from simcse_tf.config import TrainConfig
from simcse_tf.training import replicas

# NVIDIA GPUs multiply bfloat16 in hardware from this compute capability on (Ampere).
_BFLOAT16 = (8, 0)
# Most steps that an accelerator takes in one call from Python.
_MOST_STEPS = 32


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
