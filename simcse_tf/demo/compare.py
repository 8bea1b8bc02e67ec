"""Compare: two sentences, one score, and what every other model makes of them."""

from __future__ import annotations

from typing import Any

import gradio as gr

from simcse_tf.demo import pictures, text
from simcse_tf.demo.models import Model, Registry
from simcse_tf.demo.page import Page, api_errors, page_errors
from simcse_tf.errors import UserError

EXAMPLES = [
    ["The meeting was moved to Thursday.", "We will get together on Thursday instead."],
    ["The dog chased the cat.", "The cat chased the dog."],
    ["The bank raised its interest rates.", "The river bank was covered in reeds."],
    ["She has never been to Norway.", "She has been to Norway many times."],
    ["Nobody was hurt when the shed burned down.", "Fire destroyed a hut, but there were no injuries."],
    ["He can't stand olives.", "He loves olives."],
]
_ABOUT = [
    "same meaning, other words",
    "same words, other order",
    "one word, two meanings",
    "a negation",
    "a paraphrase that shares no word",
    "opposite verdicts",
]


def compare(registry: Registry, a: str, b: str, model: str | None = None) -> dict[str, Any]:
    """Scores a pair with a model, and with the newest version of every other.

    Raises:
        UserError: A sentence is empty or too long, or there is no such model.
    """
    a, b = text.sentence(a, "Sentence A"), text.sentence(b, "Sentence B")
    chosen = registry.model(model)
    found = {"a": a, "b": b, **_scored(chosen, a, b), "others": [], "unusable": []}
    for key in registry.newest():
        if key != chosen.key:
            try:
                found["others"].append(_scored(registry.model(key), a, b))
            except UserError as e:
                # One that is damaged does not spoil the others.
                found["unusable"].append({"model": key, "reason": str(e)})
    return found


def _scored(model: Model, a: str, b: str) -> dict[str, Any]:
    reference = model.reference()
    vectors = model.encode([a, b])
    return {
        "model": model.key,
        "score": float(vectors[0] @ vectors[1]),
        "unrelated": reference.band("unrelated"),
        "same": reference.band("same"),
    }


def picture(registry: Registry, a: str, b: str, model: str | None) -> str:
    """The page's view of `compare`."""
    found = compare(registry, a, b, model)
    reference = registry.model(found["model"]).reference()
    parts = [
        pictures.whose(found["model"], found["a"], found["b"]),
        f'<div class="score" id="compare-score">{found["score"]:.3f}</div>',
        f"<p>{pictures.verdict(found['score'], reference)}</p>",
        pictures.scale(found["score"], reference),
        pictures.legend(),
    ]
    if found["others"]:
        cards = []
        for other in found["others"]:
            reference = registry.model(other["model"]).reference()
            cards.append(
                f'<div class="model"><h4>{text.escape(other["model"])}</h4><span class="value">{other["score"]:.3f}'
                f"</span>{pictures.scale(other['score'], reference)}"
                f"<small>{pictures.verdict(other['score'], reference)}</small></div>"
            )
        parts.append(f'<h3>The same pair under the other models</h3><div class="models">{"".join(cards)}</div>')
    parts += [f"<p><small>Not compared: {text.escape(other['reason'])}</small></p>" for other in found["unusable"]]
    return "".join(parts)


def build(page: Page) -> None:
    """Adds the tab and its endpoint."""
    registry = page.registry
    with gr.Row():
        a = gr.Textbox(
            label="Sentence A", value=EXAMPLES[0][0], lines=1, max_lines=8, min_width=280, elem_id="compare-a"
        )
        b = gr.Textbox(
            label="Sentence B", value=EXAMPLES[0][1], lines=1, max_lines=8, min_width=280, elem_id="compare-b"
        )
    run = gr.Button("Compare", variant="primary", elem_id="compare-run")
    result = page.picture(value=pictures.welcome(), elem_id="compare-result")

    def show(a: str, b: str, model: str) -> str:
        return picture(registry, a, b, model)

    page.run("compare", [run.click, a.submit, b.submit], show, [a, b, page.model], [result], {"a": a, "b": b})
    examples = gr.Examples(EXAMPLES, [a, b], example_labels=_ABOUT, label="Pairs that teach", api_visibility="private")
    examples.load_input_event.then(page_errors(show), [a, b, page.model], [result], api_visibility="private")

    def endpoint(a: str, b: str, model: str = "") -> dict:
        """Cosine of two sentences: the score, where nine in ten known pairs fall, and the other models' scores."""
        return compare(registry, a, b, model)

    gr.api(api_errors(endpoint), api_name="compare")
