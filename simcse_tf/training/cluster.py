"""The workers of a run, as TF_CONFIG names them. Without TensorFlow, so that a bad TF_CONFIG is found at once."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from simcse_tf.config import Strategy
from simcse_tf.errors import UserError

_EXAMPLE = (
    """TF_CONFIG='{"cluster": {"worker": ["host0:12345", "host1:12345"]}, "task": {"type": "worker", "index": 0}}', """
    "the same on every worker except for the index, which counts from 0 (docs/distributed.md)"
)


@dataclass(frozen=True)
class Cluster:
    """This process's place among the workers of a run.

    Attributes:
        workers: Every worker's `host:port`, the chief first.
        index: Which of them this process is.
    """

    workers: tuple[str, ...] = ("localhost",)
    index: int = 0

    @property
    def is_chief(self) -> bool:
        """Whether this process writes and evaluates; a process on its own does."""
        return self.index == 0

    @property
    def name(self) -> str:
        """For messages."""
        return f"worker {self.index} of {len(self.workers)} ({self.workers[self.index]})"


def of_this_process(strategy: Strategy) -> Cluster:
    """The cluster that this process belongs to: one worker, unless TF_CONFIG names more.

    Args:
        strategy: The run's, which must agree with TF_CONFIG.

    Raises:
        UserError: TF_CONFIG cannot be understood, `multiworker` has no other workers, or another strategy has.
    """
    text = os.environ.get("TF_CONFIG", "").strip()
    cluster = _parse(text) if text else Cluster()
    if strategy == "multiworker" and len(cluster.workers) == 1:
        found = "names one worker" if text else "is not set"
        raise UserError(f"`strategy` multiworker: TF_CONFIG {found}. Expected at least two workers: {_EXAMPLE}.")
    if strategy not in ("auto", "multiworker") and len(cluster.workers) > 1:
        raise UserError(
            f"`strategy` {strategy}: TF_CONFIG names {len(cluster.workers)} workers, which would all do the same. Use "
            "`strategy` multiworker, or unset TF_CONFIG."
        )
    return cluster


def _parse(text: str) -> Cluster:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as e:
        raise _wrong(f"not JSON ({e.msg} at position {e.pos + 1})") from None
    cluster = _mapping(_mapping(value, "it").get("cluster", {}), "'cluster'")
    unknown = sorted(cluster.keys() - {"chief", "worker"})
    if unknown:
        raise _wrong(f"the cluster has '{unknown[0]}', expected only 'worker' (and perhaps one 'chief')")
    chiefs, workers = (_addresses(cluster.get(kind, []), kind) for kind in ("chief", "worker"))
    if len(chiefs) > 1:
        raise _wrong(f"{len(chiefs)} chiefs, expected at most one")
    addresses = (*chiefs, *workers)
    if not addresses:
        # Some job schedulers set this where there is only one machine.
        return Cluster()
    if len(set(addresses)) < len(addresses):
        raise _wrong("two workers have the same address")
    task = _mapping(value.get("task", {}), "'task'")
    kind, index = task.get("type"), task.get("index")
    own = {"chief": chiefs, "worker": workers}.get(kind, ()) if isinstance(kind, str) else ()
    if not own:
        raise _wrong(f"the task's type is {json.dumps(kind)}, expected one of those in the cluster")
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(own):
        raise _wrong(f"the task's index is {json.dumps(index)}, expected a number from 0 to {len(own) - 1}")
    return Cluster(addresses, index + (len(chiefs) if kind == "worker" else 0))


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(f"{what} is not an object")
    return value


def _addresses(value: Any, kind: str) -> tuple[str, ...]:
    def valid(address: Any) -> bool:
        return isinstance(address, str) and address.rpartition(":")[0] != "" and address.rpartition(":")[2].isdigit()

    if not isinstance(value, list) or not all(map(valid, value)):
        raise _wrong(f"'{kind}' is {json.dumps(value)}, expected a list of \"host:port\"")
    return tuple(value)


def _wrong(problem: str) -> UserError:
    return UserError(f"TF_CONFIG: {problem}. Expected {_EXAMPLE}. Or unset it, to train on this machine alone.")
