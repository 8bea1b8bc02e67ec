"""Sentences that a visitor gives, typed or as a file: one form for every tab that takes many."""

from __future__ import annotations

from typing import Any, NamedTuple

import gradio as gr

from simcse_tf.demo import text
from simcse_tf.demo.page import page_errors

_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


class Given(NamedTuple):
    """The form: a box, a file that takes its place, and which column of the file holds the sentences."""

    typed: gr.Textbox
    file: gr.File
    column: gr.Dropdown


def build(tab: str, label: str, sample: str) -> Given:
    """Adds the form to a tab.

    Args:
        tab: The tab's id, with which the elements' ids begin.
        label: What the box takes.
        sample: What is in it at first.
    """
    with gr.Row():
        typed = gr.Textbox(
            label=label, value=sample, lines=5, max_lines=5, scale=3, min_width=280, elem_id=f"{tab}-text"
        )
        with gr.Column(scale=2, min_width=280):
            file, column = upload(tab, "or a file")
    file.change(lambda path: gr.update(visible=not path), [file], [typed], **_QUIET)
    return Given(typed, file, column)


def upload(tab: str, label: str) -> tuple[gr.File, gr.Dropdown]:
    """Adds a file, of any kind that is read, and which column of it holds the sentences.

    Args:
        tab: The tab's id.
        label: What the file is.
    """
    file = gr.File(
        label=f"{label} (.txt, .csv, .tsv, .jsonl)",
        file_types=text.SUFFIXES,
        type="filepath",
        height=130,
        elem_id=f"{tab}-file",
    )
    column = gr.Dropdown([], label="text column", visible=False, elem_id=f"{tab}-column")

    def describe(path: str | None) -> Any:
        names = text.columns(path) if path else []
        guessed = text.guess_column(path, names) if path else None
        return gr.update(choices=names, value=guessed, visible=len(names) > 1)

    file.change(page_errors(describe), [file], [column], **_QUIET)
    return file, column


def read(
    typed: str | list[str], file: str | None, column: str | None, *, what: str, least: int, most: int
) -> list[str]:
    """The sentences of a form.

    Raises:
        UserError: Too few, too many, or one that cannot be used.
    """
    if file:
        return text.file_sentences(file, column, least=least, most=most)
    return text.sentences(typed, what, least=least, most=most)
