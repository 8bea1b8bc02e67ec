"""The one exception that a command turns into a message instead of a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something that the user can put right.

    The message says what was wrong, where, what was expected and what to do next. Commands print it to stderr
    without a traceback and exit with status 2; from Python it is an ordinary exception.
    """


def did_you_mean(name: str, valid: Iterable[str], *, most: int = 3) -> str:
    """Names the closest valid spellings of `name`.

    Args:
        name: What the user wrote.
        valid: Every name that would have been accepted.
        most: How many suggestions to give at most.

    Returns:
        `"Did you mean 'a' or 'b'?"` when something is close, else `"Valid: a, b, c."`.
    """
    valid = sorted(valid)
    by_lower = {v.lower(): v for v in valid}
    close = difflib.get_close_matches(name.lower(), by_lower, n=most, cutoff=0.6)
    if close:
        return "Did you mean " + " or ".join(f"'{by_lower[c]}'" for c in close) + "?"
    return "Valid: " + ", ".join(valid) + "."
