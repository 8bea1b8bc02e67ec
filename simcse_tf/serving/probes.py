"""Whether two encoders are the same model: by what they make of a few fixed texts, wherever they run."""

from __future__ import annotations

import numpy as np

PROBES = ["", "The cat sat on the mat.", "Stock markets fell sharply on Monday.", "naïve 日本語 🙂 12345"]
# Largest distance between the vectors that one model makes of one probe, here and there: in float32 on two machines,
# which another model exceeds, were it one step of training away; and in two number formats.
SAME_FLOAT32 = 2e-4
SAME_ANY_FORMAT = 1.4e-2


def difference(then: np.ndarray, now: np.ndarray, *, tolerance: float) -> str:
    """How two models differ, in words; empty if they are the same model.

    Args:
        then: `(probes, dim)` float of unit length: what the one makes of the probes.
        now: What the other makes of them.
        tolerance: Largest distance that is put down to arithmetic.
    """
    if then.shape != now.shape:
        return f"vectors of {then.shape[-1]} numbers, this one makes {now.shape[-1]}"
    distance = float(np.linalg.norm(then.astype(np.float64) - now.astype(np.float64), axis=1).max())
    return "" if distance <= tolerance else f"other vectors of the same text, up to {distance:.1e} away"
