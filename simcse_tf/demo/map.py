"""Map: sentences in the plane, near where they are alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gradio as gr
import numpy as np

from simcse_tf.demo import pictures, text
from simcse_tf.demo.models import Registry
from simcse_tf.demo.page import HERE, SLOW, Page, api_errors, page_errors
from simcse_tf.demo.tsne import tsne
from simcse_tf.errors import UserError

_NEIGHBOURS = 10
_NO_COLUMN = "clusters"


class Map(NamedTuple):
    """Sentences with their vectors `(n, dim)`, places `(n, 2)`, groups `(n,)` and the names of the groups."""

    texts: list[str]
    vectors: np.ndarray
    points: np.ndarray
    groups: np.ndarray
    names: list[str]


def lay_out(
    registry: Registry,
    texts: list[str],
    labels: list[str] | None,
    method: str,
    model: str | None,
    progress: Callable[[float, str], None],
) -> Map:
    """Encodes sentences and lays them out.

    Args:
        registry: The models at hand.
        texts: At least 4.
        labels: What colours them; clusters if not given.
        method: `pca` (at once) or `tsne` (a minute for thousands; keeps neighbours together).
        model: Which model.
        progress: Called with the share done and what is being done.

    Raises:
        UserError: No such model or method.
    """
    if method not in ("pca", "tsne"):
        raise UserError(f"method '{method}': expected pca or tsne.")
    encoder = registry.model(model)
    vectors = []
    for start in range(0, len(texts), 512):
        progress(start / len(texts) * 0.5, f"encoding {len(texts):,} sentences")
        vectors.append(encoder.encode(texts[start : start + 512]))
    vectors = np.concatenate(vectors)
    if labels is None:
        groups, names = _clusters(vectors, texts)
    else:
        counted = sorted(set(labels), key=lambda label: (-labels.count(label), label))
        groups, names = np.array([counted.index(label) for label in labels]), counted
        if len(names) > 10:
            names = [*names[:9], f"{len(names) - 9} others"]
            groups = np.minimum(groups, 9)
    if method == "pca":
        points = _pca(vectors)
    else:
        points = tsne(vectors, lambda share: progress(0.5 + share * 0.5, f"t-SNE of {len(texts):,} sentences"))
    return Map(texts, vectors, points, groups, names)


def neighbours(found: Map, index: int) -> list[tuple[str, float]]:
    """The sentences nearest to one of the map's, by cosine in all dimensions."""
    scores = found.vectors @ found.vectors[index]
    order = [i for i in np.argsort(-scores, kind="stable") if i != index]
    return [(found.texts[i], float(scores[i])) for i in order[:_NEIGHBOURS]]


def _pca(vectors: np.ndarray) -> np.ndarray:
    """The two directions along which the vectors differ most; scikit-learn fixes the signs, so that a map stays."""
    from sklearn.decomposition import PCA

    # Equal vectors have no variance, of which each direction could have a share.
    with np.errstate(invalid="ignore"):
        return PCA(2, svd_solver="full").fit_transform(vectors)


