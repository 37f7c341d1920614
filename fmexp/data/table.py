"""A table as it was read: named columns of numbers or of text, before any encoding."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from fmexp.data.cells import number_text
from fmexp.data.features import CSR, chunks

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True)
class Text:
    """A column of texts, each distinct one kept once.

    Attributes:
        codes: position of each row's text in `names`; int32, shape (n_rows,).
        names: the distinct texts, in any order; "" stands for a missing cell.
    """

    codes: np.ndarray
    names: list[str]

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, rows: np.ndarray | slice) -> Text:
        """These rows of the column."""
        return Text(self.codes[rows], self.names)

    def counts(self) -> np.ndarray:
        """How often each of `names` occurs; int64, shape (n_names,)."""
        found = np.zeros(len(self.names), np.int64)
        for chunk in chunks(len(self)):
            found += np.bincount(self.codes[chunk], minlength=len(self.names))
        return found

    def texts(self) -> list[str]:
        """Every row's text."""
        return [self.names[code] for code in self.codes.tolist()]


BLOCK = "features"
"""The column that stands for a block of sparse rows where a table is written out."""

Column = np.ndarray | Text
"""Numbers (float64, NaN where missing) or texts."""


@dataclass(frozen=True)
class Reference:
    """A column of another table, whose rows those of this one refer to by a key.

    Attributes:
        column: of the other table.
        key: this table's keys, shape (n_rows,).
        row_of_key: the other table's row for each of `key.names`; int32.
    """

    column: Column
    key: Text
    row_of_key: np.ndarray

    def take(self, rows: np.ndarray | slice) -> Column:
        """The cells of these rows of this table."""
        at = self.row_of_key[self.key.codes[rows]]
        return self.column.take(at) if isinstance(self.column, Text) else self.column[at]


@dataclass(frozen=True)
class Table:
    """Columns of equal length in the order of the source, and perhaps a block of sparse rows.

    Attributes:
        columns: by name, each of shape (n_rows,).
        block: features that have numbers instead of names (libsvm text, scipy matrices); None
            where there are none.
        left_out: rows of the source that are not among these since their target is missing.
        references: columns of joined tables, which `take` makes columns of these rows.
    """

    columns: dict[str, Column]
    block: CSR | None = None
    left_out: int = 0
    references: dict[str, Reference] = field(default_factory=dict)

    def __len__(self) -> int:
        if self.block is not None:
            return len(self.block)
        return len(next(iter(self.columns.values()), ()))

    def take(self, rows: np.ndarray | slice) -> Table:
        """These rows of every column."""
        taken = {
            name: column.take(rows) if isinstance(column, Text) else column[rows]
            for name, column in self.columns.items()
        }
        taken |= {name: reference.take(rows) for name, reference in self.references.items()}
        return Table(taken, None if self.block is None else self.block.take(rows))

    def column(self, name: str) -> Column:
        """A column, or all of one that is joined."""
        joined = self.references.get(name)
        return self.columns[name] if joined is None else joined.take(slice(None))

    def cells(self, rows: np.ndarray) -> dict[str, np.ndarray | list[str]]:
        """The cells of these rows as they stood in the source, by column.

        The rows of a block become texts "number:value number:value ..." in a column BLOCK.
        """
        taken = self.take(rows)
        cells = {
            name: column.texts() if isinstance(column, Text) else column
            for name, column in taken.columns.items()
        }
        return cells if taken.block is None else cells | {BLOCK: _row_texts(taken.block)}

    def digest(self) -> str:
        """A hash of every name and every cell, 32 hexadecimal digits."""
        columns = self.columns | {name: each.column for name, each in self.references.items()}
        parts = [part for name, column in columns.items() for part in _bytes(name, column)]
        if self.block is not None:
            arrays = self.block.indptr, self.block.indices, self.block.values
            parts += [as_bytes(array) for array in arrays if array is not None]
        return digest(parts)


class Dictionary:
    """The distinct texts of a column, numbered as they come.

    Attributes:
        names: the texts by number; grows.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}

    def codes_of(self, texts: Sequence[str]) -> np.ndarray:
        """The number of each text; int32. New texts get the next numbers."""
        codes = list(map(self._numbers.get, texts))
        if None in codes:
            for i, text in enumerate(texts):
                if codes[i] is None:
                    codes[i] = self._numbers.setdefault(text, len(self.names))
                    if codes[i] == len(self.names):
                        self.names.append(text)
        return np.array(codes, np.int32)


def stack(tables: Sequence[Table]) -> Table:
    """All rows of tables with the same columns, whose texts share their names."""
    columns: dict[str, Column] = {}
    for name, first in tables[0].columns.items():
        parts = [table.columns[name] for table in tables]
        if isinstance(first, Text):
            codes = np.concatenate([part.codes for part in parts if isinstance(part, Text)])
            columns[name] = Text(codes, first.names)
        else:
            columns[name] = np.concatenate([np.asarray(part) for part in parts])
    blocks = [table.block for table in tables if table.block is not None]
    left_out = sum(table.left_out for table in tables)
    return Table(columns, CSR.stack(blocks) if blocks else None, left_out)


def text_of_numbers(column: np.ndarray) -> Text:
    """Numbers as texts: whole ones without a point, NaN as ""."""
    distinct, codes = np.unique(column, return_inverse=True)
    return Text(codes.astype(np.int32), [number_text(x) for x in distinct.tolist()])


def digest(parts: Iterable[bytes | memoryview]) -> str:
    """A hash of these bytes with their boundaries, 32 hexadecimal digits."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.hexdigest()


def digest_of_cells(column: Column, chunks: Iterable[np.ndarray]) -> str:
    """A hash of row numbers and of a column's cells there, 32 hexadecimal digits.

    The same for numbers and for texts that write them out, and however the chunks are cut.
    """
    if isinstance(column, Text):
        bits_of_name = np.array([_bits(name) for name in column.names], np.uint64)
    numbers, cells = hashlib.blake2b(digest_size=16), hashlib.blake2b(digest_size=16)
    for rows in chunks:
        numbers.update(as_bytes(rows))
        cells.update(
            as_bytes(bits_of_name[column.codes[rows]] if isinstance(column, Text) else column[rows])
        )
    return digest([numbers.digest(), cells.digest()])


def _bits(text: str) -> int:
    """The 64 bits of the float64 that a text writes out, of other texts those of a hash."""
    try:
        found = np.float64(text).tobytes()
    except ValueError:
        found = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(found, sys.byteorder)


def as_bytes(array: np.ndarray) -> memoryview:
    """The memory of a one-dimensional array, for hashing."""
    return np.ascontiguousarray(array).view(np.uint8).data


def _row_texts(block: CSR) -> list[str]:
    values = block.values_or_ones()
    entries = [f"{j}:{x!r}" for j, x in zip(block.indices.tolist(), values.tolist(), strict=True)]
    bounds = block.indptr.tolist()
    return [" ".join(entries[i:j]) for i, j in pairwise(bounds)]


def _bytes(name: str, column: Column) -> Iterable[bytes | memoryview]:
    yield name.encode()
    if isinstance(column, Text):
        yield "\0".join(column.names).encode()
        yield as_bytes(column.codes)
    else:
        yield as_bytes(column)
