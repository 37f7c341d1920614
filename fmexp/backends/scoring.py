"""Compiled scores of feature rows, and what samples of a posterior say of them together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fmexp.backends import probit_kernels, sgd_kernels
from fmexp.backends.sgd import DenseLayout, SparseLayout
from fmexp.data.features import CSR

if TYPE_CHECKING:
    from fmexp import fm
    from fmexp.data.features import Features

_DTYPE = np.dtype(np.float64)


class Scorer:
    """Scores of the same rows by one set of parameters after the other."""

    def __init__(self, features: Features, parameters: fm.Parameters) -> None:
        """Check the rows, for parameters of this shape.

        Raises:
            DataError: the rows are not as `Features` promises.
        """
        wide = sgd_kernels.lanes_of(parameters.k) > sgd_kernels.MAX_LANES
        self._layout = SparseLayout if isinstance(features, CSR) or wide else DenseLayout
        self._rows = self._layout(parameters, _DTYPE, logistic=False).arrays(features)
        self._n_rows = len(features)

    def __call__(self, parameters: fm.Parameters) -> np.ndarray:
        """y_hat of each row (`fm.scores`), float64, shape (n_rows,)."""
        out = np.empty(self._n_rows)
        layout = self._layout(parameters, _DTYPE, logistic=False)
        layout.score(self._rows, np.array([parameters.w0]), out)
        return out


class Predictive:
    """The predictive distribution of rows, from one sample after the other.

    Attributes:
        samples: how many were added.
    """

    def __init__(self, features: Features, task: fm.Task) -> None:
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

    @property
    def mean(self) -> np.ndarray:
        """Mean of y_hat, or of the probability that the label is 1; shape (n_rows,)."""
        return np.asarray(self._first + self._sum / self.samples)

    @property
    def stdev(self) -> np.ndarray:
        """Standard deviation of a target: that of y_hat over the samples, and the noise's."""
        between = self._squares / self.samples - np.square(self._sum / self.samples)
        return np.sqrt(np.maximum(between, 0.0) + self._noise / self.samples)


def predictive(samples: fm.Samples, features: Features, task: fm.Task) -> Predictive:
    """What all samples say of these rows."""
    found = Predictive(features, task)
    for i in range(len(samples)):
        found.add(samples.at(i), float(samples.noise_variance[i]))
    return found
