"""Feature rows, dense or CSR, with every conversion between the two; rows in chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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

    @staticmethod
    def from_dense(X: np.ndarray) -> CSR:
        """The entries that are not zero of an array of shape (n_rows, n_features)."""
        rows, columns = np.nonzero(X)
        indptr = np.searchsorted(rows, np.arange(len(X) + 1)).astype(np.int64)
        return CSR(indptr, columns.astype(np.int32), X[rows, columns], int(X.shape[1]))

    @staticmethod
    def from_scipy(matrix: Any) -> CSR:
        """The entries that are not zero of a scipy matrix or array, float64."""
        rows = matrix.tocsr(copy=True)
        rows.sum_duplicates()
        rows.eliminate_zeros()
        return CSR(
            rows.indptr.astype(np.int64),
            rows.indices.astype(np.int32),
            rows.data.astype(np.float64),
            int(rows.shape[1]),
        )

    @staticmethod
    def stack(parts: Sequence[CSR]) -> CSR:
        """All rows of several parts, one after the other."""
        starts = np.cumsum([0] + [part.indptr[-1] for part in parts])
        indptr = [part.indptr[1:] + start for part, start in zip(parts, starts, strict=False)]
        values = None
        if any(part.values is not None for part in parts):
            values = np.concatenate([part.values_or_ones() for part in parts])
        return CSR(
            np.concatenate([np.zeros(1, np.int64), *indptr]),
            np.concatenate([part.indices for part in parts]),
            values,
            max(part.n_features for part in parts),
        )

    @staticmethod
    def of_entries(entries: Sequence[Entries], n_rows: int, n_features: int) -> CSR:
        """Rows put together of entries, which give each row its features in ascending order."""
        counts = np.zeros(n_rows, np.int64)
        for rows, features, _ in entries:
            counts[rows] += np.diff(features.indptr) if isinstance(features, CSR) else 1
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        indices = np.empty(indptr[-1], np.int32)
        values = None if all(v is None for _, _, v in entries) else np.ones(indptr[-1])
        following = indptr[:-1].copy()
        for rows, features, numbers in entries:
            at = following[rows]
            if isinstance(features, CSR):
                n = np.diff(features.indptr)
                at = np.repeat(at - features.indptr[:-1], n) + np.arange(features.indptr[-1])
                indices[at] = features.indices
                following[rows] += n
            else:
                indices[at] = features
                following[rows] += 1
            if values is not None and numbers is not None:
                values[at] = numbers
        return CSR(indptr, indices, values, n_features)

    def to_dense(self) -> np.ndarray:
        """The rows as an array, float64, shape (n_rows, n_features)."""
        X = np.zeros(self.shape)
        X[self.rows_of_entries(), self.indices] = 1.0 if self.values is None else self.values
        return X

    def values_or_ones(self) -> np.ndarray:
        """The values, written out where one-hot rows leave them out; shape (nnz,)."""
        return np.ones(len(self.indices)) if self.values is None else self.values

    def rows_of_entries(self) -> np.ndarray:
        """The row of each entry; int64, shape (nnz,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.indptr))

    def take(self, rows: np.ndarray | slice) -> CSR:
        """These rows; of a slice without a step the entries are views."""
        if isinstance(rows, slice):
            begin, end, step = rows.indices(len(self))
            if step == 1 and begin <= end:
                indptr = self.indptr[begin : end + 1]
                of_rows = slice(int(indptr[0]), int(indptr[-1]))
                values = None if self.values is None else self.values[of_rows]
                return CSR(indptr - indptr[0], self.indices[of_rows], values, self.n_features)
            rows = np.arange(len(self))[rows]
        starts, counts = self.indptr[rows], self.indptr[rows + 1] - self.indptr[rows]
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        entries = np.arange(indptr[-1]) + np.repeat(starts - indptr[:-1], counts)
        values = None if self.values is None else self.values[entries]
        return CSR(indptr, self.indices[entries], values, self.n_features)

    def keep(self, entries: np.ndarray) -> CSR:
        """The same rows with some of their entries: boolean, shape (nnz,)."""
        indptr = np.concatenate([[0], np.cumsum(entries)])[self.indptr]
        values = None if self.values is None else self.values[entries]
        return CSR(indptr, self.indices[entries], values, self.n_features)

    def without_zeros(self) -> CSR:
        """The same rows without stored zeros."""
        if self.values is None or self.values.all():
            return self
        return self.keep(self.values != 0)


Entries = tuple[np.ndarray | slice, int | np.ndarray | CSR, np.ndarray | None]
"""Row numbers; the feature number of each of them, or several as CSR; values, None for all ones."""

Features = np.ndarray | CSR
"""Feature rows: a C-contiguous float64 array of shape (n_rows, n_features), or CSR."""
