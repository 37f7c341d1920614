"""Compiled scores of feature rows, and what samples of a posterior say of them together."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fmexp import fm
from fmexp.backends import gibbs_kernels, probit_kernels, sgd_kernels
from fmexp.backends.sgd import DenseLayout, SparseLayout
from fmexp.data.features import CSR
from fmexp.data.related import Block, Related, parted

if TYPE_CHECKING:
    from fmexp.data.related import FeatureRows

_DTYPE = np.dtype(np.float64)


class Scorer:
    """Scores of the same rows by one set of parameters after the other."""

    def __init__(self, features: FeatureRows, parameters: fm.Parameters) -> None:
        """Check the rows, for parameters of this shape.

        Raises:
            DataError: the rows are not as `Features` promises.
        """
        own, blocks = parted(features)
        self._runs = [_Run(block, parameters) for block in blocks]
        if isinstance(features, Related):
            own = _with_keys_as_features(features.own, blocks)
            parameters = self._with_keys(parameters)
        wide = sgd_kernels.lanes_of(parameters.k) > sgd_kernels.MAX_LANES
        self._layout = SparseLayout if isinstance(own, CSR) or wide else DenseLayout
        self._rows = self._layout(parameters, _DTYPE, logistic=False).arrays(own)
        self._n_rows = len(features)

    def __call__(self, parameters: fm.Parameters) -> np.ndarray:
        """y_hat of each row (`fm.scores`), float64, shape (n_rows,)."""
        out = np.empty(self._n_rows)
        parameters = self._with_keys(parameters) if self._runs else parameters
        layout = self._layout(parameters, _DTYPE, logistic=False)
        layout.score(self._rows, np.array([parameters.w0]), out)
        return out

    def _with_keys(self, p: fm.Parameters) -> fm.Parameters:
        """The parameters, with those of each block's keys behind them."""
        w, V = zip(*(run.as_features(p) for run in self._runs), strict=True)
        return fm.Parameters(p.w0, np.concatenate([p.w, *w]), np.concatenate([p.V, *V]))


class _Run:
    """What a block's keys say: a key is one feature of value 1.

    Its v is q = sum_j x_j v_j over what its rows share, and its w the score of that alone: then w +
    (|s|^2 - |q|^2) / 2 is sum_j w_j x_j + (|s|^2 - sum_j x_j^2 |v_j|^2) / 2, whatever s.
    """

    def __init__(self, block: Block, p: fm.Parameters) -> None:
        rows = block.rows if isinstance(block.rows, CSR) else CSR.from_dense(block.rows)
        self._features = slice(block.first, block.last)
        self._score = Scorer(rows, self._of_run(p))
        values = np.zeros(0) if rows.values is None else rows.values
        self._rows = rows.indptr, rows.indices, np.asarray(values, _DTYPE)
        self._add = gibbs_kernels.row_sums(rows.values is not None)

    def as_features(self, p: fm.Parameters) -> tuple[np.ndarray, np.ndarray]:
        """W and V of the keys, shapes (n_keys,) and (n_keys, k)."""
        of_run = self._of_run(p)
        V = np.zeros((len(self._rows[0]) - 1, p.k))
        self._add(*self._rows, of_run.V, V)
        return self._score(of_run), V

    def _of_run(self, p: fm.Parameters) -> fm.Parameters:
        w, V = p.w[self._features], np.ascontiguousarray(p.V[self._features], _DTYPE)
        return fm.Parameters(0.0, w, V)


def _with_keys_as_features(own: CSR, blocks: tuple[Block, ...]) -> CSR:
    """The rows with one further feature for each block: the key."""
    ends = own.n_features + np.cumsum([0, *(len(block.rows) for block in blocks)])
    each = [np.arange(len(block.rows) + 1) for block in blocks]
    keys = [CSR(n, n[:-1].astype(np.int32), None, len(n) - 1) for n in each]
    found = (
        Block(int(first), rows, block.keys)
        for first, rows, block in zip(ends, keys, blocks, strict=False)
    )
    return Related(replace(own, n_features=int(ends[-1])), tuple(found)).expand()


class Predictive:
    """The predictive distribution of rows, from one sample after the other.

    Attributes:
        samples: how many were added.
    """

    def __init__(self, features: FeatureRows, task: fm.Task) -> None:
        self._features, self._task, self.samples = features, task, 0
        self._scorer: Scorer | None = None
        self._first = self._sum = self._squares = np.zeros(len(features))
        self._noise = 0.0

    def add(self, parameters: fm.Parameters, noise_variance: float) -> None:
        """Take in what one sample says."""
        if self._scorer is None:
            self._scorer = Scorer(self._features, parameters)
        said = self._scorer(parameters)
        if self._task == "classification":
            probability = np.zeros_like(said)
            probit_kernels.add_probability()(said, probability)
            said = probability
        if not self.samples:  # apart from the first: the sums of squares do not cancel
            self._first, self._sum, self._squares = said, *np.zeros((2, len(said)))
        away = said - self._first
        self._sum += away
        self._squares += np.square(away)
        self._noise += noise_variance
        self.samples += 1

    def forget(self) -> None:
        """Forget the samples; what was made of the rows stays."""
        self.samples, self._noise = 0, 0.0

    @property
    def mean(self) -> np.ndarray:
        """Mean of y_hat, or of the probability that the label is 1; shape (n_rows,)."""
        return np.asarray(self._first + self._sum / self.samples)

    @property
    def stdev(self) -> np.ndarray:
        """Standard deviation of a target: that of y_hat over the samples, and the noise's."""
        between = self._squares / self.samples - np.square(self._sum / self.samples)
        return np.sqrt(np.maximum(between, 0.0) + self._noise / self.samples)


def predictive(samples: fm.Samples, features: FeatureRows, task: fm.Task) -> Predictive:
    """What all samples say of these rows."""
    found = Predictive(features, task)
    for i in range(len(samples)):
        found.add(samples.at(i), float(samples.noise_variance[i]))
    return found
