"""Rank: one query, many candidates, the nearest first."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np

from simcse_tf.demo import given, pictures, text
from simcse_tf.demo.models import Registry
from simcse_tf.demo.page import Page, api_errors

_QUERY = "How do I get my money back?"
_CANDIDATES = """Refunds are paid within five working days.
You can return any item for a full reimbursement.
How do I earn more money?
Our shop is closed on public holidays.
I want my payment returned to my account.
The back of the chair is broken."""


def rank(registry: Registry, query: str, candidates: list[str], model: str | None = None) -> list[dict[str, Any]]:
    """Candidates by their cosine with the query, best first; equal ones stay in their order.

    Raises:
        UserError: The query or the candidates are empty, too long or too many, or there is no such model.
    """
    query = text.sentence(query, "The query")
    candidates = text.sentences(candidates, "Candidates", least=1, most=text.MAX_CANDIDATES)
    chosen = registry.model(model)
    scores = chosen.encode(candidates, "passage") @ chosen.encode([query], "query")[0]
    order = np.argsort(-scores, kind="stable")
    return [{"rank": r, "candidate": candidates[i], "score": float(scores[i])} for r, i in enumerate(order, 1)]


def build(page: Page) -> None:
    """Adds the tab and its endpoint."""
    registry = page.registry
    query = gr.Textbox(label="Query", value=_QUERY, elem_id="rank-query")
    form = given.build("rank", "Candidates, one a line", _CANDIDATES)
    run = gr.Button("Rank", variant="primary", elem_id="rank-run")
    result = page.picture(elem_id="rank-result")

    def show(query: str, typed: str, file: str | None, column: str | None, model: str) -> str:
        text.sentence(query, "The query")
        candidates = given.read(typed, file, column, what="Candidates", least=1, most=text.MAX_CANDIDATES)
        rows = [(row["candidate"], row["score"]) for row in rank(registry, query, candidates, model)]
        return pictures.whose(registry.model(model).key, query) + pictures.bars(rows)

    page.run(
        "rank",
        [run.click, query.submit],
        show,
        [query, form.typed, form.file, form.column, page.model],
        [result],
        {"query": query, "candidates": form.typed},
        file=form.file,
    )

    def endpoint(query: str, candidates: list[str], model: str = "") -> list[dict]:
        """Candidates by their cosine with the query, best first."""
        return rank(registry, query, candidates, model)

    gr.api(api_errors(endpoint), api_name="rank")
