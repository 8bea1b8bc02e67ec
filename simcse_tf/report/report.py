"""What a training run changed, for people and for programs: `report.html` and the same numbers in `report.json`.

Needs nothing but the run directory and its development set: the encoder that training began with is loaded again from
the run's configuration, the one that was kept from its checkpoint, and both are judged on the same sets.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simcse_tf.config import TrainConfig
from simcse_tf.errors import UserError
from simcse_tf.evaluation import sts, suite
from simcse_tf.files import write_whole
from simcse_tf.formats import presets

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
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Path, Path]:
    """Judges a run's first and best encoder and writes the report into the run directory.

    Args:
        run: A run directory with at least one evaluation.
        sts_dir: As `suite.load`; what it and the next two name is judged beside the run's own development set.
        transfer_dir: As `suite.load`.
        tasks: As `suite.load`.
        tfds_dir: As `suite.load`.
        say: Called with lines of progress.

    Returns:
        `report.html` and `report.json`, both complete or untouched.

    Raises:
        UserError: There is no run, or it has no evaluation yet; the preset that it began with or its development set is
            no longer where it was; as `suite.load` and `suite.judge`.
    """
    config, metrics, versions = _read_run(run)
    origins = {"before": presets.locate(config.preset), "after": presets.locate(str(run))}
    chosen = suite.Suite(())
    if sts_dir or transfer_dir or tasks:
        chosen = suite.load(sts_dir, transfer_dir, tasks, tfds_dir=tfds_dir)
    if chosen.development_set is None:
        pairs = sts.development_set(config) or sts.from_tfds(config.tfds_dir)
        chosen = dataclasses.replace(chosen, pairs=(pairs, *chosen.pairs))

    judged = {}
    for when, origin in origins.items():
        say(f"{when}: {origin.name}")
        judged[when] = suite.judge(_encoder(origin, config, when).encode, chosen, say=say)
    numbers = _numbers(run, config, metrics, versions, judged["before"], judged["after"])

    from simcse_tf.report.page import page

    html, data = run / "report.html", run / "report.json"
    text = page(numbers)
    write_whole(data, json.dumps(numbers, indent=1) + "\n")
    write_whole(html, text)
    return html, data


def _read_run(run: Path) -> tuple[TrainConfig, list[dict[str, float]], dict[str, str]]:
    if not (run / "config.json").is_file() or not (run / "checkpoints").is_dir():
        raise UserError(
            f"{run}: not a run directory (no config.json and checkpoints/ in it). Name one that training wrote."
        )
    config = TrainConfig.from_json((run / "config.json").read_text("utf-8"), where=str(run / "config.json"))
    path = run / "metrics.jsonl"
    metrics = []
    for number, line in enumerate(path.read_text("utf-8").splitlines() if path.is_file() else [], 1):
        try:
            metrics.append(json.loads(line))
        except json.JSONDecodeError as e:
            raise UserError(f"{path}:{number}: not JSON ({e.msg}). Resume the run, which repairs it.") from e
    if not any("dev" in line for line in metrics) or not (run / "checkpoints" / "best").is_dir():
        raise UserError(
            f"{run}: the run has no evaluation yet, so there is nothing to report. Continue it with --resume."
        )
    file = run / "versions.json"
    return config, metrics, json.loads(file.read_text("utf-8")) if file.is_file() else {}


def _encoder(origin: presets.Origin, config: TrainConfig, when: str) -> Any:
    import keras

    from simcse_tf.formats.encoders import load_encoder

    if when == "after":
        return load_encoder(origin)
    # A fresh head is random: with the run's seed it is the run's.
    keras.utils.set_random_seed(config.seed)
    return load_encoder(origin, config.encoder(), dropout=config.dropout, head_init=config.head_init)


def _numbers(
    run: Path,
    config: TrainConfig,
    metrics: list[dict[str, float]],
    versions: dict[str, str],
    before: suite.Judgement,
    after: suite.Judgement,
) -> dict[str, Any]:
    pairs = before.development_set
    assert pairs is not None
    evaluations = [line for line in metrics if "dev" in line]
    sentences = list(dict.fromkeys(pairs.a + pairs.b))
    spaces = {"before": _space(before, sentences), "after": _space(after, sentences)}
    return {
        "run": str(run),
        "config": json.loads(config.to_json()),
        "versions": {"training": versions, "report": suite.versions()},
        "steps": int(metrics[-1]["step"]),
        "best_step": int(max(evaluations, key=lambda line: line["dev"])["step"]),
        "pictures_of": {"name": pairs.name, "source": pairs.source, "pairs": len(pairs.gold)},
        "curves": {
            "development_set": "STSB-dev" if config.sts_dir or config.dev != "bundled" else "bundled",
            "loss": _thinned([(m["step"], m["loss"]) for m in metrics if "loss" in m]),
            "evaluations": evaluations,
        },
        "before": before.to_dict(),
        "after": after.to_dict(),
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
    from scipy.cluster.vq import kmeans2

    n = len(sentences)
    k = max(1, min(_CLUSTERS, n // 4))
    rng = np.random.default_rng(0)
    tries = [kmeans2(spaces["before"], k, minit="++", rng=rng) for _ in range(_TRIES)]
    centres, cluster = min(tries, key=lambda found: np.sum((spaces["before"] - found[0][found[1]]) ** 2))
    examples = []
    for i in range(k):
        own = np.flatnonzero(cluster == i)
        nearest = own[np.argsort(-spaces["before"][own] @ centres[i], kind="stable")[:3]]
        examples.append({"cluster": i + 1, "size": len(own), "nearest_to_its_centre": [sentences[j] for j in nearest]})
    centred = {when: x - x.mean(axis=0) for when, x in spaces.items()}
    values, axes = np.linalg.eigh(sum(x.T @ x for x in centred.values()))
    axes = axes[:, np.argsort(-values)[:2]]
    # The sign of a component is arbitrary: its largest weight is positive here.
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
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
    x = np.concatenate(list(vectors))[[row[sentence] for sentence in sentences]].astype(np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _rounded(values: np.ndarray) -> list[float]:
    return np.round(values, 4).tolist()
