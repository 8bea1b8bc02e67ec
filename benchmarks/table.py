"""The results beside the targets, as Markdown for docs/benchmarks: `python -m benchmarks.table [RESULTS.json]`.

Every figure is a median over rounds; "ratio" is the median, over the rounds, of ours over the best peer's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.measurements import OURS, Measurement

LATEST = Path(__file__).parent / "results.json"
# Measurement to (how to compare, bound, with whom: None is the best peer, "" is the figure itself).
TARGETS: dict[str, tuple[str, float, str | None]] = {
    "train_unsupervised": ("at least", 1.5, None),
    "train_supervised": ("at least", 1.5, None),
    "encode_sts": ("at least", 1.2, None),
    "latency_1": ("at most", 1.2, "ONNX Runtime"),
    "limit_training": ("at least", 0.6, ""),
    "limit_encode_sts": ("at least", 0.75, ""),
    "start": ("at most", 1.0, "sentence-transformers"),
    "memory_unsupervised": ("at most", 1.2, None),
}


def markdown(results: dict[str, Any]) -> str:
    """A table with a row per measurement, and a line on where it comes from."""
    rows = [_row(Measurement.from_dict(values)) for values in results["measurements"].values()]
    about = results["about"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return "\n".join(
        [
            "| | simcse_tf | others and variants of ours | ratio to the best peer | target |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"{about['machine']['cpu']}, {about['machine']['threads']} threads, {about['date']}, commit "
            f"{about['commit'][:12]}{' with changes' if about['changed_files'] else ''}; {about['texts']} texts"
            f"{'; --quick: ONE ROUND, no figures to quote' if about['quick'] else ''}. {versions}.",
        ]
    )


def _row(measurement: Measurement) -> str:
    medians = measurement.medians()
    others = "; ".join(
        f"{who.replace(OURS + ', ', 'ours, ')} {_figure(figure)}" for who, figure in medians.items() if who != OURS
    )
    unit = f" ({measurement.unit})" if measurement.unit else ""
    ratio = measurement.ratio()
    cells = [
        measurement.title + unit,
        f"**{_figure(medians[OURS])}**",
        others,
        "" if ratio is None or measurement.name.startswith("limit") else f"{ratio:.2f} ({measurement.best_peer()})",
        _target(measurement),
    ]
    return f"| {' | '.join(cells)} |"


def _target(measurement: Measurement) -> str:
    if measurement.name not in TARGETS:
        return ""
    how, bound, peer = TARGETS[measurement.name]
    reached = measurement.medians()[OURS] if peer == "" else measurement.ratio(peer=peer)
    assert reached is not None
    met = reached >= bound if how == "at least" else reached <= bound
    against = f" times {peer}'s" if peer else ""
    return f"{how} {bound:g}{against}: {'reached' if met else 'missed'} ({reached:.2f})"


def _figure(figure: float) -> str:
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.1f}" if figure >= 10 else f"{figure:.2f}"


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else LATEST
    print(markdown(json.loads(path.read_text("utf-8"))))
