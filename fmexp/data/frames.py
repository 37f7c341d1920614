"""Tables that are already in memory (dict, pandas, pyarrow, array) as columns of a contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fmexp.data.table import Column, Table, Text, text_of_numbers
from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable


def as_table(source: Any, numeric: Iterable[str], categorical: Iterable[str]) -> Table:
    """The named columns of a table in memory; columns that it lacks are left out.

    Args:
        source: a mapping of columns, a pandas or pyarrow table, or a two-dimensional array whose
            columns are the named ones in order (numeric, then categorical).
        numeric: columns of numbers.
        categorical: columns of names.

    Raises:
        DataError: it is none of these, the columns differ in length, or a cell is no number.
    """
    numeric, categorical = list(numeric), list(categorical)
    columns = _columns(source, [*numeric, *categorical])
    table: dict[str, Column] = {}
    for name in numeric:
        if name in columns:
            table[name] = as_numbers(name, columns[name])
    for name in categorical:
        if name in columns:
            table[name] = as_text(columns[name])
    lengths = {name: len(column) for name, column in table.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"columns must be of equal length, got {lengths}")
    return Table(table)


def as_numbers(name: str, values: Any) -> np.ndarray:
    """A column as float64, shape (n_rows,); None becomes NaN."""
    try:
        numbers = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"column {name!r} must hold numbers: {error}") from None
    if numbers.ndim != 1:
        raise DataError(f"column {name!r} must have one dimension, got shape {numbers.shape}")
    return numbers


def as_text(values: Any) -> Text:
    """A column as texts; None and NaN become ""."""
    if isinstance(values, Text):
        return values
    array = np.asarray(values)
    if array.dtype.kind == "f":
        return text_of_numbers(array)
    if array.dtype.kind in "iu":
        distinct, codes = np.unique(array, return_inverse=True)
        return Text(codes.astype(np.int32), [str(x) for x in distinct.tolist()])
    return _text_of_objects(array.tolist())


def _text_of_objects(values: list[Any]) -> Text:
    numbers: dict[str, int] = {}
    codes = [numbers.setdefault(_text(value), len(numbers)) for value in values]
    return Text(np.array(codes, np.int32), list(numbers))


def _text(value: Any) -> str:
    if value is None or value != value or type(value).__name__ in ("NAType", "NaTType"):
        return ""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    return str(value)


def _columns(source: Any, names: list[str]) -> Mapping[str, Any]:
    if isinstance(source, Table):
        return source.columns
    if isinstance(source, Mapping):
        return source
    if hasattr(source, "column_names") and hasattr(source, "column"):  # pyarrow
        return {name: source.column(name).to_pylist() for name in source.column_names}
    if hasattr(source, "columns"):  # pandas
        return {str(name): source[name] for name in source.columns}
    if isinstance(source, np.ndarray) and source.ndim == 2:
        if source.shape[1] != len(names):
            raise DataError(f"expected {len(names)} columns, got an array of shape {source.shape}")
        return {name: source[:, j] for j, name in enumerate(names)}
    raise DataError(
        f"expected a mapping of columns, a pandas or pyarrow table, a two-dimensional array or "
        f"a path, got {type(source).__name__}"
    )
