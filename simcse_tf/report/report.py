"""What a training run changed, for people and for programs: `report.html` and the same numbers in `report.json`.

Needs nothing but the run directory and its development sets: the encoder that training began with is loaded again from
the run's configuration, the one that was kept from its checkpoint, and both are judged on the same sets. Needs the
extra `report`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simcse_tf import runs
from simcse_tf.checks import require
from simcse_tf.config import TrainConfig
from simcse_tf.evaluation import suite
from simcse_tf.evaluation.development import Graded
from simcse_tf.evaluation.embedding import unit
from simcse_tf.files import write_whole
from simcse_tf.formats import presets
from simcse_tf.training.plan import find_development_sets

_RANDOM_PAIRS = 20_000
_SENTENCES_SHOWN = 600
_CLUSTERS = 6
_TRIES = 8  # k-means finds a local optimum: the best of these is taken
_POINTS = 1_000  # of a curve; a long run's losses are averaged in groups


def write_report(
    run: Path,
    *,
    sts_dir: Path | None = None,
    transfer_dir: Path | None = None,
    tasks: Sequence[str] = (),
    tfds_dir: Path | None = None,
    on: Sequence[str] = (),
    columns: tuple[str, ...] = (),
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Path, Path]:
    """Judges a run's first and best encoder and writes the report into the run directory.

    Args:
        run: A run directory with at least one evaluation.
        sts_dir: As `suite.load`; what it and the others name is judged beside the run's own development sets.
        transfer_dir: As `suite.load`.
        tasks: As `suite.load`.
        tfds_dir: As `suite.load`.
        on: As `suite.load`.
        columns: As `suite.load`.
        say: Called with lines of progress.

    Returns:
        `report.html` and `report.json`, both complete or untouched.

    Raises:
        UserError: The extra `report` is not installed; there is no run, or it has not been evaluated yet; the preset
            that it began with or a development set is no longer where it was; as `suite.load` and `suite.judge`.
    """
    check_installed()
    found = runs.read(run)
    steps = {"before": found.before["step"], "after": found.best["step"]}
    config = found.config
    origins = {"before": presets.locate(config.preset), "after": presets.locate(str(run))}
    chosen = suite.Suite(())
    if sts_dir or transfer_dir or tasks or on:
        chosen = suite.load(sts_dir, transfer_dir, tasks, tfds_dir=tfds_dir, on=on, columns=columns)
    known = {each.name for each in (*chosen.pairs, *chosen.on)}
    own = [each for each in find_development_sets(config, runs.read_held_out(run)) if each.name not in known]
    # Pictures and alignment are of graded pairs.
    graded = tuple(each.pairs for each in own if isinstance(each, Graded))
    others = tuple(each for each in own if not isinstance(each, Graded))
    chosen = dataclasses.replace(chosen, pairs=(*graded, *chosen.pairs), on=(*others, *chosen.on))

    judged = {}
    for when, origin in origins.items():
        say(f"{when}: the encoder of step {steps[when]}")
        judged[when] = suite.judge(_encoder(origin, config, when).encode, chosen, say=say)
    numbers = _numbers(found, judged["before"], judged["after"])

    from simcse_tf.report.page import page

    html, data = run / "report.html", run / "report.json"
    text = page(numbers)
    write_whole(data, json.dumps(numbers, indent=1) + "\n")
    write_whole(html, text)
    return html, data


def check_installed() -> None:
    """Checks for what the report needs, without importing it.

    Raises:
        UserError: It is not installed; names the extra.
    """
    require("matplotlib", "report", "the report needs matplotlib")
    require("sklearn", "report", "the report needs scikit-learn")


def _encoder(origin: presets.Origin, config: TrainConfig, when: str) -> Any:
    from simcse_tf import quiet

    quiet.import_tensorflow()
    import keras

    from simcse_tf.formats.encoders import load_encoder

    if when == "after":
        return load_encoder(origin)
    # A fresh head is random: with the run's seed it is the run's.
    keras.utils.set_random_seed(config.seed)
    return load_encoder(origin, config.encoder(origin.config), dropout=config.dropout, head_init=config.head_init)


def _numbers(run: runs.Run, before: suite.Judgement, after: suite.Judgement) -> dict[str, Any]:
    judge = run.development_sets[0]
    return {
        "run": str(run.path),
        "config": json.loads(run.config.to_json()),
        "versions": {"training": run.versions, "report": suite.versions()},
        "steps": run.steps,
        "best_step": int(run.best["step"]),
        "selected_by": {
            "name": judge.name,
            "figure": judge.headline,
            "label": judge.label,
            "before": run.before["dev"],
            "after": run.best["dev"],
        },
        "curves": {
            "loss": _thinned([(m["step"], m["loss"]) for m in run.metrics if "loss" in m]),
            "evaluations": run.evaluations,
        },
        "before": before.to_dict(),
        "after": after.to_dict(),
        **_pictures(before, after),
    }


def _pictures(before: suite.Judgement, after: suite.Judgement) -> dict[str, Any]:
    """What is drawn of graded pairs; nothing if none were judged."""
    pairs = before.development_set
    if pairs is None:
        return {}
    sentences = list(dict.fromkeys(pairs.a + pairs.b))
    spaces = {"before": _space(before, sentences), "after": _space(after, sentences)}
    return {
        "pictures_of": {"name": pairs.name, "source": pairs.source, "pairs": len(pairs.gold)},
        "similarities": {
            "gold": pairs.gold.tolist(),
            "before": _rounded(before.sts[pairs.name].cosines),
            "after": _rounded(after.sts[pairs.name].cosines),
        },
        "random_pairs": _random_pairs(spaces),
        "map": _map(sentences, spaces),
    }


def _thinned(curve: list[tuple[float, float]]) -> list[list[float]]:
    """`[step, value]` points; groups of neighbours are averaged when there are too many."""
    size = math.ceil(len(curve) / _POINTS)
    groups = [curve[i : i + size] for i in range(0, len(curve), max(size, 1))]
    return [[group[-1][0], float(np.mean([value for _, value in group]))] for group in groups]


def _random_pairs(spaces: dict[str, np.ndarray]) -> dict[str, Any]:
    """Cosines of the same random pairs of different sentences in both spaces, as histograms."""
    n = len(spaces["before"])
    rng = np.random.default_rng(0)
    i = rng.integers(0, n, _RANDOM_PAIRS)
    j = (i + rng.integers(1, n, _RANDOM_PAIRS)) % n
    cosines = {when: np.sum(x[i] * x[j], axis=1) for when, x in spaces.items()}
    low = min(c.min() for c in cosines.values())
    edges = np.linspace(low, max(c.max() for c in cosines.values()), 61)
    summary = {
        when: {"mean": float(c.mean()), "std": float(c.std()), "counts": np.histogram(c, edges)[0].tolist()}
        for when, c in cosines.items()
    }
    return {"pairs": _RANDOM_PAIRS, "bin_edges": _rounded(edges), **summary}


def _map(sentences: list[str], spaces: dict[str, np.ndarray]) -> dict[str, Any]:
    """Both spaces on the same two principal components, and clusters that were found in the first.

    Each space is centred by itself; the components are those of both together.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    n = len(sentences)
    k = max(1, min(_CLUSTERS, n // 4))
    clusters = KMeans(k, n_init=_TRIES, random_state=0).fit(spaces["before"])
    cluster, centres = clusters.labels_, clusters.cluster_centers_
    examples = []
    for i in range(k):
        own = np.flatnonzero(cluster == i)
        nearest = own[np.argsort(-spaces["before"][own] @ centres[i], kind="stable")[:3]]
        examples.append({"cluster": i + 1, "size": len(own), "nearest_to_its_centre": [sentences[j] for j in nearest]})
    centred = {when: x - x.mean(axis=0) for when, x in spaces.items()}
    # The sign of a component is arbitrary: scikit-learn makes its largest weight positive.
    axes = PCA(2, svd_solver="full").fit(np.concatenate(list(centred.values()))).components_.T
    shown = np.sort(np.random.default_rng(0).permutation(n)[:_SENTENCES_SHOWN])
    same = cluster[:, None] == cluster
    return {
        "sentences": n,
        "clusters": examples,
        "shown": [sentences[i] for i in shown],
        "cluster": (cluster[shown] + 1).tolist(),
        **{
            when: {
                "points": np.round(centred[when][shown] @ axes, 4).tolist(),
                "variance_shown": float(np.sum((centred[when] @ axes) ** 2) / np.sum(centred[when] ** 2)),
                "cosine_inside_clusters": _mean_cosine(x, same & ~np.eye(n, dtype=bool)),
                "cosine_between_clusters": _mean_cosine(x, ~same),
            }
            for when, x in spaces.items()
        },
    }


def _mean_cosine(x: np.ndarray, where: np.ndarray) -> float | None:
    return float((x @ x.T)[where].mean()) if where.any() else None


def _space(judgement: suite.Judgement, sentences: list[str]) -> np.ndarray:
    """Unit vectors `(n, dim)` of the development set's distinct sentences."""
    pairs, vectors = judgement.development_set, judgement.vectors
    assert pairs is not None
    assert vectors is not None
    row = {sentence: i for i, sentence in enumerate(pairs.a + pairs.b)}
    return unit(np.concatenate(list(vectors))[[row[sentence] for sentence in sentences]], sentences, pairs.name)


def _rounded(values: np.ndarray) -> list[float]:
    return np.round(values, 4).tolist()
