"""SentEval's protocol for a classifier on frozen embeddings. It depends on which splits a task has.

- `all`: cross-validation; in each fold an inner cross-validation over its training part picks the regularisation, and
  accuracy is the mean over the outer folds.
- `train`, `test`: cross-validation over `train` picks the regularisation.
- `train`, `dev`, `test`: accuracy on `dev` picks it.

Folds are stratified and shuffled with SentEval's seed. The classifier is the one that SentEval uses without PyTorch:
scikit-learn's L2-penalised logistic regression with liblinear, one class against the rest. (The SimCSE paper's
figures come from SentEval's PyTorch classifier, a different one.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

Data = tuple[np.ndarray, np.ndarray]
Split = tuple[np.ndarray, np.ndarray]

_SEED = 1111
_GRID = 2.0 ** np.arange(-2, 4)
_GRID_TRAIN_TEST = 2.0 ** np.arange(-1, 6)


class Outcome(NamedTuple):
    """Accuracies x 100, and the classes predicted for `test` where there is one.

    `dev_accuracy` is what the regularisation was picked by, averaged over the outer folds if there are any.
    """

    accuracy: float
    dev_accuracy: float
    predictions: np.ndarray | None


def classify(data: Mapping[str, Data], folds: int) -> Outcome:
    """Trains and tests a logistic regression.

    Args:
        data: For each split its features `(n, dim)` float and classes `(n,)` int.
        folds: Of every cross-validation; each class needs as many examples in what is divided.
    """
    if "all" in data:
        return _nested(*data["all"], folds)
    x, y = data["train"]
    if "dev" in data:
        dev_x, dev_y = data["dev"]
        split = np.arange(len(y)), np.arange(len(y), len(y) + len(dev_y))
        c, dev = _pick(np.concatenate([x, dev_x]), np.concatenate([y, dev_y]), [split], _GRID)
    else:
        c, dev = _pick(x, y, _folds(x, y, folds), _GRID_TRAIN_TEST)
    test_x, test_y = data["test"]
    predictions = _fit(x, y, c).predict(test_x)
    return Outcome(100 * float(np.mean(predictions == test_y)), dev, predictions)


def _nested(x: np.ndarray, y: np.ndarray, folds: int) -> Outcome:
    outer, inner = [], []
    for fit, held in _folds(x, y, folds):
        c, dev = _pick(x[fit], y[fit], _folds(x[fit], y[fit], folds), _GRID)
        inner.append(dev)
        outer.append(100 * _fit(x[fit], y[fit], c).score(x[held], y[held]))
    return Outcome(float(np.mean(outer)), float(np.mean(inner)), None)


def _pick(x: np.ndarray, y: np.ndarray, splits: list[Split], grid: np.ndarray) -> tuple[float, float]:
    """The `C` of `grid` with the best mean accuracy over `splits`, the smallest if tied, and that accuracy x 100."""
    means = [np.mean([_fit(x[fit], y[fit], c).score(x[held], y[held]) for fit, held in splits]) for c in grid]
    # SentEval rounds before it compares, which makes ties.
    best = int(np.argmax(np.round(100 * np.array(means), 2)))
    return float(grid[best]), 100 * float(means[best])


def _folds(x: np.ndarray, y: np.ndarray, folds: int) -> list[Split]:
    from sklearn.model_selection import StratifiedKFold

    return list(StratifiedKFold(n_splits=folds, shuffle=True, random_state=_SEED).split(x, y))


def _fit(x: np.ndarray, y: np.ndarray, c: float) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    return OneVsRestClassifier(LogisticRegression(C=c, solver="liblinear", random_state=_SEED)).fit(x, y)
