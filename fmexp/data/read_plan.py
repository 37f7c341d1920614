"""What a format says of its files before they are read, and what it is then asked to read."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fmexp.data.cells import TextFormat
from fmexp.data.table import Dictionary, Table, Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from fmexp.data.table import Column

SAMPLE_ROWS = 5_000
"""Rows that a schema is inferred from, where there are few columns."""

SAMPLE_CELLS = 1_000_000
"""Cells that a schema is inferred from, where there are many."""

WEIGHT = "a weight, a finite number of at least 0 (data.weight)"
"""What a cell of the column of weights must be."""


@dataclass(frozen=True)
class TableFiles:
    """The files of one table, looked into but not yet read.

    Attributes:
        found: the files.
        sample: the first rows of the first file as texts, by column.
        n_rows: how many rows there are, about.
        how: what decides how their text is cut into cells.
        names_of: the columns of one of the files.
        batches: reads a file: the columns that are asked for, some rows at a time.
        text: how their characters and numbers are written, where they are text.
        signs: as `ReadPlan.signs`, of all columns of numbers.
        lists: columns whose cells are lists of categories, not texts.
        hint: says what to look at where the columns are not as the user says.
    """

    found: list[Path]
    sample: dict[str, list[str]]
    n_rows: float
    how: str
    names_of: Callable[[Path], list[str]]
    batches: Callable[[Path, ReadPlan], Iterator[Table]]
    text: TextFormat = TextFormat()  # noqa: RUF009 -- frozen
    signs: Mapping[str, str] = field(default_factory=dict)
    lists: Sequence[str] = ()
    hint: Callable[[], str] = str


class ReadPlan:
    """What a reader is asked for, and the texts that it has met.

    Attributes:
        numbers: numeric columns, each with whether missing cells are allowed.
        texts: columns of texts.
        dates: how those numbers are written that are dates.
        target: the target's column; "" where there is none.
        missing_labels: rows without a target are left out, whose text is one of these or whose
            number is missing; None: they are kept.
        signs: percent or currency sign of the numbers that text has beside one; "" where only
            their digits are grouped.
        weight: the column of weights, numbers of at least 0; "" where there is none.
        separators: of columns of texts what lists are joined with, where a cell is a list.
        dictionaries: the distinct texts of each.
    """

    def __init__(
        self,
        numbers: dict[str, bool],
        texts: Sequence[str],
        dates: Mapping[str, str] | None = None,
        target: str = "",
        missing_labels: frozenset[str] | None = None,
        signs: Mapping[str, str] | None = None,
        weight: str = "",
    ) -> None:
        self.numbers = numbers
        self.signs = {n: sign for n, sign in (signs or {}).items() if n in numbers}
        self.texts = list(texts)
        self.separators: Mapping[str, str] = {}
        self.dates = {n: form for n, form in (dates or {}).items() if n in numbers}
        self.target, self.missing_labels, self.weight = target, missing_labels, weight
        self.dictionaries = {name: Dictionary() for name in self.texts}

    def key(self) -> list[Any]:
        """All that decides what is read, as JSON knows it."""
        labels = self.missing_labels and sorted(self.missing_labels)
        key = [self.numbers, self.texts, self.dates, self.target, labels, self.signs]
        return [*key, self.weight] if self.weight else key

    def accepts(self, table: Table) -> bool:
        """Whether all numbers are finite, or missing where they may be; no weight is negative."""
        return not any(self.wrong(name, table.columns[name]).any() for name in self.numbers)

    def wrong(self, name: str, column: Column) -> np.ndarray:
        """Which cells of a column of numbers may not be there: boolean, shape (n_rows,)."""
        x = np.asarray(column)
        wrong = np.isinf(x) if self.numbers[name] else ~np.isfinite(x)
        return np.asarray(wrong | (x < 0) if name == self.weight else wrong)

    def with_targets(self, table: Table) -> Table:
        """The rows to keep: all, or those that have a target, and how many have none."""
        if self.missing_labels is None:
            return table
        column = table.columns[self.target]
        if isinstance(column, Text):
            has_none = np.array([n.strip() in self.missing_labels for n in column.names], bool)
            missing = has_none[column.codes]
        else:
            missing = np.isnan(column)
        if not missing.any():
            return table
        return replace(table.take(np.flatnonzero(~missing)), left_out=int(missing.sum()))


def sample_rows(n_columns: int) -> int:
    """How many rows to infer the schema of so many columns from."""
    return max(100, min(SAMPLE_ROWS, SAMPLE_CELLS // n_columns))
