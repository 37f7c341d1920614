"""Reading Parquet files: a sample as texts, then the columns of the schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fmexp.data.arrow import arrow_values, in_data_errors
from fmexp.data.cells import LIST_SEPARATOR, MISSING_HINT, MISSING_TARGET_HINT, list_text
from fmexp.data.dates import days
from fmexp.data.features import SMALL_CHUNK_ROWS
from fmexp.data.read_plan import WEIGHT, TableFiles, sample_rows
from fmexp.data.table import Column, Table, Text, text_of_numbers
from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fmexp.data.read_plan import ReadPlan


EXPECTED = "expected a Parquet file that can be read"


def open_table(found: list[Path]) -> TableFiles:
    """Look into the files of a table: their first rows.

    Raises:
        DataError: one is no Parquet, or the first has no row or nested columns.
    """
    first = sample(found[0])
    lists = [column.name for column in _open(found[0]).schema_arrow if _is_list(column.type)]
    return TableFiles(found, first, sum(map(n_rows, found)), "", names, batches, lists=lists)


def sample(file: Path) -> dict[str, list[str]]:
    """The first rows as texts, by column; missing cells are "".

    Raises:
        DataError: the file is no Parquet, has no row, or nested columns.
    """
    with in_data_errors(f"{file}: {EXPECTED}"):
        return _sample(file)


def _sample(file: Path) -> dict[str, list[str]]:
    import pyarrow as pa

    opened = _open(file)
    if not opened.schema_arrow.names:
        raise DataError(f"{file} has no columns")
    for column in opened.schema_arrow:
        if pa.types.is_nested(column.type) and not _is_list(column.type):
            raise DataError(
                f"{file}, column {column.name!r}: expected numbers, texts or lists of texts, got "
                f"{column.type}"
            )
    batch = next(opened.iter_batches(sample_rows(len(opened.schema_arrow))), None)
    if batch is None or len(batch) == 0:
        raise DataError(f"{file} has no rows")
    return {
        name: _texts(column).texts()
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }


def names(file: Path) -> list[str]:
    """The columns."""
    found: list[str] = _open(file).schema_arrow.names
    return found


def n_rows(file: Path) -> int:
    """Number of rows."""
    return int(_open(file).metadata.num_rows)


def batches(file: Path, plan: ReadPlan) -> Iterator[Table]:
    """The columns that are asked for, some rows at a time.

    Raises:
        DataError: a cell is no finite number where one is needed.
    """
    with in_data_errors(f"{file}: {EXPECTED}"):
        yield from _batches(file, plan)


def _batches(file: Path, plan: ReadPlan) -> Iterator[Table]:
    row = 0
    wanted = [*plan.numbers, *plan.texts]
    for batch in _open(file).iter_batches(SMALL_CHUNK_ROWS, columns=wanted):
        columns: dict[str, Column] = {}
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if name in plan.dictionaries:
                text = _texts(column, plan.separators.get(name, LIST_SEPARATOR))
                dictionary = plan.dictionaries[name]
                columns[name] = Text(dictionary.codes_of(text.names)[text.codes], dictionary.names)
            elif name in plan.dates:
                columns[name] = _days(column, plan.dates[name])
            else:
                columns[name] = _numbers(file, name, column)
        table = Table(columns)
        if not plan.accepts(table):
            _explain(file, table, plan, row)
        yield table
        row += len(table)


def _open(file: Path) -> Any:
    from pyarrow import parquet

    with in_data_errors(f"{file}: {EXPECTED}"):
        opened = parquet.ParquetFile(file)
        names = opened.schema_arrow.names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{file}: the column {twice[0]!r} is there twice; rename one of them")
    return opened


def _numbers(file: Path, name: str, column: Any) -> np.ndarray:
    """float64, NaN where missing."""
    import pyarrow as pa

    with in_data_errors(f"{file}, column {name!r}: expected numbers"):
        if pa.types.is_temporal(column.type):
            column = column.cast(pa.int64())
        return arrow_values(column.cast(pa.float64(), safe=False))


def _days(column: Any, form: str) -> np.ndarray:
    """Days since 1970, NaN where missing, infinity where a text is written otherwise."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        exact = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
        return np.asarray(arrow_values(exact.cast(pa.float64(), safe=False)) / 86400e6)
    text = _texts(column)
    return np.asarray(days(text.names, form)[text.codes])


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    checks = types.is_list, types.is_large_list, types.is_fixed_size_list
    names = types.is_string, types.is_large_string, types.is_integer, types.is_dictionary
    return any(is_of(kind) for is_of in checks) and any(is_of(kind.value_type) for is_of in names)


def _texts(column: Any, separator: str = LIST_SEPARATOR) -> Text:
    """Numbers as CSV would have them, true and false as 1 and 0, missing cells as "".

    The categories of a list are one text, with the separator between them.
    """
    import pyarrow as pa

    if _is_list(column.type):
        column = pa.array([list_text(x or (), separator) for x in column.to_pylist()], pa.string())
    kind = column.type
    if pa.types.is_floating(kind):
        return text_of_numbers(arrow_values(column.cast(pa.float64())))
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    coded = column.cast(pa.string()).fill_null("").dictionary_encode()
    return Text(arrow_values(coded.indices, np.int32), coded.dictionary.to_pylist())


def _explain(file: Path, table: Table, plan: ReadPlan, before: int) -> None:
    """Raise with the first cells that are wrong."""
    mistakes = []
    for name in plan.numbers:
        x = np.asarray(table.columns[name])
        wrong = np.flatnonzero(plan.wrong(name, x))[:10]
        mistakes += [(before + int(i) + 1, name, x[i]) for i in wrong]
    lines = []
    for row, name, x in sorted(mistakes, key=lambda mistake: mistake[:2])[:10]:
        hint = MISSING_TARGET_HINT if name == plan.target else MISSING_HINT
        wanted, got = "a finite number", f"a missing value {hint}" if np.isnan(x) else f"{x}"
        if name == plan.weight:
            wanted, got = WEIGHT, "a missing value" if np.isnan(x) else f"{x:g}"
        elif name in plan.dates and np.isinf(x):
            wanted, got = f"a date as {plan.dates[name]}", "another text"
        lines.append(f"row {row}, column {name!r}: expected {wanted}, got {got}")
    raise DataError("\n".join([f"{file} cannot be used:", *lines]))
