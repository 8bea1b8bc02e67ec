"""The texts that a run watches: those of a small file, and which of them belong together. Standard library only."""

from __future__ import annotations

from pathlib import Path

from simcse_tf.data.columns import Columns, choose
from simcse_tf.data.rows import Row
from simcse_tf.data.sources import file_format
from simcse_tf.errors import UserError
from simcse_tf.runs import Watched

# They are encoded at every evaluation, and each is a dot in a picture.
MOST = 500


def read(path: Path, columns: Row = ()) -> Watched:
    """Reads the texts of a file; those that occur several times count once.

    Args:
        path: A text a line, or a table or JSON lines, whose columns are found as those of training data.
        columns: Names of columns, used if the file has them all.

    Raises:
        UserError: There is no such file, it cannot be read, a row is bad (with its line), or it has fewer than 2 or
            more than `MOST` different texts.
    """
    kind = file_format(path, otherwise="`watch` takes a file of texts.")
    names = kind.columns(path) if kind.columns else None
    chosen = Columns()
    if names is not None:
        own = columns if set(columns) <= set(names) else ()
        chosen = choose(str(path), names, own, takes_all=kind.takes_all)

    def reject(place: str, problem: str, text: str) -> None:
        raise UserError(f'`watch` {place}: {problem}; the row starts "{text}". Correct it.')

    places: dict[str, int] = {}
    rows = []
    for row in kind.rows(path, chosen.texts, reject):
        rows.append([places.setdefault(text, len(places)) for text in row])
        if len(places) > MOST:
            raise UserError(f"`watch` {path}: more than {MOST} different texts. Give it a sample of at most {MOST}.")
    if len(places) < 2:
        raise UserError(f"`watch` {path}: {len(places)} text. Expected at least 2.")
    # The texts of a graded pair need not belong together.
    together = len(chosen.texts) > 1 and chosen.target is None
    return Watched(list(places), rows if together else [])
