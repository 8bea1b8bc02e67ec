"""The report's pictures: numbers in, SVG text out. Each is one small panel, so that a phone can stack them.

Colours are CSS variables of the page (`simcse_tf.report.page`), so that one picture serves light and dark.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Matplotlib draws in these; the SVG then says var(--NAME) instead.
_NAMES = ("ink", "grid", "paper", "before", "after", "third", *(f"cluster{i}" for i in range(6)))
_COLOUR = {name: f"#0102{i:02x}" for i, name in enumerate(_NAMES, 16)}

_STYLE = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "figure.constrained_layout.use": True,
    **{f"{part}.color": _COLOUR["ink"] for part in ("text", "xtick", "ytick")},
    **{f"axes.{part}color": _COLOUR["ink"] for part in ("edge", "label", "title")},
    "grid.color": _COLOUR["grid"],
}


def loss(steps: Sequence[int], losses: Sequence[float]) -> str:
    """The training loss over steps, and its moving average."""

    def draw(axes: Axes) -> None:
        window = max(len(losses) // 25, 1)
        smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
        axes.plot(steps[window - 1 :], smooth, color=_COLOUR["after"], label=f"mean of {window}")
        if window > 1:
            axes.plot(steps, losses, color=_COLOUR["after"], alpha=0.35, linewidth=0.8, label="loss")
            axes.legend()
        axes.set(xlabel="step", ylabel="training loss")

    return _svg("Training loss over steps", draw)


def development(evaluations: Sequence[dict[str, float]], best_step: int, name: str, label: str) -> str:
    """The figure that selects over steps: as exported, and with or without the head where that differs."""

    def draw(axes: Axes) -> None:
        keys = ("dev", "dev_with_head", "dev_without_head")
        scores = {key: [e[key] for e in evaluations if key in e] for key in keys}
        steps = [e["step"] for e in evaluations]
        # One of the two others is what is exported.
        others = {key: line for key, line in scores.items() if key != "dev" and line and line != scores["dev"]}
        axes.plot(steps, scores["dev"], "o-", color=_COLOUR["after"], markersize=3, label="as exported")
        for key, line in others.items():
            other = key.removeprefix("dev_").replace("_", " ")
            axes.plot(steps, line, "o--", color=_COLOUR["third"], markersize=3, label=other)
        best = max(e["dev"] for e in evaluations)
        axes.plot(best_step, best, "o", markersize=9, fillstyle="none", color=_COLOUR["ink"], label="best")
        axes.set(xlabel="step", ylabel=f"{name}, {label}")
        axes.legend()

    return _svg(f"{label} on {name} over steps", draw)


def similarity(gold: Sequence[float], cosines: Sequence[float], when: str, low: float) -> str:
    """Cosine similarity of every pair against its grade, and the mean of each grade.

    Args:
        gold: Grades, 0 to 5.
        cosines: Of the same pairs.
        when: `before` or `after`; title and colour.
        low: Where the cosine axis begins, the same before and after.
    """

    def draw(axes: Axes) -> None:
        axes.plot(gold, cosines, "o", markersize=3, alpha=0.35, markeredgewidth=0, color=_COLOUR[when])
        nearest = np.rint(gold)
        grades = np.unique(nearest)
        means = [np.mean(np.asarray(cosines)[nearest == grade]) for grade in grades]
        axes.plot(grades, means, "o-", color=_COLOUR["ink"], markersize=4, label="mean of a grade")
        axes.set(title=when, xlabel="human grade", ylabel="cosine similarity", ylim=(low, 1.03))
        axes.legend(loc="lower right")

    return _svg(f"Cosine similarity against grade, {when}", draw)


def random_pairs(edges: Sequence[float], before: Sequence[int], after: Sequence[int]) -> str:
    """How the cosines of random sentence pairs are distributed, before and after."""

    def draw(axes: Axes) -> None:
        for when, counts in (("before", before), ("after", after)):
            share = np.asarray(counts) / max(sum(counts), 1)
            axes.stairs(share, edges, color=_COLOUR[when], fill=True, alpha=0.25)
            axes.stairs(share, edges, color=_COLOUR[when], linewidth=1.5, label=when)
        axes.set(xlabel="cosine similarity of two random sentences", ylabel="share of pairs")
        axes.legend()

    return _svg("Cosine similarity of random pairs, before and after", draw)


def plane(path: Sequence[tuple[int, float, float]], before: tuple[float, float], after: tuple[float, float]) -> str:
    """Alignment against uniformity; both are better lower, so bottom left is best.

    Args:
        path: Step, uniformity and alignment at each evaluation; may be empty.
        before: Uniformity and alignment of the encoder that training began with.
        after: Of the one that was kept.
    """

    def draw(axes: Axes) -> None:
        line = [(x, y) for _, x, y in path] or [before, after]
        axes.plot(*zip(*line, strict=True), "o-", color=_COLOUR["ink"], alpha=0.5, linewidth=1, markersize=3)
        for when, point in (("before", before), ("after", after)):
            axes.plot(*point, "o", color=_COLOUR[when], markersize=8, label=f"{when}{' (kept)' * (when == 'after')}")
        for step, x, y in _few(path):
            axes.annotate(f"{step}", (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7)
        axes.margins(0.15)
        axes.set(xlabel="uniformity (lower is better)", ylabel="alignment (lower is better)")
        axes.legend()

    return _svg("Alignment and uniformity over the course of training", draw)


def clusters(points: np.ndarray, cluster: np.ndarray, when: str, limits: np.ndarray) -> str:
    """Sentences in the plane, coloured and numbered by cluster.

    Args:
        points: `(n, 2)`.
        cluster: `(n,)` int below 6.
        when: `before` or `after`.
        limits: `(2, 2)`, the lowest and the highest corner of what is shown, the same before and after.
    """

    def draw(axes: Axes) -> None:
        for i in np.unique(cluster):
            own = points[cluster == i]
            axes.plot(*own.T, "o", markersize=3.5, markeredgewidth=0, alpha=0.7, color=_COLOUR[f"cluster{i}"])
        for i in np.unique(cluster):
            x, y = np.median(points[cluster == i], axis=0)
            axes.text(
                x,
                y,
                str(i + 1),
                ha="center",
                va="center",
                fontweight="bold",
                color=_COLOUR[f"cluster{i}"],
                bbox={"boxstyle": "circle", "facecolor": _COLOUR["paper"], "edgecolor": _COLOUR[f"cluster{i}"]},
            )
        axes.set(title=when, xlim=limits[:, 0], ylim=limits[:, 1], xlabel="component 1", ylabel="component 2")
        axes.set_aspect("equal")

    return _svg(f"Sentences of the development set in two dimensions, {when}", draw, height=3.6)


def _few(path: Sequence[tuple[int, float, float]], most: int = 6) -> list[tuple[int, float, float]]:
    """At most so many entries, evenly spread, the first and the last among them."""
    at = np.unique(np.linspace(0, len(path) - 1, min(most, len(path))).astype(int)) if path else []
    return [path[i] for i in at]


def _svg(description: str, draw: Callable[[Any], None], *, height: float = 3.0) -> str:
    """Draws one panel, 4 inches wide, with a text alternative."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": description}):
        figure = Figure(figsize=(4.0, height))
        draw(figure.subplots())
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    for name, colour in _COLOUR.items():
        svg = svg.replace(colour, f"var(--{name})")
    svg = re.sub(r"font-family: [^;]+; ", "", svg)
    # Group names repeat from picture to picture; what is referred to has a name made of the salt.
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)
    # In points, without a size of its own: the page decides.
    opening = f'<svg role="img" aria-label="{html.escape(description)}" viewBox="0 0 288 {72 * height:g}">'
    return re.sub(r"^.*?<svg .*?>", opening, svg, count=1, flags=re.DOTALL)
