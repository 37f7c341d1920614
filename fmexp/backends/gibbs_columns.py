"""Feature rows turned into columns, and which features may be drawn side by side."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from fmexp.backends import gibbs_kernels
from fmexp.backends.sgd import check_sparse
from fmexp.data.features import CSR
from fmexp.errors import DataError

if TYPE_CHECKING:
    from fmexp.data.features import Features

CHUNK_ENTRIES = 1 << 14
"""Entries of the columns that one thread takes at a time; fewer are not worth the hand-over."""


Piece = tuple[int, int]
"""The first feature, and the one after the last."""

Ranges = list[list[Piece]]
"""Features that are drawn range after range, and the pieces of a range side by side."""


@dataclass(frozen=True)
class Columns:
    """Feature rows, column by column.

    Attributes:
        kind: "dense" (every row is in every column), "csr", or "one-hot" (every value is 1).
        starts: column j has entries starts[j] to starts[j + 1]; int64, shape (n_features + 1,).
        rows: the row of each entry, ascending within a column; int32, empty for dense.
        values: float64, one an entry; empty for one-hot.
        bounds: ranges of features no two of which share a row: bounds[r] to bounds[r + 1]. So given
            all others, the features of a range are independent.
    """

    kind: str
    starts: np.ndarray
    rows: np.ndarray
    values: np.ndarray
    bounds: list[int]

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return len(self.starts) - 1

    def chunks(self, first: int, last: int, several: bool) -> Ranges:
        """The features first to last - 1: of each range its pieces, as `cut` makes them.

        Ranges that are one piece and follow each other are one; for a single thread all are.
        """
        bounds = [first, *(b for b in self.bounds if several and first < b < last), last]
        found: Ranges = []
        for begin, end in pairwise(bounds):
            pieces = cut(self.starts, begin, end) if several else [(begin, end)]
            if len(pieces) == 1 and found and len(found[-1]) == 1:
                found[-1] = [(found[-1][0][0], end)]
            else:
                found.append(pieces)
        return found


def cut(starts: np.ndarray, first: int, last: int) -> list[Piece]:
    """What has entries starts[j] to starts[j + 1], in pieces of some CHUNK_ENTRIES entries."""
    entries = starts[first : last + 1]
    marks = np.arange(entries[0] + CHUNK_ENTRIES, entries[-1], CHUNK_ENTRIES)
    cuts = np.unique([first, *(first + np.searchsorted(entries, marks)), last]).tolist()
    return list(pairwise(cuts))


def columns_of(features: Features, n_features: int) -> Columns:
    """The columns of feature rows.

    Raises:
        DataError: the rows are not as `Features` promises.
    """
    if features.shape[1] != n_features:
        raise DataError(
            f"expected rows of {n_features:,} features, got an array of shape {features.shape}"
        )
    if not isinstance(features, CSR):
        dense = np.ascontiguousarray(np.asarray(features, np.float64).T)
        starts = np.arange(n_features + 1) * len(features)
        bounds = list(range(n_features + 1))
        return Columns("dense", starts, np.zeros(0, np.int32), dense.ravel(), bounds)
    rows = features.without_zeros()
    indptr = np.ascontiguousarray(rows.indptr, np.int64)
    indices = np.ascontiguousarray(rows.indices, np.int32)
    values = None if rows.values is None else np.ascontiguousarray(rows.values, np.float64)
    check_sparse(indptr, indices, values, n_features)
    counts = np.bincount(indices, minlength=n_features)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    row_of_entry = np.empty(len(indices), np.int32)
    given = np.zeros(0) if values is None else values
    by_column = np.empty(len(given))
    gibbs_kernels.to_columns(values is not None)(
        indptr, indices, given, starts[:-1].copy(), row_of_entry, by_column
    )
    kind = "one-hot" if values is None else "csr"
    return Columns(kind, starts, row_of_entry, by_column, _ranges(indptr, indices, n_features))


def _ranges(indptr: np.ndarray, indices: np.ndarray, n_features: int) -> list[int]:
    """The fewest ranges of consecutive features such that no row holds two of one range."""
    neighbour = np.full(n_features, -1, np.int32)
    row = gibbs_kernels.last_neighbours()(indptr, indices, neighbour)
    if row >= 0:
        raise DataError(f"expected feature numbers in ascending order; row {row:,} has others")
    bounds = [0]
    for j, other in enumerate(neighbour.tolist()):
        if other >= bounds[-1]:
            bounds.append(j)
    return [*bounds, n_features]
