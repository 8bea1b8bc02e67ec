"""Map: sentences in the plane, near where they are alike; or the same ones under two models, side by side."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from fastapi import Response

from simcse_tf.demo import clusters, given, layouts, pictures, text
from simcse_tf.demo.kept import Kept
from simcse_tf.demo.models import Model, Registry
from simcse_tf.demo.page import SLOW, Page, api_errors
from simcse_tf.demo.vectors import Vectors, digest, nearest
from simcse_tf.errors import UserError

_NEIGHBOURS = 10
_CLUSTERS = 8
# Names that show when the map is enlarged: so many, of at least so many sentences each.
_FINE, _IN_A_FINE_ONE = 64, 25
# Colours: values beyond that share the last one. Columns that are looked at, and values of one that still colours.
_COLOURS, _COLUMNS, _VALUES = 10, 12, 200
_UNITS = 1_000_000
_KEPT_LAYOUTS, _KEPT_MAPS = 32, 4
# Sentences whose neighbours are compared under two models, of these those that are shown, and of each its neighbours.
_COMPARED, _CHANGED, _OF_EACH = 2_000, 20, 3
_NO_MODEL = ""
# Draws what the server sends for the map whose name is in the page.
_DRAWS = """
const begin = async () => {
  const root = element.querySelector(".atlas");
  if (!root) return;
  const { map } = root.dataset;
  const data = await server.load({ map });
  if (data.error) root.textContent = data.error;
  else simcseMap(root, data, (question) => server.near({ map, ...question }));
};
watch("value", begin);
begin();
"""


class Colour(NamedTuple):
    """A way to colour the sentences: `codes` `(n,)` say which of `names` each one has."""

    name: str
    names: list[str]
    codes: np.ndarray


class Drawn(NamedTuple):
    """A map: sentences, and under each model their vectors `(n, dim)` and places `(n, 2)`."""

    texts: list[str]
    models: list[Model]
    vectors: list[np.ndarray]
    points: list[np.ndarray]
    colours: list[Colour]
    sent: bytes


class Maps:
    """Draws maps, each once.

    Args:
        registry: The models at hand.
        vectors: What encodes.
    """

    def __init__(self, registry: Registry, vectors: Vectors):
        self._registry, self._vectors = registry, vectors
        self._layouts: Kept[np.ndarray] = Kept(_KEPT_LAYOUTS)
        self._drawn: Kept[Drawn] = Kept(_KEPT_MAPS)

    def draw(
        self,
        texts: list[str],
        columns: dict[str, list[str]],
        method: str,
        models: Sequence[str | None],
        progress: Callable[[float, str], None],
    ) -> tuple[str, Drawn]:
        """Lays sentences out and finds their clusters; what was drawn before is found again.

        Args:
            texts: At least 4.
            columns: What else may colour them: names and values `(n,)`.
            method: As `layouts.lay_out` takes it.
            models: One or two; the second map is turned as the first one lies.
            progress: Called with the share done and what is being done.

        Returns:
            The map's name, which `find` takes, and the map.

        Raises:
            UserError: No such model or method.
        """
        layouts.check(method, len(texts))
        used = [self._registry.model(model) for model in models]
        key = digest(texts)
        others = [(name, digest(values)) for name, values in columns.items()]
        # The map holds its models, so that no other one can have their ids.
        name = hashlib.sha256(repr((key, others, method, [id(model) for model in used])).encode()).hexdigest()

        def make() -> Drawn:
            vectors, points = [], []
            for i, model in enumerate(used):

                def share(of: float, doing: str, before: int = i) -> None:
                    progress((before + of) / len(used), doing)

                seen, laid = self._lay_out(texts, key, model, method, share)
                vectors.append(seen)
                points.append(layouts.aligned(laid, points[0]) if points else laid)
            progress(1, "clusters and their words")
            groups = clusters.clusters(vectors[0], _CLUSTERS)
            named = clusters.names(texts, groups)
            colours = [Colour("cluster", named, groups)]
            colours += [_grouped(column, values) for column, values in columns.items()]
            labels = _labels(named, groups, points, fine=False)
            if len(texts) >= _FINE * _IN_A_FINE_ONE:
                fine = clusters.clusters(vectors[0], _FINE)
                labels += _labels(clusters.names(texts, fine), fine, points, fine=True)
            return Drawn(texts, used, vectors, points, colours, _sent(texts, used, points, colours, labels))

        return name, self._drawn.get(name, make)

    def _lay_out(
        self, texts: list[str], key: str, model: Model, method: str, progress: Callable[[float, str], None]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Vectors and places of texts under one model; `key` is the texts' digest."""
        vectors = self._vectors.of(texts, model, lambda share, doing: progress(share / 2, doing))

        def lay_out() -> np.ndarray:
            return layouts.lay_out(vectors, method, lambda share, doing: progress(0.5 + share / 2, doing))

        return vectors, self._layouts.get((key, model, method), lay_out)

    def find(self, name: object) -> Drawn:
        """A map that was drawn.

        Raises:
            UserError: There is none of that name, or no longer.
        """
        drawn = self._drawn.find(name) if isinstance(name, str) else None
        if drawn is None:
            raise UserError("This map is no longer held here. Draw it again.")
        return drawn

    def near(self, drawn: Drawn, *, index: int | None = None, query: str = "") -> list[dict[str, Any]]:
        """The sentences nearest to one of a map's, or to another one.

        Args:
            drawn: The map.
            index: Of a sentence of the map; by default the query is one that need not be there.
            query: A sentence.

        Returns:
            Under each model `nearest`: indices and cosines; and, to a query, `scores`: all cosines, in thousandths.

        Raises:
            UserError: The query is empty or too long, or there is no such sentence.
        """
        if index is not None and not (isinstance(index, int) and 0 <= index < len(drawn.texts)):
            raise UserError(f"sentence {index!r:.20}: expected a number from 0 to {len(drawn.texts) - 1}.")
        query = "" if index is not None else text.sentence(query, "The sentence")
        found = []
        for model, vectors in zip(drawn.models, drawn.vectors, strict=True):
            scores = vectors @ (model.encode([query])[0] if index is None else vectors[index])
            best = [i for i in np.argsort(-scores, kind="stable")[: _NEIGHBOURS + 1].tolist() if i != index]
            answer: dict[str, Any] = {"nearest": [(i, round(float(scores[i]), 4)) for i in best[:_NEIGHBOURS]]}
            if index is None:
                answer["scores"] = np.rint(scores * 1000).astype(int).tolist()
            found.append(answer)
        return found


