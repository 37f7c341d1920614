"""What the Gibbs sampler draws beside the features: noise, bias, and the priors' own parameters.

The model, in the units of the encoder (docs/fm.md derives each conditional):

    y_i ~ N(y_hat(x_i), 1 / alpha)                     regression
    y_i = 1 where z_i ~ N(y_hat(x_i), 1) is above 0    classification (probit)
    w0 ~ N(0, 1),   w_j ~ N(mu_g, 1 / lambda_g),   v_jf ~ N(mu_gf, 1 / lambda_gf)
    alpha ~ Gamma(1/2, rate 1/2),   lambda ~ Gamma(1/2, rate scale^2 / 2),   mu ~ N(0, 1 / lambda)

with g the group of feature j. These are the priors of libFM (Rendle 2012, section 5.2, with all
hyperparameters 1 and mu_0 = 0) and of myFM, but for the scales, which they have at 1: ours are the
sizes of w and of V that give a row's linear part, and its pairs, the target's variance. So the
priors mean the same for 3 features as for 300, and for every k.

Random numbers are rounded to float32: the logarithm in the tails of NumPy's draws differs from CPU
to CPU in its last bit. Each stream is Philox's at a counter that says the sweep and what is drawn,
so the same numbers come whatever was drawn before, and in any order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fmexp.data.features import CSR, SMALL_CHUNK_ROWS, chunks
from fmexp.data.related import Related

if TYPE_CHECKING:
    from fmexp.data.features import Features
    from fmexp.data.related import FeatureRows

W0_PRECISION = 1.0
HALF = 0.5
"""Shape and rate of the gamma priors."""

HYPER, LATENT, FEATURES = 0, 1, 2
"""What a stream is for; the features' blocks of factors count on from FEATURES."""


def stream(seed: int, sweep: int, purpose: int, chunk: int = 0) -> np.random.Generator:
    """The random numbers of one purpose in one sweep; independent of all others."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, chunk, purpose, sweep]))


def normals(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers, rounded to float32."""
    return np.asarray(np.float32(generator.standard_normal(shape)), np.float64)


def gammas(generator: np.random.Generator, shape: float | np.ndarray) -> np.ndarray:
    """Gamma numbers of rate 1, rounded to float32, never 0."""
    drawn = generator.standard_gamma(shape)
    return np.asarray(np.maximum(np.float32(drawn), np.finfo(np.float32).tiny), np.float64)


def prior_scales(
    features: FeatureRows, k: int, row_weights: np.ndarray | None = None
) -> tuple[float, float]:
    """The standard deviations of w and of V that give linear part and pairs variance 1.

    Over random w and V, a row's linear part has variance w_scale^2 sum_j x_j^2, and its pairs have
    k V_scale^4 sum_{i<j} x_i^2 x_j^2; the means over the rows are taken, by their weights. 1 where
    there are none.
    """
    singles = pairs = 0.0
    shared: list[tuple[np.ndarray, ...]] = []
    if isinstance(features, Related):
        shared = [(block.keys, *_powers(block.rows)) for block in features.blocks]
        features = features.own
    for some in chunks(len(features), SMALL_CHUNK_ROWS):
        sums, fourth = _powers(features.take(some) if isinstance(features, CSR) else features[some])
        for keys, squares_of_key, fourth_of_key in shared:
            sums, fourth = sums + squares_of_key[keys[some]], fourth + fourth_of_key[keys[some]]
        weights = 1.0 if row_weights is None else row_weights[some]
        singles += float((weights * sums).sum())
        pairs += float((weights * (np.square(sums) - fourth)).sum()) / 2
    n = len(features) if row_weights is None else float(row_weights.sum())
    w_scale = np.sqrt(n / singles) if singles > 0 else 1.0
    V_scale = np.sqrt(np.sqrt(n / (k * pairs))) if pairs > 0 else 1.0
    return float(np.float32(w_scale)), float(np.float32(V_scale))


def _powers(rows: Features) -> tuple[np.ndarray, np.ndarray]:
    """Sums of x^2 and of x^4 of each row."""
    if isinstance(rows, CSR):
        of_entry, squares = rows.rows_of_entries(), np.square(rows.values_or_ones())
        return np.bincount(of_entry, squares, len(rows)), np.bincount(
            of_entry, np.square(squares), len(rows)
        )
    squares = np.square(np.asarray(rows))
    return squares.sum(axis=1), np.square(squares).sum(axis=1)


def noise_precision(squared_errors: float, n_rows: float) -> tuple[float, float]:
    """Shape and rate of alpha's gamma, given the sum of (y_hat - y)^2; n_rows: sum of weights."""
    return HALF + n_rows / 2, HALF + squared_errors / 2


def bias_change(errors: float, n_rows: float, w0: float, alpha: float) -> tuple[float, float]:
    """Mean and precision of a change of w0, given the sum of y_hat - y; n_rows: sum of weights."""
    precision = alpha * n_rows + W0_PRECISION
    return (-alpha * errors - W0_PRECISION * w0) / precision, precision


def group_conditionals(
    parameters: np.ndarray, groups: np.ndarray, n_groups: int, scales: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What is needed to draw (lambda, mu) of each group and column jointly: lambda, then mu.

    Args:
        parameters: shape (n_features, m).
        groups: the group of each feature, shape (n_features,).
        n_groups: how many there are.
        scales: of each column, shape (m,).

    Returns:
        Shape and rate of lambda's gamma with mu integrated out, the mean of mu given lambda, and
        what mu's precision is as a multiple of lambda; each of shape (n_groups, m).
    """
    counts = np.bincount(groups, minlength=n_groups)[:, None].astype(np.float64)
    sums = _by_group(parameters, groups, n_groups)
    means = sums / np.maximum(counts, 1.0)
    within = _by_group(np.square(parameters - means[groups]), groups, n_groups)
    rate = HALF * np.square(scales) + (within + counts / (counts + 1.0) * np.square(means)) / 2
    shape = np.broadcast_to(HALF + counts / 2, rate.shape)
    multiple = np.broadcast_to(counts + 1.0, rate.shape)
    return shape, rate, sums / (counts + 1.0), multiple


def draw_groups(
    generator: np.random.Generator,
    parameters: np.ndarray,
    groups: np.ndarray,
    n_groups: int,
    scales: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw mu and lambda of each group and column; each of shape (n_groups, m)."""
    shape, rate, mean, multiple = group_conditionals(parameters, groups, n_groups, scales)
    precision = gammas(generator, shape) / rate
    mu = mean + normals(generator, mean.shape) / np.sqrt(multiple * precision)
    return mu, precision


def _by_group(table: np.ndarray, groups: np.ndarray, n_groups: int) -> np.ndarray:
    """Sums of the rows of each group, added in their order: (n_groups, m)."""
    return np.stack([np.bincount(groups, column, n_groups) for column in table.T], axis=1)
