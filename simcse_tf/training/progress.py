"""How far a run is: a bar on a terminal, lines elsewhere; the time left covers what follows training."""

from __future__ import annotations

import math
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from simcse_tf.training.callbacks import StepCallback

# Elsewhere than on a terminal: seconds between lines, and those after which an evaluation is announced.
_QUIET = 15


class ProgressBar(StepCallback):
    """Shows step, loss, sentences per second and the time left; on a terminal as a bar, elsewhere a line now and then.

    Put it before what evaluates and saves, whose time it then measures as the time between its steps.

    Args:
        start_step: Steps taken before.
        total_steps: The last step.
        sentences_per_step: Distinct sentences in a batch.
        eval_every: Steps between evaluations.
        evaluation_seconds: How long an evaluation took when the run was last interrupted; 0 if that is not known.
        export: Whether an export follows training.
        report: Whether a report follows training.
        mixes: How many mixes with the starting weights are evaluated after the last step.
        console: Where to show it.
    """

    def __init__(
        self,
        start_step: int,
        total_steps: int,
        *,
        sentences_per_step: int,
        eval_every: int,
        evaluation_seconds: float,
        export: bool,
        report: bool,
        mixes: int = 0,
        console: Console,
    ):
        super().__init__(start_step)
        self._sentences = sentences_per_step
        self._total, self._every = total_steps, eval_every
        self._evaluation_seconds = evaluation_seconds
        self._export, self._report, self._mixes = export, report, mixes
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
            TextColumn("{task.fields[rate]:.0f} sentences/s"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._console = console
        self._task = self._bar.add_task(
            "training", total=total_steps, completed=start_step, loss=math.nan, rate=0.0, left=""
        )
        self._rate: float | None = None
        self._said = time.monotonic()

    def on_train_begin(self, logs=None):
        self._bar.start()
        self._setup_seconds = time.process_time()
        self._compiled = False
        self._evaluating_since: float | None = None
        if self.step == 0:
            self._begin_evaluation()

    def on_train_batch_begin(self, batch, logs=None):
        self._batch_began = time.monotonic()
        if self._evaluating_since is not None:
            self._evaluation_seconds = self._batch_began - self._evaluating_since
            self._evaluating_since = None
            self._bar.update(self._task, description="training")

    def on_step(self, loss):
        now = time.monotonic()
        seconds = now - self._batch_began
        rate = self._sentences * self.model.steps_per_execution / seconds
        # The first step compiles; a smoothed rate over the others is what the rest will take.
        self._rate = rate if self._rate is None else 0.9 * self._rate + 0.1 * rate
        if not self._compiled:
            self._compiled, self._rate = True, None
            if self.model.jit_compile:
                self._console.print(f"the first step took {seconds:.0f} s, XLA's compilation included")
        shown = self._rate or rate
        left = about(self.seconds_left(self._sentences / shown))
        self._bar.update(self._task, completed=self.step, loss=loss, rate=shown, left=f"{left} left")
        if not self._console.is_terminal and now - self._said > _QUIET:
            self._said = now
            self._console.print(
                f"step {self.step:>6} of {self._total}  loss {loss:.4f}  {shown:.0f} sentences/s  {left} left"
            )
        if self.step % self._every == 0 or self.step == self._total:
            self._begin_evaluation()

    def on_train_end(self, logs=None):
        self._bar.stop()

    def seconds_left(self, step_seconds: float) -> float:
        """An estimate for everything that follows: steps, evaluations, export and report.

        The report encodes the development set twice, like two evaluations. Apart from that, export and report each
        import, load and compile about twice what this process has by the time that training begins.
        """
        # That of this step is still to come.
        evaluations = math.ceil(self._total / self._every) - (self.step - 1) // self._every
        evaluations += self._mixes + 2 * self._report
        setups = 2 * self._export + 2 * self._report
        steps = self._total - self.step
        return steps * step_seconds + evaluations * self._evaluation_seconds + setups * self._setup_seconds

    def _begin_evaluation(self) -> None:
        self._evaluating_since = time.monotonic()
        self._bar.update(self._task, description="evaluating")
        if not self._console.is_terminal and self._evaluation_seconds > _QUIET:
            self._console.print(f"step {self.step:>6} of {self._total}  evaluating, {about(self._evaluation_seconds)}")


def about(seconds: float) -> str:
    """A duration as precise as an estimate is: "about 40 s", "about 3 min", "about 2.5 h"."""
    if seconds < 90:
        return f"about {math.ceil(seconds / 5) * 5 if seconds > 10 else math.ceil(seconds)} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
