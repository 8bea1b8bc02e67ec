"""Exports at the press of a button: the base encoder where there is no model yet, and what a model began with."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from simcse_tf.demo.models import BASE
from simcse_tf.demo.text import escape
from simcse_tf.errors import UserError

_exporting = threading.Lock()


def how_to(root: Path, *, trains: bool) -> str:
    """What to do where there is no model, as Markdown; `trains`: the page has a tab for it."""
    learn = "- Learn, below, trains one on texts of yours while you watch, or\n" if trains else ""
    return (
        f"### No model in `{root}` yet\n\n{learn}"
        "- `python -m simcse_tf.train` trains the quickstart on this machine's CPU and exports it, or\n"
        f"- `python -m simcse_tf.export RUN --to {root}/NAME` exports any run, preset or Hugging Face directory, or\n"
        "- the button below exports the base encoder, all-MiniLM-L6-v2 before any training (a minute, offline).\n\n"
        "This page shows a model as soon as it is there."
    )


def export_base(root: Path) -> Iterator[str]:
    """Exports the base encoder; yields what to show while it runs.

    Raises:
        UserError: An export is running already, or it failed.
    """
    yield "<p>Exporting the base encoder: about a minute …</p>"
    yield f"<p>Exported to {escape(export('minilm', root / BASE))}.</p>"


def export(source: str, to: Path, *, pooling: str | None = None) -> str:
    """Exports a preset or a directory in a process of its own.

    Returns:
        The new version's directory.

    Raises:
        UserError: An export is running already, or it failed.
    """
    if not _exporting.acquire(blocking=False):
        raise UserError("An export is already running. This page shows the model as soon as it is there.")
    try:
        pooled = ["--pooling", pooling] if pooling else []
        command = [sys.executable, "-m", "simcse_tf.export", source, "--to", str(to.absolute()), *pooled]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        _exporting.release()
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise UserError(f"The export failed: {lines[-1][:500]}")
    return done.stdout.strip()
