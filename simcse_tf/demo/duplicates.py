"""Duplicates: rows that say what an earlier one says, over a threshold, and the file without them."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import numpy as np

from simcse_tf.data import tables
from simcse_tf.data.rows import suffix
from simcse_tf.data.sources import TABLES
from simcse_tf.data.whole_rows import WholeRows
from simcse_tf.demo import given, pictures, text
from simcse_tf.demo.kept import Kept
from simcse_tf.demo.models import Model
from simcse_tf.demo.page import SLOW, Page, api_errors, page_errors
from simcse_tf.demo.vectors import Vectors, digest
from simcse_tf.errors import UserError
from simcse_tf.serving import paraphrases

# Pairs are found once, above the lowest threshold that can be chosen; the slider then only looks.
_LOWEST, _DEFAULT = 0.6, 0.85
_KEPT = 8
# Later rows that are near to a row, of which so many are looked at.
_NEAREST = 50
# Rows that are shown, those of which there are the most first, and of each the ones that repeat it.
_SHOWN, _OF_EACH = 50, 10


class Pairs(NamedTuple):
    """Rows that are near to each other: `(pairs, 2)` int, the earlier one first, and cosines `(pairs,)`."""

    rows: np.ndarray
    cosines: np.ndarray


class Duplicates:
    """Finds the near pairs of texts, and keeps them for other thresholds.

    Args:
        vectors: What encodes.
    """

    def __init__(self, vectors: Vectors):
        self._vectors = vectors
        self._pairs: Kept[Pairs] = Kept(_KEPT)

    def pairs(self, texts: Sequence[str], model: Model, progress: Callable[[float, str], None]) -> Pairs:
        """The pairs of at least the lowest threshold."""

        def find() -> Pairs:
            seen = self._vectors.of(texts, model, lambda share, doing: progress(share / 2, doing))
            among = paraphrases.cells(seen, "flat")
            found = []
            for cell, pairs in enumerate(paraphrases.pairs(seen, among, _LOWEST, _NEAREST)):
                found.append(Pairs(*pairs))
                progress(0.5 + (cell + 1) / len(among) / 2, f"comparing {len(texts):,} sentences")
            rows, cosines = zip(*found, strict=True)
            return Pairs(*paraphrases.best_first(np.concatenate(rows), np.concatenate(cosines)))

        return self._pairs.get((digest(texts), model), find)


def repeats(texts: Sequence[str], pairs: Pairs, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Finds the rows that repeat an earlier one that is kept.

    Args:
        texts: `n`.
        pairs: Theirs.
        threshold: The least cosine of a row with the one that it repeats. Those that are equal but for case and spacing
            repeat each other in any case.

    Returns:
        `(n,)` int: the row that each repeats, -1 if it is kept; and their cosines `(n,)`.
    """
    of, nearness = np.full(len(texts), -1), np.zeros(len(texts), "float32")
    first: dict[str, int] = {}
    for row, each in enumerate(texts):
        before = first.setdefault(" ".join(each.lower().split()), row)
        if before != row:
            of[row], nearness[row] = before, 1
    near = pairs.cosines >= threshold
    rows, cosines = pairs.rows[near], pairs.cosines[near]
    # In the order of the file, and of the rows that one could repeat the nearest first.
    for i in np.lexsort((-cosines, rows[:, 1])).tolist():
        earlier, later = rows[i].tolist()
        if of[later] < 0 and of[earlier] < 0:
            of[later], nearness[later] = earlier, cosines[i]
    return of, nearness


