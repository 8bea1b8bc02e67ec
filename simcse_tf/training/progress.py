"""How far training is: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import math
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from simcse_tf.training.callbacks import StepCallback


class ProgressBar(StepCallback):
    """Shows step, loss, sentences per second and the time left; on a terminal as a bar, elsewhere a line now and then.

    Args:
        start_step: Steps taken before.
        total_steps: The last step.
        sentences_per_step: Distinct sentences in a batch.
        console: Where to show it.
    """

    def __init__(self, start_step: int, total_steps: int, sentences_per_step: int, console: Console):
        super().__init__(start_step)
        self._sentences = sentences_per_step
        self._total = total_steps
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
            TextColumn("{task.fields[rate]:.0f} sentences/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._console = console
        self._task = self._bar.add_task("training", total=total_steps, completed=start_step, loss=math.nan, rate=0.0)
        self._rate: float | None = None
        self._said = time.monotonic()

    def on_train_begin(self, logs=None):
        self._bar.start()
        self._began = None

    def on_train_batch_begin(self, batch, logs=None):
        self._batch_began = time.monotonic()

    def on_step(self, loss):
        now = time.monotonic()
        seconds = now - self._batch_began
        rate = self._sentences * self.model.steps_per_execution / seconds
        # The first step compiles; a smoothed rate over the others is what the rest will take.
        self._rate = rate if self._began is None or self._rate is None else 0.9 * self._rate + 0.1 * rate
        if self._began is None:
            self._began, self._rate = now, None
            if self.model.jit_compile:
                self._console.print(f"the first step took {seconds:.0f} s, XLA's compilation included")
        shown = self._rate or rate
        self._bar.update(self._task, completed=self.step, loss=loss, rate=shown)
        if not self._console.is_terminal and now - self._said > 15:
            self._said = now
            left = (self._total - self.step) * self._sentences / shown
            self._console.print(
                f"step {self.step:>6} of {self._total}  loss {loss:.4f}  {shown:.0f} sentences/s  {left:.0f} s left"
            )

    def on_train_end(self, logs=None):
        self._bar.stop()
