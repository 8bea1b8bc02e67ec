"""JSON lines: one JSON object a line."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from simcse_tf.data.rows import (
    MISSING,
    BadTextError,
    Check,
    Format,
    Reject,
    Row,
    Rows,
    checked,
    decode,
    lines,
    readable,
)
from simcse_tf.errors import UserError


def written(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Rows as they stand in a .jsonl file."""
    objects = (dict(zip(columns, row, strict=True)) for row in rows)
    return "".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in objects).encode()


def rows(path: Path, columns: Row | None, reject: Reject, check: Check = checked) -> Rows:
    """The values of each object at the keys `columns`, by default all that it has; blank lines are skipped.

    Raises:
        UserError: The file cannot be read or decompressed.
    """
    number = 0
    for number, raw in enumerate(lines(path), 1):
        try:
            if raw.isspace():
                continue
            item = _object(raw)
            of = tuple(item) if columns is None else columns
            row = check((item.get(c, MISSING) for c in of), of)
        except BadTextError as e:
            reject(f"{path}:{number}", str(e), readable(raw))
            continue
        yield row
    return f"{number} lines, {{bad}} bad, all others blank"


def keys(path: Path) -> list[str]:
    """The keys of the first JSON object within 100 lines.

    Raises:
        UserError: There is none.
    """
    problem = "only blank lines"
    for raw in itertools.islice(lines(path), 100):
        try:
            return list(_object(raw))
        except BadTextError as e:
            problem = problem if raw.isspace() else str(e)
    raise UserError(f"{path}: no JSON object in its first 100 lines ({problem}). Expected one on each line.")


def _object(raw: bytes) -> dict[str, object]:
    text = decode(raw)
    try:
        item = json.loads(text)
    except json.JSONDecodeError as e:
        raise BadTextError(f"broken JSON ({e.msg} at position {e.colno})") from None
    except (ValueError, RecursionError) as e:
        raise BadTextError(f"JSON that cannot be read ({e})") from None
    if not isinstance(item, dict):
        raise BadTextError("not a JSON object")
    return item


FORMAT = Format(rows, keys)
