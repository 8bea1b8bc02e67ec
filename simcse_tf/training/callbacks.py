"""What happens between steps: evaluation, keeping the best, saving the state, stopping in time."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import tensorflow as tf
from rich.console import Console

from simcse_tf.errors import UserError
from simcse_tf.evaluation import development_files, geometry, sts
from simcse_tf.evaluation.development import DevelopmentSet, Figures, Graded
from simcse_tf.formats.encoders import SentenceEncoder
from simcse_tf.training import checkpoint
from simcse_tf.training.replicas import Workers


class NonFiniteLossError(UserError):
    """The loss became NaN or infinite; the weights are lost from there on, the best ones before it are on disk."""


class StepCallback(keras.callbacks.Callback):
    """Counts steps over epochs and resumed runs.

    Args:
        start_step: Steps that were taken before this `fit`.
    """

    def __init__(self, start_step: int = 0):
        super().__init__()
        self.step = start_step

    def on_train_batch_end(self, batch, logs=None):
        # With steps_per_execution above 1, `batch` is the last of several.
        self.step += batch - self._last_batch
        self._last_batch = batch
        self.logs = {name: float(value) for name, value in logs.items()}
        self.on_step(self.logs["loss"])

    def on_epoch_begin(self, epoch, logs=None):
        self._last_batch = -1

    def on_step(self, loss: float) -> None:
        """Called after every step, or with the model's steps_per_execution above 1 after so many."""


class StopOnNonFiniteLoss(StepCallback):
    """Stops a run whose loss is NaN or infinite. Put it first: nothing after it sees such a step."""

    def on_step(self, loss):
        if math.isfinite(loss):
            return
        rate = float(self.model.optimizer.learning_rate)
        raise NonFiniteLossError(
            f"the loss is {loss} at step {self.step} (learning rate {rate:.2e}). Try a lower `learning_rate`, a higher "
            "`temperature`, or `mixed_precision` off or bfloat16. The best encoder before it is kept."
        )


class DevelopmentCallback(keras.callbacks.Callback):
    """Judges a `SimCSE` model's encoder on development sets at the end of every epoch.

    It adds the figures of the first set to the epoch's logs as `val_FIGURE`, such as `val_ndcg@10`, and those of the
    others as `val_NAME/FIGURE`. Callbacks after it can select by them:
    `ModelCheckpoint(..., monitor="val_ndcg@10", mode="max")`, `EarlyStopping`, `TensorBoard`. Put it before them. With
    a head, the headline comes with the endings `_with_head` and `_without_head` too; without them it is that of the
    exported encoder.

    Args:
        *sets: At least one: from `open_development_set`, or what it takes; also graded pairs, such as from
            `load_pairs`.

    Raises:
        UserError: As `open_development_set`; two sets of one name, whose figures would be logged as one.
    """

    def __init__(self, *sets: DevelopmentSet | sts.Pairs | Path | str):
        super().__init__()
        self.sets = development_files.find(sets, setting="sets")

    def on_epoch_end(self, epoch, logs=None):
        if logs is None:
            return
        for i, each in enumerate(self.sets):
            prefix = f"val_{each.name}/" if i else "val_"
            found = figures(self.model.encoder, each)
            logs.update({f"{prefix}{name}": value for name, value in found.items()})


class STSCallback(DevelopmentCallback):
    """Scores a `SimCSE` model's encoder on graded pairs at the end of every epoch.

    It adds `val_spearman` (x 100, higher is better), `val_alignment` and `val_uniformity` (lower is better) to the
    epoch's logs, by which callbacks after it can select: `ModelCheckpoint(..., monitor="val_spearman", mode="max")`,
    `EarlyStopping`, `TensorBoard`. Put it before them. With a head there are `val_spearman_with_head` and
    `val_spearman_without_head` too; `val_spearman` is the exported encoder's.

    Args:
        pairs: Such as `bundled_pairs()` or `load_pairs("STSB-dev", "SentEval/data")`; some graded above 4, which
            alignment is measured on.
    """

    def __init__(self, pairs: sts.Pairs):
        geometry.check_positives(pairs)
        super().__init__(Graded.of(pairs))


