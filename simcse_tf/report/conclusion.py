"""The report's conclusion: one line that its figures bear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from simcse_tf.evaluation.development import digits

# Graded pairs of no domain: whether anything was forgotten.
GENERAL = ("STSB-test", "STSB-dev", "bundled")


def conclusion(
    changes: Sequence[dict[str, Any]], rests_on: str | None, *, unchanged: bool, given_up: bool = False
) -> dict[str, Any]:
    """What may be said of a run.

    Args:
        changes: Of each set, as in `report.json`; one of them selects, unless the
            last encoder was kept whatever it scored.
        rests_on: The set that chose nothing by which to conclude; None if there is none.
        unchanged: The encoder that training began with was kept.
        given_up: Although a step did better on the set that selects: `keep` is 1, or came to it.

    Returns:
        `verdict`: `better`, `worse`, `noise` (the interval has 0 in it), `optimistic` (better by the set alone that
        chose the step), or `unchanged`; `rests_on`; `title`, `text`, and `notes`, sentences on the other sets.
    """
    named = {each["name"]: each for each in changes}
    judge = next((each for each in changes if each["role"] == "selects"), None)
    if unchanged:
        text = "The encoder that training began with was kept."
        if judge is not None:
            text = f"Nothing did better on {judge['name']} than the encoder that training began with, so that was kept."
            if given_up:
                text = (
                    f"A step did better on {judge['name']}, but the encoder that training began with was kept whole: "
                    "that is what --keep asked for, or no mix of the two kept the other development sets."
                )
        return {"verdict": "unchanged", "rests_on": None, "title": "Unchanged.", "text": text, "notes": []}
    main = named[rests_on] if rests_on else judge
    assert main is not None  # Where no set selects, each chose nothing, and the conclusion rests on one.
    found = verdict(main)
    title = {"better": "Better.", "worse": "Worse.", "noise": "No difference shown."}[found]
    notes = []
    if judge is None:
        notes.append("Nothing chose the step: the last encoder was kept.")
    elif rests_on:
        notes.append(f"{main['name']} chose nothing. {judge['name']} chose the step, so its figure is optimistic.")
        notes.append(f"{_said(judge)}.")
    elif found == "better":
        found, title = "optimistic", "Better, as far as the set says that chose the step."
        notes.append("The highest of several figures is an optimistic one, and no other set is there to confirm it.")
    else:
        notes.append(f"{judge['name']} chose the step.")
    general = next((named[name] for name in GENERAL if name in named and named[name] not in (main, judge)), None)
    if general is not None:
        notes.append(f"In general: {_said(general)}.")
    text = f"{_said(main)}.{_first(main)}"
    return {"verdict": found, "rests_on": rests_on, "title": title, "text": text, "notes": notes}


def verdict(change: dict[str, Any]) -> str:
    """What a change is by its interval: `better`, `worse` or `noise`. All headlines are better if they are higher."""
    low, high = change["interval"] or (0, 0)
    return "better" if low > 0 else "worse" if high < 0 else "noise"


def _said(change: dict[str, Any]) -> str:
    shown = digits(change["label"])
    before, after = (round(change[when], shown) for when in ("before", "after"))
    # The difference of what is shown.
    by = round(after - before, shown)
    figure = f"{change['label'].removesuffix(' x 100')} on {change['name']}"
    interval = "too few items for an interval"
    if change["interval"] is not None:
        low, high = (signed(end, shown) for end in change["interval"])
        interval = f"95 % interval {low} to {high}"
    verb = {"better": "rose", "worse": "fell", "noise": "changed"}[verdict(change)]
    amount = signed(by, shown) if verb == "changed" else f"{abs(by):.{shown}f}"
    noise = ", within the noise" if verb == "changed" else ""
    return f"{figure} {verb} by {amount} points to {after:.{shown}f} ({interval}){noise}"


def _first(change: dict[str, Any]) -> str:
    """Of retrieval: how often the first answer was right, which needs no explanation."""
    if "first_right" not in change:
        return ""
    before, after = change["first_right"]
    return f" The first answer was right for {after:.1f} % of the queries; before training, for {before:.1f} %."


def signed(value: float, digits: int) -> str:
    """A number with its sign, a real minus as wide as the digits."""
    text = f"{value:+.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")
