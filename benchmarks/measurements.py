"""What was measured, and what follows from it: medians, the fastest peer, ratios round by round; means over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import mean, median, stdev
from typing import Any, NamedTuple

# Ours; other ways to use it are named `simcse_tf, ...`.
OURS = "simcse_tf"


@dataclass
class Measurement:
    """One quantity for all contenders, round by round.

    Attributes:
        name: Its key in the results.
        title: What it is, for people.
        unit: Of the figures.
        higher_is_better: Or lower.
        rounds: Contender to figures, in the order of the rounds.
    """

    name: str
    title: str
    unit: str
    higher_is_better: bool
    rounds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, contender: str, figure: float) -> None:
        """Adds a round's figure."""
        self.rounds.setdefault(contender, []).append(figure)

    def medians(self) -> dict[str, float]:
        """Contender to its median over the rounds."""
        return {contender: median(figures) for contender, figures in self.rounds.items()}

    def best_peer(self) -> str | None:
        """The peer with the best median; None if there is no peer."""
        peers = {name: figure for name, figure in self.medians().items() if not name.startswith(OURS)}
        if not peers:
            return None
        return (max if self.higher_is_better else min)(peers, key=peers.__getitem__)

    def ratio(self, contender: str = OURS, peer: str | None = None) -> float | None:
        """The median, over the rounds, of a contender's figure over a peer's (by default the best one's).

        None if there is no peer, or a figure of it is 0.
        """
        peer = peer or self.best_peer()
        if peer is None or 0 in self.rounds[peer]:
            return None
        return median(a / b for a, b in zip(self.rounds[contender], self.rounds[peer], strict=True))

    def to_dict(self) -> dict[str, Any]:
        """For the JSON file: the rounds, and what follows from them for whoever reads it without this module."""
        ratios = {name: self.ratio(name) for name in self.rounds if name.startswith(OURS)}
        return asdict(self) | {"medians": self.medians(), "best_peer": self.best_peer(), "ratios": ratios}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Measurement:
        """Reads `to_dict`'s result; what follows from the rounds is computed anew."""
        return cls(**{name: values[name] for name in ("name", "title", "unit", "higher_is_better", "rounds")})


class Difference(NamedTuple):
    """A mean of paired differences, and the ends of its 95 % interval; None of a single pair."""

    mean: float
    interval: tuple[float, float] | None

    @property
    def is_none(self) -> bool:
        """Whether the interval contains 0: no difference was shown."""
        return self.interval is not None and self.interval[0] <= 0 <= self.interval[1]


def paired_difference(figures: Sequence[float], baseline: Sequence[float]) -> Difference:
    """How much higher figures are than others of the same seeds, by Student's t.

    Args:
        figures: One for each seed.
        baseline: Likewise, in the same order of seeds.
    """
    from scipy.stats import t

    differences = [a - b for a, b in zip(figures, baseline, strict=True)]
    middle, n = mean(differences), len(differences)
    if n < 2:
        return Difference(middle, None)
    half = float(t.ppf(0.975, n - 1)) * stdev(differences) / n**0.5
    return Difference(middle, (middle - half, middle + half))


def over_seeds(figures: Sequence[float]) -> str:
    """Mean and standard deviation of a sample, as text; of one figure there is no deviation."""
    return f"{mean(figures):.2f}" + (f" ± {stdev(figures):.2f}" if len(figures) > 1 else "")
