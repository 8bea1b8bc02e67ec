"""The page: the choice of the model, the tabs, links, and what shows when there is no model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from simcse_tf.demo import about, before_after, compare, map, matrix, offer, rank, search
from simcse_tf.demo.indexes import Indexes
from simcse_tf.demo.models import Registry
from simcse_tf.demo.page import HERE, SLOW, Page, page_errors
from simcse_tf.errors import UserError

TITLE = "simcse_tf: similarity you can explore"
_TABS = {
    "compare": "Compare",
    "rank": "Rank",
    "matrix": "Matrix",
    "map": "Map",
    "search": "Search",
    "space": "Before and after",
    "about": "About",
}
# Seconds after which an open page looks for new versions; and seconds after which uploads are deleted.
_LOOK_EVERY, _KEEP_FILES = 10, 86_400
# Fonts that every system has: nothing is fetched from anywhere.
THEME = gr.themes.Default(
    primary_hue="teal", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
).set(
    # White on the default teal is hard to read.
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_600",
)


def build(registry: Registry, folder: Path) -> gr.Blocks:
    """Builds the page.

    Args:
        registry: The models at hand.
        folder: Where indexes are kept.
    """
    keys = registry.keys()
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, _KEEP_FILES)) as blocks:
        gr.Markdown(
            "# simcse_tf\nHow alike are two sentences? Ask a sentence encoder, and see what it was trained to see."
        )
        model = gr.Dropdown(
            keys,
            value=keys[0] if keys else None,
            label="model / version",
            allow_custom_value=True,
            visible=bool(keys),
            elem_id="model",
        )
        page = Page(registry, model)
        with gr.Group(visible=not keys, elem_id="no-model") as missing:
            gr.Markdown(offer.how_to(registry.root), padding=True)
        export = gr.Button(
            "Export the base encoder", visible=_base_is_missing(registry), elem_id="export-base", size="sm"
        )
        exported = page.picture(elem_id="export-status")
        with gr.Tabs(visible=bool(keys), elem_id="tabs") as tabs:
            with gr.Tab(_TABS["compare"], id="compare"):
                compare.build(page)
            with gr.Tab(_TABS["rank"], id="rank"):
                rank.build(page)
            with gr.Tab(_TABS["matrix"], id="matrix"):
                matrix.build(page)
            with gr.Tab(_TABS["map"], id="map"):
                map.build(page)
            with gr.Tab(_TABS["search"], id="search"):
                search.build(page, Indexes(folder))
            with gr.Tab(_TABS["space"], id="space"):
                before, after = before_after.build(page)
            with gr.Tab(_TABS["about"], id="about"):
                card = gr.Markdown(elem_id="about-card")
                gr.Markdown(elem_id="about-page", value=_about_page())

        seen = gr.State(keys)
        choices = [model, before, after]
        changing = [*choices, missing, export, tabs, seen]

        def look(model: str | None, before: str | None, after: str | None, seen: list[str]) -> list[Any]:
            return _look(registry, [model, before, after], seen)

        def open_link(request: gr.Request) -> list[Any]:
            return _open_link(registry, page, dict(request.query_params))

        looking = {"api_visibility": "private", "show_progress": "hidden"}
        gr.Timer(_LOOK_EVERY).tick(look, [*choices, seen], changing, **looking)
        opened = blocks.load(look, [*choices, seen], changing, **looking).then(
            open_link, None, [tabs, model, *page.links.values()], **looking
        )
        opened.then(None, js="() => { simcseOpen(); }")
        gr.on(
            [blocks.load, model.change],
            page_errors(lambda key: about.card(registry, key)),
            [model],
            [card],
            api_visibility="private",
            show_progress="hidden",
        )

        def export_base() -> Iterator[str]:
            try:
                yield from offer.export_base(registry.root)
            except UserError as e:
                raise gr.Error(str(e), print_exception=False) from e

        export.click(export_base, None, [exported], api_visibility="private", **SLOW).then(
            look, [*choices, seen], changing, **looking
        )
    return blocks


def launch_options() -> dict[str, Any]:
    """How the page looks, for `launch`."""
    return {
        "theme": THEME,
        "css": (HERE / "page.css").read_text("utf-8"),
        "head": f"<script>{(HERE / 'page.js').read_text('utf-8')}</script>",
        "footer_links": ["api"],
        "run_history": False,
    }


def _base_is_missing(registry: Registry) -> bool:
    return before_after.default_base(registry) is None


def _look(registry: Registry, chosen: list[str | None], seen: list[str]) -> list[Any]:
    """Updates for the choices, and for what shows only with or only without models; none if nothing is new."""
    keys = registry.keys()
    if keys == seen and all(key in keys for key in chosen if key):
        return [gr.skip()] * (len(chosen) + 4)
    first = keys[0] if keys else None
    base = before_after.default_base(registry)
    defaults = [first, base, first]
    values = [key if key in keys else default for key, default in zip(chosen, defaults, strict=True)]
    choices = [gr.update(choices=keys, value=value) for value in values]
    choices[0] = gr.update(choices=keys, value=values[0], visible=bool(keys))
    return [
        *choices,
        gr.update(visible=not keys),
        gr.update(visible=base is None),
        gr.update(visible=bool(keys)),
        keys,
    ]


def _open_link(registry: Registry, page: Page, query: dict[str, str]) -> list[Any]:
    """Selects the tab that a link names and fills it in."""
    tab = query.get("tab")
    if tab not in _TABS:
        return [gr.skip()] * (2 + len(page.links))
    known = set(registry.keys())
    model = gr.update(value=query["model"]) if query.get("model") in known else gr.skip()
    values = [query.get(name, gr.skip()) if owner == tab else gr.skip() for owner, name in page.links]
    return [gr.update(selected=tab), model, *values]


def _about_page() -> str:
    return (
        "---\nThis page is part of simcse_tf. It runs where you started it and sends nothing anywhere. What you run "
        "goes into the address bar, so that the link can be sent on; uploaded files do not.\n\n"
        'From Python: `gradio_client.Client(ADDRESS).predict(a, b, api_name="/compare")`; also `/rank`, `/matrix`, '
        "`/map`, `/index` and `/search` (the link at the foot of the page lists them)."
    )
