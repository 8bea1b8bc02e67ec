"""Where figures come from: the time, the machine, the version."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import tensorflow as tf

import simcse_tf


def of_this_process() -> dict[str, Any]:
    """What is to be known of a process that makes figures, ready for JSON: `date`, `machine` and `program`."""
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": _machine(),
        "program": _program(),
    }


def _machine() -> str:
    """The accelerators, the processor, and how many of its cores this process may use."""
    usable = getattr(os, "sched_getaffinity", None)
    cores = len(usable(0)) if usable else os.cpu_count() or 1
    parts = [_processor() or platform.machine(), f"{cores} core{'s' * (cores > 1)}"]
    for device in tf.config.list_physical_devices("GPU"):
        parts.insert(0, tf.config.experimental.get_device_details(device).get("device_name", "GPU"))
    if tf.config.list_physical_devices("TPU"):
        parts.insert(0, "TPU")
    return ", ".join(parts)


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return " ".join(found[1].split()) if found else platform.processor()


def _program() -> str:
    """The version, and the commit where the package runs from a checkout."""
    version = f"simcse_tf {simcse_tf.__version__}"
    root = Path(simcse_tf.__file__).resolve().parents[1]
    # A package that is installed inside somebody's checkout is not of that repository.
    if not (root / ".git").exists():
        return version
    git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(git, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return version
    return f"{version}, commit {done.stdout.strip()}"
