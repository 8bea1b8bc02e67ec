"""Keeps what the encoder could do before: the best step's weights are mixed with those that training began with.

Weights on the line between the two often do as well in the new domain as those that were trained, and lose less
elsewhere (WiSE-FT; Wortsman et al. 2022, "Robust fine-tuning of zero-shot models").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np
from rich.console import Console

from simcse_tf import runs
from simcse_tf.config import TrainConfig
from simcse_tf.errors import UserError
from simcse_tf.evaluation.development import DevelopmentSet, Figures
from simcse_tf.formats import presets
from simcse_tf.formats.encoders import SentenceEncoder, load_encoder, saved_head
from simcse_tf.training import callbacks, fingerprint
from simcse_tf.training.plan import Plan

# The shares of the starting weights that `auto` tries beside 0 and 1, of which the run knows the figures already.
SHARES = (0.25, 0.5, 0.75)
# How many points a development set that does not select may lose against the start.
TOLERANCE = 0.5


def starting_encoder(origin: presets.Origin, config: TrainConfig, dtype: str = "float32") -> SentenceEncoder:
    """The encoder that a run begins with. A fresh head is random: the run's seed, set here, makes it the same again."""
    keras.utils.set_random_seed(config.seed)
    of_the_run = config.encoder(origin.config)
    return load_encoder(
        origin, of_the_run, dropout=config.dropout, dtype=dtype, head_init=config.head_init, layers=config.layers
    )


def between(config: TrainConfig) -> list[float]:
    """The shares between none and all that a run judges once it is complete."""
    if config.keep is None:
        return []
    return [share for share in (SHARES if config.keep == "auto" else (float(config.keep),)) if 0 < share < 1]


def mix(plan: Plan, starting_weights: str, *, dtype: str, console: Console) -> None:
    """Mixes the weights of a complete run's best step with the starting ones; the chosen mix becomes the best encoder.

    What is mixed are the backbone's trained weights, and the head's if the encoder keeps it and did not begin with a
    random one. Other heads stay as they were trained. Nothing is mixed where no step was better than the start.

    Args:
        plan: The run's, with `keep`. Its sets judge the mixes; the steps' evaluations are those of shares 0 and 1.
        starting_weights: Their fingerprint.
        dtype: In which the run has evaluated.
        console: Results are printed here.

    Raises:
        UserError: The starting weights are no longer what they were.
    """
    config, scores = plan.config, runs.read(plan.run.path)
    step = scores.best["step"]
    if step == 0:
        return
    encoder = load_encoder(presets.locate(str(plan.run.path)), dtype=dtype)
    start = starting_encoder(plan.origin, config, dtype)
    if fingerprint.of_encoder(start) != starting_weights:
        raise UserError(f"`preset` {config.preset}: its weights changed while the run was trained. Restore them.")
    variables = list(zip(encoder.backbone.trainable_weights, start.backbone.trainable_weights, strict=True))
    if encoder.head_at_inference and (config.head_init == "pooler" or saved_head(plan.origin) is not None):
        assert encoder.head is not None
        assert start.head is not None
        variables += zip(encoder.head.weights, start.head.weights, strict=True)
    ends = [(np.array(trained), np.array(started)) for trained, started in variables]

    def assign(share: float) -> None:
        for (variable, _), (trained, started) in zip(variables, ends, strict=True):
            variable.assign((1 - share) * trained + share * started)

    known = ("step", "evaluation_seconds", "elapsed_seconds")
    found = {
        share: {name: value for name, value in line.items() if name not in known}
        for share, line in ((0.0, scores.best), (1.0, scores.before))
    }
    for share in between(config):
        assign(share)
        found[share], lines = callbacks.evaluate(encoder, plan.development_sets)
        for line in lines:
            console.print(f"keep {share:g}  {line}")
    chosen = choose(found, plan.development_sets) if config.keep == "auto" else float(config.keep or 0)
    assign(chosen)
    logged = [{"keep": share, "chosen": share == chosen} | found[share] for share in sorted(found)]
    # A random head is part of the start, though not of its mixes.
    plan.run.save_mix(start if chosen == 1 else encoder, step, chosen, logged)


def choose(found: Mapping[float, Figures], sets: Sequence[DevelopmentSet]) -> float:
    """The share that the set that selects scores best, among those at which the other sets lose next to nothing.

    Args:
        found: What `callbacks.evaluate` logs, by share; of the start, which is always allowed, too.
        sets: The first selects. The headline of each other may be `TOLERANCE` points below that of the start. Of equal
            shares the largest is chosen.
    """
    least = {f"{each.name}/{each.headline}": found[1.0][f"{each.name}/{each.headline}"] for each in sets[1:]}
    allowed = [
        share
        for share, figures in found.items()
        if all(figures[name] >= before - TOLERANCE for name, before in least.items())
    ]
    return max(allowed, key=lambda share: (found[share]["dev"], share))
