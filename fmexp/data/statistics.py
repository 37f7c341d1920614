"""What the training rows say of a column, gathered chunk by chunk."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fmexp.data.table import Text, text_of_numbers
from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fmexp.data.features import CSR
    from fmexp.data.table import Column


@dataclass
class NumberStatistics:
    """Of a column of numbers; missing ones (NaN) are counted and left out.

    Attributes:
        n: numbers seen.
        missing: missing ones.
        nonzero: numbers that are not 0.
        low: the least.
        high: the greatest.
        mean: of all.
        squares: sum of squared distances from the mean.
        nonzero_squares: sum of the squares.
    """

    n: int = 0
    missing: int = 0
    nonzero: int = 0
    low: float = math.inf
    high: float = -math.inf
    mean: float = 0.0
    squares: float = 0.0
    nonzero_squares: float = 0.0

    def add(self, x: np.ndarray) -> None:
        """Take in a chunk; all of it finite or NaN (Chan, Golub, LeVeque 1979)."""
        present = x[~np.isnan(x)]
        self.missing += len(x) - len(present)
        if len(present) == 0:
            return
        nonzero = present[present != 0]
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            mean = float(present.mean())
            squares = float(np.square(present - mean).sum())
            self.nonzero_squares += float(_sum_in_order(np.square(nonzero)))
            step, n = mean - self.mean, self.n + len(present)
            self.squares += squares + step * step * self.n * len(present) / n
            self.mean = mean if self.n == 0 else self.mean + step * len(present) / n
        self.n = n
        self.nonzero += len(nonzero)
        self.low, self.high = (
            min(self.low, float(present.min())),
            max(self.high, float(present.max())),
        )

    def centre_and_spread(self, name: str) -> tuple[float, float]:
        """Mean and standard deviation.

        A constant column has its own size (at least 1) as spread, so that another number, which
        only later rows have, cannot become a huge feature that nothing was learned about.

        Raises:
            DataError: squares of these numbers overflow.
        """
        if self.low >= self.high:
            return (self.low, max(abs(self.low), 1.0)) if self.n else (0.0, 1.0)
        spread = math.sqrt(self.squares / self.n) if math.isfinite(self.squares) else math.inf
        self._check(name, spread)
        return self.mean, spread

    def typical_size(self, name: str) -> float:
        """Root mean square of the non-zero numbers: 1 for a column of zeros and ones.

        Raises:
            DataError: squares of these numbers overflow.
        """
        if self.nonzero == 0:
            return 1.0
        size = math.sqrt(self.nonzero_squares / self.nonzero)
        self._check(name, size)
        return size

    def _check(self, name: str, spread: float) -> None:
        if not (math.isfinite(self.mean) and math.isfinite(spread) and spread > 0):
            raise DataError(
                f"column {name!r} has numbers from {self.low:g} to {self.high:g}, whose squares "
                f"do not fit into a floating-point number: rescale the column"
            )


@dataclass
class NameStatistics:
    """Of a column of names: how often each occurs."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, column: Column, split: Callable[[str], Iterable[str]] | None = None) -> None:
        """Take in a chunk; `split` gives the names in a cell, where it may hold several."""
        text = column if isinstance(column, Text) else text_of_numbers(column)
        counts = np.bincount(text.codes, minlength=len(text.names))
        for i in np.flatnonzero(counts).tolist():
            for name in split(text.names[i]) if split else (text.names[i],):
                self.counts[name] = self.counts.get(name, 0) + int(counts[i])


@dataclass
class BlockStatistics:
    """Of a block of sparse rows: entries and their squares by feature number."""

    n_rows: int = 0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    squares: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def add(self, block: CSR) -> None:
        """Take in some rows."""
        block = block.without_zeros()
        indices, values = block.indices, block.values_or_ones()
        n = max(len(self.counts), int(indices.max(initial=-1)) + 1)
        with np.errstate(over="ignore", under="ignore"):
            squares = np.bincount(indices, np.square(values), n)
        self.squares = np.pad(self.squares, (0, n - len(self.squares))) + squares
        counts = np.bincount(indices, minlength=n)
        self.counts = np.pad(self.counts, (0, n - len(self.counts))) + counts
        self.n_rows += len(block)


def _sum_in_order(x: np.ndarray) -> float:
    """x[0] + x[1] + ..., one after the other, as BlockStatistics adds them."""
    return float(np.bincount(np.zeros(len(x), np.int64), x, 1)[0])