def build(page: Page, vectors: Vectors, folder: Path) -> None:
    """Adds the tab and its endpoint; `folder` takes the files that are downloaded."""
    registry = page.registry
    found = Duplicates(vectors)
    gr.Markdown(
        "Rows that say what an earlier row says, in the same words or in others. The threshold is the cosine, the "
        "score of Compare, from which two rows count as one: the lower, the more rows go."
    )
    form = given.build("duplicates", f"Sentences, one a line, 2 to {text.MAX_MAP:,}", _SAMPLE)
    threshold = gr.Slider(_LOWEST, 1, value=_DEFAULT, step=0.01, label="threshold", elem_id="duplicates-threshold")
    run = gr.Button("Find duplicates", variant="primary", elem_id="duplicates-run")
    result = page.picture(elem_id="duplicates-result")
    with gr.Accordion("Take it away", open=False):
        prepare = gr.Button("Prepare the file without them", elem_id="duplicates-prepare")
        download = gr.File(label="download", interactive=False, elem_id="duplicates-download")

    def find(
        typed: str,
        file: str | None,
        column: str | None,
        threshold: float,
        model: str,
        progress: Callable[[float, str], None],
    ) -> tuple[list[str], np.ndarray, np.ndarray]:
        texts = given.read(typed, file, column, what="Sentences", least=2, most=text.MAX_MAP)
        return texts, *repeats(texts, found.pairs(texts, registry.model(model), progress), _checked(threshold))

    def show(
        typed: str,
        file: str | None,
        column: str | None,
        threshold: float,
        model: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio hands it over
    ) -> str:
        got = find(typed, file, column, threshold, model, lambda share, doing: progress(share, desc=doing))
        return pictures.whose(registry.model(model).key) + _picture(*got, threshold)

    inputs = [form.typed, form.file, form.column, threshold, page.model]
    page.run("duplicates", [run.click], show, inputs, [result], {"text": form.typed}, file=form.file, **SLOW)
    threshold.release(
        # Before anything was found, the slider finds nothing.
        page_errors(lambda shown, *given: show(*given) if shown else gr.skip()),
        [result, *inputs],
        [result],
        api_visibility="private",
        show_progress="hidden",
        **SLOW,
    )

    def without(typed: str, file: str | None, column: str | None, threshold: float, model: str) -> str:
        texts, of, _ = find(typed, file, column, threshold, model, lambda share, doing: None)
        name = Path(file).name if file else "sentences.txt"
        to = Path(tempfile.mkdtemp(dir=folder)) / f"{Path(name).stem}-without-duplicates{Path(name).suffix}"
        if file:
            names = tables.header(Path(file)) if suffix(Path(file)) in TABLES else ()
            source = WholeRows(Path(file), (), tuple(names))
            kept = (record for (record, _), before in zip(source.rows(), of.tolist(), strict=True) if before < 0)
            to.write_bytes(source.head + b"".join(map(source.written, kept)))
        else:
            to.write_text("".join(f"{texts[i]}\n" for i in np.flatnonzero(of < 0)), "utf-8")
        return str(to)

    prepare.click(page_errors(without), inputs, [download], api_visibility="private", **SLOW)

    def endpoint(sentences: list[str], threshold: float = _DEFAULT, model: str = "") -> dict:
        """The rows that are kept, and of the others which of these they repeat, with their cosines."""
        texts = text.sentences(sentences, "Sentences", least=2, most=text.MAX_MAP)
        _, of, nearness = find(texts, None, None, threshold, model, lambda share, doing: None)
        repeated = [(int(i), int(of[i]), float(nearness[i])) for i in np.flatnonzero(of >= 0)]
        return {"kept": np.flatnonzero(of < 0).tolist(), "repeats": repeated}

    gr.api(api_errors(endpoint), api_name="duplicates", **SLOW)


def _checked(threshold: Any) -> float:
    if not isinstance(threshold, int | float) or not _LOWEST <= threshold <= 1:
        raise UserError(f"threshold {threshold!r:.20}: expected a number from {_LOWEST} to 1.")
    return threshold


def _picture(texts: list[str], of: np.ndarray, nearness: np.ndarray, threshold: float) -> str:
    groups: dict[int, list[int]] = defaultdict(list)
    for row in np.flatnonzero(of >= 0).tolist():
        groups[int(of[row])].append(row)
    gone = int(np.count_nonzero(of >= 0))
    said = (
        f"<p><b>{gone:,}</b> of {len(texts):,} rows repeat an earlier one, at a threshold of {threshold:g}; "
        f"<b>{len(texts) - gone:,}</b> are left.</p>"
    )
    largest = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    rows = "".join(
        _row(first, texts[first], "kept")
        + "".join(
            _row(row, texts[row], f"{nearness[row]:.3f}")
            for row in sorted(others, key=lambda row: -nearness[row])[:_OF_EACH]
        )
        + (
            f'<tr><td></td><td class="t">and {len(others) - _OF_EACH:,} more</td></tr>'
            if len(others) > _OF_EACH
            else ""
        )
        for first, others in largest[:_SHOWN]
    )
    if not rows:
        return said
    more = f"The {_SHOWN} rows that are repeated most; the download knows all." if len(groups) > _SHOWN else ""
    head = "<tr><th>row</th><th>sentence</th><th>score</th></tr>"
    return f'{said}<table class="bars"><thead>{head}</thead><tbody>{rows}</tbody></table><p class="legend">{more}</p>'


def _row(row: int, sentence: str, score: str) -> str:
    shown = text.escape(sentence) if score != "kept" else f"<b>{text.escape(sentence)}</b>"
    return f'<tr><td class="n">{row + 1}</td><td class="t">{shown}</td><td class="s">{score}</td></tr>'


_SAMPLE = """The parcel arrived two days late.
The package arrived two days late.
the parcel  arrived two days late.
How can I reset my password?
How do I reset my password?
What do I do when I have forgotten my password?
The train to Berlin leaves at noon.
At noon the train to Berlin leaves.
Our cat sleeps all day.
Is there a discount for students?
Do you have a discount for students?
The soup needs more salt."""
