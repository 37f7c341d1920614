"""Which row is in which part: training, validation or test."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fmexp.data import dates
from fmexp.data.cells import MISSING
from fmexp.data.features import chunks
from fmexp.data.table import Table, Text, as_bytes, digest, text_of_numbers
from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fmexp.config.schema import SplitConfig

TRAIN, VALIDATION, TEST = 0, 1, 2

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

    def chunks(self, part: int) -> Iterator[np.ndarray]:
        """The same, chunk by chunk of the source; chunks without such a row are left out."""
        for chunk in chunks(len(self.part_of_row)):
            rows = np.flatnonzero(self.part_of_row[chunk] == part)
            if len(rows):
                yield rows + chunk.start

    def digest(self) -> str:
        """A hash of the part of every row, 32 hexadecimal digits."""
        return digest([as_bytes(self.part_of_row)])


def split_rows(table: Table, config: SplitConfig, part_of_row: np.ndarray | None = None) -> Split:
    """The parts that `split.*` asks for; the same for the same seed and table.

    Args:
        table: holds the column that decides, if one does.
        config: what is asked for.
        part_of_row: zeros to write the parts to, uint8, shape (n_rows,); None for new ones.

    Raises:
        DataError: there are too few rows, or what is to decide says something else than a part.
    """
    by = SplitBy.parse(config.by)
    split = Split(np.zeros(len(table), np.uint8) if part_of_row is None else part_of_row)
    if by.kind == "random":
        _draw(split.part_of_row, config)
    else:
        _look_up(split.part_of_row, table, by, config)
    if next(split.chunks(TRAIN), None) is None:
        raise DataError(
            f"{len(table)} rows leave none to train on with split.validation={config.validation}, "
            f"split.test={config.test}, split.by={by}: give more rows or smaller parts (0: none)"
        )
    return split


def _draw(part_of_row: np.ndarray, config: SplitConfig) -> None:
    """Random rows, chunk by chunk."""
    for c, chunk in enumerate(chunks(len(part_of_row))):
        parts = part_of_row[chunk]
        order = np.random.default_rng([config.seed, c]).permutation(len(parts))
        _hold_out(parts, order, np.ones(len(parts), np.int64), config)


def _look_up(part_of_row: np.ndarray, table: Table, by: SplitBy, config: SplitConfig) -> None:
    """The part of each row's group, time, cell or file."""
    column = table.columns[by.column or FILE]
    text = column if isinstance(column, Text) else text_of_numbers(column)
    n_names, counts = len(text.names), text.counts()
    if by.kind in ("column", "files"):
        part_of_name = _named_parts(text.names, counts, by)
    else:
        if by.kind == "group":
            order = np.random.default_rng(config.seed).permutation(n_names)
        else:
            times = _times(column, text, counts, by)
            order = np.argsort(times, kind="stable")[::-1]
        part_of_name = np.zeros(n_names, np.uint8)
        _hold_out(part_of_name, order, counts, config)
    for chunk in chunks(len(text)):
        part_of_row[chunk] = part_of_name[text.codes[chunk]]


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


def _times(column: np.ndarray | Text, text: Text, counts: np.ndarray, by: SplitBy) -> np.ndarray:
    """What the distinct cells of a column are ordered by: numbers, or days since 1970.

    Raises:
        DataError: naming the first row without a time, or with one that is written otherwise.
    """
    names = text.names
    missing = np.array([name.strip() in MISSING for name in names], bool)
    if isinstance(column, Text) and not all(map(_is_number, names)):
        found = np.array([dates.iso_days(name) for name in names])
    else:
        found = np.array([float(name or "nan") for name in names])
    wrong = (missing | ~np.isfinite(found)) & (counts > 0)
    if not wrong.any():
        return found
    row = int(np.flatnonzero(wrong[text.codes])[0])
    cell = names[text.codes[row]]
    if missing[text.codes[row]]:
        n_rows = int(counts[missing].sum())
        raise DataError(
            f"split.by={by}: row {row + 1:,} has no time (cell {cell!r}), {n_rows:,} rows in all: "
            "fill the cells in, or leave the rows out of the file"
        )
    forms = dates.fitting(names) or ["%d.%m.%Y"]
    keys = " or ".join(f"'data.dates={{{by.column}: \"{form}\"}}'" for form in forms)
    raise DataError(
        f"split.by={by}: expected numbers or ISO 8601 (2024-05-17, 2024-05-17T08:30), got {cell!r} "
        f"in row {row + 1:,}: say how the dates are written, such as {keys}"
    )


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _named_parts(names: list[str], counts: np.ndarray, by: SplitBy) -> np.ndarray:
    """The part that each text of a column, or each file's name, says.

    Raises:
        DataError: one that occurs says none.
    """
    found = [_part_of_file(n) if by.kind == "files" else _part_of_name(n) for n in names]
    wrong = [names[i] for i, part in enumerate(found) if part is None and counts[i]]
    if wrong:
        raise DataError(
            f"split.by={by}: expected train, validation or test, got "
            f"{', '.join(map(repr, wrong[:5]))}"
        )
    return np.array([part or TRAIN for part in found], np.uint8)


def _part_of_name(name: str) -> int | None:
    return next((part for part, names in PART_NAMES.items() if name.lower() in names), None)


def _part_of_file(name: str) -> int | None:
    """The part whose name is one of the words of the file's name."""
    words = re.split(r"[^a-z]+", name.lower())
    found = {part for part, names in PART_NAMES.items() if set(names) & set(words)}
    return found.pop() if len(found) == 1 else None
