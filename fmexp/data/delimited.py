"""Reading delimited text (CSV): its header, a sample, and its columns, with errors by line."""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from fmexp.data.contract import MISSING, Contract, is_number
from fmexp.data.table import Column, Table, Text
from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import TextIO

SAMPLE_ROWS = 5_000
"""Rows that the contract is inferred from."""

MOST_ERRORS = 10
"""Mistakes that one message lists."""


@dataclass(frozen=True)
class Dialect:
    """How a text file is written.

    Attributes:
        delimiter: between two cells.
        encoding: of the characters, as Python names it.
    """

    delimiter: str = ","
    encoding: str = "utf-8"


def sample(path: Path, dialect: Dialect) -> dict[str, list[str]]:
    """The first rows as texts, by column.

    Raises:
        DataError: there is no usable header or no row.
    """
    names = _header(path, dialect)
    with _open(path, dialect) as file:
        records = islice(_records(file, dialect, path), 1, 1 + SAMPLE_ROWS)
        rows = [cells for _, cells in records]
    if not rows:
        raise DataError(f"{path} has a header but no rows")
    rows = [cells for cells in rows if len(cells) == len(names)]
    return {name: [row[j] for row in rows] for j, name in enumerate(names)}


def read(path: Path, dialect: Dialect, contract: Contract, task: str) -> Table:
    """The columns of the contract.

    Raises:
        DataError: up to ten mistakes, each with its line, column and cell.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    names = _header(path, dialect)
    texts = {*contract.categorical} | ({contract.target} if task == "classification" else set())
    numbers = [name for name in [*contract.numeric, contract.target] if name not in texts]
    try:
        arrow = arrow_csv.read_csv(
            path,
            read_options=arrow_csv.ReadOptions(
                encoding=dialect.encoding,
                column_names=names,
                skip_rows_after_names=1,
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=dialect.delimiter, newlines_in_values=_n_quotes(path) > 0
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(numbers, pa.float64())
                | dict.fromkeys(texts, pa.dictionary(pa.int32(), pa.string())),
                include_columns=[name for name in names if name in texts or name in numbers],
                null_values=sorted(MISSING),
                strings_can_be_null=False,
            ),
        )
    except (pa.ArrowInvalid, UnicodeError) as error:
        _explain(path, dialect, numbers)
        raise DataError(f"{path} cannot be read: {error}") from error
    columns = {name: _column(arrow[name]) for name in arrow.column_names}
    all_finite = all(np.isfinite(np.asarray(columns[name])).all() for name in numbers)
    if not all_finite or _n_quotes(path) % 2:
        _explain(path, dialect, numbers)
    return Table(columns)


def _column(arrow: Any) -> Column:
    """A pyarrow column as ours."""
    import pyarrow as pa

    if pa.types.is_dictionary(arrow.type):
        chunks = arrow.unify_dictionaries().chunks
        if not chunks:
            return Text(np.empty(0, np.int32), [])
        codes = np.concatenate([chunk.indices.to_numpy() for chunk in chunks])
        return Text(codes, chunks[0].dictionary.to_pylist())
    return arrow.to_numpy()  # type: ignore[no-any-return]


def _explain(path: Path, dialect: Dialect, numbers: list[str]) -> None:
    """Read the file again, slowly, and raise what is wrong with it; return if nothing is.

    Raises:
        DataError: the first mistakes, with line, column and cell.
    """
    names = _header(path, dialect)
    mistakes: list[str] = []
    with _open(path, dialect) as file:
        for line, cells in islice(_records(file, dialect, path), 1, None):
            mistakes += _mistakes(line, cells, names, numbers)
            if len(mistakes) >= MOST_ERRORS:
                break
    if mistakes:
        raise DataError("\n".join([f"{path} cannot be used:", *mistakes[:MOST_ERRORS]]))


def _mistakes(line: int, cells: list[str], names: list[str], numbers: list[str]) -> Iterator[str]:
    """What is wrong with one record."""
    if len(cells) != len(names):
        yield f"  line {line}: expected {len(names)} cells, got {len(cells)}: {cells[:6]}"
        return
    for cell in cells:
        if "\udc80" <= max(cell, default="") <= "\udcff":
            raw = cell.encode("utf-8", "surrogateescape")
            yield f"  line {line}: {raw!r} is not UTF-8 (data.encoding names another encoding)"
    row = dict(zip(names, cells, strict=True))
    for name in numbers:
        cell = row[name]
        if cell in MISSING:
            yield f"  line {line}, column {name!r}: expected a number, got a missing value {cell!r}"
        elif not is_number(cell) or not np.isfinite(float(cell)):
            yield f"  line {line}, column {name!r}: expected a finite number, got {cell[:80]!r}"


def _header(path: Path, dialect: Dialect) -> list[str]:
    """The column names.

    Raises:
        DataError: there are none, or two are equal.
    """
    with _open(path, dialect) as file:
        for _, cells in _records(file, dialect, path):
            names = [cell.strip() for cell in cells]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise DataError(
                    f"{path}, line 1: column names must differ, got {', '.join(map(repr, twice))} "
                    f"more than once"
                )
            return names
    raise DataError(f"{path} is empty: a header and rows were expected")


def _records(file: TextIO, dialect: Dialect, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Each record that is not empty, with the number of its first line."""
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(file, delimiter=dialect.delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {line}: {_csv_error(error)}") from None


def _csv_error(error: csv.Error) -> str:
    if "unexpected end of data" in str(error):
        return "a quote is opened here that is never closed"
    return f"not readable as delimited text ({error})"


def _open(path: Path, dialect: Dialect) -> TextIO:
    """The file as text; wrong bytes become surrogates, which `_explain` reports."""
    encoding = "utf-8-sig" if dialect.encoding == "utf-8" else dialect.encoding
    return path.open(encoding=encoding, errors="surrogateescape", newline="")


def _n_quotes(path: Path) -> int:
    """Number of quotation marks in the file."""
    with path.open("rb") as file:
        return sum(block.count(b'"') for block in iter(lambda: file.read(1 << 20), b""))
