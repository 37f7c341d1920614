"""When training diverges, in words: the likely cause, and what to do about it.

One step of SGD on a row multiplies that row's own error by 1 - rate * c * G, where G is
|d y_hat / d parameters|^2 and c the curvature of the loss: 1 for squared error, at most 1/4 for log
loss. So the error of every row shrinks while rate < 2 / (c max G); and over random rows the mean
of the squared error shrinks while rate < 2 mean(G) / (c mean(G^2)), the mean-square bound of LMS.
`training.cap_steps` takes a row whose rate * c * G is above 1 at the rate 1 / (c G). What can still
diverge then is numbers whose squares overflow.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from fmexp import fm
from fmexp.data.features import CSR, SMALL_CHUNK_ROWS, chunks
from fmexp.data.related import expanded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fmexp.config.schema import Config
    from fmexp.data.dataset import Dataset
    from fmexp.data.features import Features
    from fmexp.data.related import FeatureRows

MOST_NAMED = 3
"""Columns that are named at most."""

UNUSUAL_WEIGHT = {"numpy_sgd": 10.0, "gibbs": 2.0}
"""By backend, how far the mean weight of rows may be from 1, as a factor, without a word."""

WILD_TARGET = 20.0
"""Standard deviations from the mean beyond which a target gets a warning."""


def cautions(config: Config, dataset: Dataset) -> list[str]:
    """What may go wrong on these training rows, one sentence each.

    Adam's steps do not grow with the gradient, so torch_adam gets none.
    """
    found = _weight_cautions(config, dataset)
    if config.backend.name != "numpy_sgd":
        return found
    train = dataset.train
    target = train.target if train.row_weights is None else train.target[train.row_weights > 0]
    if config.task == "regression" and (z := largest_target(target)) > WILD_TARGET:
        found.append(
            f"the target reaches {z:.3g} standard deviations from its mean in the training rows; "
            "squared error follows few such rows and leaves the others: clip or transform them "
            "(such as by a logarithm), or mend them"
        )
    rate, capped = config.training.learning_rate, config.training.cap_steps
    limit = (
        np.inf if capped else largest_stable_rate(config.task, train.features, train.row_weights)
    )
    if rate > limit:
        found.append(
            f"training.learning_rate={rate:g} is above {limit:.2g}, where errors begin to grow on "
            f"these rows. {largest_columns(dataset)}"
        )
    return found


def _weight_cautions(config: Config, dataset: Dataset) -> list[str]:
    """That weights are of an unusual size, to the backends to which their size means something."""
    train, backend = dataset.train, config.backend.name
    mean, most = train.total_weight / len(train.target), UNUSUAL_WEIGHT.get(backend, np.inf)
    if most > mean > 1.0 / most:
        return []
    said = f"the weights of the training rows are {mean:.3g} on average"
    if backend == "gibbs":
        what = (
            f"backend=gibbs takes a row of weight 2 for two rows, so its posterior is that of "
            f"{train.total_weight:,.4g} rows; where they are no counts, divide them by their mean"
        )
    else:
        rate = config.training.learning_rate / mean
        what = (
            "a row's step is training.learning_rate times its weight; divide the weights by their "
            f"mean, or set training.learning_rate={rate:.1g}"
        )
    return [f"{said}: {what}"]


def reason(config: Config, dataset: Dataset, parameters: fm.Parameters, finite_epochs: int) -> str:
    """The likely cause of a loss that is not finite, and what to do.

    Args:
        config: what was trained.
        dataset: on what.
        parameters: where training started.
        finite_epochs: epochs that ended with a finite loss.
    """
    causes = _causes_adam if config.backend.name == "torch_adam" else _causes_sgd
    return (
        f"the loss was not finite in epoch {finite_epochs + 1}: "
        f"{causes(config, dataset, parameters)}{scale_advice(config)}"
    )


def scale_advice(config: Config) -> str:
    """That the columns can be brought to one scale, where they are not yet."""
    if config.data.standardize:
        return ""
    return "; data.standardize=true brings the columns to one scale"


def _causes_adam(config: Config, dataset: Dataset, _: fm.Parameters) -> str:
    rate = config.training.learning_rate
    return (
        f"training.learning_rate={rate:g} is too large for this data. Adam moves each parameter by "
        "about the rate in a step, whatever the gradient: 0.001 to 0.1 are usual. "
        f"{largest_columns(dataset)}"
    )


def _causes_sgd(config: Config, dataset: Dataset, parameters: fm.Parameters) -> str:
    training = config.training
    rate = training.learning_rate
    L2 = max(("reg_w0", "reg_w", "reg_V"), key=lambda key: getattr(training, key))
    train = dataset.train
    heaviest = 1.0 if train.row_weights is None else float(train.row_weights.max())
    times = "" if train.row_weights is None else f", the largest weight of a row ({heaviest:g})"
    if rate * heaviest * getattr(training, L2) > 2.0:
        return (
            f"training.learning_rate={rate:g}{times} times training.{L2}={getattr(training, L2):g} "
            f"is above 2, where L2 alone makes parameters grow: a training.{L2} of at most "
            f"{1.0 / (rate * heaviest):.1g} is safe"
        )
    limit = rate_for_every_row(config.task, parameters, train.features, train.row_weights)
    safe = f"a training.learning_rate of at most {limit / 2:.1g}" if limit > 0 else "none"
    capped = "" if training.cap_steps else "; training.cap_steps=true caps the steps of such rows"
    return (
        f"training.learning_rate={rate:g} is too large for this data. "
        f"{largest_columns(dataset)}. On these rows {safe} is safe{capped}"
    )


def largest_target(target: np.ndarray) -> float:
    """The largest distance of a target from the mean, in standard deviations; 0 if all are equal.

    Args:
        target: shape (n_rows,); looked at in chunks, so that memory does not grow with the rows.
    """
    mean = float(np.mean(target))
    pieces = [target[rows] for rows in chunks(len(target), SMALL_CHUNK_ROWS)]
    largest = max(float(np.abs(piece - mean).max()) for piece in pieces)
    if largest == 0.0:
        return 0.0
    squares = sum(float(np.square((piece - mean) / largest).sum()) for piece in pieces)
    return float((len(target) / squares) ** 0.5)


def largest_stable_rate(
    task: fm.Task, features: FeatureRows, weights: np.ndarray | None = None
) -> float:
    """The rate above which the mean squared error grows, by the linear part alone."""
    first = second = 0.0
    with np.errstate(over="ignore"):
        for chunk, weight in _weighted_chunks(features, weights):
            G = weight * (1.0 + fm.squared_norms(chunk))
            first, second = first + float(G.sum()), second + float(np.square(G).sum())
    return 2.0 * first / (fm.CURVATURE[task] * second) if math.isfinite(second) else 0.0


def rate_for_every_row(
    task: fm.Task,
    parameters: fm.Parameters,
    features: FeatureRows,
    weights: np.ndarray | None = None,
) -> float:
    """The rate above which a step grows the error of some row, at these parameters.

    0 where values are so large that their squares overflow.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        slopes = [
            float((weight * fm.squared_slopes(parameters, rows)).max())
            for rows, weight in _weighted_chunks(features, weights)
        ]
        largest = max(slopes) if all(map(math.isfinite, slopes)) else math.inf
    return 2.0 / (fm.CURVATURE[task] * largest)


