"""How one column becomes features: numbers, categories (one or several in a cell), or a block."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from fmexp.data.cells import id_text
from fmexp.data.dates import part_of
from fmexp.data.features import CSR
from fmexp.data.table import Column, Table, Text, text_of_numbers
from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Numeric:
    """A numeric column; its feature is (x - offset) / scale.

    Attributes:
        name: the column's.
        offset: subtracted; the training mean, 0 for a column that stays sparse.
        scale: divided by; never 0.
        fill: stands in for a missing cell; None where missing cells are refused.
        marked: whether a second feature is 1 where the cell is missing and 0 elsewhere; it exists
            where training rows had missing cells.
        date: of a column of dates how they are written (strptime's format); x is then the days
            since 1970-01-01.
        sign: the percent or currency sign that text has beside each number.
    """

    name: str
    offset: float = 0.0
    scale: float = 1.0
    fill: float | None = None
    marked: bool = False
    date: str | None = None
    sign: str | None = None

    @property
    def column(self) -> str:
        """The column of the table that it is made of."""
        return self.name

    @property
    def width(self) -> int:
        """Number of features."""
        return 1 + self.marked


@dataclass(frozen=True)
class Categorical:
    """A column of names; each category that the training part has is one feature.

    Attributes:
        name: the column's.
        categories: those of the training part, sorted (as integers where all are).
        rare: whether a last feature stands for all categories that are not listed. It exists
            when the training part had some that were too rare to be listed. Without it an
            unknown category adds nothing to the score, as its parameters would be zero.
        part: of a column of dates what of them is the category: weekday, month or hour.
        separator: between the categories of a cell, where it may hold several.
        weight: the feature of each of n categories in a cell: sqrt (1/sqrt(n)), mean (1/n), one.
        without: a column whose category in the same row does not count among a cell's (of a
            history the row's own item, with data.history_own=false).
    """

    name: str
    categories: tuple[str, ...]
    rare: bool = False
    part: str | None = None
    separator: str | None = None
    weight: str | None = None
    without: str | None = None

    @property
    def column(self) -> str:
        """The column of the table that it is made of."""
        return self.name.removesuffix(f" ({self.part})")

    def text_of(self, table: Table) -> Text:
        """Its cells as texts."""
        column = table.columns[self.column]
        if self.part:
            return part_of(numbers_of(self.column, column), self.part)
        return column if isinstance(column, Text) else text_of_numbers(column)

    @property
    def split(self) -> Callable[[str], list[str]] | None:
        """What gives the distinct categories of a cell, where it may hold several; else None."""
        separator = self.separator
        if separator is None:
            return None
        return lambda cell: sorted({c.strip() for c in cell.split(separator)} - {""})

    def list_rows(self, text: Text) -> CSR:
        """The features of each row of cells that may hold several categories."""
        used, codes = np.unique(text.codes, return_inverse=True)
        cells = [text.names[code] for code in used.tolist()]
        several = [self.split(cell) if self.split else [cell] for cell in cells]
        sizes = np.array([len(names) for names in several], np.int64)
        names = list(dict.fromkeys(chain.from_iterable(several)))
        position = {name: i for i, name in enumerate(names)}
        flat = np.array([position[n] for n in chain.from_iterable(several)], np.int64)
        categories = self.numbers_of(names).astype(np.int64)
        if self.rare:
            categories[categories < 0] = len(self.categories)
        found, cell_of = categories[flat], np.repeat(np.arange(len(cells)), sizes)
        n = np.maximum(sizes, 1)
        weight = {"sqrt": np.sqrt(1 / n), "mean": 1 / n}.get(self.weight or "", np.ones(len(n)))
        known = found >= 0
        entries, entry_of = np.unique(
            cell_of[known] * self.width + found[known], return_inverse=True
        )
        values = np.bincount(entry_of, weight[cell_of[known]], len(entries))
        row, feature = np.divmod(entries, max(self.width, 1))
        indptr = np.searchsorted(row, np.arange(len(cells) + 1)).astype(np.int64)
        return CSR(indptr, feature.astype(np.int32), values, self.width).take(codes)

    def taken_out(self, rows: CSR, table: Table) -> CSR:
        """The rows of lists without the category that `without` names in the same row.

        Args:
            rows: as `list_rows` gives them with weight sqrt, all categories known.
            table: has the column that `without` names.
        """
        column = table.columns[self.without or ""]
        text = column if isinstance(column, Text) else text_of_numbers(column)
        own = self.numbers_of([name.strip() for name in text.names])[text.codes]
        kept = rows.keep(rows.indices != own[rows.rows_of_entries()])
        n = np.diff(kept.indptr)
        return replace(kept, values=np.repeat(np.sqrt(1 / np.maximum(n, 1)), n))

    @property
    def width(self) -> int:
        """Number of features."""
        return len(self.categories) + self.rare

    def numbers_of(self, names: list[str]) -> np.ndarray:
        """The position of each name among the categories, -1 for others; int32, shape (n_names,).

        An id that is written 196.0 is the category 196 and the other way round: whatever has made
        a column floating point (pandas, where a cell is missing) writes its ids so.
        """
        number = {category: i for i, category in enumerate(self.categories)}
        whole: dict[str, int] = {}
        for category, i in number.items():
            whole.setdefault(id_text(category), i)
        return np.array([number.get(n, whole.get(id_text(n), -1)) for n in names], np.int32)


@dataclass(frozen=True)
class Block:
    """Features that have numbers instead of names (libsvm text, scipy matrices).

    Attributes:
        first: number of the first feature in the source (0 or 1).
        n_features: how many the training rows have; later ones are unknown and add nothing.
        sparse: whether rows stay sparse; else each feature is also in `Encoder.numeric`.
        scales: what each sparse feature is divided by; None for 1.
    """

    first: int
    n_features: int
    sparse: bool
    scales: tuple[float, ...] | None = None

    def names(self) -> list[str]:
        """The features' numbers in the source."""
        return [str(self.first + j) for j in range(self.n_features)]

    def rows(self, table: Table) -> CSR:
        """The table's rows, features counted from 0, without unknown ones and zeros, scaled."""
        block = _block(table)
        values = block.values_or_ones()
        if not np.isfinite(values).all():
            raise DataError("the values of features must be finite numbers")
        indices = (block.indices - self.first).astype(np.int32)
        known = (indices >= 0) & (indices < self.n_features) & (values != 0)
        rows = CSR(block.indptr, indices, values, self.n_features).keep(known)
        values = rows.values_or_ones()
        if self.scales is not None:
            values = values / np.asarray(self.scales)[rows.indices]
        return replace(rows, values=None if (values == 1).all() else values)


def numbers_of(name: str, column: Column) -> np.ndarray:
    """The column as float64, shape (n_rows,); text is refused."""
    if isinstance(column, Text):
        example = next(iter(column.names), "")
        raise DataError(f"column {name!r} must hold numbers, got text such as {example!r}")
    return np.asarray(column, np.float64)


def finite(name: str, x: np.ndarray) -> np.ndarray:
    """The same numbers; missing and infinite ones are refused, with the first one's place."""
    wrong = np.flatnonzero(~np.isfinite(x))
    if len(wrong):
        got = "missing values" if np.isnan(x[wrong[0]]) else f"{x[wrong[0]]:g}"
        raise DataError(
            f"column {name!r} must hold finite numbers, got {got} in {len(wrong)} rows, "
            f"the first at row {wrong[0] + 1}"
        )
    return x


def row_weights(name: str, x: np.ndarray) -> np.ndarray:
    """The same numbers; refused are those that cannot be weights, with the first one's place."""
    negative = np.flatnonzero(finite(name, x) < 0)
    if len(negative):
        raise DataError(
            f"column {name!r} must hold weights, numbers of at least 0, got {x[negative[0]]:g} in "
            f"row {negative[0] + 1}"
        )
    return x


def _block(table: Table) -> CSR:
    if table.block is None:
        raise DataError("the model needs sparse rows (libsvm text or a scipy matrix)")
    return table.block


def sorted_names(names: list[str]) -> list[str]:
    """In order: as integers where all are plain ones, else as texts."""
    if all(name.isdecimal() and name.isascii() and str(int(name)) == name for name in names):
        return sorted(names, key=int)
    return sorted(names)


def listed(names: list[str]) -> str:
    """The first names, quoted, and how many more there are."""
    more = f" and {len(names) - 8:,} more" if len(names) > 8 else ""
    return ", ".join(repr(name) for name in names[:8]) + more
