"""A table as it was read: named columns of numbers or of text, before any encoding."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable


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

    def take(self, rows: np.ndarray) -> Text:
        """These rows of the column."""
        return Text(self.codes[rows], self.names)

    def texts(self) -> list[str]:
        """Every row's text."""
        return [self.names[code] for code in self.codes.tolist()]


Column = np.ndarray | Text
"""Numbers (float64, NaN where missing) or texts."""


@dataclass(frozen=True)
class Table:
    """Columns of equal length, in the order of the source."""

    columns: dict[str, Column]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def take(self, rows: np.ndarray) -> Table:
        """These rows of every column."""
        taken = {
            name: column.take(rows) if isinstance(column, Text) else column[rows]
            for name, column in self.columns.items()
        }
        return Table(taken)

    def cells(self, rows: np.ndarray) -> dict[str, np.ndarray | list[str]]:
        """The cells of these rows as they stood in the source, by column."""
        return {
            name: column.texts() if isinstance(column, Text) else column
            for name, column in self.take(rows).columns.items()
        }

    def digest(self) -> str:
        """A hash of every name and every cell, 32 hexadecimal digits."""
        return digest(
            part for name, column in self.columns.items() for part in _bytes(name, column)
        )


def digest(parts: Iterable[bytes | memoryview]) -> str:
    """A hash of these bytes with their boundaries, 32 hexadecimal digits."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.hexdigest()


def as_bytes(array: np.ndarray) -> memoryview:
    """The memory of a one-dimensional array, for hashing."""
    return np.ascontiguousarray(array).view(np.uint8).data


def _bytes(name: str, column: Column) -> Iterable[bytes | memoryview]:
    yield name.encode()
    if isinstance(column, Text):
        yield "\0".join(column.names).encode()
        yield as_bytes(column.codes)
    else:
        yield as_bytes(column)
