"""One training, from start to exported model, in a process of its own that outlives the page.

`python -m simcse_tf.demo.learner FOLDER LOCK` trains what `FOLDER/job.json` asks for and says in `FOLDER/end.json` how
it ended. LOCK is the descriptor of the folder's locked file: the lock is held while this process or its trainer lives.
SIGTERM to the process group, or the end of its minutes, stops the trainer; the encoder that it kept is then exported.
`simcse_tf.demo.jobs` starts it. Standard library only.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from simcse_tf import runs
from simcse_tf.files import read_json_object, write_whole
from simcse_tf.serving.exported import version_directory

JOB, LOG, STOP, END, RUN = "job.json", "log.txt", "stop", "end.json", "run"
# Seconds in which a trainer that was told to stop must do so.
_PATIENCE = 60


def main(folder: Path, lock: int) -> None:
    """Trains, exports, and writes how it ended."""
    # The trainer, in the same process group, gets the signal too; this goes on to export.
    signal.signal(signal.SIGTERM, lambda *_: None)
    # Whoever compares sentences meanwhile comes first.
    os.nice(5)
    write_whole(folder / END, json.dumps(_learn(folder, lock)) + "\n")


def _learn(folder: Path, lock: int) -> dict[str, Any]:
    job, run = read_json_object(folder / JOB), folder / RUN
    late, status = _run(["simcse_tf.train", *job["flags"]], folder, lock, minutes=job["minutes"])
    if status == 0:
        return _ended("done", "", version=read_json_object(run / "result.json")["saved_model"])
    if not late and not (folder / STOP).exists():
        return _ended("failed", _reason(folder / LOG, status))
    why = f"Stopped after {job['minutes']} minutes, which is the limit here" if late else "Stopped"
    if not runs.is_run(run) or not runs.best_encoder(run).is_dir():
        return _ended("stopped", f"{why}, before the first evaluation: there is no encoder to keep.")
    _, status = _run(["simcse_tf.export", str(run), "--to", job["to"]], folder, lock, minutes=None)
    if status != 0:
        return _ended("failed", f"{why}. The export failed: {_reason(folder / LOG, status)}")
    return _ended("stopped", f"{why}.", version=str(version_directory(Path(job["to"]))))


def _ended(what: str, message: str, *, version: str | None = None) -> dict[str, Any]:
    return {"what": what, "message": message, "version": version}


def _run(command: list[str], folder: Path, lock: int, *, minutes: float | None) -> tuple[bool, int]:
    """Runs one of our commands; returns whether its time ran out, and its exit status."""
    deadline = time.monotonic() + 60 * minutes if minutes else float("inf")
    late, killed_at = False, float("inf")
    with (folder / LOG).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            pass_fds=(lock,),
            # An export is short, and goes on when somebody presses Stop once more.
            start_new_session=minutes is None,
        )
        while True:
            try:
                return late, process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                now = time.monotonic()
                stopping = minutes is not None and (folder / STOP).exists()
                if now > deadline and not late:
                    late = True
                    process.terminate()
                if (late or stopping) and killed_at == float("inf"):
                    killed_at = now + _PATIENCE
                if now > killed_at:
                    process.kill()


def _reason(log: Path, status: int) -> str:
    """Why a command failed, in its own words."""
    if status == -signal.SIGKILL:
        return "It was killed, most likely because the machine ran out of memory. Try a smaller batch."
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or ["no message"])[-1][:1000]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
