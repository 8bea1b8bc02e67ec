"""Imports TensorFlow without the lines by which it opens every program, and with every line that says something.

TensorFlow's C++ side writes to file descriptor 2 before any setting of its own can stop it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

# News of level INFO, the line that announces such lines, that CUDA cannot start where no NVIDIA driver is (303), and
# that oneDNN leaves some whole numbers to Eigen.
_NO_NEWS = (
    r"I\d{4} |WARNING: All log messages before absl::InitializeLog|E\d{4} .*(failed call to cuInit.*\(303\)"
    r"|oneDNN supports DT_INT64 only)"
)
_FILTER = """
import re, sys
no_news = re.compile(sys.argv[1].encode())
for line in sys.stdin.buffer:
    if not no_news.match(line):
        sys.stderr.buffer.write(line)
        sys.stderr.flush()
"""


def import_tensorflow(*, onednn: bool = True, keras: bool = True) -> None:
    """Imports TensorFlow. Whatever needs it goes through here first.

    `TF_CPP_MIN_LOG_LEVEL` is 2 (errors) unless it is set already; with 0 (everything) nothing is left out.

    Args:
        onednn: Use oneDNN on every x86 processor, unless `TF_ENABLE_ONEDNN_OPTS` says otherwise. TensorFlow leaves it
            out where there is no AVX-512, and is faster so with a single text; but a training step takes two thirds of
            the time with it there too (benchmarks/LOG.md). Without effect where TensorFlow is imported already.
        keras: Let TensorFlow import Keras, to register optimizers that models on disk may hold. Those of this package
            hold none, and Keras is a tenth of the time of the import. It can be imported as ever afterwards.
    """
    if onednn and platform.machine() in ("x86_64", "AMD64"):
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    with contextlib.nullcontext() if keras or "tensorflow" in sys.modules else hidden("keras.src.optimizers"):
        _import_quietly()


@contextlib.contextmanager
def hidden(*names: str) -> Iterator[None]:
    """Meanwhile these modules cannot be imported, unless they are already; afterwards as ever."""
    added = [name for name in names if name not in sys.modules]
    modules: dict[str, Any] = sys.modules
    # None turns an import into an ImportError, for which those that do without are prepared.
    modules.update(dict.fromkeys(added))
    try:
        yield
    finally:
        for name in added:
            del modules[name]


@functools.cache
def _import_quietly() -> None:
    everything = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2") == "0"
    with contextlib.nullcontext() if everything else _without_no_news(), _without_collector():
        import tensorflow as tf

        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            # The first look for GPUs says that there is no driver. It is taken here, where that is left out.
            tf.config.list_physical_devices("GPU")
        if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "1":
            _transpose_whole_numbers(tf)


def _transpose_whole_numbers(tf: Any) -> None:
    """What oneDNN says once, of the first whole numbers that it is to transpose, it says here, where it is left out.

    In a session of its own, since devices may be configured as long as nothing was computed outside of one.
    """
    with tf.Graph().as_default() as graph:
        numbers = tf.compat.v1.placeholder(tf.int64, [2, 1])
        transposed = tf.transpose(numbers)
    config = tf.compat.v1.ConfigProto(device_count={"GPU": 0}, use_per_session_threads=True)
    with tf.compat.v1.Session(graph=graph, config=config) as session:
        session.run(transposed, {numbers: [[1], [2]]})


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Looking for garbage among the objects that an import makes is a sixth of its time, and finds none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextlib.contextmanager
def _without_no_news() -> Iterator[None]:
    """What is written to file descriptor 2 passes through a process that leaves out `_NO_NEWS`.

    A process, not a thread: it passes on the last words of an import that kills this process.
    """
    try:
        stderr = os.dup(2)
    except OSError:  # there is none to write to
        yield
        return
    read_end, write_end = os.pipe()
    command = [sys.executable, "-I", "-S", "-c", _FILTER, _NO_NEWS]
    try:
        # A session of its own: Ctrl-C is not meant for it.
        process = subprocess.Popen(command, stdin=read_end, stdout=subprocess.DEVNULL, start_new_session=True)
    except (OSError, TypeError):  # no interpreter to start, as where Python is embedded
        process = None
    else:
        os.dup2(write_end, 2)
    os.close(read_end)
    os.close(write_end)
    try:
        yield
    finally:
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)
        if process is not None:
            # It ends when the last writer has closed the pipe, which a child of the import may hold open.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)
