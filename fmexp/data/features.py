"""Feature rows, dense or CSR, with every conversion between the two; rows in chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CHUNK_ROWS = 1 << 20
"""Rows that are split, encoded and shuffled together; more rows are taken chunk by chunk."""


SMALL_CHUNK_ROWS = 1 << 16
"""Rows whose losses are summed together: what is computed for each fits into the CPU's cache."""


def chunks(n_rows: int, size: int | None = None) -> Iterator[slice]:
    """Slices of at most `size` rows (CHUNK_ROWS by default) that cover all."""
    size = size or CHUNK_ROWS
    for start in range(0, n_rows, size):
        yield slice(start, min(start + size, n_rows))


@dataclass(frozen=True)
class CSR:
    """Sparse feature rows (compressed sparse rows).

    Attributes:
        indptr: row i holds entries indptr[i] to indptr[i + 1]; int64, shape (n_rows + 1,).
        indices: feature numbers, ascending and distinct within a row; int32, shape (nnz,).
        values: floating point, shape (nnz,); None when every value is 1 (one-hot data).
        n_features: number of columns.
    """

    indptr: np.ndarray
    indices: np.ndarray
    values: np.ndarray | None
    n_features: int

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """(n_rows, n_features)."""
        return len(self), self.n_features

    def take(self, rows: np.ndarray | slice) -> CSR:
        """These rows."""
        if isinstance(rows, slice):
            rows = np.arange(len(self))[rows]
        starts, counts = self.indptr[rows], self.indptr[rows + 1] - self.indptr[rows]
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        entries = np.arange(indptr[-1]) + np.repeat(starts - indptr[:-1], counts)
        values = None if self.values is None else self.values[entries]
        return CSR(indptr, self.indices[entries], values, self.n_features)


def stack_rows(parts: Sequence[CSR]) -> CSR:
    """All rows of several parts, one after the other."""
    starts = np.cumsum([0] + [part.indptr[-1] for part in parts])
    indptr = [part.indptr[1:] + start for part, start in zip(parts, starts, strict=False)]
    values = None
    if any(part.values is not None for part in parts):
        values = np.concatenate(
            [np.ones(len(p.indices)) if p.values is None else p.values for p in parts]
        )
    return CSR(
        np.concatenate([np.zeros(1, np.int64), *indptr]),
        np.concatenate([part.indices for part in parts]),
        values,
        max(part.n_features for part in parts),
    )


Features = np.ndarray | CSR
"""Feature rows: a C-contiguous float64 array of shape (n_rows, n_features), or CSR."""