def _clusters(vectors: np.ndarray, texts: list[str]) -> tuple[np.ndarray, list[str]]:
    """k-means, at most 8 groups, the largest first; each is named by the sentence nearest to its centre."""
    from sklearn.cluster import KMeans

    k = min(max(2, min(8, len(vectors) // 6)), len(np.unique(vectors, axis=0)))
    centres = KMeans(k, n_init=4, random_state=0).fit(vectors)
    groups, distances = np.asarray(centres.labels_), centres.transform(vectors)
    kept = [int(g) for g in np.argsort(-np.bincount(groups, minlength=k), kind="stable")]
    names = [texts[int(np.where(groups == g, distances[:, g], np.inf).argmin())] for g in kept]
    return np.array([kept.index(g) for g in groups]), names


def _read(path: str, column: str | None, colour: str | None) -> tuple[list[str], list[str] | None]:
    if not colour or colour == _NO_COLUMN:
        return text.file_sentences(path, column, least=4, most=text.MAX_MAP), None
    column = column or text.guess_column(path, text.columns(path)) or ""
    texts, labels = [], []
    for sentence, label in text.rows(path, (column, colour)):
        if len(texts) == text.MAX_MAP:
            raise UserError(f"The file has more than {text.MAX_MAP:,} rows; at most {text.MAX_MAP:,} are taken.")
        texts.append(text.sentence(sentence, f"Row {len(texts) + 1}"))
        labels.append(label)
    if len(texts) < 4:
        raise UserError(f"{len(texts)} rows; a map takes at least 4.")
    return texts, labels


def build(page: Page) -> None:
    """Adds the tab and its endpoint."""
    registry = page.registry
    typed = gr.Textbox(
        label=f"Sentences, one a line, 4 to {text.MAX_MAP:,}",
        value=_sample(),
        lines=6,
        max_lines=12,
        elem_id="map-text",
    )
    file = gr.File(
        label="or a file (.txt, .csv, .tsv, .jsonl)",
        file_types=text.SUFFIXES,
        type="filepath",
        height=150,
        elem_id="map-file",
    )
    with gr.Row():
        column = gr.Dropdown([], label="text column", visible=False, elem_id="map-column")
        colour = gr.Dropdown([_NO_COLUMN], value=_NO_COLUMN, label="coloured by", visible=False, elem_id="map-colour")
        method = gr.Radio(
            [("PCA, at once", "pca"), ("t-SNE, keeps neighbours together", "tsne")],
            value="pca",
            label="layout",
            elem_id="map-method",
        )
    run = gr.Button("Draw", variant="primary", elem_id="map-run")
    result = page.picture(elem_id="map-result", js_on_load=(HERE / "map.js").read_text("utf-8"))
    near = page.picture(elem_id="map-near")
    drawn = gr.State(None, time_to_live=3600)

    def describe(path: str | None) -> tuple[Any, Any]:
        names = text.columns(path) if path else []
        many = len(names) > 1
        return (
            gr.update(choices=names, value=text.guess_column(path, names) if path else None, visible=many),
            gr.update(choices=[_NO_COLUMN, *names], value=_NO_COLUMN, visible=many),
        )

    file.change(page_errors(describe), [file], [column, colour], api_visibility="private")

    def show(
        typed: str,
        file: str | None,
        column: str | None,
        colour: str | None,
        method: str,
        model: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio hands it over
    ) -> tuple[str, Map, str]:
        if file:
            texts, labels = _read(file, column, colour)
        else:
            texts, labels = text.sentences(typed, "Sentences", least=4, most=text.MAX_MAP), None
        found = lay_out(registry, texts, labels, method, model, lambda share, what: progress(share, desc=what))
        picture = pictures.scatter(found.points, found.texts, found.groups.tolist(), found.names)
        return pictures.whose(registry.model(model).key) + picture, found, ""

    page.run(
        "map",
        [run.click],
        show,
        [typed, file, column, colour, method, page.model],
        [result, drawn, near],
        {"text": typed, "method": method},
        file=file,
        **SLOW,
    )

    def nearest(found: Map | None, event: gr.EventData) -> str:
        index = getattr(event, "index", None)
        if found is None or not isinstance(index, int) or not 0 <= index < len(found.texts):
            raise UserError("This map is no longer held here. Draw it again.")
        heading = f"<h3>Nearest to “{text.escape(text.shorten(found.texts[index], 200))}”</h3>"
        return heading + pictures.bars(neighbours(found, index))

    result.click(page_errors(nearest), [drawn], [near], api_visibility="private")

    def endpoint(sentences: list[str], method: str = "pca", model: str = "") -> dict:
        """Places of 4 to 5,000 sentences in the plane, and their clusters."""
        texts = text.sentences(sentences, "Sentences", least=4, most=text.MAX_MAP)
        found = lay_out(registry, texts, None, method, model, lambda share, what: None)
        return {"sentences": texts, "points": found.points.tolist(), "clusters": found.groups.tolist()}

    gr.api(api_errors(endpoint), api_name="map", **SLOW)


def _sample() -> str:
    """Sentences to begin with: four subjects, mixed."""
    subjects = [
        [
            "The orchestra tuned before the concert.",
            "A violinist practised the difficult passage.",
            "The choir sang without accompaniment.",
            "She plays the drums in a jazz band.",
            "His first album was recorded in a garage.",
            "The pianist bowed to the audience.",
        ],
        [
            "Shares fell after the company's results.",
            "The central bank raised interest rates.",
            "Inflation slowed for the third month.",
            "Investors moved their money into bonds.",
            "The firm paid its shareholders a dividend.",
            "Unemployment reached its lowest level in years.",
        ],
        [
            "Let the dough rise for an hour.",
            "Season the soup with salt and pepper.",
            "Fry the onions until they are golden.",
            "Whisk the eggs with the sugar.",
            "Roast the vegetables in a hot oven.",
            "Serve the stew with fresh bread.",
        ],
        [
            "Heavy rain flooded the valley.",
            "Snow closed the mountain pass.",
            "A warm wind blew from the south.",
            "Thunder rolled over the lake all night.",
            "The fog lifted before noon.",
            "The drought dried out the river.",
        ],
    ]
    return "\n".join(sentence for row in zip(*subjects, strict=True) for sentence in row)
