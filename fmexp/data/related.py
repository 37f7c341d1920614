"""Feature rows that share runs of features: a run is kept once, and rows refer to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fmexp.data.features import CSR, Features
from fmexp.errors import DataError


@dataclass(frozen=True)
class Block:
    """A run of consecutive features that rows share (Rendle 2013, "relation block").

    Attributes:
        first: the run's first feature.
        rows: what rows share, shape (n_keys, width): the features first to first + width - 1.
        keys: which of them each row has; int32, shape (n_rows,).
    """

    first: int
    rows: Features
    keys: np.ndarray

    def __post_init__(self) -> None:
        """Refuse keys that would lead a kernel out of bounds.

        Raises:
            DataError: a key is below 0, or there is no such row.
        """
        if len(self.keys) and not 0 <= self.keys.min() <= self.keys.max() < len(self.rows):
            low, high = self.keys.min(), self.keys.max()
            raise DataError(f"expected keys below {len(self.rows):,}, got {low:,} to {high:,}")

    @property
    def last(self) -> int:
        """The feature after the run."""
        return self.first + int(self.rows.shape[1])

    @property
    def entries_per_key(self) -> float:
        """How many features of the run a shared row has, on average."""
        if isinstance(self.rows, CSR):
            return len(self.rows.indices) / len(self.rows)
        return float(self.rows.shape[1])

    def used(self) -> Block:
        """The same without shared rows that no row has."""
        used, keys = np.unique(self.keys, return_inverse=True)
        if len(used) == len(self.rows):
            return self
        rows = self.rows.take(used) if isinstance(self.rows, CSR) else self.rows[used]
        return Block(self.first, rows, keys.astype(np.int32))

    def expand(self, n_features: int) -> CSR:
        """The run written out for every row, as rows of n_features features."""
        rows = self.rows if isinstance(self.rows, CSR) else CSR.from_dense(self.rows)
        taken = rows.take(self.keys)
        return CSR(taken.indptr, taken.indices + np.int32(self.first), taken.values, n_features)


@dataclass(frozen=True)
class Related:
    """Feature rows made of what each has for itself, and of runs that they share.

    Attributes:
        own: what each row has for itself, over all features, with no entry in a block's run.
        blocks: runs of features, in ascending order; none overlaps another.
    """

    own: CSR
    blocks: tuple[Block, ...]

    def __len__(self) -> int:
        return len(self.own)

    @property
    def shape(self) -> tuple[int, int]:
        """(n_rows, n_features)."""
        return self.own.shape

    def take(self, rows: np.ndarray | slice) -> Related:
        """These rows; of a slice without a step all arrays are views."""
        blocks = (Block(b.first, b.rows, b.keys[rows]) for b in self.blocks)
        return Related(self.own.take(rows), tuple(blocks))

    def shared_by(self, rows_per_key: int) -> FeatureRows:
        """The same rows, with only those blocks in which a key has so many rows on average."""
        blocks = [block.used() for block in self.blocks]
        kept = tuple(b for b in blocks if len(self) >= rows_per_key * len(b.rows))
        others = tuple(b for b in blocks if len(self) < rows_per_key * len(b.rows))
        own = Related(self.own, others).expand()
        return Related(own, kept) if kept else own

    def by_key(self) -> np.ndarray:
        """An order of the rows in which those that share the longest run are neighbours."""
        longest = max(self.blocks, key=lambda block: block.entries_per_key)
        return np.argsort(longest.keys, kind="stable")

    def expand(self) -> CSR:
        """The same rows with every entry written out; n_rows times what the runs hold in memory."""
        if not self.blocks:
            return self.own
        parts, end = [], 0
        for block in self.blocks:
            parts += [self._own_between(end, block.first), block.expand(self.shape[1])]
            end = block.last
        parts.append(self._own_between(end, self.shape[1]))
        entries = [(slice(None), part, part.values) for part in parts]
        return CSR.of_entries(entries, len(self), self.shape[1])

    def _own_between(self, first: int, last: int) -> CSR:
        return self.own.keep((self.own.indices >= first) & (self.own.indices < last))


FeatureRows = Features | Related
"""Feature rows as the encoder gives them; `Related` only for a backend that can use them."""


def expanded(features: FeatureRows) -> Features:
    """The same rows, dense or CSR."""
    return features.expand() if isinstance(features, Related) else features


def parted(features: FeatureRows) -> tuple[Features, tuple[Block, ...]]:
    """What each row has for itself, and the blocks, without shared rows that no row has."""
    if not isinstance(features, Related):
        return features, ()
    return features.own, tuple(block.used() for block in features.blocks)
