"""The results beside the targets, as Markdown for docs/benchmarks: `python -m benchmarks.table [RESULTS.json]`.

Every figure is a median over rounds; "ratio" is the median, over the rounds, of ours over the best peer's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Literal, NamedTuple

from benchmarks.measurements import OURS, Measurement

LATEST = Path(__file__).parent / "results.json"
# Shares have the same ratios as the speeds they come from, and a loss may be 0 or negative.
_WITHOUT_RATIO = ("limit", "lost")


class Target(NamedTuple):
    """What a measurement is to reach."""

    measurement: str
    how: Literal["at least", "at most"]
    bound: float
    # Whose figure ours is divided by: None is the best peer's, "" nobody's.
    peer: str | None = None


TARGETS = (
    Target("train_unsupervised", "at least", 1.5),
    Target("train_supervised", "at least", 1.5),
    Target("encode_sts", "at least", 1.2),
    Target("latency_1", "at most", 1.2, "ONNX Runtime"),
    Target("limit_training", "at least", 0.6, ""),
    Target("limit_encode_sts", "at least", 0.75, ""),
    Target("start", "at most", 1.0, "sentence-transformers"),
    Target("memory_unsupervised", "at most", 1.2),
    Target("litert_latency_int8", "at most", 0.6),
    Target("litert_latency_float32", "at most", 1.0),
    Target("litert_encode_sts", "at least", 1.8),
    Target("litert_start", "at most", 0.5, ""),
    Target("litert_start", "at most", 0.8),
    Target("litert_start_load", "at most", 0.5, ""),
    Target("litert_start_load", "at most", 0.8),
    Target("litert_memory", "at most", 0.5, "ONNX Runtime"),
    Target("lost_STSB-dev", "at most", 0.15, ""),
    Target("lost_STSB-test", "at most", 0.15, ""),
    Target("lost_STS12", "at most", 0.15, ""),
)


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
    ratio = None if measurement.name.startswith(_WITHOUT_RATIO) else measurement.ratio()
    cells = [
        measurement.title + unit,
        f"**{_figure(medians[OURS])}**",
        others,
        "" if ratio is None else f"{ratio:.2f} ({measurement.best_peer()})",
        "; ".join(_reached(measurement, target) for target in TARGETS if target.measurement == measurement.name),
    ]
    return f"| {' | '.join(cells)} |"


def _reached(measurement: Measurement, target: Target) -> str:
    _, how, bound, peer = target
    reached = measurement.medians()[OURS] if peer == "" else measurement.ratio(peer=peer)
    assert reached is not None
    met = reached >= bound if how == "at least" else reached <= bound
    unit = f" {measurement.unit}" if peer == "" and measurement.unit else ""
    against = f" times {peer}'s" if peer else ""
    return f"{how} {bound:g}{unit}{against}: {'reached' if met else 'missed'} ({reached:.2f})"


def _figure(figure: float) -> str:
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.1f}" if figure >= 10 else f"{figure:.2f}"


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else LATEST
    print(markdown(json.loads(path.read_text("utf-8"))))
