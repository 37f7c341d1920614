"""Reference implementation of the compiled kernels: a pass of per-sample SGD in NumPy, to read.

Slow; nothing trains with it. Tests hold the kernels to it, and it to `fmexp.fm.gradients`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fmexp import fm
from fmexp.data.features import CSR

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fmexp.data.features import Features


def train_pass(
    parameters: fm.Parameters,
    features: Features,
    target: np.ndarray,
    order: Iterable[int],
    learning_rate: float,
    task: fm.Task = "regression",
    *,
    cap_steps: bool = False,
    row_weights: np.ndarray | None = None,
    reg_w0: float = 0.0,
    reg_w: float = 0.0,
    reg_V: float = 0.0,
) -> tuple[fm.Parameters, float, int]:
    """One update for each row in `order`, at the learning rate times the row's weight.

    Returns:
        The parameters after the pass; the sum of the losses times their rows' weights, each taken
        before its update; and the number of steps that were capped.
    """
    w0, w, V = parameters.w0, parameters.w.copy(), parameters.V.copy()
    total, n_capped = 0.0, 0
    for i in order:
        weight = 1.0 if row_weights is None else row_weights[i]
        j, x = entries(features, i)
        s = x @ V[j]
        score = w0 + w[j] @ x + 0.5 * (s @ s - ((V[j] * x[:, None]) ** 2).sum())
        total += weight * float(fm.losses(task, score, target[i]))
        slope = float(fm.predictions(task, score) - target[i])
        d_V = np.outer(x, s) - V[j] * (x**2)[:, None]
        G = 1.0 + x @ x + (d_V**2).sum()
        rate = learning_rate * weight
        if cap_steps and rate * G * fm.CURVATURE[task] > 1.0:
            rate, n_capped = 1.0 / (G * fm.CURVATURE[task]), n_capped + 1
        w0 -= rate * (slope + reg_w0 * w0)
        w[j] -= rate * (slope * x + reg_w * w[j])
        V[j] -= rate * (slope * d_V + reg_V * V[j])
    return fm.Parameters(w0, w, V), total, n_capped


def entries(features: Features, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Feature numbers and values of the non-zero entries of a row."""
    if not isinstance(features, CSR):
        j = np.flatnonzero(features[row])
        return j, features[row, j]
    span = slice(features.indptr[row], features.indptr[row + 1])
    j, x = features.indices[span], features.values_or_ones()[span]
    return j[x != 0], x[x != 0]
