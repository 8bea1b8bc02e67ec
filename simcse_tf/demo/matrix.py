"""Matrix: every sentence with every other."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np

from simcse_tf.demo import pictures, text
from simcse_tf.demo.models import Registry
from simcse_tf.demo.page import HERE, Page, api_errors

_SENTENCES = """A man is playing the guitar on stage.
The central bank left interest rates unchanged.
Someone performs music in front of an audience.
Cook the onions slowly until they are golden.
Borrowing will not become more expensive this month.
Fry the onions on low heat until brown.
The guitarist stands on the stage.
Rates stay where they are, the bank said."""


def matrix(registry: Registry, sentences: list[str], model: str | None = None, ordered: bool = True) -> dict[str, Any]:
    """Cosines of all pairs.

    Args:
        registry: The models at hand.
        sentences: 2 to 50.
        model: Which of them.
        ordered: Put similar sentences side by side.

    Returns:
        `sentences` in the order of the rows, `scores` `(n, n)`, `order`: where each row was in what was given.

    Raises:
        UserError: Too few, too many or too long sentences, or no such model.
    """
    sentences = text.sentences(sentences, "Sentences", least=2, most=text.MAX_MATRIX)
    vectors = registry.model(model).encode(sentences)
    order = _side_by_side(vectors) if ordered and len(sentences) > 2 else np.arange(len(sentences))
    return {
        "sentences": [sentences[i] for i in order],
        "scores": (vectors[order] @ vectors[order].T).tolist(),
        "order": order.tolist(),
    }


def _side_by_side(vectors: np.ndarray) -> np.ndarray:
    """The leaves of a tree that joins the nearest groups first, turned so that neighbours are near."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    distances = np.clip(1 - vectors @ vectors.T, 0, None)
    condensed = squareform(distances, checks=False)
    return leaves_list(linkage(condensed, "average", optimal_ordering=True))


def build(page: Page) -> None:
    """Adds the tab and its endpoint."""
    registry = page.registry
    sentences = gr.Textbox(
        label=f"Sentences, one a line, at most {text.MAX_MATRIX}",
        value=_SENTENCES,
        lines=8,
        max_lines=16,
        elem_id="matrix-text",
    )
    ordered = gr.Checkbox(label="similar sentences side by side", value=True, elem_id="matrix-ordered")
    run = gr.Button("Compare all", variant="primary", elem_id="matrix-run")
    result = page.picture(elem_id="matrix-result", js_on_load=(HERE / "heat.js").read_text("utf-8"))

    def show(typed: str, ordered: bool, model: str) -> str:
        given = text.sentences(typed, "Sentences", least=2, most=text.MAX_MATRIX)
        found = matrix(registry, given, model, ordered)
        picture = pictures.heat_map(found["sentences"], np.array(found["scores"]))
        return pictures.whose(registry.model(model).key) + picture

    page.run("matrix", [run.click], show, [sentences, ordered, page.model], [result], {"sentences": sentences})

    def endpoint(sentences: list[str], model: str = "", ordered: bool = True) -> dict:
        """Cosines of all pairs; similar sentences side by side if `ordered`."""
        return matrix(registry, sentences, model, ordered)

    gr.api(api_errors(endpoint), api_name="matrix")
