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
_NAMES = ("ink", "grid", "before", "after", "third", "better", "worse")
_COLOUR = {name: f"#0102{i:02x}" for i, name in enumerate(_NAMES, 16)}

# Of a headline, which an axis shows at least.
_FEWEST_POINTS = 2.0

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


def changes(sets: Sequence[dict[str, Any]]) -> str:
    """The change of every set's headline with its 95 % interval; 0 is a line.

    Args:
        sets: As `changes` in `report.json`.
    """

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=_COLOUR["ink"], linewidth=1)
        for y, each in enumerate(sets):
            low, high = each["interval"] or (0, 0)
            colour = _COLOUR["better" if low > 0 else "worse" if high < 0 else "third"]
            change = each["after"] - each["before"]
            if each["interval"] is not None:
                axes.plot([low, high], [y, y], color=colour, linewidth=3, alpha=0.6, solid_capstyle="butt")
            axes.plot(change, y, "o", color=colour, markersize=6)
        labels = [f"{each['name']}\n{each['label'].removesuffix(' x 100')}" for each in sets]
        axes.set_yticks(range(len(sets)), labels)
        axes.set(xlabel="change in points, 95 % interval", ylim=(len(sets) - 0.5, -0.5))
        axes.grid(visible=False, axis="y")

    return _svg("Change of every set, with its interval", draw, height=0.9 + 0.45 * len(sets))


def over_steps(
    name: str, label: str, lines: dict[str, list[tuple[float, float]]], best_step: int, kept: float | None
) -> str:
    """The headline of a development set over steps.

    Args:
        name: The set's.
        label: The headline's.
        lines: Steps and values; the first line is the exported encoder's.
        best_step: The step whose encoder was kept, or mixed.
        kept: The mix's value, if that is what was kept.
    """

    def draw(axes: Axes) -> None:
        styles = [("o-", "after"), ("o--", "third"), ("o:", "third")]
        for (other, line), (style, colour) in zip(lines.items(), styles, strict=False):
            axes.plot(*zip(*line, strict=True), style, color=_COLOUR[colour], markersize=3, label=other)
        own = next(iter(lines.values()))
        axes.axhline(own[0][1], color=_COLOUR["before"], linewidth=1, linestyle="--", label="before")
        best = dict(own)[best_step]
        ring = "best step" if kept is not None else "kept"
        axes.plot(best_step, best, "o", markersize=9, fillstyle="none", color=_COLOUR["ink"], label=ring)
        if kept is not None:
            axes.plot(best_step, kept, "D", markersize=6, color=_COLOUR["ink"], label="kept: its mix")
        axes.set(xlabel="step", ylabel=f"{name}, {label.removesuffix(' x 100')}")
        _widen(axes.yaxis)
        axes.legend()

    return _svg(f"{label} on {name} over steps", draw)


def trade(
    axes_of: tuple[str, str], path: Sequence[tuple[float, float, float]], mixes: Sequence[tuple[float, float, float]]
) -> str:
    """Two development sets against each other, over the steps and over the mixes; top right is best.

    Args:
        axes_of: What stands on the horizontal and on the vertical axis.
        path: Step and the two values at each evaluation.
        mixes: Share of the starting weights and the two values; may be empty.
    """

    def draw(axes: Axes) -> None:
        for points, style, colour, label in ((path, "o-", "after", "steps"), (mixes, "D--", "third", "share kept")):
            if points:
                x, y = [point[1] for point in points], [point[2] for point in points]
                axes.plot(x, y, style, color=_COLOUR[colour], linewidth=1, markersize=4, label=label)
        axes.plot(*path[0][1:], "o", color=_COLOUR["before"], markersize=8, label="before")
        # The ends of the mixes are on the path.
        for at, x, y in (*_few(path), *mixes[1:-1]):
            axes.annotate(f"{at:g}", (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7)
        axes.margins(0.15)
        axes.set(xlabel=axes_of[0], ylabel=axes_of[1])
        _widen(axes.xaxis)
        _widen(axes.yaxis)
        axes.legend()

    return _svg(f"{axes_of[1]} against {axes_of[0]}", draw)


def mixes(lines: dict[str, list[tuple[float, float]]], chosen: float) -> str:
    """How far each development set is above its start, over the share of the starting weights that is kept.

    Args:
        lines: Shares and values of each set, the one that selects first.
        chosen: The share that was chosen.
    """

    def draw(axes: Axes) -> None:
        axes.axhline(0, color=_COLOUR["before"], linewidth=1, linestyle="--")
        axes.axvline(chosen, color=_COLOUR["ink"], linewidth=1, linestyle=":")
        styles = [("o-", "after"), ("s-", "third"), ("^-", "third"), ("v-", "third")]
        for i, (name, line) in enumerate(lines.items()):
            style, colour = styles[min(i, len(styles) - 1)]
            shares, values = zip(*line, strict=True)
            changes = np.asarray(values) - values[-1]
            axes.plot(shares, changes, style, color=_COLOUR[colour], markersize=4, label=name)
        axes.set(xlabel="share of the starting weights (dotted: chosen)", ylabel="points above the start")
        axes.legend()

    return _svg("Development sets over the share of the starting weights", draw)


def cosines(edges: Sequence[float], close: Sequence[int], random: Sequence[int], when: str) -> str:
    """How the cosines of pairs that should be close and of random pairs are distributed.

    Args:
        edges: Of the bins, the same before and after.
        close: How many of the pairs are in each bin.
        random: The same of the random ones.
        when: `before` or `after`; title and colour.
    """

    def draw(axes: Axes) -> None:
        for counts, colour, label in ((random, "third", "random pairs"), (close, when, "pairs that belong together")):
            share = np.asarray(counts) / max(sum(counts), 1)
            axes.stairs(share, edges, color=_COLOUR[colour], fill=True, alpha=0.3)
            axes.stairs(share, edges, color=_COLOUR[colour], linewidth=1.5, label=label)
        axes.set(title=when, xlabel="cosine similarity", ylabel="share of pairs")
        axes.legend()

    return _svg(f"Cosine similarity of pairs that belong together and of random pairs, {when}", draw)


def plane(path: Sequence[tuple[float, float, float]], before: tuple[float, float], after: tuple[float, float]) -> str:
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


def _widen(axis: Any) -> None:
    """Shows at least two points: another seed moves a headline by one, and less must not look like a climb."""
    low, high = axis.get_view_interval()
    if high - low < _FEWEST_POINTS:
        middle = (low + high) / 2
        axis.axes.set(**{f"{axis.axis_name}lim": (middle - _FEWEST_POINTS / 2, middle + _FEWEST_POINTS / 2)})


def _few(path: Sequence[tuple[float, float, float]], most: int = 6) -> list[tuple[float, float, float]]:
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
