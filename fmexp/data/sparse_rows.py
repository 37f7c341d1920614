"""Columns as sparse rows: the entries of each, and runs of features that rows share by a key."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from fmexp.data.features import CSR
from fmexp.data.fields import Categorical, Numeric, finite, numbers_of
from fmexp.data.related import Block
from fmexp.data.table import Table, Text, text_of_numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fmexp.data.features import Entries
    from fmexp.data.joins import Join
    from fmexp.data.table import Column

SHARED_FROM = 8
"""Entries, on average, from which a run of features is kept once for all rows that share it."""

Placed = tuple[int, Numeric | Categorical]
"""A first feature, and the column that it and those after it are made of."""


@dataclass(frozen=True)
class Run:
    """Consecutive features that the columns of one joined table give.

    Attributes:
        join: the table.
        first: the first of the features.
        rows: of each row of `join.table`, features counted from `first`.
        incomplete: numbers of `join.table` some of which are missing, where rows may have none
            that are.
        list_of_row: a list of which each row leaves a category out, if the run is such a one.
    """

    join: Join
    first: int
    rows: CSR
    incomplete: Mapping[str, np.ndarray]
    list_of_row: Categorical | None

    @property
    def is_shared(self) -> bool:
        """Whether it pays to keep it once."""
        return self.list_of_row is None and len(self.rows.indices) >= SHARED_FROM * len(self.rows)

    def of(self, table: Table) -> Block:
        """What the rows of a table have of it.

        Raises:
            DataError: a key is not there, or a number is missing.
        """
        keys = self.join.rows_of(table)
        for name, x in self.incomplete.items():
            finite(name, x[keys])
        if self.list_of_row is None:
            return Block(self.first, self.rows, keys)
        rows = self.list_of_row.taken_out(self.rows.take(keys), table)
        return Block(self.first, rows, np.arange(len(rows), dtype=np.int32))

    def n_entries(self, table: Table | None = None) -> int:
        """Entries of the run, or of all rows of a table that have it."""
        sizes = np.diff(self.rows.indptr)
        return int(sizes.sum() if table is None else self.join.count(table) @ sizes)


def runs(columns: Sequence[Placed], joined: Mapping[str, Join]) -> list[Run]:
    """The runs of features.

    Args:
        columns: all, in the order of their features.
        joined: the table of each column that is joined.
    """
    found = []
    for _, group in groupby(columns, lambda placed: id(joined.get(placed[1].column))):
        placed = list(group)
        first, column = placed[0]
        join = joined.get(column.column)
        if join is None:
            continue
        incomplete = {
            c.name: x
            for _, c in placed
            if isinstance(c, Numeric) and c.fill is None
            if np.isnan(x := numbers_of(c.name, join.table.columns[c.name])).any()
        }
        filled = {name: np.nan_to_num(x) for name, x in incomplete.items()}
        rows = sparse_rows(
            replace(join.table, columns=join.table.columns | filled),
            [(at - first, c) for at, c in placed],
            placed[-1][0] + placed[-1][1].width - first,
        )
        leaves_out = column if isinstance(column, Categorical) and column.without else None
        found.append(Run(join, first, rows, incomplete, leaves_out))
    return found


def sparse_rows(table: Table, columns: Iterable[Placed], width: int) -> CSR:
    """The rows of a table, shape (n_rows, width), with the features of these columns."""
    entries = [entry for first, column in columns for entry in _entries(column, table, first)]
    return CSR.of_entries(entries, len(table), width)


def numeric_features(column: Numeric, table: Table) -> Iterator[np.ndarray]:
    """The features of a numeric column: the number, then whether it was missing."""
    x = numbers_of(column.name, table.columns[column.name])
    missing = np.isnan(x)
    if column.fill is not None:
        x = np.where(missing, column.fill, x)
    yield (finite(column.name, x) - column.offset) / column.scale
    if column.marked:
        yield missing.astype(np.float64)


def category_codes(field: Categorical, column: Column) -> np.ndarray:
    """The category number of every row, -1 for none; int32, shape (n_rows,)."""
    text = column if isinstance(column, Text) else text_of_numbers(column)
    used = np.flatnonzero(text.counts())  # a chunk of rows has few of the table's names
    lookup = np.full(len(text.names), -1, np.int32)
    lookup[used] = field.numbers_of([text.names[i] for i in used.tolist()])
    if field.rare:
        lookup[lookup < 0] = len(field.categories)
    codes: np.ndarray = lookup[text.codes]
    return codes


def n_entries(column: Numeric | Categorical, table: Table) -> int:
    """Entries of a column in all rows of a table, zeros among them."""
    if isinstance(column, Numeric) or column.separator is None:
        return len(table)
    text = column.text_of(table)
    each = Text(np.arange(len(text.names), dtype=np.int32), text.names)
    return int(text.counts() @ np.diff(column.list_rows(each).indptr))


def _entries(column: Numeric | Categorical, table: Table, first: int) -> Iterator[Entries]:
    """What is not zero of a column, whose features count from `first`."""
    if isinstance(column, Numeric):
        for feature, numbers in enumerate(numeric_features(column, table), start=first):
            rows = np.flatnonzero(numbers)
            values = numbers[rows]
            yield rows, feature, None if (values == 1).all() else values
        return
    text = column.text_of(table)
    if column.separator is not None:
        found = column.list_rows(text)
        yield slice(None), replace(found, indices=found.indices + np.int32(first)), found.values
        return
    codes = category_codes(column, text)
    if (codes >= 0).all():
        yield slice(None), codes + np.int32(first), None
    else:
        rows = np.flatnonzero(codes >= 0)
        yield rows, codes[rows] + np.int32(first), None
