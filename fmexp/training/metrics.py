"""How good predictions are: errors of regression, and of probabilities in classification."""

from __future__ import annotations

import math

import numpy as np

RISING = frozenset({"accuracy", "auc", "r2"})
"""Metrics of which a larger value is better; of every other one a smaller value is."""


def rises(name: str) -> bool:
    """Whether a larger value of a metric is better, by its name.

    >>> [rises(name) for name in ("best/val_auc", "best/val_mse", "time/fit_seconds")]
    [True, False, False]
    """
    return name.rpartition("/")[2].removeprefix("val_") in RISING


def regression(
    y: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None
) -> dict[str, float]:
    """mse, rmse and mae in the target's own units (mse: squared), and r2 where the target varies.

    r2 is 1 - mse / the target's variance: 0 for always predicting its mean, 1 for no error.

    Args:
        y: targets, shape (n_rows,).
        predicted: predictions, shape (n_rows,).
        weights: of the rows, shape (n_rows,), by which all means are taken; None: all the same.

    >>> regression(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    {'mse': 2.0, 'rmse': 1.4142135623730951, 'mae': 1.0, 'r2': -7.0}
    """
    error = predicted - y
    mse, mae = _mean(np.square(error), weights), _mean(np.abs(error), weights)
    found = {"mse": mse, "rmse": mse**0.5, "mae": mae}
    variance = _mean(np.square(y - _mean(y, weights)), weights)
    return found | ({"r2": 1 - mse / variance} if variance > 0 else {})


def intervals(
    y: np.ndarray,
    predicted: np.ndarray,
    stdev: np.ndarray | None,
    weights: np.ndarray | None = None,
) -> dict[str, float]:
    """How good predictions are as normal distributions: nll and coverage_90.

    nll is the mean negative log likelihood of the targets; coverage_90 the share of them within
    1.6449 standard deviations of their prediction, 0.9 where these are right.

    Args:
        y: targets, shape (n_rows,).
        predicted: means, shape (n_rows,).
        stdev: standard deviations, shape (n_rows,); None: predictions have none, nothing is found.
        weights: as of `regression`.

    >>> found = intervals(np.array([0.0, 9.0]), np.zeros(2), np.ones(2))
    >>> {name: round(x, 3) for name, x in found.items()}
    {'nll': 21.169, 'coverage_90': 0.5}
    """
    if stdev is None:
        return {}
    away = np.abs(y - predicted) / stdev
    nll = _mean(np.square(away) / 2 + np.log(stdev), weights) + math.log(2 * math.pi) / 2
    return {"nll": nll, "coverage_90": _mean(away <= 1.6448536269514722, weights)}


def classification(
    y: np.ndarray, probability: np.ndarray, weights: np.ndarray | None = None
) -> dict[str, float]:
    """logloss, accuracy, and auc where both labels occur.

    Args:
        y: labels, 0 or 1, shape (n_rows,).
        probability: of label 1, shape (n_rows,).
        weights: as of `regression`.

    >>> classification(np.array([0.0, 1.0]), np.array([0.25, 0.75]))
    {'logloss': 0.2876820724517809, 'accuracy': 1.0, 'auc': 1.0}
    """
    found = {
        "logloss": _mean(log_losses(y, probability), weights),
        "accuracy": _mean((probability >= 0.5) == (y == 1), weights),
    }
    counted = y if weights is None else y[weights > 0]
    both = 0 < np.sum(counted) < len(counted)
    return found | ({"auc": auc(y, probability, weights)} if both else {})


def _mean(x: np.ndarray, weights: np.ndarray | None) -> float:
    return float(np.average(x, weights=weights))


def log_losses(y: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """-log of the probability that each row's label was given, shape (n_rows,).

    A probability of exactly 0 counts as the least float64 above it, so that the loss is finite.
    """
    given = np.where(y == 1, probability, 1 - probability)
    return np.asarray(-np.log(np.maximum(given, np.finfo(float).tiny)))


def auc(y: np.ndarray, score: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Probability that a row of label 1 scores higher than one of label 0; a tie counts half.

    Mann and Whitney 1947. Both labels must occur. A pair of rows counts by the product of their
    weights.
    """
    _, group = np.unique(score, return_inverse=True)
    counted = np.ones(len(y)) if weights is None else weights
    above, below = (np.bincount(group, counted * (y == label)) for label in (1, 0))
    won = above * (np.cumsum(below) - below / 2)  # of all pairs
    return float(won.sum() / (above.sum() * below.sum()))
