"""A second table by key: its columns belong to every row of the first that has the key."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from fmexp.data import budget, dates, files
from fmexp.data.cells import TextFormat, id_text
from fmexp.data.read_plan import ReadPlan
from fmexp.data.table import (
    Column,
    Reference,
    Table,
    Text,
    digest,
    stack,
    text_of_numbers,
)
from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fmexp.data.read_plan import TableFiles


READ_BYTES = 25.0
"""Memory that a byte of a second table takes, about: all its cells are texts at first."""


@dataclass(frozen=True)
class Join:
    """The columns of a second table that a model uses, in plain values, as JSON keeps them.

    Attributes:
        key: the column of the first table, and of the second.
        keys: that column's cells in the second table, each once.
        columns: by name the cells of each row: numbers (None where missing), or texts.
        may_miss: whether a row of the first table may have a key that is not there: its joined
            cells are then missing.
        learned: whether it is no file's, but made of the training rows (data.history).
    """

    key: str
    keys: tuple[str, ...]
    columns: dict[str, list[Any]] = field(default_factory=dict)
    may_miss: bool = False
    learned: bool = False

    def attach(self, table: Table, where: str = "the rows", first: int = 0) -> Table:
        """The table with references to these columns.

        Args:
            table: rows that have the key.
            where: they come from, for messages.
            first: how many rows of that are before these.

        Raises:
            DataError: a row's key is not there.
        """
        if not self.columns or self.key not in table.columns:
            return table
        key, rows = self._keys_of(table)
        if not self.may_miss:
            self._refuse_unknown(key, rows, where, first)
        joined = self.table.columns.items()
        references = {name: Reference(column, key, rows) for name, column in joined}
        return replace(table, references=table.references | references)

    def rows_of(self, table: Table) -> np.ndarray:
        """The row of `self.table` that each row of a table has; int32, shape (n_rows,).

        Raises:
            DataError: a row's key is not there.
        """
        key, rows = self._keys_of(table)
        if not self.may_miss:
            self._refuse_unknown(key, rows, "the rows", 0)
        return np.asarray(rows[key.codes])

    def count(self, table: Table) -> np.ndarray:
        """How many rows of a table have each row of `self.table`; int64."""
        key, rows = self._keys_of(table)
        return np.bincount(rows, key.counts(), len(self.table)).astype(np.int64)

    def _keys_of(self, table: Table) -> tuple[Text, np.ndarray]:
        """The keys of a table's rows, and the row here for each of their names."""
        key = table.columns[self.key]
        text = key if isinstance(key, Text) else text_of_numbers(key)
        used = np.flatnonzero(text.counts())  # a chunk of rows has few of the table's names
        rows = np.full(len(text.names), len(self.keys), np.int32)
        rows[used] = [self._row_of(text.names[i]) for i in used.tolist()]
        return text, rows

    def _row_of(self, key: str) -> int:
        """The row of a key; the last one, whose cells are missing, for an unknown one."""
        found = self._numbers.get(key)
        return self._numbers.get(id_text(key), len(self.keys)) if found is None else found

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {id_text(key): i for i, key in enumerate(self.keys)} | {
            key: i for i, key in enumerate(self.keys)
        }

    @cached_property
    def table(self) -> Table:
        """The columns, and a last row of missing cells for keys that are not there."""
        found: dict[str, Column] = {}
        for name, cells in self.columns.items():
            if any(isinstance(cell, str) for cell in cells):
                names = list(dict.fromkeys(["", *cells]))
                number = {text: i for i, text in enumerate(names)}
                found[name] = Text(np.array([number[c] for c in [*cells, ""]], np.int32), names)
            else:
                found[name] = np.array([*cells, None], np.float64)
        return Table(found)

    def _refuse_unknown(self, key: Text, rows: np.ndarray, where: str, first: int) -> None:
        if len(self.keys) not in rows:
            return
        unknown = np.flatnonzero(rows[key.codes] == len(self.keys))
        if len(unknown):
            row = int(unknown[0])
            cell = key.names[key.codes[row]]
            raise DataError(
                f"{where}, row {first + row + 1:,}, column {self.key!r}: {cell!r} is no "
                f"{self.key} of the joined table ({len(unknown):,} of the {len(key):,} rows that "
                f"were read together have none): complete that table, or "
                f"train with data.missing=mean (their joined cells are then missing)"
            )


