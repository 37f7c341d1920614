"""Relation blocks under sampling: features that rows share are drawn on keys instead of rows.

Rendle, *Scaling Factorization Machines to Relational Data*, 2013; docs/fm.md derives what a key has
to know of its rows, for joint draws.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fmexp.backends import gibbs_kernels
from fmexp.backends.compiled import NONE, aligned_zeros
from fmexp.backends.gibbs_columns import columns_of, cut

if TYPE_CHECKING:
    from fmexp.backends.gibbs_columns import Ranges
    from fmexp.backends.side_by_side import SideBySide
    from fmexp.data.related import Block


class Relation:
    """A relation block: the columns of its keys, and which rows each key has.

    Attributes:
        features: which they are.
        ranges: of these features, counted from the block's first, as `draw` takes them.
    """

    def __init__(
        self, block: Block, lanes: int, at_once: SideBySide, row_weights: np.ndarray | None = None
    ) -> None:
        """Sort the rows by key.

        Args:
            block: of the training rows.
            lanes: factors drawn together.
            at_once: the threads that work.
            row_weights: of the rows, all above 0; None: all the same.

        Raises:
            DataError: the block's rows are not as `Features` promises.
        """
        self.features, self._lanes, self._at_once = slice(block.first, block.last), lanes, at_once
        self._columns = columns_of(block.rows, block.last - block.first)
        n_keys = len(block.rows)
        self._keys = np.ascontiguousarray(block.keys, np.int32)
        counts = np.bincount(self._keys, minlength=n_keys)
        self._starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        self._order = np.argsort(self._keys, kind="stable").astype(np.int32)
        self._pieces = cut(self._starts, 0, n_keys)
        self.ranges = self._columns.chunks(0, self._columns.n_features, at_once.several)
        weighted, double = row_weights is not None, np.dtype(np.float64)
        self._row_weights = NONE if row_weights is None else row_weights
        self._gather = gibbs_kernels.gather_rows(lanes, weighted)
        self._table = aligned_zeros(n_keys, gibbs_kernels.key_size(lanes), double)
        self._means = aligned_zeros(n_keys, lanes, double)

    def draw(self, ranges: Ranges, errors: np.ndarray, sums: np.ndarray, *of_features: Any) -> None:
        """Draw (v_j, w_j) of the features of some ranges; see `gibbs_kernels.draw_features`.

        What is by feature (V, weights, groups, noise) begins at the block's first.
        """
        at_once, lanes, columns = self._at_once, self._lanes, self._columns
        state = errors, sums, self._table, self._means
        move = gibbs_kernels.move_rows(lanes)
        rows = self._starts, self._order
        at_once.over(self._gather, self._pieces, *rows, *state, self._row_weights)
        at_once.over_ranges(
            gibbs_kernels.draw_features(lanes, columns.kind, by_key=True), ranges,
            columns.starts, columns.rows, columns.values, errors, self._table, *of_features, NONE,
        )  # fmt: skip
        at_once.over_rows(move, len(errors), self._keys, *state)

    def add(self, errors: np.ndarray, sums: np.ndarray, V: np.ndarray, w: np.ndarray) -> None:
        """Add the block's features to empty row sums; see `gibbs_kernels.add_features`."""
        columns, n_keys = self._columns, len(self._means)
        of_keys, self._means[:] = np.zeros(n_keys), 0.0
        self._at_once.over_ranges(
            gibbs_kernels.add_features(self._lanes, columns.kind), self.ranges,
            columns.starts, columns.rows, columns.values, of_keys, self._means, V, w,
        )  # fmt: skip

        def spread(first: int, last: int) -> None:
            keys = self._keys[first:last]
            errors[first:last] += of_keys[keys]
            sums[first:last] += self._means[keys]

        self._at_once.over_rows(spread, len(errors))
