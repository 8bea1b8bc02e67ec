"""No model yet: how to make one, and the base encoder at the press of a button."""

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
    """Exports the base encoder in a process of its own; yields what to show while it runs.

    Raises:
        UserError: It is already running, or it failed.
    """
    if not _exporting.acquire(blocking=False):
        raise UserError("The export is already running. This page shows the model as soon as it is there.")
    try:
        yield "<p>Exporting the base encoder: about a minute …</p>"
        command = [sys.executable, "-m", "simcse_tf.export", "minilm", "--to", str(root.absolute() / BASE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["no message"]
            raise UserError(f"The export failed: {lines[-1][:500]}")
        yield f"<p>Exported to {escape(done.stdout.strip())}.</p>"
    finally:
        _exporting.release()
