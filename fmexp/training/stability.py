"""When SGD diverges, in words: the largest stable rate, and the columns that limit it.

One step on a row multiplies that row's own error by 1 - rate * c * G, where G is
|d y_hat / d parameters|^2 and c the curvature of the loss: 1 for squared error, at most 1/4 for log
loss. So the error of every row shrinks while rate < 2 / (c max G); and over random rows the mean
of the squared error shrinks while rate < 2 mean(G) / (c mean(G^2)), the mean-square bound of LMS.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from fmexp import fm
from fmexp.data.features import CSR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fmexp.config.schema import Config
    from fmexp.data.dataset import Dataset
    from fmexp.data.features import Features

MOST_NAMED = 3
"""Columns that are named at most."""

CHUNK = 65_536
"""Rows looked at at a time, so that memory does not grow with the rows."""


def caution(config: Config, dataset: Dataset) -> str | None:
    """A sentence when the learning rate is above what the training rows allow, else None.

    Of G only 1 + |x|^2 counts here, which no start and no progress of V can lower. Adam's steps do
    not grow with the gradient, so torch_adam gets none.
    """
    if config.backend.name != "numpy_sgd":
        return None
    limit = largest_stable_rate(config.task, dataset.train.features)
    rate = config.training.learning_rate
    if rate <= limit:
        return None
    return (
        f"training.learning_rate={rate:g} is above {limit:.2g}, where errors begin to grow on "
        f"these rows. {largest_columns(dataset)}"
    )


def reason(config: Config, dataset: Dataset, parameters: fm.Parameters, finite_epochs: int) -> str:
    """The likely cause of a loss that is not finite, and what to do.

    Args:
        config: what was trained.
        dataset: on what.
        parameters: where training started.
        finite_epochs: epochs that ended with a finite loss.
    """
    limit = rate_for_every_row(config.task, parameters, dataset.train.features)
    safe = f"a training.learning_rate of at most {limit / 2:.1g}" if limit > 0 else "none"
    return (
        f"the loss was not finite in epoch {finite_epochs + 1}: training.learning_rate="
        f"{config.training.learning_rate:g} is too large for this data. "
        f"{largest_columns(dataset)}. On these rows {safe} is safe; "
        "data.standardize=true brings the columns to one scale"
    )


def largest_stable_rate(task: fm.Task, features: Features) -> float:
    """The rate above which the mean squared error grows, by the linear part alone."""
    first = second = 0.0
    with np.errstate(over="ignore"):
        for chunk in _chunks(features):
            G = 1.0 + _squared_norms(chunk)
            first, second = first + float(G.sum()), second + float(np.square(G).sum())
    return 2.0 * first / (_curvature(task) * second) if math.isfinite(second) else 0.0


def rate_for_every_row(task: fm.Task, parameters: fm.Parameters, features: Features) -> float:
    """The rate above which a step grows the error of some row, at these parameters.

    0 where values are so large that their squares overflow.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        slopes = [float(fm.squared_slopes(parameters, rows).max()) for rows in _chunks(features)]
        largest = max(slopes) if all(map(math.isfinite, slopes)) else math.inf
    return 2.0 / (_curvature(task) * largest)


def largest_columns(dataset: Dataset) -> str:
    """The features of largest scale in the training rows, by name."""
    largest = largest_magnitudes(dataset.train.features)
    order = np.argsort(-largest, kind="stable")[:MOST_NAMED]
    names = dataset.encoder.feature_names
    named = [f"{names[j]} (up to {largest[j]:.3g})" for j in order]
    return f"Largest columns: {', '.join(named)}"


def largest_magnitudes(features: Features) -> np.ndarray:
    """The largest |x_j| of each feature, shape (n_features,)."""
    largest = np.zeros(features.shape[1])
    for chunk in _chunks(features):
        if isinstance(chunk, CSR):
            np.maximum.at(largest, chunk.indices, np.abs(fm.values_of(chunk)))
        else:
            np.maximum(largest, np.abs(chunk).max(axis=0), out=largest)
    return largest


def _curvature(task: fm.Task) -> float:
    return 1.0 if task == "regression" else 0.25


def _squared_norms(features: Features) -> np.ndarray:
    """|x|^2 of each row, shape (n_rows,)."""
    if not isinstance(features, CSR):
        return np.asarray(np.square(features).sum(axis=1))
    lengths = np.diff(features.indptr)
    if features.values is None:
        return lengths
    rows = np.repeat(np.arange(len(lengths)), lengths)
    return np.bincount(rows, np.square(features.values), len(lengths))


def _chunks(features: Features) -> Iterator[Features]:
    """The rows, CHUNK at a time."""
    for begin in range(0, len(features), CHUNK):
        if not isinstance(features, CSR):
            yield features[begin : begin + CHUNK]
            continue
        indptr = features.indptr[begin : begin + CHUNK + 1]
        entries = slice(int(indptr[0]), int(indptr[-1]))
        values = None if features.values is None else features.values[entries]
        yield CSR(indptr - indptr[0], features.indices[entries], values, features.n_features)
