"""The Factorization Machine itself: scores, losses, gradients, first parameters, in plain NumPy.

    y_hat(x) = w0 + sum_j w_j x_j + sum_{i<j} <v_i, v_j> x_i x_j            (Rendle 2010, eq. 1)

This is the definition. Backends have loops of their own; tests hold them to this module.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from fmexp.data.features import CSR

if TYPE_CHECKING:
    from fmexp.data.features import Features

Task = Literal["regression", "classification"]

CURVATURE: dict[Task, float] = {"regression": 1.0, "classification": 0.25}
"""The largest second derivative, by y_hat, of what is minimised: 1/2 (y_hat - y)^2 or log loss."""


@dataclass
class Parameters:
    """The parameters of a second-order Factorization Machine (Rendle 2010, eq. 1).

    Attributes:
        w0: global bias.
        w: linear weights, shape (n_features,).
        V: factors, shape (n_features, k).
    """

    w0: float
    w: np.ndarray
    V: np.ndarray

    @property
    def k(self) -> int:
        """Number of factors."""
        return int(self.V.shape[1])

    def copy(self) -> Parameters:
        """Parameters that share no memory with these."""
        return Parameters(self.w0, self.w.copy(), self.V.copy())


@dataclass
class Samples:
    """Parameters drawn from their posterior; predictions are means over all of them.

    Attributes:
        w0: float32, shape (n_samples,).
        w: float32, shape (n_samples, n_features).
        V: float32, shape (n_samples, n_features, k).
        noise_variance: 1 / alpha of each, in the encoder's units, float32, shape (n_samples,); 1
            for classification, whose scores go through a probit.
    """

    w0: np.ndarray
    w: np.ndarray
    V: np.ndarray
    noise_variance: np.ndarray

    def __len__(self) -> int:
        return len(self.w0)

    @property
    def k(self) -> int:
        """Number of factors."""
        return int(self.V.shape[2])

    def at(self, i: int) -> Parameters:
        """One of them, in float64."""
        return Parameters(
            float(self.w0[i]), self.w[i].astype(np.float64), self.V[i].astype(np.float64)
        )


Learned = Parameters | Samples
"""What a training leaves: one set of parameters, or many drawn from a posterior."""


def initial_parameters(n_features: int, k: int, init_stdev: float, seed: int) -> Parameters:
    """w0 = 0, w = 0, V normal with mean 0: V at exactly 0 would have a zero gradient for ever.

    V is rounded to float32. The tails of a normal draw need a logarithm, whose last bit depends on
    the CPU; and so training in float32 starts where training in float64 does.
    """
    V = np.random.default_rng(seed).normal(0.0, init_stdev, (n_features, k))
    return Parameters(0.0, np.zeros(n_features), V.astype(np.float32).astype(np.float64))


def notebook_parameters(n_features: int, k: int, n_rows: int, seed: int) -> Parameters:
    """The start of the notebook's NumPy demonstration (`model.start=notebook`).

    NumPy's legacy stream of `seed`, past the targets (`n_rows` uniform draws) and past one V: the
    notebook's cell that draws V ran twice.
    """
    stream = np.random.RandomState(seed)
    stream.rand(n_rows, 1)
    stream.normal(scale=1 / k, size=(n_features, k))
    return Parameters(0.0, np.zeros(n_features), stream.normal(scale=1 / k, size=(n_features, k)))


def scores(parameters: Parameters, features: Features) -> np.ndarray:
    """y_hat of each row, in O(k n) (Rendle 2010, Lemma 3.1); shape (n_rows,).

        y_hat(x) = w0 + sum_j w_j x_j + 1/2 sum_f ((sum_j v_jf x_j)^2 - sum_j v_jf^2 x_j^2)

    The logit of the positive class where the task is classification.
    """
    w0, w, V = parameters.w0, parameters.w, parameters.V
    linear = _product(features, w[:, None])[:, 0]
    square_of_sums = _product(features, V) ** 2
    sum_of_squares = _product(_power(features, 2), V**2)
    return np.asarray(w0 + linear + 0.5 * (square_of_sums - sum_of_squares).sum(axis=1))


def predictions(task: Task, scores: np.ndarray) -> np.ndarray:
    """What the scores say of the target: themselves, or the probability of the positive class."""
    return scores if task == "regression" else np.asarray(np.exp(-np.logaddexp(0.0, -scores)))


def losses(task: Task, scores: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Loss of each row as it is reported: (y_hat - y)^2, or log loss (y 0 or 1); (n_rows,)."""
    if task == "regression":
        return np.asarray((scores - target) ** 2)
    return np.asarray(np.logaddexp(0.0, (1.0 - 2.0 * target) * scores))


