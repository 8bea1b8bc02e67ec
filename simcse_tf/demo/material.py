"""What a visitor gives to learn from: rows, typed, uploaded or bundled, checked as the trainer will read them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from simcse_tf.data import json_lines, watched
from simcse_tf.data.columns import choose, names_of_views
from simcse_tf.data.rows import Row
from simcse_tf.data.sources import FORMATS, open_source
from simcse_tf.demo import text
from simcse_tf.errors import UserError

FEWEST = 4


@dataclass(frozen=True)
class Material:
    """Rows to train on.

    Attributes:
        columns: What a row has: `text`; `anchor`, `positive` and hard negatives; or `text` and `label`.
        rows: At least `FEWEST`.
    """

    columns: tuple[str, ...]
    rows: list[Row]

    @property
    def views(self) -> int:
        """Texts in a row."""
        return len(self.columns) - self.labelled

    @property
    def labelled(self) -> bool:
        """Whether texts of one label belong together."""
        return self.columns[-1] == "label"

    @property
    def kind(self) -> str:
        """What the rows are, for people."""
        if self.labelled:
            return "texts with labels"
        return {1: "sentences", 2: "pairs"}.get(self.views, "pairs with hard negatives")

    def write(self, path: Path) -> None:
        """Writes all rows as JSON lines, whose columns the trainer knows by their names."""
        path.write_bytes(json_lines.written(self.columns, self.rows))

    def write_sample(self, path: Path) -> None:
        """Writes rows to watch, evenly spread over all, of no more texts than the trainer watches."""
        step = max(1, -(-len(self.rows) // (watched.MOST // self.views)))
        path.write_bytes(json_lines.written(self.columns, self.rows[::step]))


def typed(given: str | None) -> Material:
    """Lines: a sentence each, or, if the first has a tab or `|`, two or more texts that belong together.

    Raises:
        UserError: Too few or too many lines, one that is too long, or one with another number of texts than the first.
    """
    lines = text.sentences(given, "Your texts", least=FEWEST, most=text.MAX_TRAIN)
    split = [[part.strip() for part in re.split(r"[\t|]", line)] for line in lines]
    views = len(split[0])
    if views == 1:
        return _material(("text",), [(line,) for line in lines])
    for number, parts in enumerate(split, 1):
        if len(parts) != views or not all(parts):
            raise UserError(
                f"Line {number} has {sum(map(bool, parts))} texts, the first one {views}. Put a tab or | between the "
                "texts that belong together, in every line or in none."
            )
    return _material(tuple(names_of_views(views)), [tuple(parts) for parts in split])


def uploaded(path: str | Path, columns: Iterable[str] = ()) -> Material:
    """The rows of an uploaded file.

    Args:
        path: The file.
        columns: Of a table: anchor, positive and hard negatives, or one text; those of known names if not given.

    Raises:
        UserError: Too few or too many rows, one that cannot be used (with its line), or it is not clear which columns
            are text.
    """
    path = Path(path)
    names = text.columns(path)
    chosen = choose(path.name, names or None, tuple(columns), takes_all=FORMATS[path.suffix.lower()].takes_all)
    if chosen.target == "score":
        raise UserError(
            f"{path.name}: has graded pairs (column {chosen.beside[0]}), which the command trains on (--loss cosent), "
            "this page does not. Choose two columns without it to take every pair as belonging together."
        )
    views = len(chosen.texts) or 1
    given = names_of_views(views)
    rows = []
    for row in text.rows(path, (*chosen.texts, *chosen.beside)):
        if len(rows) == text.MAX_TRAIN:
            raise UserError(
                f"{path.name}: more than {text.MAX_TRAIN:,} rows; at most {text.MAX_TRAIN:,} are taken here. The "
                "command takes any number: python -m simcse_tf.train"
            )
        rows.append(tuple(text.sentence(cell, f"{path.name}, row {len(rows) + 1}") for cell in row))
    return _material((*given, *("label",) * len(chosen.beside)), rows)


def bundled(name: str) -> Material:
    """The rows of a bundled corpus."""
    source = open_source(name)
    return _material(tuple(names_of_views(source.views)), list(source.rows()))


def _material(columns: tuple[str, ...], rows: list[Row]) -> Material:
    if len(set(rows)) < FEWEST:
        raise UserError(f"{len(set(rows))} different rows; at least {FEWEST} are needed, better a hundred.")
    return Material(columns, rows)
