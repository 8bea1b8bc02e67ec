"""The page's pictures, as HTML and SVG that follow the page's colours. Every text in them is escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from simcse_tf.demo.models import Reference
from simcse_tf.demo.text import escape, shorten

_LOWEST = -0.2  # the scale's left end; unrelated pairs of these models lie above it
_MARK_WIDTH = 0.17  # of a sentence on the dial, in radians


def welcome() -> str:
    """What this is, in one picture and one line; it stands where the first result will."""
    shown = [
        ("1", "same", 0.93, "A pair of dogs chases through the snow."),
        ("2", "unrelated", 0.05, "The parliament passed the budget."),
    ]
    lines = "".join(f'<p><span class="key {which}"></span><b>{n}</b> {said}</p>' for n, which, _, said in shown)
    return (
        f'<div class="welcome">{dial([mark[:3] for mark in shown])}<div>'
        f'<p><span class="key anchor"></span>Two dogs run over a snowy field.</p>{lines}'
        '<p class="said">A sentence encoder gives every sentence a direction: the closer in meaning, the smaller the '
        "angle. Its cosine is the score, 1 for the same.</p></div></div>"
    )


def scale(score: float, reference: Reference) -> str:
    """One score on the model's own scale: where unrelated pairs and pairs of the same meaning fall."""
    bands = ""
    for which in ("unrelated", "same"):
        left, right = (_percent(end) for end in reference.band(which))
        bands += f'<div class="band {which}" style="left:{left:.1f}%;width:{right - left:.1f}%"></div>'
    ticks = "".join(f'<span style="left:{_percent(t):.1f}%">{t:g}</span>' for t in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    mark = f'<div class="mark" style="left:{_percent(score):.1f}%"></div>'
    return (
        f'<div class="scale" role="img" aria-label="score {score:.3f} on a scale to 1">{bands}{mark}</div>'
        f'<div class="ticks" aria-hidden="true">{ticks}</div>'
    )


def verdict(score: float, reference: Reference) -> str:
    """The score against pairs whose answer is known, in words."""
    unrelated = reference.share_below("unrelated", score)
    same = reference.share_below("same", score)
    if unrelated < 0.95:
        word = "Unrelated, as far as this model sees"
    elif same < 0.05:
        word = "Related, not the same"
    else:
        word = "Close in meaning" if same < 0.25 else "The same in meaning, most likely"
    return (
        f"<b>{word}.</b> Above {unrelated:.0%} of unrelated pairs, above {same:.0%} of pairs that people call the same "
        "in meaning."
    )


def legend(share: str = "nine in ten") -> str:
    """What the two colours are, of `scale` and, with another share of the pairs, of `histogram`."""
    return (
        f'<p class="legend"><span class="key unrelated"></span>{share} unrelated pairs '
        f'<span class="key same"></span>{share} pairs of the same meaning '
        "(both measured with this model on the bundled pairs)</p>"
    )


def whose(model: str, *texts: str) -> str:
    """Of which model and texts a result is: it stays on the page when others are chosen or typed."""
    typed = " and ".join(f"“{escape(shorten(text))}”" for text in texts)
    return f'<p class="whose">{typed} with {escape(model)}</p>'


def bars(rows: Sequence[tuple[str, float]], notes: Sequence[str] = ()) -> str:
    """A table of texts with their scores as bars, in the order given, and perhaps a note below each text."""
    below = [f'<p class="legend">{escape(note)}</p>' if note else "" for note in notes] or [""] * len(rows)
    body = "".join(
        f'<tr><td class="n">{rank}</td><td class="t">{escape(text)}{note}</td><td class="s">{score:.3f}</td>'
        f'<td class="b"><div style="width:{max(0.0, score) * 100:.1f}%"></div></td></tr>'
        for rank, ((text, score), note) in enumerate(zip(rows, below, strict=True), 1)
    )
    head = '<tr><th>#</th><th>sentence</th><th>score</th><th aria-hidden="true"></th></tr>'
    return f'<table class="bars"><thead>{head}</thead><tbody>{body}</tbody></table>'


def heat(share: float) -> str:
    """The attributes of a table's cell that is coloured by a share of 1."""
    # Where dark ink is better read than light, in dark pages and in light ones.
    shade = "hot" if share > 0.8 else "warm" if share > 0.55 else ""
    return f'style="--p:{max(0.0, share):.0%}" class="{shade}"'


def heat_map(sentences: Sequence[str], scores: np.ndarray) -> str:
    """A table of cells coloured by score; `heat.js` shows which cell is under the pointer or the arrow keys.

    Args:
        sentences: `n` of them, in the order of rows and columns.
        scores: `(n, n)` cosines.
    """
    numbers = len(sentences) <= 12
    body = []
    for i, sentence in enumerate(sentences):
        cells = "".join(
            f'<td data-r="{i + 1}" data-c="{j + 1}" data-s="{s:.3f}" {heat(s)}>'
            f"{f'{round(s, 2) + 0.0:.2f}' if numbers else ''}</td>"
            for j, s in enumerate(scores[i])
        )
        body.append(
            f'<tr><th scope="row" title="{escape(sentence)}"><b>{i + 1}</b> {escape(sentence)}</th>{cells}</tr>'
        )
    columns = "".join(f"<th>{j + 1}</th>" for j in range(len(sentences)))
    return (
        f'<div class="readout" aria-live="polite">Point at a cell, or press Tab and the arrow keys.</div>'
        f'<div class="heat" tabindex="0" role="group" aria-label="similarity of every pair, arrow keys move"><table>'
        f"<thead><tr><td></td>{columns}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def histogram(reference: Reference, *, bins: int = 48) -> str:
    """How the scores of unrelated pairs and of pairs of the same meaning spread, each filling the same area."""
    edges = np.linspace(_LOWEST, 1.0, bins + 1)
    shapes = []
    for which in ("unrelated", "same"):
        counts = np.histogram(np.clip(getattr(reference, which), _LOWEST, 1.0), edges)[0]
        shapes.append((which, counts / counts.sum()))
    tallest = max(float(shares.max()) for _, shares in shapes)
    width = 600 / bins
    rectangles = "".join(
        f'<rect class="{which}" x="{i * width:.1f}" y="{160 - share / tallest * 150:.1f}" width="{width:.1f}" '
        f'height="{share / tallest * 150:.1f}"/>'
        for which, shares in shapes
        for i, share in enumerate(shares)
        if share
    )
    ticks = "".join(f'<span style="left:{_percent(t):.1f}%">{t:g}</span>' for t in (0.0, 0.5, 1.0))
    return (
        '<svg class="histogram" viewBox="0 0 600 162" preserveAspectRatio="none" role="img" '
        f'aria-label="histogram of similarities">{rectangles}<line x1="0" x2="600" y1="160" y2="160"/></svg>'
        f'<div class="ticks" aria-hidden="true">{ticks}</div>'
    )


def dial(scores: Sequence[tuple[str, str, float]]) -> str:
    """Sentences at the angle that they have with the anchor, which is at the right end: near in meaning, near in angle.

    Args:
        scores: Label, class (`same` or `unrelated`) and cosine of each.
    """
    marks, taken = [], []
    for label, which, score in sorted(scores, key=lambda mark: -mark[2]):
        angle = math.acos(max(-1.0, min(1.0, score)))
        # Sentences at almost the same angle stand one behind the other.
        row = sum(1 for other in taken if abs(other - angle) < _MARK_WIDTH) % 3
        taken.append(angle)
        x, y = (130 + 24 * row) * math.cos(angle), (130 + 24 * row) * math.sin(angle)
        marks.append(
            f'<line class="{which}" x1="190" y1="200" x2="{190 + x:.1f}" y2="{200 - y:.1f}"/>'
            f'<circle class="{which}" cx="{190 + x:.1f}" cy="{200 - y:.1f}" r="11"/>'
            f'<text x="{190 + x:.1f}" y="{204.5 - y:.1f}">{escape(label)}</text>'
        )
    return (
        '<svg class="dial" viewBox="0 0 380 214" role="img" aria-label="angles to the anchor">'
        '<path class="arc" d="M60 200 A130 130 0 0 1 320 200"/><line class="arc" x1="60" x2="320" y1="200" y2="200"/>'
        f'{"".join(marks)}<circle class="anchor" cx="320" cy="200" r="7"/></svg>'
    )


def _percent(score: float) -> float:
    """A score's place on the scale, in percent from its left end."""
    return (min(1.0, max(_LOWEST, score)) - _LOWEST) / (1.0 - _LOWEST) * 100


def curve(label: str, points: Sequence[tuple[float, float]], total: int, *, best: float | None = None) -> str:
    """A line over steps, with its lowest, highest and last value.

    Args:
        label: What it is.
        points: Step and value, at least one.
        total: The step at the right end.
        best: A step to mark.
    """
    values = [value for _, value in points]
    low, high = min(values), max(values)
    span = high - low or 1.0

    def place(step: float, value: float) -> tuple[float, float]:
        return round(4 + 292 * step / max(total, 1), 1), round(84 - 76 * (value - low) / span, 1)

    line = " ".join(f"{x},{y}" for x, y in (place(*point) for point in points))
    mark = ""
    if best in dict(points):
        x, y = place(best, dict(points)[best])
        mark = f'<circle class="best" cx="{x}" cy="{y}" r="4"/>'
    x, y = place(*points[-1])
    return (
        f'<figure class="curve"><figcaption>{escape(label)} <b>{values[-1]:.4g}</b></figcaption>'
        f'<svg viewBox="0 0 300 88" role="img" aria-label="{escape(label)} over steps, from {values[0]:.4g} to '
        f'{values[-1]:.4g}"><polyline points="{line}"/>{mark}<circle cx="{x}" cy="{y}" r="3"/></svg>'
        f'<div class="ends"><span>step {points[0][0]:g} of {total}</span><span>{low:.4g} to {high:.4g}</span></div>'
        "</figure>"
    )
