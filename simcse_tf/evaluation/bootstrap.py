"""How far a change of a figure may be chance: paired bootstrap intervals (Efron & Tibshirani 1993, chapter 13).

The items of a set (pairs, triplets or queries) are drawn anew, as many as there are, with replacement; both encoders
are judged on the same draw, and the changes of many draws, between their 2.5th and 97.5th percentile, are the interval.
It says what other items of the same kind would give, not what training with another seed would.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from simcse_tf.evaluation.development import DevelopmentSet

SAMPLES = 1000
_SEED = 0
# Items. Of three that all became better, every draw says so.
_FEWEST = 20
# Numbers in memory at once.
_BLOCK = 1_000_000


def interval(each: DevelopmentSet, before: np.ndarray, after: np.ndarray) -> tuple[float, float] | None:
    """The 95 % interval of the change of a set's headline.

    Args:
        each: The set.
        before: What one encoder answered, as in `Scored`.
        after: What the other did.

    Returns:
        Its ends; None where there are too few items: fewer than 20, or so few of one kind that the figure is undefined
        in most draws.
    """
    if len(before) < _FEWEST:
        return None
    first, second = each.of_samples(before), each.of_samples(after)
    changes = np.concatenate([second(samples) - first(samples) for samples in draws(len(before))])
    if np.isnan(changes).mean() > 0.5:
        return None
    low, high = np.nanpercentile(changes, [2.5, 97.5])
    return float(low), float(high)


def draws(items: int) -> Iterator[np.ndarray]:
    """`SAMPLES` draws of so many items, a block `(samples, items)` int at a time; always the same."""
    rng = np.random.default_rng(_SEED)
    block = max(1, _BLOCK // items)
    for start in range(0, SAMPLES, block):
        yield rng.integers(0, items, (min(block, SAMPLES - start), items))
