"""Search: a file becomes an index, which is asked."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import gradio as gr

from simcse_tf.demo import given, pictures, text
from simcse_tf.demo.indexes import Indexes
from simcse_tf.demo.page import SLOW, Page, api_errors, page_errors
from simcse_tf.errors import UserError
from simcse_tf.serving.segment import Bits, Kind

_MOST = 100
_KINDS: list[tuple[str, Kind]] = [
    ("all: exact (flat)", "flat"),
    ("those of the nearest cells (ivf)", "ivf"),
    ("a graph's neighbours (hnsw)", "hnsw"),
]
_BITS: list[tuple[str, Bits]] = [("32", 32), ("8", 8), ("1, answers put in order by 8", 1)]


def search(
    indexes: Indexes, query: str, index: str | None, top_k: int = 10, threshold: float = -1.0
) -> list[dict[str, Any]]:
    """The sentences of an index that are nearest to a query, best first.

    Raises:
        UserError: An empty or too long query, no such index, or a number out of range.
    """
    if not isinstance(top_k, int) or not 1 <= top_k <= _MOST:
        raise UserError(f"top_k {top_k}: expected a whole number from 1 to {_MOST}.")
    if not isinstance(threshold, int | float):
        raise UserError(f"threshold {threshold}: expected a number from -1 to 1.")
    client = indexes.get(index).client
    query = text.sentence(query, "The query")
    found: Any = client.search(query, top_k=top_k, threshold=threshold)
    return [
        {"rank": rank, "sentence": each.text, "score": each.cosine, "id": each.id, "metadata": each.metadata}
        for rank, each in enumerate(found, 1)
    ]


def _note(metadata: dict[str, Any]) -> str:
    """What stands beside a sentence in its file."""
    return " · ".join(f"{name}: {text.shorten(str(value))}" for name, value in metadata.items() if value is not None)


def build(page: Page, indexes: Indexes) -> None:
    """Adds the tab and its endpoints."""
    registry = page.registry
    file, column = given.upload("search", f"A file of up to {text.MAX_INDEX:,} lines")
    with gr.Row():
        kind = gr.Radio(
            _KINDS, value="flat", label="a query is compared with", scale=3, min_width=280, elem_id="search-kind"
        )
        bits = gr.Radio(_BITS, value=32, label="bits of a number", scale=2, min_width=280, elem_id="search-bits")
    make = gr.Button("Build the index", elem_id="search-build")
    status = page.picture(elem_id="search-status")
    index = gr.Textbox(visible=False, elem_id="search-index")
    with gr.Row():
        query = gr.Textbox(
            label="Query", placeholder="What do you look for?", scale=4, min_width=280, elem_id="search-query"
        )
        top_k = gr.Slider(1, _MOST, value=10, step=1, label="answers", scale=1, min_width=200, elem_id="search-top")
    run = gr.Button("Search", variant="primary", elem_id="search-run")
    result = page.picture(elem_id="search-result")
    with gr.Accordion("Take it away", open=False):
        gr.Markdown(
            "The vectors as the index has them, a NumPy file with a row per sentence, and the index as `simcse_tf`'s "
            "`Client.load_index` opens it with the same model."
        )
        prepare = gr.Button("Prepare the files", elem_id="search-prepare")
        files = gr.File(label="downloads", file_count="multiple", interactive=False, elem_id="search-downloads")

    def index_file(
        file: str | None,
        column: str | None,
        model: str | None,
        kind: Kind,
        bits: Bits,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio hands it over
    ) -> tuple[str, str]:
        """Makes an uploaded file searchable; the second answer is the index's name, for /search."""
        if not file:
            raise UserError("No file yet. Upload one first.")
        begun = time.perf_counter()

        def report(done: int, total: int) -> None:
            progress((done, total), desc=f"encoded {done:,} of {total:,} sentences", unit="sentences")

        name, built = indexes.build(Path(file), column or None, registry.model(model), report, kind, bits)
        took = time.perf_counter() - begun
        where = f"{built.lines:,} sentences of {text.escape(built.file)} with {text.escape(built.model)}"
        about = built.index.about
        size = f"{about.kind}, {about.bits} bits a number, {text.size(about.bytes)} with the texts"
        timed = f"{built.milliseconds:.2g} ms a search"
        return f"<p>Index of {where}: ready after {took:.1f} s; {size}, {timed}.</p>", name

    inputs = [file, column, page.model, kind, bits]
    make.click(page_errors(index_file), inputs, [status, index], api_name="index", **SLOW)

    def show(query: str, index: str, top_k: int) -> str:
        begun = time.perf_counter()
        rows = search(indexes, query, index, int(top_k))
        took = (time.perf_counter() - begun) * 1000
        notes = [_note(row["metadata"]) for row in rows]
        table = pictures.bars([(row["sentence"], row["score"]) for row in rows], notes)
        used = indexes.get(index)
        return (
            f"{pictures.whose(f'{used.model}, in {used.file}', query)}{table}"
            f'<p class="legend">{took:.0f} ms, encoding the query included</p>'
        )

    page.run(
        "search", [run.click, query.submit], show, [query, index, top_k], [result], {"query": query, "index": index}
    )
    prepare.click(page_errors(indexes.downloads), [index], [files], api_visibility="private", **SLOW)

    def endpoint(query: str, index: str, top_k: int = 10, threshold: float = -1.0) -> list[dict]:
        """The sentences of an index that /index built, nearest first."""
        return search(indexes, query, index, top_k, threshold)

    gr.api(api_errors(endpoint), api_name="search")
