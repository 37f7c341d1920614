"""The Factorization Machine itself: scores, gradients, initial parameters, in plain NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


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
