"""Before and after: what contrastive training does to the space, on known pairs and on one's own sentences."""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr
import numpy as np

from simcse_tf.data.sources import open_source
from simcse_tf.demo import offer, pictures, text
from simcse_tf.demo.models import Model, Registry
from simcse_tf.demo.page import SLOW, Page, page_errors
from simcse_tf.errors import UserError
from simcse_tf.evaluation import pairs
from simcse_tf.evaluation.geometry import geometry

_ANCHOR = "Two dogs are running across a snowy field."
_POSITIVES = "A pair of dogs runs through the snow.\nTwo animals race over a field in winter."
_NEGATIVES = "Two dogs are asleep on the sofa.\nThe parliament passed the budget.\nTwo cats are running across a road."
_MOST = 9
# Bundled triplets that are shown.
_MOVED = 8
_BEGAN_WITH = ""


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
        f'alignment&nbsp;<span class="value" data-is="alignment">{found.alignment:.3f}</span> '
        f'uniformity&nbsp;<span class="value" data-is="uniformity">{found.uniformity:.3f}</span>'
        f"{pictures.histogram(model.reference())}</div>"
    )


def moved(before: Model, after: Model) -> str:
    """What training did to the bundled triplets, of which each has an anchor, a positive and a hard negative."""
    triplets = list(open_source("bundled:triplets").rows())
    gaps = []
    for model in (before, after):
        anchors, positives, negatives = (model.encode(texts) for texts in zip(*triplets, strict=True))
        gaps.append((anchors * (positives - negatives)).sum(axis=1))
    change = gaps[1] - gaps[0]
    most = np.argsort(-np.abs(change), kind="stable")[:_MOVED]
    rows = "".join(
        f'<tr><td class="t"><b>{text.escape(triplets[i][0])}</b><br>'
        f'<span class="key same"></span>{text.escape(triplets[i][1])}<br>'
        f'<span class="key unrelated"></span>{text.escape(triplets[i][2])}</td>'
        f'<td class="s">{gaps[0][i]:+.2f} → <b>{gaps[1][i]:+.2f}</b></td></tr>'
        for i in most.tolist()
    )
    return (
        f"<h3>Triplets that moved most</h3><p>Of {len(triplets)} bundled triplets, {(gaps[0] > 0).mean():.0%} → "
        f"<b>{(gaps[1] > 0).mean():.0%}</b> have the anchor nearer to the sentence of the same meaning than to the one "
        "that only looks like it. Training on single sentences seldom helps here, for these two share their words.</p>"
        '<table class="bars"><thead><tr><th>anchor, same meaning, other meaning</th><th>gap</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def began_with(registry: Registry, after: str, progress: Callable[[float, str], None]) -> str:
    """What a trained model began with: the same preset, pooled in the same way, exported now if it is not there.

    Returns:
        Its name on the page.

    Raises:
        UserError: The model was not trained, does not say from what, or that cannot be exported.
    """
    start = registry.start(after)
    if start is None:
        raise UserError(
            f"{after} does not say what it was trained from: it was not trained, or exported by an older version. "
            "Train one on Learn, choose another model above, or one to compare this one with."
        )
    if (found := registry.untrained(start)) is None:
        progress(0.1, f"exporting what {after} began with, once: about a minute")
        offer.export(start.preset, registry.root / start.name, pooling=start.pooling)
        found = registry.untrained(start)
    if found is None:
        raise UserError(f"{start.preset} was trained itself, and exported just now. Choose it as the model before.")
    return found


def build(page: Page) -> gr.Dropdown:
    """Adds the tab; returns its choice of the model before, which the page keeps up to date."""
    registry = page.registry
    gr.Markdown(
        "Contrastive training pulls sentences of the same meaning together and pushes all others apart. The anchor is "
        "the dot at the right end; every other sentence stands at the angle that the model sees between them."
    )
    with gr.Row():
        anchor = gr.Textbox(label="Anchor", value=_ANCHOR, min_width=280, elem_id="space-anchor")
        before = gr.Dropdown(
            choices(registry.keys()),
            value=_BEGAN_WITH,
            label="the model before (the one after is chosen above)",
            allow_custom_value=True,
            min_width=280,
            elem_id="space-before",
        )
    with gr.Row():
        positives = gr.Textbox(
            label="Same meaning, one a line", value=_POSITIVES, lines=3, min_width=280, elem_id="space-positives"
        )
        negatives = gr.Textbox(
            label="Other meaning, one a line", value=_NEGATIVES, lines=3, min_width=280, elem_id="space-negatives"
        )
    run = gr.Button("Draw the angles", variant="primary", elem_id="space-run")
    result = page.picture(elem_id="space-result")

    def models(before: str, after: str, progress: gr.Progress) -> list[Model]:
        last = registry.model(after).key
        first = before or began_with(registry, last, lambda share, doing: progress(share, desc=doing))
        return [registry.model(key) for key in dict.fromkeys([first, last])]

    def show(
        before: str,
        after: str,
        anchor: str,
        positives: str,
        negatives: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio hands it over
    ) -> str:
        anchor = text.sentence(anchor, "The anchor")
        alike = text.sentences(positives, "Same meaning", least=1, most=_MOST)
        others = text.sentences(negatives, "Other meaning", least=1, most=_MOST)
        used = models(before, after, progress)
        dials = "".join(angles(model, anchor, alike, others) for model in used)
        whose = pictures.whose(" and ".join(model.key for model in used), anchor)
        return f'{whose}<div class="models">{dials}</div>'

    page.run(
        "space",
        [run.click, anchor.submit],
        show,
        [before, page.model, anchor, positives, negatives],
        [result],
        {"anchor": anchor, "positives": positives, "negatives": negatives},
        **SLOW,
    )
    gr.Markdown(
        "**On the bundled pairs and triplets.** Alignment: how far apart pairs of the same meaning are. Uniformity: "
        "how evenly all sentences spread. Lower is better for both (Wang & Isola 2020). The more the two hills below "
        "part, the easier the model tells same from different."
    )
    measure = gr.Button("Measure", elem_id="space-measure")
    numbers = page.picture(elem_id="space-numbers")

    def show_numbers(
        before: str,
        after: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio hands it over
    ) -> str:
        used = models(before, after, progress)
        both = "".join(measured(model) for model in used)
        table = moved(*used) if len(used) > 1 else ""
        return f'<div class="models">{both}</div>{pictures.legend("all")}{table}'

    measure.click(
        page_errors(show_numbers),
        [before, page.model],
        [numbers],
        api_visibility="private",
        show_progress_on=numbers,
        **SLOW,
    )
    return before


def choices(keys: list[str]) -> list[tuple[str, str]]:
    """What may be chosen as the model before: first of all, the one that training began with."""
    return [("what its training began with", _BEGAN_WITH), *((key, key) for key in keys)]
