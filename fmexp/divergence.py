"""Why training diverges, in words: the columns of largest scale and the rate that would be stable.

One step of SGD on a row changes that row's own error by the factor 1 - rate * c * G, where
G = |d y_hat / d parameters|^2 and c is the curvature of the loss: 1 for squared error, at most 1/4
for log loss. So errors grow where rate > 2 / (c G), and the row with the largest G sets the limit.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from fmexp import fm
from fmexp.data.dataset import CSR

if TYPE_CHECKING:
    from fmexp.config import Config
    from fmexp.data.dataset import Dataset, Features

MOST_NAMED = 3
"""Columns that are named at most."""


def reason(config: Config, dataset: Dataset, parameters: fm.Parameters, finite_epochs: int) -> str:
    """The likely cause of a loss that is not finite, and what to do.

    Args:
        config: what was trained.
        dataset: on what.
        parameters: where training started.
        finite_epochs: epochs that ended with a finite loss.
    """
    limit = stable_learning_rate(config.task, parameters, dataset.train.features)
    safe = f"a training.learning_rate of at most {limit / 2:.1g}" if limit > 0 else "none"
    return (
        f"the loss was not finite in epoch {finite_epochs + 1}: training.learning_rate="
        f"{config.training.learning_rate:g} is too large for this data. "
        f"{largest_columns(dataset)}. On these rows {safe} is safe"
        + ("" if config.data.standardize else "; data.standardize=true brings them to one scale")
    )


def stable_learning_rate(task: fm.Task, parameters: fm.Parameters, features: Features) -> float:
    """The rate above which errors grow on the row that allows least; see the top of this file.

    0 where values are so large that their squares overflow.
    """
    curvature = 1.0 if task == "regression" else 0.25
    with np.errstate(over="ignore", invalid="ignore"):
        largest = float(fm.squared_slopes(parameters, features).max())
    return 2.0 / (curvature * largest) if math.isfinite(largest) else 0.0


def largest_columns(dataset: Dataset) -> str:
    """The features of largest scale in the training rows, by name."""
    largest = largest_magnitudes(dataset.train.features)
    order = np.argsort(-largest, kind="stable")[:MOST_NAMED]
    names = dataset.encoder.feature_names
    named = [f"{names[j]} (up to {largest[j]:.3g})" for j in order]
    return f"Largest columns: {', '.join(named)}"


def largest_magnitudes(features: Features) -> np.ndarray:
    """The largest |x_j| of each feature, shape (n_features,)."""
    if not isinstance(features, CSR):
        return np.asarray(np.abs(features).max(axis=0))
    largest = np.zeros(features.n_features)
    np.maximum.at(largest, features.indices, np.abs(fm.values_of(features)))
    return largest
