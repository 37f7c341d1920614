"""Which row is in which part: training, validation or test."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fmexp.data.table import Table, Text, as_bytes, digest, text_of_numbers
from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fmexp.config import SplitConfig

TRAIN, VALIDATION, TEST = 0, 1, 2

BLOCK_ROWS = 1 << 20
"""Rows that are split, encoded and shuffled together; more rows are taken block by block."""

FILE = "(file)"
"""The column that holds the name of a row's file, for split.by=files."""

PART_NAMES = {
    TRAIN: ("train", "training"),
    VALIDATION: ("validation", "valid", "val", "dev"),
    TEST: ("test",),
}
"""How a column or a file name says which part it means."""


@dataclass(frozen=True)
class SplitBy:
    """What decides the part of a row.

    Attributes:
        kind: random, group (rows of a group stay together), time (the latest rows are held out),
            column (which names the part) or files (whose names do).
        column: of group, time and column; else None.
    """

    kind: str = "random"
    column: str | None = None

    def __str__(self) -> str:
        return f"{self.kind}:{self.column}" if self.column else self.kind

    @staticmethod
    def parse(by: str | None) -> SplitBy:
        """What `split.by` says.

        Raises:
            DataError: it is none of the forms.
        """
        if by is None:
            return SplitBy()
        kind, colon, column = by.partition(":")
        if by == "files":
            return SplitBy("files")
        if kind in ("group", "time", "column") and colon and column:
            return SplitBy(kind, column)
        raise DataError(
            "split.by must be null (random rows), group:COLUMN, time:COLUMN, column:COLUMN or "
            f"files, got {by!r}"
        )


@dataclass(frozen=True)
class Split:
    """The part of every row.

    Attributes:
        part_of_row: TRAIN, VALIDATION or TEST; uint8, shape (n_rows,).
    """

    part_of_row: np.ndarray

    def rows(self, part: int) -> np.ndarray:
        """Row numbers of a part, ascending, int64."""
        return np.flatnonzero(self.part_of_row == part)

    def blocks(self, part: int) -> Iterator[np.ndarray]:
        """The same, block by block of the source; blocks without such a row are left out."""
        for start in range(0, len(self.part_of_row), BLOCK_ROWS):
            rows = np.flatnonzero(self.part_of_row[start : start + BLOCK_ROWS] == part)
            if len(rows):
                yield rows + start

    def digest(self) -> str:
        """A hash of the part of every row, 32 hexadecimal digits."""
        return digest([as_bytes(self.part_of_row)])


def split_rows(table: Table, config: SplitConfig) -> Split:
    """The parts that `split.*` asks for; the same for the same seed and table.

    Raises:
        DataError: there are too few rows, or what is to decide says something else than a part.
    """
    by = SplitBy.parse(config.by)
    if by.kind in ("column", "files"):
        split = Split(_named_parts(table, by))
    else:
        split = Split(_shared_out(table, by, config))
    n_rows = len(table)
    if not (split.part_of_row == TRAIN).any():
        raise DataError(
            f"{n_rows} rows leave none to train on with split.validation={config.validation}, "
            f"split.test={config.test}, split.by={by}: give more rows or smaller parts (0: none)"
        )
    return split


def _shared_out(table: Table, by: SplitBy, config: SplitConfig) -> np.ndarray:
    """Parts of the sizes that are asked for."""
    part_of_row = np.zeros(len(table), np.uint8)
    if by.kind == "random":
        for b, start in enumerate(range(0, len(table), BLOCK_ROWS)):
            block = part_of_row[start : start + BLOCK_ROWS]
            order = np.random.default_rng([config.seed, b]).permutation(len(block))
            _hold_out(block, order, np.ones(len(block), np.int64), config)
        return part_of_row
    assert by.column is not None
    column = table.columns[by.column]
    text = column if isinstance(column, Text) else text_of_numbers(column)
    counts = np.bincount(text.codes, minlength=len(text.names))
    if by.kind == "group":
        order = np.random.default_rng(config.seed).permutation(len(counts))
    else:
        order = np.argsort(_times(column, text.names), kind="stable")[::-1]
    part_of_group = np.zeros(len(counts), np.uint8)
    _hold_out(part_of_group, order, counts, config)
    found: np.ndarray = part_of_group[text.codes]
    return found


def _hold_out(
    parts: np.ndarray, order: np.ndarray, counts: np.ndarray, config: SplitConfig
) -> None:
    """Give the first groups of `order` to the test part, the next to validation, by their rows."""
    n_rows = int(counts.sum())
    n_test, n_validation = _share(config.test, n_rows), _share(config.validation, n_rows)
    before = np.cumsum(counts[order]) - counts[order]
    parts[order[before < n_test + n_validation]] = VALIDATION
    parts[order[before < n_test]] = TEST
    if n_validation and not (parts == VALIDATION).any():
        parts[order[before >= n_test][:1]] = VALIDATION


def _share(fraction: float, n_rows: int) -> int:
    """Rows of a part: rounded, but at least one of a part that is asked for."""
    return max(1, round(fraction * n_rows)) if fraction > 0 else 0


def _times(column: np.ndarray | Text, names: list[str]) -> np.ndarray:
    """What the distinct cells of a column are ordered by: numbers, or texts such as 2024-05-17."""
    if isinstance(column, Text):
        return np.array(names, dtype=np.str_)
    return np.array([float(name or "nan") for name in names])


def _named_parts(table: Table, by: SplitBy) -> np.ndarray:
    """The part that each cell of a column, or each file's name, says.

    Raises:
        DataError: one says none.
    """
    column = table.columns[by.column or FILE]
    text = column if isinstance(column, Text) else text_of_numbers(column)
    used = set(np.unique(text.codes).tolist())
    parts, wrong = np.zeros(len(text.names), np.uint8), []
    for code, name in enumerate(text.names):
        part = _part_of_file(name) if by.kind == "files" else _part_of_name(name)
        if part is None and code in used:
            wrong.append(name)
        parts[code] = part or 0
    if wrong:
        raise DataError(
            f"split.by={by}: expected train, validation or test, got "
            f"{', '.join(map(repr, wrong[:5]))}"
        )
    found: np.ndarray = parts[text.codes]
    return found


def _part_of_name(name: str) -> int | None:
    return next((part for part, names in PART_NAMES.items() if name.lower() in names), None)


def _part_of_file(name: str) -> int | None:
    """The part whose name is one of the words of the file's name."""
    words = re.split(r"[^a-z]+", name.lower())
    found = {part for part, names in PART_NAMES.items() if set(names) & set(words)}
    return found.pop() if len(found) == 1 else None