def changed(drawn: Drawn) -> list[tuple[int, list[int], list[int]]]:
    """The sentences whose nearest ones differ most under a map's two models.

    Returns:
        Of each its index and its nearest sentences under the first and under the second model.
    """
    count = min(_NEIGHBOURS, len(drawn.texts) - 1)
    rows = np.unique(np.linspace(0, len(drawn.texts) - 1, _COMPARED).round().astype(int))
    before, after = (nearest(vectors, rows, count)[1] for vectors in drawn.vectors)
    shared = np.array([len(set(a) & set(b)) for a, b in zip(before.tolist(), after.tolist(), strict=True)])
    most = np.argsort(shared, kind="stable")[:_CHANGED]
    return [(int(rows[i]), before[i].tolist(), after[i].tolist()) for i in most if shared[i] < count]


def _grouped(name: str, values: Sequence[str]) -> Colour:
    """Values as colours, the most frequent first; rare ones share the last colour."""
    counted = Counter(values)
    names = sorted(counted, key=lambda value: (-counted[value], value))
    places = {value: min(i, _COLOURS - 1) for i, value in enumerate(names)}
    if len(names) > _COLOURS:
        names = [*names[: _COLOURS - 1], f"{len(names) - _COLOURS + 1} others"]
    return Colour(name, [text.shorten(value, 60) for value in names], np.array([places[value] for value in values]))