class Evaluation(StepCallback):
    """Judges the encoder on the development sets at step 0, every `every` steps and at the end; keeps the best one.

    Every figure is logged as `NAME/FIGURE`. The headline of the first set is `dev` too: by it the best is selected.

    Args:
        encoder: The encoder in training.
        sets: The development sets.
        run: Where encoders and metrics go.
        progress: Where the run stands.
        keep_last: Keep the newest encoder, whatever it scores.
        watched: Texts whose vectors are kept at every evaluation.
        every: Steps between evaluations.
        total_steps: The last step, which is evaluated too.
        console: Results are printed here.
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        sets: Sequence[DevelopmentSet],
        run: checkpoint.RunDirectory,
        progress: checkpoint.Progress,
        *,
        keep_last: bool = False,
        watched: Sequence[str] = (),
        every: int,
        total_steps: int,
        console: Console,
    ):
        super().__init__(max(progress.step, 0))
        self._begun = progress.step >= 0
        self._best = (progress.best_score, progress.best_step)
        self._encoder, self._sets, self._run = encoder, sets, run
        self._keep_last, self._watched = keep_last, list(watched)
        self._every, self._total_steps, self._console = every, total_steps, console

    @property
    def progress(self) -> checkpoint.Progress:
        """Where the run stands."""
        return checkpoint.Progress(self.step, *self._best)

    def on_train_begin(self, logs=None):
        self._training_since = time.monotonic()
        self._writer = tf.summary.create_file_writer(str(self._run.tensorboard))
        if not self._begun:
            self._evaluate()

    def on_step(self, loss):
        rate = float(self.model.optimizer.learning_rate)
        learned = {name: self.logs[name] for name in ("temperature",) if name in self.logs}
        self._log(
            loss=loss,
            learning_rate=rate,
            false_negatives=int(self.logs["false_negatives"]),
            elapsed_seconds=self._elapsed(),
            **learned,
        )
        if self.step % self._every == 0 or self.step == self._total_steps:
            self._evaluate()

    def _evaluate(self) -> None:
        began = time.monotonic()
        logged, shown = evaluate(self._encoder, self._sets)
        if self._watched:
            # Before the line in the log: whoever reads that finds these.
            self._run.save_watched(self._encoder.encode(self._watched), self.step)
        seconds = round(time.monotonic() - began, 2)
        self._log(**logged, evaluation_seconds=seconds, elapsed_seconds=self._elapsed())
        better = logged["dev"] > self._best[0]
        note = "  (best so far)" if better and not self._keep_last else ""
        for i, line in enumerate(shown):
            self._console.print(f"step {self.step:>6}  {line}{note if i == 0 else ''}")
        if better or self._keep_last:
            self._best = (logged["dev"], self.step)
            self._run.save_best(self._encoder, self.step)

    def _elapsed(self) -> float:
        return round(time.monotonic() - self._training_since, 2)

    def _log(self, **values: float) -> None:
        self._run.log(self.step, **values)
        with self._writer.as_default(step=self.step):
            for name, value in values.items():
                tf.summary.scalar(name, value)


class Checkpoints(StepCallback):
    """Saves the training state when it is due, and once more on SIGTERM, at the end of a step, which is then the last.

    Put it last: what it saves are the steps that the others have seen.

    Args:
        start_step: Steps taken before.
        due: Whether to save after a step.
        save: Writes the state; on the chief alone.
        workers: All stop at the same step, whichever of them got the signal.
    """

    def __init__(self, start_step: int, due: Callable[[int], bool], save: Callable[[], None] | None, workers: Workers):
        super().__init__(start_step)
        self.stopped = False
        self._due, self._save, self._workers = due, save, workers
        self._signalled = False

    @contextlib.contextmanager
    def heeding_sigterm(self):
        """Within it SIGTERM stops training after the current step; a second one kills as ever."""
        # Python lets only the main thread handle signals.
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_signal(number, frame):
            self._signalled = True
            # Not print: the signal may have come in the middle of one.
            os.write(2, b"SIGTERM: stops after this step\n")
            signal.signal(signal.SIGTERM, before)

        before = signal.signal(signal.SIGTERM, on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def on_step(self, loss):
        self.stopped = bool(self._workers.all_gather(self._signalled).any())
        if self._save is not None and (self.stopped or self._due(self.step)):
            self._save()
        if self.stopped:
            self.model.stop_training = True


def evaluate(encoder: SentenceEncoder, sets: Sequence[DevelopmentSet]) -> tuple[Figures, list[str]]:
    """Judges an encoder on development sets.

    Returns:
        What is logged: every figure as `NAME/FIGURE`, and the first set's headline as `dev`; and for each set a line
        of text.
    """
    found = {each.name: figures(encoder, each) for each in sets}
    judge = sets[0]
    judged = found[judge.name]
    names = {f"{judge.headline}{ending}": f"dev{ending}" for ending in ("", "_with_head", "_without_head")}
    names |= {"alignment": "alignment", "uniformity": "uniformity"}
    logged = {short: judged[name] for name, short in names.items() if name in judged}
    lines = []
    for each in sets:
        own = found[each.name]
        logged |= {f"{each.name}/{name}": own[name] for name in each.labels if name in own}
        # With and without the head: one of the two is the exported encoder.
        shown = "  ".join(
            f"{name.replace('_', ' ')} {value:.2f}"
            for name, value in own.items()
            if name in each.labels or value != own[each.headline]
        )
        lines.append(f"{each.name}: {shown}")
    return logged, lines


def figures(encoder: SentenceEncoder, development_set: DevelopmentSet) -> Figures:
    """How an encoder in training does.

    Returns:
        The figures of the exported encoder; with a head also its headline's `_without_head` and `_with_head`.
    """
    if encoder.head is None:
        return development_set.figures(encoder.encode)
    both = development_set.score_each(encoder.encode_with_and_without_head, 2)
    without, with_head = (scored.figures for scored in both)
    headline = development_set.headline
    of_each = {f"{headline}_without_head": without[headline], f"{headline}_with_head": with_head[headline]}
    return (with_head if encoder.head_at_inference else without) | of_each


def state_variables(model: keras.Model) -> list[keras.Variable]:
    """Everything that decides the next step: weights, dropout seeds, optimizer."""
    metrics = {id(v) for v in model.metrics_variables}
    return [v for v in model.variables if id(v) not in metrics] + model.optimizer.variables
