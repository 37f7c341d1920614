"""Which row is in which part: training, validation or test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fmexp.data.table import as_bytes, digest
from fmexp.errors import DataError

if TYPE_CHECKING:
    from fmexp.config import SplitConfig

TRAIN, VALIDATION, TEST = 0, 1, 2


@dataclass(frozen=True)
class Split:
    """Row numbers of the parts, each ascending (the source's order), int64.

    Attributes:
        train: never empty.
        validation: empty without split.validation.
        test: empty without split.test.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def digest(self) -> str:
        """A hash of the part of every row, 32 hexadecimal digits."""
        part_of_row = np.zeros(sum(map(len, (self.train, self.validation, self.test))), np.uint8)
        part_of_row[self.validation] = VALIDATION
        part_of_row[self.test] = TEST
        return digest([as_bytes(part_of_row)])


def split_rows(n_rows: int, config: SplitConfig) -> Split:
    """A random split, the same for the same seed and number of rows.

    Raises:
        DataError: there are too few rows for the parts that are asked for.
    """
    n_validation = _share(config.validation, n_rows)
    n_test = _share(config.test, n_rows)
    if n_validation + n_test >= n_rows:
        raise DataError(
            f"{n_rows} rows leave none to train on with split.validation={config.validation} "
            f"and split.test={config.test}: give more rows or smaller parts (0 for none)"
        )
    part_of_row = np.zeros(n_rows, np.uint8)
    order = np.random.default_rng(config.seed).permutation(n_rows)
    part_of_row[order[:n_test]] = TEST
    part_of_row[order[n_test : n_test + n_validation]] = VALIDATION
    return split_of_parts(part_of_row)


def split_of_parts(part_of_row: np.ndarray) -> Split:
    """The split that puts row i into part_of_row[i] (TRAIN, VALIDATION or TEST)."""
    return Split(*(np.flatnonzero(part_of_row == part) for part in (TRAIN, VALIDATION, TEST)))


def _share(fraction: float, n_rows: int) -> int:
    """Rows of a part: rounded, but at least one of a part that is asked for."""
    return max(1, round(fraction * n_rows)) if fraction > 0 else 0
