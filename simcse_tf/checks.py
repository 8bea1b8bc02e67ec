"""Checks of a single setting."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

from simcse_tf.errors import UserError, did_you_mean


def check_choice(field: str, value: Any, valid: tuple[str, ...]) -> None:
    """Checks that a setting has one of its valid values.

    Raises:
        UserError: It does not; the message names the closest valid ones.
    """
    if value not in valid:
        raise UserError(f"`{field}` {value}: unknown. {did_you_mean(str(value), valid)}")


def check_range(
    field: str,
    value: float,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    above: float = -math.inf,
    why: str = "",
) -> None:
    """Checks that a setting is a finite number within bounds; `why` explains them.

    Raises:
        UserError: It is not.
    """
    if math.isfinite(value) and low <= value <= high and value > above:
        return
    bounds = [f"above {above:g}"] * (above > -math.inf) + [f"at least {low:g}"] * (low > -math.inf)
    bounds += [f"at most {high:g}"] * (high < math.inf)
    expected = " and ".join(bounds) or "a finite number"
    raise UserError(f"`{field}` {value}: must be {expected}{f' ({why})' if why else ''}.")


def require(module: str, extra: str, what: str) -> None:
    """Checks that an optional package is installed, without importing it.

    Args:
        module: As it is imported.
        extra: The extra of this package that brings it.
        what: Who needs what, such as "an index needs faiss".

    Raises:
        UserError: It is missing; names the extra.
    """
    if importlib.util.find_spec(module) is None:
        raise UserError(f"{what}, which is not installed. Run: pip install 'simcse-tf[{extra}]'")