def largest_columns(dataset: Dataset) -> str:
    """The features of largest scale in the training rows, by name."""
    largest = largest_magnitudes(dataset.train.features)
    order = np.argsort(-largest, kind="stable")[:MOST_NAMED]
    names = dataset.encoder.feature_names
    named = [f"{names[j]} (up to {largest[j]:.3g})" for j in order]
    return f"Largest columns: {', '.join(named)}"


def largest_magnitudes(features: FeatureRows) -> np.ndarray:
    """The largest |x_j| of each feature, shape (n_features,)."""
    largest = np.zeros(features.shape[1])
    for chunk in _chunks(features):
        if isinstance(chunk, CSR):
            np.maximum.at(largest, chunk.indices, np.abs(chunk.values_or_ones()))
        else:
            np.maximum(largest, np.abs(chunk).max(axis=0), out=largest)
    return largest


def _chunks(features: FeatureRows) -> Iterator[Features]:
    """The rows, a chunk at a time, so that memory does not grow with them."""
    for rows in chunks(len(features), SMALL_CHUNK_ROWS):
        yield features[rows] if isinstance(features, np.ndarray) else expanded(features.take(rows))


def _weighted_chunks(
    features: FeatureRows, weights: np.ndarray | None
) -> Iterator[tuple[Features, np.ndarray | float]]:
    """The same, with the weights of each chunk's rows; 1 where rows have none."""
    for rows, chunk in zip(chunks(len(features), SMALL_CHUNK_ROWS), _chunks(features), strict=True):
        yield chunk, 1.0 if weights is None else weights[rows]
