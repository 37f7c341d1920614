"""Chains with fixed priors, log densities, and Monte Carlo errors, for the tests of the sampler."""

from __future__ import annotations

import numpy as np

from fmexp import fm
from fmexp.backends.gibbs_chain import Chain
from fmexp.backends.gibbs_columns import columns_of
from fmexp.data.features import Features
from fmexp.data.related import FeatureRows, parted

SCALES = 1.3, 0.7
"""Of the priors of w and of V."""


class FixedPriors(Chain):
    """A chain whose mu, lambda and alpha are given instead of drawn."""

    mean: np.ndarray
    precision: np.ndarray
    noise_precision: float | None = None

    def _draw_groups(self, _generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return self.mean, self.precision

    def _draw_alpha(self, _generator: np.random.Generator, _squared_errors: float) -> float:
        return self.alpha if self.noise_precision is None else self.noise_precision


def make_chain(
    features: FeatureRows, target: np.ndarray, p: fm.Parameters, *, task: fm.Task = "regression",
    groups: np.ndarray | None = None, seed: int = 0, threads: int = 1, kind: type = Chain,
) -> Chain:  # fmt: skip
    """A chain over feature rows; one group of features unless told."""
    n = len(p.w)
    groups = np.zeros(n, int) if groups is None else groups
    own, blocks = parted(features)
    columns = columns_of(own, n)
    return kind(columns, target, task, p, groups, SCALES, seed, threads, blocks)


def log_density(
    p: fm.Parameters, features: Features, y: np.ndarray, mean: np.ndarray, precision: np.ndarray,
    alpha: float,
) -> float:  # fmt: skip
    """Log of the density of data and parameters; mean and precision are (n_features, k + 1)."""
    error = fm.scores(p, features) - y
    theta = np.column_stack([p.V, p.w])
    prior = np.sum(precision * (theta - mean) ** 2) + p.w0**2
    return float(-0.5 * (alpha * error @ error + prior))


def monte_carlo_error(draws: np.ndarray, batches: int = 40) -> np.ndarray:
    """Standard error of the mean of a chain's draws, shape (n, ...), by batch means."""
    size = len(draws) // batches
    means = draws[: size * batches].reshape(batches, size, *draws.shape[1:]).mean(axis=1)
    return np.asarray(means.std(axis=0, ddof=1) / batches**0.5)