@dataclass(frozen=True)
class JoinedFile:
    """A second table as it was read: all cells as texts.

    Attributes:
        key: the column that joins.
        found: its files.
        opened: what is known of them.
        table: its columns, the key among them.
    """

    key: str
    found: list[Path]
    opened: TableFiles
    table: Table

    @property
    def digest(self) -> str:
        """Of every byte of its files."""
        return files.digest(self.found)

    @property
    def names(self) -> list[str]:
        """The columns that it joins."""
        return [name for name in self.table.columns if name != self.key]

    def sample(self, keys: list[str]) -> dict[str, list[str]]:
        """The cells that rows with these keys would have, numbers as Python writes them."""
        texts = Join(self.key, self._keys(), {n: self._cells(n) for n in self.names}, may_miss=True)
        rows = np.array([texts._row_of(key) for key in keys])
        text, signs = self.opened.text, self.opened.signs
        cells = {name: [*self._cells(name), ""] for name in self.names}
        return {
            name: text.readable([column[row] for row in rows], signs.get(name, ""))
            for name, column in cells.items()
        }

    def join(self, numbers: Mapping[str, str | None], texts: list[str], may_miss: bool) -> Join:
        """What a model uses of it.

        Args:
            numbers: columns of numbers, each with how its dates are written, None for no dates.
            texts: columns of names.
            may_miss: see `Join`.

        Raises:
            DataError: two rows have the same key, or a cell is no number.
        """
        columns: dict[str, list[Any]] = {
            name: self._numbers(name, numbers[name]) if name in numbers else self._cells(name)
            for name in self.names
            if name in numbers or name in texts
        }
        return Join(self.key, self._keys(), columns, may_miss)

    def _cells(self, name: str) -> list[str]:
        column = self.table.columns[name]
        assert isinstance(column, Text)
        return column.texts()

    def _keys(self) -> tuple[str, ...]:
        cells, seen = self._cells(self.key), set()
        for row, key in enumerate(map(id_text, cells), start=1):
            if key in seen:
                raise DataError(
                    f"{self.found[0]}, row {row:,}, column {self.key!r}: expected each key once, "
                    f"got {key!r} again"
                )
            seen.add(key)
        return tuple(cells)

    def _numbers(self, name: str, date: str | None) -> list[float | None]:
        text, sign, cells = self.opened.text, self.opened.signs.get(name, ""), self._cells(name)
        found = dates.days(cells, date) if date else [text.number(cell, sign) for cell in cells]
        wrong = np.flatnonzero(np.isinf(found))
        if len(wrong):
            row = int(wrong[0])
            wanted = f"a date as {date}" if date else text.wanted(sign)
            raise DataError(
                f"{self.found[0]}, row {row + 1:,}, column {name!r}: expected {wanted}, got "
                f"{cells[row][:60]!r}"
            )
        return [None if x != x else float(x) for x in found]


def read(
    key: str,
    path: str,
    beside: Path,
    text: TextFormat,
    separators: Mapping[str, str] | None = None,
) -> JoinedFile:
    """The second table of `data.joins.KEY`.

    Args:
        key: the column that joins.
        path: Parquet or delimited text; relative to the working directory, else to `beside`.
        beside: the folder of the first table.
        text: how text is written.
        separators: see `ReadPlan`.

    Raises:
        DataError: it cannot be read, or does not have the key.
    """
    from fmexp.data import csv, parquet

    there = beside / path
    is_beside = os.path.exists(there) and not os.path.exists(path)  # noqa: PTH110 -- any name
    found = files.find(str(there) if is_beside else path, f"data.joins.{key}")
    if files.head(found[0]).startswith(b"PAR1"):
        opened = parquet.open_table(found)
    else:
        opened = csv.open_text(found, text)
    n_bytes = READ_BYTES * sum(file.stat().st_size for file in found)
    budget.claim(n_bytes, f"the cells of {found[0].name}", "leave out columns and rows of no use")
    names = list(opened.sample)
    if key not in names:
        raise DataError(
            f"{found[0]}: data.joins.{key} needs a column {key!r}, there are "
            f"{', '.join(map(repr, names))}"
        )
    plan = ReadPlan({}, names)
    plan.separators = separators or {}
    parts = [part for file in found for part in opened.batches(file, plan)]
    return JoinedFile(key, found, opened, stack(parts))


def all_digests(first: str, joined: list[JoinedFile]) -> str:
    """A hash of the first table's digest and of every joined one's."""
    return digest([each.encode() for each in (first, *(j.digest for j in joined))])
