"""Before and after: what contrastive training does to the space, on known pairs and on one's own sentences."""

from __future__ import annotations

import gradio as gr

from simcse_tf.demo import pictures, text
from simcse_tf.demo.models import BASE, Model, Registry
from simcse_tf.demo.page import SLOW, Page, page_errors
from simcse_tf.evaluation import pairs
from simcse_tf.evaluation.geometry import geometry

_ANCHOR = "Two dogs are running across a snowy field."
_POSITIVES = "A pair of dogs runs through the snow.\nTwo animals race over a field in winter."
_NEGATIVES = "Two dogs are asleep on the sofa.\nThe parliament passed the budget.\nTwo cats are running across a road."
_MOST = 9


def default_base(registry: Registry) -> str | None:
    """The base encoder where there is one."""
    return next((key for key in registry.newest() if key.startswith(f"{BASE}/")), None)


def angles(model: Model, anchor: str, positives: list[str], negatives: list[str]) -> str:
    """One model's dial and its numbers."""
    vectors = model.encode([anchor, *positives, *negatives])
    scores = (vectors[1:] @ vectors[0]).tolist()
    kinds = ["same"] * len(positives) + ["unrelated"] * len(negatives)
    marks = [(str(i), kind, score) for i, (kind, score) in enumerate(zip(kinds, scores, strict=True), 1)]
    rows = "".join(
        f'<tr><td class="n">{label}</td><td class="t"><span class="key {kind}"></span>{text.escape(sentence)}</td>'
        f'<td class="s">{score:.3f}</td></tr>'
        for (label, kind, score), sentence in zip(marks, [*positives, *negatives], strict=True)
    )
    gap = min(scores[: len(positives)]) - max(scores[len(positives) :])
    said = f"gap between the farthest positive and the nearest other: <b>{gap:+.3f}</b>"
    return (
        f'<div class="model"><h4>{text.escape(model.key)}</h4>{pictures.dial(marks)}'
        f'<table class="bars">{rows}</table><p class="legend">{said}</p></div>'
    )


def measured(model: Model) -> str:
    """Alignment and uniformity on the bundled pairs, and how their similarities spread."""
    found = geometry(model.encode, pairs.bundled())
    return (
        f'<div class="model"><h4>{text.escape(model.key)}</h4>'
        f'alignment <span class="value" data-is="alignment">{found.alignment:.3f}</span> &nbsp; '
        f'uniformity <span class="value" data-is="uniformity">{found.uniformity:.3f}</span>'
        f"{pictures.histogram(model.reference())}</div>"
    )


def build(page: Page) -> tuple[gr.Dropdown, gr.Dropdown]:
    """Adds the tab; returns its choices of models, which the page keeps up to date."""
    registry = page.registry
    gr.Markdown(
        "Contrastive training pulls sentences of the same meaning together and pushes all others apart. The anchor is "
        "the dot at the right end; every other sentence stands at the angle that the model sees between them."
    )
    keys = registry.keys()
    with gr.Row():
        before = gr.Dropdown(
            keys, value=default_base(registry), label="before", allow_custom_value=True, elem_id="space-before"
        )
        after = gr.Dropdown(
            keys, value=keys[0] if keys else None, label="after", allow_custom_value=True, elem_id="space-after"
        )
    anchor = gr.Textbox(label="Anchor", value=_ANCHOR, elem_id="space-anchor")
    with gr.Row():
        positives = gr.Textbox(
            label="Same meaning, one a line", value=_POSITIVES, lines=3, min_width=280, elem_id="space-positives"
        )
        negatives = gr.Textbox(
            label="Other meaning, one a line", value=_NEGATIVES, lines=3, min_width=280, elem_id="space-negatives"
        )
    run = gr.Button("Draw the angles", variant="primary", elem_id="space-run")
    result = page.picture(elem_id="space-result")

    def models(before: str | None, after: str | None) -> list[Model]:
        # Without a base encoder there is still something to see.
        return [registry.model(key) for key in dict.fromkeys([before, after]) if key]

    def show(before: str, after: str, anchor: str, positives: str, negatives: str) -> str:
        anchor = text.sentence(anchor, "The anchor")
        alike = text.sentences(positives, "Same meaning", least=1, most=_MOST)
        others = text.sentences(negatives, "Other meaning", least=1, most=_MOST)
        dials = "".join(angles(model, anchor, alike, others) for model in models(before, after))
        return f'<div class="models">{dials}</div>'

    page.run(
        "space",
        [run.click, anchor.submit],
        show,
        [before, after, anchor, positives, negatives],
        [result],
        {"anchor": anchor, "positives": positives, "negatives": negatives},
    )
    gr.Markdown(
        "**On the bundled pairs.** Alignment: how far apart pairs of the same meaning are. Uniformity: how evenly all "
        "sentences spread. Lower is better for both (Wang & Isola 2020). The more the two hills below part, the easier "
        "the model tells same from different."
    )
    measure = gr.Button("Measure", elem_id="space-measure")
    numbers = page.picture(elem_id="space-numbers")

    def show_numbers(before: str, after: str) -> str:
        return (
            f'<div class="models">{"".join(measured(m) for m in models(before, after))}</div>{pictures.legend("all")}'
        )

    measure.click(page_errors(show_numbers), [before, after], [numbers], api_visibility="private", **SLOW)
    return before, after
