"""A handful of figures in Prometheus' text format; they belong to one thread. Standard library only."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metric(Protocol):
    """What `exposition` prints."""

    def lines(self) -> Iterable[str]:
        """Its lines in Prometheus' text format."""
        ...


class Counter:
    """A number that only grows, for each combination of labels.

    Args:
        name: Ends with `_total`.
        about: What it counts.
        labels: Names of the labels.
    """

    def __init__(self, name: str, about: str, labels: Sequence[str] = ()):
        self._name, self._about, self._labels = name, about, labels
        self._values: dict[tuple[str, ...], int] = {} if labels else {(): 0}

    def add(self, amount: int, *labels: str) -> None:
        """Adds to the number with these labels' values."""
        self._values[labels] = self._values.get(labels, 0) + amount

    def lines(self) -> Iterable[str]:
        yield from _head(self._name, self._about, "counter")
        for values, number in self._values.items():
            yield f"{self._name}{_braces(self._labels, values)} {number}"


class Histogram:
    """How often values fell below each of some bounds, for each combination of labels.

    Args:
        name: With the unit.
        about: What is measured.
        bounds: Ascending; infinity is added.
        labels: Names of the labels.
    """

    def __init__(self, name: str, about: str, bounds: Sequence[float], labels: Sequence[str] = ()):
        self._name, self._about, self._bounds, self._labels = name, about, bounds, labels
        # Counts between the bounds, and the sum.
        self._values: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}

    def observe(self, value: float, *labels: str) -> None:
        """Counts a value."""
        if labels not in self._values:
            self._values[labels] = [0] * (len(self._bounds) + 1), [0.0]
        counts, total = self._values[labels]
        counts[bisect_left(self._bounds, value)] += 1
        total[0] += value

    def lines(self) -> Iterable[str]:
        yield from _head(self._name, self._about, "histogram")
        names = (*self._labels, "le")
        for values, (counts, (total,)) in self._values.items():
            below = 0
            for bound, count in zip([*map(str, self._bounds), "+Inf"], counts, strict=True):
                below += count
                yield f"{self._name}_bucket{_braces(names, (*values, bound))} {below}"
            yield f"{self._name}_sum{_braces(self._labels, values)} {total}"
            yield f"{self._name}_count{_braces(self._labels, values)} {below}"


class Gauge:
    """A number as it is when it is asked for."""

    def __init__(self, name: str, about: str, read: Callable[[], float]):
        self._name, self._about, self._read = name, about, read

    def lines(self) -> Iterable[str]:
        yield from _head(self._name, self._about, "gauge")
        yield f"{self._name} {self._read()}"


def exposition(metrics: Iterable[Metric]) -> str:
    """All of them, as Prometheus reads them."""
    return "".join(f"{line}\n" for metric in metrics for line in metric.lines())


def _head(name: str, about: str, kind: str) -> Iterable[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"


def _braces(names: Sequence[str], values: Sequence[str]) -> str:
    return "{" + ",".join(f'{n}="{v}"' for n, v in zip(names, values, strict=True)) + "}" if names else ""
