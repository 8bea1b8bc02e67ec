"""About: the card of the model that is chosen."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path

from simcse_tf.demo.models import Registry
from simcse_tf.errors import UserError
from simcse_tf.serving.exported import model_file

_CARD = "README.md"
# What the fields of a card mean, for people who have not trained one.
_MEANS = {
    "architecture": "the network",
    "parameters": "its weights",
    "pooling": "how the vectors of a text's tokens become one",
    "head": "layer on top of that",
    "longest text": "longest text, in pieces of words",
    "preset": "the encoder that training began with",
    "data": "what it was trained on",
    "loss": "the objective",
    "temperature": "temperature: the lower, the harder near texts are told apart",
    "matryoshka": "sizes that its vectors can be cut to",
    "batch_size": "rows in a step",
    "learning_rate": "learning rate: how far a step goes",
    "max_length": "longest text in training",
    "dropout": "share of the network that each reading leaves out",
    "epochs": "times through the data",
    "max_steps": "steps at most",
    "keep": "share of the starting weights that may be mixed in",
    "seed": "seed of the random numbers",
}


def card(registry: Registry, key: str | None) -> str:
    """A model's card as Markdown; what is known of it where it has none.

    Raises:
        UserError: There is no such model.
    """
    if not key:
        return "No model yet."
    directory = registry.directory(key)
    if directory is None:
        return f"# {key}\n\nServed by TF Serving; its card is with the files there."
    written = f"written {_written(directory)}."
    version = (
        f"Version {directory.name} of `{directory.parent.name}`, {written}" if "/" in key else f"`{key}`, {written}"
    )
    try:
        found = (directory / _CARD).read_text("utf-8")
    except FileNotFoundError:
        return f"# {key}\n\n{version}\n\nIt has no card: it was exported before cards were written. Export it again."
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"{directory / _CARD}: cannot be read ({e}). Export the model again.") from e
    # The head between the two lines of dashes is for programs.
    found = re.sub(r"\A---\n.*?\n---\n", "", found, flags=re.DOTALL)
    found = re.sub(r"^\| (\w[\w ]*) \|", lambda row: f"| {_MEANS.get(row[1], row[1])} |", found, flags=re.MULTILINE)
    return f"{found}\n\n{version}"


def _written(directory: Path) -> str:
    stamp = (model_file(directory) or directory).stat().st_mtime
    return datetime.fromtimestamp(stamp, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