def _labels(names: list[str], groups: np.ndarray, points: list[np.ndarray], *, fine: bool) -> list[dict[str, Any]]:
    """Names where their groups are, under each model, the largest group first."""
    places = [[np.median(each[groups == group], axis=0) for each in points] for group in range(len(names))]
    return [{"text": name, "fine": fine, "at": at} for name, at in zip(names, places, strict=True)]


def _sent(
    texts: list[str],
    models: list[Model],
    points: list[np.ndarray],
    colours: list[Colour],
    labels: list[dict[str, Any]],
) -> bytes:
    """What the browser draws, as gzipped JSON, packed once for all visitors."""
    every = np.concatenate(points)
    low, high = every.min(axis=0), every.max(axis=0)
    scale = _UNITS / max(float((high - low).max()), 1e-9)

    def placed(of: np.ndarray) -> np.ndarray:
        # Down is more on a screen.
        return np.rint((of - low) * scale * [1, -1] + [0, (high - low)[1] * scale]).astype(int)

    sent = {
        "texts": texts,
        "points": [placed(each).T.tolist() for each in points],
        "models": [model.key for model in models],
        "colours": [{"name": c.name, "names": c.names, "codes": c.codes.tolist()} for c in colours],
        "labels": [{**label, "at": [placed(at).tolist() for at in label["at"]]} for label in labels],
    }
    return gzip.compress(json.dumps(sent, separators=(",", ":")).encode("utf-8", "surrogatepass"), 5, mtime=0)


def read_columns(path: str | Path, column: str | None) -> dict[str, list[str]]:
    """The columns of an uploaded file that can colour a map: those with few different values."""
    found: dict[str, list[str]] = {}
    for name in text.columns(path)[:_COLUMNS]:
        if name == column:
            continue
        try:
            values = [value for (value, *_rest) in text.rows(path, (name,))]
        except UserError:  # an empty cell, say
            continue
        if 1 < len(set(values)) <= _VALUES and len(set(values)) < len(values):
            found[name] = values
    return found


def build(page: Page, vectors: Vectors) -> gr.Dropdown:
    """Adds the tab and its endpoint; returns its choice of a second model, which the page keeps up to date."""
    registry = page.registry
    maps = Maps(registry, vectors)
    form = given.build("map", f"Sentences, one a line, 4 to {text.MAX_MAP:,}", _sample())
    with gr.Row():
        offered = layouts.methods()
        method = gr.Radio(
            [(label, name) for name, label in layouts.CHOICES.items() if name in offered],
            value="pca",
            label="layout",
            scale=2,
            min_width=280,
            elem_id="map-method",
        )
        beside = gr.Dropdown(
            choices(registry.keys()),
            value=_NO_MODEL,
            label="beside it, the same sentences under another model",
            allow_custom_value=True,
            scale=2,
            min_width=280,
            elem_id="map-beside",
        )
    run = gr.Button("Draw", variant="primary", elem_id="map-run")

    def load(asked: object) -> Any:
        """What the browser draws."""
        try:
            sent = maps.find(_field(asked, "map")).sent
        except UserError as e:
            return {"error": str(e)}
        return Response(sent, media_type="application/json", headers={"Content-Encoding": "gzip"})

    def near(asked: object) -> dict[str, Any]:
        """Neighbours of a dot, or of a sentence that is being typed."""
        try:
            drawn = maps.find(_field(asked, "map"))
            return {"found": maps.near(drawn, index=_field(asked, "index"), query=_field(asked, "text"))}
        except UserError as e:
            return {"error": str(e)}

    result = page.picture(elem_id="map-result", js_on_load=_DRAWS, server_functions=[load, near])
    differing = page.picture(elem_id="map-changed")

    def show(
        typed: str,
        file: str | None,
        column: str | None,
        method: str,
        beside: str,
        model: str,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio hands it over
    ) -> tuple[str, str]:
        texts = given.read(typed, file, column, what="Sentences", least=4, most=text.MAX_MAP)
        columns = read_columns(file, column) if file else {}
        models = [model] if not beside or beside == model else [model, beside]
        name, drawn = maps.draw(texts, columns, method, models, lambda share, doing: progress(share, desc=doing))
        whose = pictures.whose(f"{' and '.join(each.key for each in drawn.models)}, by {layouts.NAMES[method]}")
        return f'{whose}<div class="atlas" data-map="{name}"></div>', _changed(drawn)

    page.run(
        "map",
        [run.click],
        show,
        [form.typed, form.file, form.column, method, beside, page.model],
        [result, differing],
        {"text": form.typed, "method": method},
        file=form.file,
        **SLOW,
    )

    def endpoint(sentences: list[str], method: str = "pca", model: str = "") -> dict:
        """Places of 4 to 50,000 sentences in the plane, their clusters, and the words that name these."""
        texts = text.sentences(sentences, "Sentences", least=4, most=text.MAX_MAP)
        _, drawn = maps.draw(texts, {}, method, [model], lambda share, doing: None)
        found = drawn.colours[0]
        points, codes = drawn.points[0].tolist(), found.codes.tolist()
        return {"sentences": texts, "points": points, "clusters": codes, "names": found.names}

    gr.api(api_errors(endpoint), api_name="map", **SLOW)
    return beside


