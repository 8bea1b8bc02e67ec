"""Where a run's encoder saw the texts that it watches, evaluation by evaluation, and the picture in which they move.

All steps are projected onto one plane, so that what moves is the encoder and not the axes.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from simcse_tf import runs

HERE = Path(__file__).parent
# What the page around a picture needs once: its style, and `simcseMotion`, to be called with each picture.
STYLE, SCRIPT = HERE / "motion.css", HERE / "motion.js"
# Evaluations that are shown; of a longer run evenly spread ones, the first and the last among them.
_FRAMES = 60
_WIDTH, _HEIGHT, _MARGIN = 1000, 640, 24


@dataclass(frozen=True)
class Motion:
    """The watched texts over the evaluations of a run.

    Attributes:
        texts: `n` texts.
        rows: As `runs.Watched.rows`.
        steps: Of the evaluations shown, in order.
        points: `(evaluations, n, 2)`, where each text is, in the picture's units.
        together: The mean cosine of the first two texts of a row, at each evaluation; empty without rows.
        apart: The mean cosine of all other texts of different rows, at each evaluation.
    """

    texts: list[str]
    rows: list[list[int]]
    steps: list[int]
    points: list[list[list[float]]]
    together: list[float]
    apart: list[float]


def of_run(run: Path) -> Motion | None:
    """What a run, finished or not, has seen of the texts that it watches; None before the first evaluation.

    Raises:
        UserError: The file of the texts is damaged.
    """
    watched, steps = runs.read_watched(run), runs.watched_steps(run)
    if watched is None or not steps:
        return None
    kept = np.unique(np.linspace(0, len(steps) - 1, _FRAMES).round().astype(int))
    shown = [list(steps)[i] for i in kept]
    vectors = [np.load(steps[step]).astype(np.float32) for step in shown]
    together, apart = zip(*(_cosines(each, watched.rows) for each in vectors), strict=True)
    return Motion(
        watched.texts,
        watched.rows,
        shown,
        _placed(project(vectors)).round(1).tolist(),
        [round(value, 4) for value in together if value is not None],
        [round(value, 4) for value in apart],
    )


def project(vectors: Sequence[np.ndarray]) -> np.ndarray:
    """Projects every step's vectors onto the plane in which those of the first and the last step differ most.

    The plane is turned, or mirrored, so that the first step lies as it would alone: as a run goes on, and its last step
    becomes another, the picture does not jump.

    Args:
        vectors: For each step `(n, dim)`, n > 1.

    Returns:
        `(steps, n, 2)`.
    """
    first = vectors[0]
    plane, centre = _plane(np.concatenate([first, vectors[-1]]))
    points = np.stack([(each - centre) @ plane for each in vectors])
    alone, own_centre = _plane(first)
    # The nearest rotation (orthogonal Procrustes).
    start = points[0] - points[0].mean(axis=0)
    left, _, right = np.linalg.svd(start.T @ ((first - own_centre) @ alone))
    return points @ (left @ right)


def picture(motion: Motion) -> str:
    """The texts as dots, those of a row joined, with a slider over the evaluations; `motion.js` makes it move.

    Without the script it shows the last evaluation.
    """
    last = motion.points[-1]
    radius = 8 if len(last) <= 60 else 6 if len(last) <= 200 else 4
    # The place of a text in its row: anchor, positive, hard negative.
    places = {text: min(place, 2) for row in reversed(motion.rows) for place, text in reversed(list(enumerate(row)))}
    joined = motion.rows or [[i] for i in range(len(last))]
    lines = "".join(_line(row, motion.points[0], last) for row in joined)
    dots = "".join(
        f'<circle data-i="{i}" cx="{x}" cy="{y}" class="p{places.get(i, 0)}" data-t="{_attribute(text)}"/>'
        for i, (text, (x, y)) in enumerate(zip(motion.texts, last, strict=True))
    )
    data = {name: value for name, value in asdict(motion).items() if name not in ("texts", "rows")}
    moved = _attribute(json.dumps(data, separators=(",", ":")))
    most = len(motion.steps) - 1
    moves = "" if most else " hidden"
    return (
        f'<div class="motion" data-at="{motion.steps[-1]}" data-motion="{moved}">'
        f'<div class="numbers">{_numbers(motion)}</div>'
        f'<svg style="--r:{radius}px" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{len(last)} texts where the encoder sees them">'
        f"<g>{lines}</g><g>{dots}</g></svg>"
        f'<div class="steps"{moves}><button type="button">Play</button><input type="range" min="0" max="{most}" '
        f'value="{most}" step="1" aria-label="evaluation"/><output>step {motion.steps[-1]}</output></div>'
        '<div class="read">Point at a dot, or touch it, to read it.</div></div>'
    )


def _line(row: Sequence[int], first: list[list[float]], last: list[list[float]]) -> str:
    """What joins anchor and positive; from a text that stands alone, where it came from."""
    (x1, y1), (x2, y2) = (last[row[0]], last[row[1]]) if len(row) > 1 else (first[row[0]], last[row[0]])
    which = f'data-b="{row[1]}"' if len(row) > 1 else 'class="trail"'
    return f'<line data-a="{row[0]}" {which} x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'


def _numbers(motion: Motion) -> str:
    """The two means at the last evaluation; the script keeps them with the slider."""
    both = [("together", "texts that belong together", motion.together), ("apart", "other texts", motion.apart)]
    return " ".join(
        f'<span class="{name}"><svg viewBox="-4 -4 48 28" aria-hidden="true"><path d="M0 20A20 20 0 0 1 40 20"/>'
        f'<line x1="20" y1="20" x2="40" y2="20"/><line class="hand" x1="20" y1="20" x2="40" y2="20"/></svg>'
        f"<span>{label}: mean cosine {values[0]:.2f} → <b>{values[-1]:.2f}</b></span></span>"
        for name, label, values in both
        if values
    )


def _plane(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two directions in which vectors differ most, `(dim, 2)`, and their centre."""
    centre = vectors.mean(axis=0)
    _, _, directions = np.linalg.svd(vectors - centre, full_matrices=False)
    return directions[:2].T, centre


def _placed(points: np.ndarray) -> np.ndarray:
    """Points in the picture's units, both axes on one scale."""
    low, high = points.min(axis=(0, 1)), points.max(axis=(0, 1))
    room = np.array([_WIDTH, _HEIGHT]) - 2 * _MARGIN
    scale = float(np.min(room / np.maximum(high - low, 1e-9)))
    return (points - (low + high) / 2) * scale + np.array([_WIDTH, _HEIGHT]) / 2


def _cosines(vectors: np.ndarray, rows: Sequence[Sequence[int]]) -> tuple[float | None, float]:
    """The mean cosine of the first two texts of a row, and that of texts of different rows."""
    cosines = vectors @ vectors.T
    others = ~np.eye(len(vectors), dtype=bool)
    for row in rows:
        others[np.ix_(row, row)] = False
    apart = float(cosines[others].mean()) if others.any() else 0.0
    if not rows:
        return None, apart
    anchors, positives = zip(*(row[:2] for row in rows), strict=True)
    return float(cosines[anchors, positives].mean()), apart


def _attribute(text: str) -> str:
    """Text inside an attribute, also where the page is a template to Gradio, with marks of its own (`{`, `$`)."""
    escaped = html.escape(text, quote=True)
    return escaped.replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;").replace("`", "&#96;")
