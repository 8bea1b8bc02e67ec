"""Size against quality: what fewer dimensions and fewer bits cost on a visitor's own sentences."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import gradio as gr
import numpy as np

from simcse_tf.demo import given, pictures, text
from simcse_tf.demo.page import SLOW, Page, api_errors, page_errors
from simcse_tf.demo.vectors import Vectors, nearest
from simcse_tf.errors import UserError
from simcse_tf.serving.compact import DTYPES, Dtype, check_dim, quantized, shortened

_FEWEST = 20
_FOUND = 10
# Sentences that look for their neighbours, and those of them that are timed, one at a time.
_QUERIES, _TIMED = 300, 50
_CHOICES: list[tuple[str, Dtype]] = [
    ("float32: 32 bits a number", "float32"),
    ("int8: 8 bits", "int8"),
    ("binary: 1 bit", "binary"),
]


class Measured(NamedTuple):
    """What is left of the neighbours, and what a vector costs.

    Attributes:
        dim: Numbers that are kept.
        dtype: How they are stored.
        recall: The share of the 10 nearest by all numbers in float32 that are among the 10 nearest by these.
        bytes: Of a vector.
        milliseconds: Of a search through all sentences, for one query in one thread.
    """

    dim: int
    dtype: Dtype
    recall: float
    bytes: int
    milliseconds: float


def measure(vectors: np.ndarray, dim: int, dtype: Dtype) -> Measured:
    """Searches among small vectors as among whole ones.

    Args:
        vectors: `(n, full)` float32 of unit length, at least 11.
        dim: How many numbers are kept, the first ones.
        dtype: How they are stored.

    Raises:
        UserError: `dim` is out of range.
    """
    check_dim(dim, vectors.shape[1])
    rows = np.unique(np.linspace(0, len(vectors) - 1, _QUERIES).round().astype(int))
    true = nearest(vectors, rows, _FOUND)[1]
    small = quantized(shortened(vectors, dim), dtype)
    index = _index(small, dim)
    stored = small if dtype != "int8" else small.astype("float32")
    found = index.search(stored[rows], _FOUND + 1)[1]
    kept = [
        len(set(a) & (set(b) - {row})) for a, b, row in zip(true.tolist(), found.tolist(), rows.tolist(), strict=True)
    ]
    took = []
    for row in rows[:_TIMED]:
        began = time.perf_counter()
        index.search(stored[row : row + 1], _FOUND)
        took.append(time.perf_counter() - began)
    # A machine that does something else meanwhile makes some of them slow.
    return Measured(dim, dtype, float(np.mean(kept)) / _FOUND, small[0].nbytes, float(np.median(took)) * 1000)


def _index(small: np.ndarray, dim: int) -> Any:
    import faiss

    if small.dtype == np.uint8:
        index = faiss.IndexBinaryFlat(small.shape[1] * 8)
    elif small.dtype == np.int8:
        index = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT)
    else:
        index = faiss.IndexFlatIP(dim)
    index.add(small.astype("float32") if small.dtype == np.int8 else small)
    return index


def build(page: Page, vectors: Vectors) -> None:
    """Adds the tab and its endpoint."""
    registry = page.registry
    gr.Markdown(
        "Vectors can be cut to their first numbers and stored in fewer bits: smaller indexes, faster searches, and "
        "some neighbours lost. How many, on sentences of yours? Recall@10 is the share of each sentence's ten nearest, "
        "by whole vectors in float32, that the small vectors find too."
    )
    form = given.build("size", f"Sentences, one a line, {_FEWEST} to {text.MAX_MAP:,}", _sample())
    with gr.Row():
        dim = gr.Slider(
            8, 1024, value=1024, step=8, label="numbers of a vector", scale=2, min_width=280, elem_id="size-dim"
        )
        dtype = gr.Radio(_CHOICES, value="int8", label="bits of a number", scale=2, min_width=280, elem_id="size-bits")
    run = gr.Button("Measure", variant="primary", elem_id="size-run")
    result = page.picture(elem_id="size-result")

    def show(
        typed: str,
        file: str | None,
        column: str | None,
        dim: int,
        dtype: Dtype,
        model: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio hands it over
    ) -> tuple[str, Any]:
        texts = given.read(typed, file, column, what="Sentences", least=_FEWEST, most=text.MAX_MAP)
        used = registry.model(model)
        seen = vectors.of(texts, used, lambda share, doing: progress(share, desc=doing))
        full = seen.shape[1]
        chosen = measure(seen, min(dim, full), dtype)
        grid = [[measure(seen, full // part, kind) for part in (1, 2, 4, 8) if full >= 8 * part] for kind in DTYPES]
        prepared = used.client.sizes
        return _picture(used.key, len(texts), full, chosen, grid, prepared), gr.update(maximum=full, value=chosen.dim)

    inputs = [form.typed, form.file, form.column, dim, dtype, page.model]
    page.run("size", [run.click], show, inputs, [result, dim], {"text": form.typed}, file=form.file, **SLOW)

    def again(shown: str, *given: Any) -> Any:
        # Before anything was measured, a slider measures nothing.
        return show(*given) if shown else (gr.skip(), gr.skip())

    gr.on(
        [dim.release, dtype.input],
        page_errors(again),
        [result, *inputs],
        [result, dim],
        api_visibility="private",
        show_progress="hidden",
        **SLOW,
    )

    def endpoint(sentences: list[str], dim: int, dtype: str = "float32", model: str = "") -> dict:
        """Recall@10, bytes and milliseconds of vectors of `dim` numbers in float32, int8 or binary."""
        texts = text.sentences(sentences, "Sentences", least=_FEWEST, most=text.MAX_MAP)
        if not isinstance(dim, int) or dtype not in DTYPES:
            raise UserError(
                f"dim {dim!r:.20}, dtype {dtype!r:.20}: expected a whole number, and one of {', '.join(DTYPES)}."
            )
        seen = vectors.of(texts, registry.model(model), lambda share, doing: None)
        return measure(seen, dim, dtype)._asdict()

    gr.api(api_errors(endpoint), api_name="size", **SLOW)


def _picture(
    model: str, count: int, full: int, chosen: Measured, grid: list[list[Measured]], prepared: tuple[int, ...]
) -> str:
    whole = 4 * full
    said = (
        f'<div class="score">{chosen.recall:.0%}</div><p>of the ten nearest sentences are found with '
        f"<b>{chosen.dim}</b> numbers in {chosen.dtype}: {chosen.bytes:,} bytes a sentence instead of {whole:,} "
        f"(1/{whole / chosen.bytes:.0f}), {text.size(chosen.bytes * count)} for these {count:,}, "
        f"{chosen.milliseconds:.2g} ms a search.</p>"
    )
    head = "".join(f"<th>{each.dim}</th>" for each in grid[0])
    rows = "".join(
        f'<tr><th scope="row">{row[0].dtype}</th>'
        + "".join(
            f"<td {pictures.heat(each.recall)}><b>{each.recall:.0%}</b>"
            f"<small>{each.bytes:,} bytes<br>{each.milliseconds:.2g} ms</small></td>"
            for each in row
        )
        + "</tr>"
        for row in grid
    )
    cut = (
        f"trained to be cut to {', '.join(map(str, prepared))} numbers"
        if prepared
        else "not trained to be cut (matryoshka)"
    )
    whose = pictures.whose(f"{model}, which was {cut}")
    return (
        f"{whose}{said}<h3>Recall@10, bytes and time of a search</h3>"
        f'<div class="heat sizes"><table><thead><tr><td>numbers</td>{head}</tr></thead><tbody>{rows}</tbody></table>'
        "</div>"
    )


def _sample() -> str:
    """Some of the bundled sentences."""
    from simcse_tf.data.sources import open_source

    return "\n".join(row[0] for _, row in zip(range(300), open_source("bundled").rows(), strict=False))