def choices(keys: list[str]) -> list[tuple[str, str]]:
    """What may be chosen as the second model; first of all, none."""
    return [("none", _NO_MODEL), *((key, key) for key in keys)]


def _field(asked: object, name: str) -> Any:
    return asked.get(name) if isinstance(asked, dict) else None


def _changed(drawn: Drawn) -> str:
    """The table of `changed`; nothing of a map under one model."""
    if len(drawn.models) < 2:
        return ""
    one, two = (text.escape(model.key) for model in drawn.models)
    body = ""
    for i, before, after in changed(drawn):
        # Neighbours of both say nothing here.
        alone = ([j for j in before if j not in after], [j for j in after if j not in before])
        cells = ("<br>".join(text.escape(drawn.texts[j]) for j in near[:_OF_EACH]) for near in alone)
        body += (
            "<tr>" + "".join(f'<td class="t">{cell}</td>' for cell in (text.escape(drawn.texts[i]), *cells)) + "</tr>"
        )
    if not body:
        return "<p>Every sentence has the same neighbours under both models.</p>"
    return (
        f"<h3>Sentences whose neighbours changed most</h3><table class='bars'><thead><tr><th>sentence</th>"
        f"<th>near under {one} alone</th><th>near under {two} alone</th></tr></thead><tbody>{body}</tbody></table>"
    )


def _sample() -> str:
    """Sentences to begin with: four subjects, mixed, with words that come twice, which name their clusters."""
    subjects = [
        [
            "The orchestra tuned before the concert.",
            "The concert ended with a violin solo.",
            "The choir sang the last song twice.",
            "She plays the drums in a jazz band.",
            "The band recorded a song in a garage.",
            "The violin was too loud for the choir.",
        ],
        [
            "Shares fell after the company's results.",
            "The central bank raised interest rates.",
            "Inflation slowed, and interest rates may fall.",
            "Investors sold their shares in the bank.",
            "The company paid its investors a dividend.",
            "Unemployment and inflation are lower than a year ago.",
        ],
        [
            "Let the dough rise for an hour.",
            "Season the soup with salt and pepper.",
            "Fry the onions in butter until they are golden.",
            "Whisk the butter with the sugar and salt.",
            "Roast the onions in a hot oven.",
            "Serve the soup with bread from the oven.",
        ],
        [
            "Heavy rain flooded the valley.",
            "Snow closed the mountain pass.",
            "A warm wind brought rain from the south.",
            "Snow fell on the mountain all night.",
            "The fog in the valley lifted before noon.",
            "The wind turned, and the fog came back.",
        ],
    ]
    return "\n".join(sentence for row in zip(*subjects, strict=True) for sentence in row)