def gradients(
    parameters: Parameters,
    features: Features,
    target: np.ndarray,
    task: Task = "regression",
    *,
    reg_w0: float = 0.0,
    reg_w: float = 0.0,
    reg_V: float = 0.0,
) -> Parameters:
    """Gradient of the mean over the rows of what training minimises, coordinate by coordinate.

    A row's part is 1/2 (y_hat - y)^2 or its log loss, plus 1/2 (reg_w0 w0^2 + reg_w sum_j w_j^2 +
    reg_V sum_j |v_j|^2) with j over the features that are non-zero in it. With r = dloss/dy_hat:

        w0: r        w_j: r x_j        v_jf: r (x_j sum_i v_if x_i - v_jf x_j^2)    (Rendle, eq. 4)
    """
    w0, w, V, n_rows = parameters.w0, parameters.w, parameters.V, len(target)
    r = (predictions(task, scores(parameters, features)) - target) / n_rows
    present = _transposed_product(_indicators(features), np.full((n_rows, 1), 1 / n_rows))
    d_w = _transposed_product(features, r[:, None])[:, 0]
    d_V = _transposed_product(features, r[:, None] * _product(features, V))
    d_V -= V * _transposed_product(_power(features, 2), r[:, None])
    return Parameters(
        float(r.sum() + reg_w0 * w0), d_w + reg_w * present[:, 0] * w, d_V + reg_V * present * V
    )


def squared_slopes(parameters: Parameters, features: Features) -> np.ndarray:
    """|d y_hat / d parameters|^2 of each row, shape (n_rows,); it limits the learning rate.

    1 + sum_j x_j^2 + sum_f sum_j (x_j s_f - v_jf x_j^2)^2       with s_f = sum_i v_if x_i
    """
    V, norm = parameters.V, squared_norms(features)
    s = _product(features, V)
    of_V = s**2 * norm[:, None] - 2 * s * _product(_power(features, 3), V)
    of_V += _product(_power(features, 4), V**2)
    return np.asarray(1.0 + norm + of_V.sum(axis=1))


def squared_norms(features: Features) -> np.ndarray:
    """sum_j x_j^2 of each row, shape (n_rows,)."""
    return _product(_power(features, 2), np.ones((features.shape[1], 1)))[:, 0]


def _product(features: Features, matrix: np.ndarray) -> np.ndarray:
    """Product features @ matrix, shape (n_rows, m), each row summed in the order of its features.

    Not by BLAS: so a row's bits depend neither on the rows beside it, nor on the CPU, nor on
    whether its zeros are stored.
    """
    out = np.zeros((len(features), matrix.shape[1]))
    if isinstance(features, CSR):
        rows, values = features.rows_of_entries(), features.values_or_ones()
        for f, column in enumerate(matrix.T):
            out[:, f] = np.bincount(rows, column[features.indices] * values, len(features))
    else:
        for j, row in enumerate(matrix):
            out += features[:, j, None] * row
    return out


def _transposed_product(features: Features, matrix: np.ndarray) -> np.ndarray:
    """Product features^T @ matrix, shape (n_features, m)."""
    if not isinstance(features, CSR):
        return np.asarray(features.T @ matrix)
    rows, values = features.rows_of_entries(), features.values_or_ones()
    columns = [
        np.bincount(features.indices, column[rows] * values, features.n_features)
        for column in matrix.T
    ]
    return np.stack(columns, axis=1)


def _power(features: Features, exponent: int) -> Features:
    """x_j^exponent for x_j."""
    if not isinstance(features, CSR):
        return np.asarray(features**exponent)
    if features.values is None:
        return features
    return replace(features, values=features.values**exponent)


def _indicators(features: Features) -> Features:
    """1 where x_j is not zero, else 0."""
    if not isinstance(features, CSR):
        return np.asarray(features != 0, dtype=float)
    if features.values is None:
        return features
    return replace(features, values=(features.values != 0).astype(float))
