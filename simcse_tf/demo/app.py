"""The page: the choice of the model, the tabs, links, and what shows when there is no model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from simcse_tf.demo import (
    about,
    before_after,
    compare,
    duplicates,
    learn,
    map,
    matrix,
    offer,
    pictures,
    rank,
    search,
    sizes,
)
from simcse_tf.demo.indexes import Indexes
from simcse_tf.demo.jobs import Jobs
from simcse_tf.demo.models import Registry
from simcse_tf.demo.page import HERE, SLOW, Page, page_errors
from simcse_tf.demo.vectors import Vectors
from simcse_tf.errors import UserError
from simcse_tf.evaluation import motion

TITLE = "simcse_tf: similarity you can explore"
# The tabs, in groups of which a phone shows all.
_GROUPS = {
    "Sentences": {"compare": "Compare", "rank": "Rank", "matrix": "Matrix"},
    "Files": {"map": "Map", "search": "Search", "duplicates": "Duplicates", "size": "Size"},
    "Training": {"learn": "Learn", "space": "Before and after"},
    "About": {"about": "The model"},
}
_GROUP_OF = {tab: group for group, tabs in _GROUPS.items() for tab in tabs}
# The tab that needs no model: it makes one.
_MAKES_ONE = "learn"
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


def build(registry: Registry, folder: Path, jobs: Jobs | None) -> gr.Blocks:
    """Builds the page.

    Args:
        registry: The models at hand.
        folder: Where indexes are kept.
        jobs: The trainings; None where nobody may start one.
    """
    keys = registry.keys()
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, _KEEP_FILES)) as blocks:
        with gr.Row():
            gr.Markdown(
                "# simcse_tf\nAsk a sentence encoder how alike two sentences are, and watch one learn.",
                elem_id="title",
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
        with gr.Column(visible=not keys, elem_id="no-model") as missing:
            gr.HTML(pictures.welcome(), elem_classes=["picture"])
            gr.Markdown(offer.how_to(registry.root, trains=jobs is not None))
            export = gr.Button("Export the base encoder", elem_id="export-base", size="sm")
            exported = page.picture(elem_id="export-status")
        vectors = Vectors()
        fill = {
            "compare": lambda: compare.build(page),
            "learn": lambda: learn.build(page, jobs) if jobs else gr.Markdown(learn.OFF),
            "rank": lambda: rank.build(page),
            "matrix": lambda: matrix.build(page),
            "map": lambda: map.build(page, vectors),
            "search": lambda: search.build(page, Indexes(folder)),
            "duplicates": lambda: duplicates.build(page, vectors, folder),
            "size": lambda: sizes.build(page, vectors),
            "space": lambda: before_after.build(page),
            "about": _build_about,
        }
        built: dict[str, Any] = {}
        asking, groups = [], []
        with gr.Tabs(elem_id="tabs") as outer:
            for group, tabs in _GROUPS.items():
                # Without a model there is but the group, and in it the tab, that makes one.
                makes_one = _MAKES_ONE in tabs
                with gr.Tab(group, id=group, visible=bool(keys) or makes_one) as shown:
                    asking += [] if makes_one else [shown]
                    with gr.Tabs() as inner:
                        groups.append(inner)
                        for tab, title in tabs.items():
                            asks = makes_one and tab != _MAKES_ONE
                            with gr.Tab(title, id=tab, visible=bool(keys) or not asks) as shown:
                                built[tab] = fill[tab]()
                            asking += [shown] if asks else []
        before, beside = built["space"], built["map"]

        seen = gr.State(keys)
        choices = [model, before, beside]
        changing = [*choices, missing, *asking, seen]

        def look(model: str | None, before: str | None, beside: str | None, seen: list[str]) -> Any:
            return _look(registry, [model, before, beside], seen, len(asking))

        def open_link(request: gr.Request) -> list[Any]:
            return _open_link(registry, page, dict(request.query_params))

        looking = {"api_visibility": "private", "show_progress": "hidden"}
        gr.Timer(_LOOK_EVERY).tick(look, [*choices, seen], changing, **looking)
        # What was newest when the server started need not be so when somebody opens the page.
        opened = blocks.load(
            lambda seen: _look(registry, [None, "", ""], seen, len(asking)), [seen], changing, **looking
        ).then(open_link, None, [outer, *groups, model, *page.links.values()], **looking)
        opened.then(None, js="() => { simcseOpen(); }")
        # A training has chosen the model that it made.
        model.change(look, [*choices, seen], changing, **looking)
        if jobs:
            trained, newest = built["learn"]
            blocks.load(newest, None, trained, **looking)
        gr.on(
            [blocks.load, model.change],
            page_errors(lambda key: about.card(registry, key)),
            [model],
            [built["about"]],
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
    scripts = [HERE / "page.js", HERE / "map.js", motion.SCRIPT]
    return {
        "theme": THEME,
        "css": "".join(path.read_text("utf-8") for path in (HERE / "page.css", motion.STYLE)),
        "head": "".join(f"<script>{path.read_text('utf-8')}</script>" for path in scripts),
        "footer_links": ["api"],
        "run_history": False,
    }


def _look(registry: Registry, chosen: list[str | None], seen: list[str], asking: int) -> list[Any]:
    """Updates for the choices, and for what shows only with or only without models; none if nothing is new.

    Args:
        registry: The models at hand.
        chosen: The model, the one before, the one beside; the last two may be open.
        seen: The models that a visitor has in the lists.
        asking: How many tabs need a model.
    """
    keys = registry.keys()
    if keys == seen and all(key in keys for key in chosen if key) and bool(chosen[0]) == bool(keys):
        return [gr.skip()] * (len(chosen) + 1 + asking + 1)
    model = chosen[0] if chosen[0] in keys else keys[0] if keys else None
    before, beside = (key if key in keys else "" for key in chosen[1:])
    return [
        gr.update(choices=keys, value=model, visible=bool(keys)),
        gr.update(choices=before_after.choices(keys), value=before),
        gr.update(choices=map.choices(keys), value=beside),
        gr.update(visible=not keys),
        *[gr.update(visible=bool(keys))] * asking,
        keys,
    ]


def _open_link(registry: Registry, page: Page, query: dict[str, str]) -> list[Any]:
    """Selects the tab that a link names, in its group, and fills it in."""
    tab = query.get("tab")
    if tab not in _GROUP_OF:
        return [gr.skip()] * (2 + len(_GROUPS) + len(page.links))
    group = _GROUP_OF[tab]
    inner = [gr.update(selected=tab) if name == group else gr.skip() for name in _GROUPS]
    known = set(registry.keys())
    model = gr.update(value=query["model"]) if query.get("model") in known else gr.skip()
    values = [query.get(name, gr.skip()) if owner == tab else gr.skip() for owner, name in page.links]
    return [gr.update(selected=group), *inner, model, *values]


def _build_about() -> gr.Markdown:
    """Adds the tab; returns the place of the card."""
    card = gr.Markdown(elem_id="about-card")
    gr.Markdown(elem_id="about-page", value=_about_page())
    return card


def _about_page() -> str:
    return (
        "---\nThis page is part of simcse_tf. It runs where you started it and sends nothing anywhere. What you run "
        "goes into the address bar, so that the link can be sent on; uploaded files do not.\n\n"
        'From Python: `gradio_client.Client(ADDRESS).predict(a, b, api_name="/compare")`; also `/rank`, `/matrix`, '
        "`/map`, `/duplicates`, `/size`, `/index` and `/search` (the link at the foot of the page lists them)."
    )
