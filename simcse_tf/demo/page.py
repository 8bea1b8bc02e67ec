"""What the tabs share: the page they are built into, errors as messages, links."""

from __future__ import annotations

import functools
import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from simcse_tf.demo.models import Registry
from simcse_tf.errors import UserError

HERE = Path(__file__).parent
# Requests that take seconds or longer have a queue of their own, so that quick ones do not wait behind them.
SLOW = {"concurrency_id": "slow", "concurrency_limit": 2}


@dataclass
class Page:
    """The page under construction.

    Attributes:
        registry: The models at hand.
        model: The choice of the model, above the tabs.
        links: Tab and field name of each component that a link fills in.
    """

    registry: Registry
    model: gr.Dropdown
    links: dict[tuple[str, str], Any] = field(default_factory=dict)

    def picture(self, **options: Any) -> gr.HTML:
        """A place for a picture."""
        return gr.HTML(elem_classes=["picture"], **options)

    def run(
        self,
        tab: str,
        triggers: Sequence[Any],
        fn: Callable,
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        linked: dict[str, Any],
        *,
        file: gr.File | None = None,
        **options: Any,
    ) -> None:
        """Connects a tab's button with its function; the address bar then links to what is shown.

        Args:
            tab: The tab's id; its button has the element id `TAB-run`.
            triggers: Events such as `button.click`.
            fn: May raise UserError.
            inputs: As for any Gradio event.
            outputs: Likewise.
            linked: Names in the link, and their components.
            file: What may be uploaded in their place: a link then opens the tab alone, for it cannot hold a file.
            options: Of the event.
        """
        self.links |= {(tab, name): component for name, component in linked.items()}
        names = ["model", *linked]
        pairs = "{" + ", ".join(f"{name}: v[{i}]" for i, name in enumerate(names)) + "}"
        fields = pairs if file is None else f"v.at(-1) ? {{}} : {pairs}"
        # One progress bar, where the result will be.
        options = {"api_visibility": "private", "show_progress_on": outputs[0], **options}
        done = gr.on(triggers, page_errors(fn), list(inputs), list(outputs), **options)
        shown = [self.model, *linked.values(), *([] if file is None else [file])]
        done.success(None, shown, js=f"(...v) => {{ simcseLink('{tab}', {fields}); simcseShow('{tab}-result'); }}")


def page_errors(fn: Callable) -> Callable:
    """`fn`, whose UserError becomes a message in the page, which takes it for HTML."""
    return _translated(fn, lambda message: html.escape(message, quote=False))


def api_errors(fn: Callable) -> Callable:
    """`fn`, whose UserError becomes the error that a program gets which called the endpoint."""
    return _translated(fn, str)


def _translated(fn: Callable, text: Callable[[str], str]) -> Callable:
    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        except UserError as e:
            raise gr.Error(text(str(e)), duration=10, print_exception=False) from e

    return call
