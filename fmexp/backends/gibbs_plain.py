"""The plain twin of the Gibbs sampler's kernels, in NumPy, to read; docs/fm.md derives all of it.

Slow; nothing samples with it. Tests hold the kernels to it, and it to the density itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fmexp import fm
from fmexp.data.features import CSR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fmexp.data.features import Features
    from fmexp.data.related import Block


def feature_conditional(
    h: np.ndarray,
    x: np.ndarray,
    error: np.ndarray,
    now: np.ndarray,
    mean: np.ndarray,
    precision: np.ndarray,
    noise_precision: float | np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The normal that a change of (v_j, w_j) has, given everything else.

    y_hat is linear in (v_j, w_j), with slopes h_if = x_ij (s_if - x_ij v_jf) and x_ij. So with H =
    [h, x] and d the change, the log density is -1/2 d' Q d + g' d + constant with

        Q = alpha H'H + diag(lambda),    g = lambda (mu - now) - alpha H' error

    Args:
        h: slopes of v_j in the rows that hold feature j, shape (m, k).
        x: its values there, shape (m,).
        error: y_hat - y there, shape (m,).
        now: (v_j, w_j), shape (k + 1,).
        mean: mu of the feature's group, shape (k + 1,).
        precision: lambda of the feature's group, shape (k + 1,).
        noise_precision: alpha, or alpha times the weight of each of these rows, shape (m,).

    Returns:
        Q, shape (k + 1, k + 1), and g, shape (k + 1,): the change is normal with precision Q and
        mean Q^-1 g.
    """
    H = np.column_stack([h, x])
    weighted = H * np.asarray(noise_precision)[..., None]
    return weighted.T @ H + np.diag(precision), precision * (mean - now) - weighted.T @ error


def draw_change(Q: np.ndarray, g: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """A draw from the normal with precision Q and mean Q^-1 g, from standard normal noise."""
    L = np.linalg.cholesky(Q)
    return np.asarray(np.linalg.solve(L.T, np.linalg.solve(L, g) + noise))


def draw_features(
    features: Features,
    error: np.ndarray,
    sums: np.ndarray,
    V: np.ndarray,
    w: np.ndarray,
    mean: np.ndarray,
    precision: np.ndarray,
    noise: np.ndarray,
    noise_precision: float | np.ndarray,
) -> None:
    """Draw (v_j, w_j) of each feature in turn; a block of the factors, all of them or some.

    Args:
        features: the rows.
        error: y_hat - y, shape (n_rows,); kept up to date, as all that follow.
        sums: s = sum_j v_j x_j of the block's factors, shape (n_rows, k).
        V: the block's factors, shape (n_features, k).
        w: linear weights, shape (n_features,).
        mean: mu of each feature, shape (n_features, k + 1); w is last.
        precision: lambda, likewise.
        noise: standard normal, shape (n_features, k + 1).
        noise_precision: alpha, or alpha times the weight of each row, shape (n_rows,).
    """
    of_rows = np.broadcast_to(noise_precision, error.shape)
    for j, (rows, x) in enumerate(columns(features)):
        h = x[:, None] * (sums[rows] - x[:, None] * V[j])
        now = np.append(V[j], w[j])
        Q, g = feature_conditional(h, x, error[rows], now, mean[j], precision[j], of_rows[rows])
        change = draw_change(Q, g, noise[j])
        error[rows] += h @ change[:-1] + x * change[-1]
        sums[rows] += x[:, None] * change[:-1]
        V[j] += change[:-1]
        w[j] += change[-1]


def draw_relation(
    block: Block,
    error: np.ndarray,
    sums: np.ndarray,
    V: np.ndarray,
    w: np.ndarray,
    mean: np.ndarray,
    precision: np.ndarray,
    noise: np.ndarray,
    noise_precision: float,
) -> None:
    """What `draw_features` does of a relation block's features, from what its keys know of rows.

    Of a key's n rows: m is the mean of their sums, C = sum (s - m)(s - m)', E = sum e and F = sum e
    (s - m). A feature that the key has as x has in these rows the slopes h + x (s - m), with h = x
    (m - x v), and x. So over them

        sum H'H = [n h h' + x^2 C, n x h; n x h', n x^2],    sum H'e = [E h + x F; x E]

    and a change of (v_j, w_j) changes e by a + x dv' (s - m) with a = h' dv + x dw: E by n a, F by
    x C dv, m by x dv. The rows are changed once, after the last feature.

    Arguments as for `draw_features`, `V` and all after it for the block's features alone.
    """
    keys = block.keys
    n = np.bincount(keys, minlength=len(block.rows)).astype(np.float64)
    of_key = np.arange(len(n))[:, None] == keys  # (n_keys, n_rows)
    m = (of_key @ sums) / np.maximum(n, 1.0)[:, None]
    before, away = m.copy(), sums - m[keys]
    C = np.stack([away[mine].T @ away[mine] for mine in of_key])
    E, F, moved = of_key @ error, of_key @ (error[:, None] * away), np.zeros(len(n))
    for j, (having, x) in enumerate(columns(block.rows)):
        h, n_, x_ = x[:, None] * (m[having] - x[:, None] * V[j]), n[having], x[:, None]
        H = np.column_stack([h, x])
        HH, He = H.T @ (n_[:, None] * H), H.T @ E[having]
        HH[:-1, :-1] += np.tensordot(np.square(x), C[having], axes=1)
        He[:-1] += x @ F[having]
        now, Lambda = np.append(V[j], w[j]), precision[j]
        g = Lambda * (mean[j] - now) - noise_precision * He
        change = draw_change(noise_precision * HH + np.diag(Lambda), g, noise[j])
        step = H @ change
        moved[having] += step
        E[having] += n_ * step
        F[having] += x_ * (C[having] @ change[:-1])
        m[having] += x_ * change[:-1]
        V[j] += change[:-1]
        w[j] += change[-1]
    error += moved[keys] + (away * (m - before)[keys]).sum(axis=1)
    sums += (m - before)[keys]


def rebuild(
    features: Features, target: np.ndarray, parameters: fm.Parameters
) -> tuple[np.ndarray, np.ndarray]:
    """Errors y_hat - target, and the row sums s, shape (n_rows, k), from the parameters alone."""
    sums = np.zeros((len(target), parameters.k))
    for j, (rows, x) in enumerate(columns(features)):
        sums[rows] += x[:, None] * parameters.V[j]
    return fm.scores(parameters, features) - target, sums


def columns(features: Features) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each feature, the rows that hold it and its values there."""
    if not isinstance(features, CSR):
        for x in features.T:
            yield np.arange(len(x)), x
        return
    of_entry = np.repeat(np.arange(len(features)), np.diff(features.indptr))
    values = features.values_or_ones()
    for j in range(features.n_features):
        here = features.indices == j
        yield of_entry[here], values[here]


def draw_latent(
    scores: np.ndarray, labels: np.ndarray, uniforms: np.ndarray
) -> tuple[np.ndarray, float]:
    """Draw z ~ N(score, 1) given that z > 0 where the label is 1, and z < 0 where it is 0.

    With m the score where the label is 1 and its negative elsewhere, z is m - Phi^-1(u Phi(m)) or
    its negative: the inverse of the distribution function, from the tail that keeps its digits.

    Returns:
        z, shape (n_rows,), and the sum of the log losses, -log Phi(m).
    """
    from scipy.special import log_ndtr, ndtri_exp  # type: ignore[import-untyped]

    sign = 2.0 * labels - 1.0
    inside = log_ndtr(sign * scores)
    z = scores - sign * ndtri_exp(np.log(uniforms) + inside)
    return z, float(-inside.sum())
