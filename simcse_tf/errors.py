"""The one exception that a command turns into a message instead of a traceback."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# Valid names that a message lists.
_MOST = 20


class UserError(ValueError):
    """Something that the user can put right.

    The message says what was wrong, where, what was expected and what to do next. Settings stand in backticks under
    their Python names: "`chunk_size` 5 does not divide `batch_size` 64". Commands print the message to stderr without a
    traceback, with their flags in place of those names, and exit with status 2; from Python it is a `ValueError`.
    """

    def for_command(self) -> str:
        """The message as a command prints it: "--chunk-size 5 does not divide --batch-size 64"."""
        return re.sub(r"`([a-z][a-z0-9_]*)`", lambda name: "--" + name[1].replace("_", "-"), str(self))


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
    more = f", and {len(valid) - _MOST} more" if len(valid) > _MOST + 1 else ""
    return "Valid: " + ", ".join(valid[: _MOST if more else None]) + more + "."
