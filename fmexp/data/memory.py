"""Tables that are in memory already: mappings, pandas, pyarrow, NumPy arrays, scipy matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fmexp.data.cells import LIST_SEPARATOR, list_text, number_text
from fmexp.data.dates import days_of_objects
from fmexp.data.features import CSR
from fmexp.data.fields import finite, numbers_of, row_weights
from fmexp.data.loading import prepare
from fmexp.data.read_plan import sample_rows
from fmexp.data.schema import ColumnOptions, Schema, infer
from fmexp.data.sources import Source
from fmexp.data.split import SplitBy
from fmexp.data.table import BLOCK, Column, Table, Text, text_of_numbers
from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fmexp.config.schema import SplitConfig
    from fmexp.data.dataset import Dataset
    from fmexp.data.encode import Encoder
    from fmexp.data.learn import Learning


LISTS = (list, tuple, np.ndarray)
"""Cells that hold several categories."""


def from_table(
    table: Any, target: str, split: SplitConfig, learning: Learning, **roles: Any
) -> Dataset:
    """A mapping of columns, a pandas or a pyarrow table as a data set.

    Args:
        table: holds the target too.
        target: the column to predict.
        split: which rows are held out.
        learning: how columns are encoded.
        **roles: `numeric`, `categorical` and `drop`, lists of columns; else inferred. `dates`, a
            mapping from columns to how their dates are written; `lists`, to what separates the
            categories of a cell (columns whose cells are lists need none). `weight`, the column of
            the rows' weights.

    Raises:
        DataError: the table cannot be used as it is.
    """
    columns = columns_of(table)
    n_rows = len(next(iter(columns.values()), ()))
    n_sample = sample_rows(max(len(columns), 1))
    sample = {n: as_text(c[:n_sample]).texts() for n, c in columns.items()}
    by = SplitBy.parse(split.by)
    split_by = (by.kind, by.column) if by.column else None
    named = {*roles.get("drop", ()), *(roles.get("categorical") or ())}
    roles["lists"] = roles.get("lists", {}) | {
        name: LIST_SEPARATOR
        for name, column in columns.items()
        if name not in named and any(isinstance(cell, LISTS) for cell in column[:n_sample])
    }
    options = ColumnOptions(target, split_by=split_by, history=learning.history, **roles)
    schema = infer(sample, n_rows, options, "the table", learning.task)
    plan = schema.read_plan(learning.task, learning.fill_missing, drop_missing_targets=False)
    raw = table_of(columns, plan.numbers, plan.texts, plan.dates)
    for name, may_miss in plan.numbers.items():
        x = numbers_of(name, raw.columns[name])
        finite(name, x[~np.isnan(x)] if may_miss else x)
    if schema.weight:
        row_weights(schema.weight, np.asarray(raw.columns[schema.weight]))
    ordered = Table({name: raw.columns[name] for name in columns if name in raw.columns})
    return prepare("table", Source("a table in memory", ordered, schema), split, learning)


def from_arrays(
    X: Any,
    y: Any,
    split: SplitConfig,
    learning: Learning,
    names: Sequence[str] | None = None,
    sample_weight: Any = None,
) -> Dataset:
    """A two-dimensional array or a scipy matrix with a target for each row as a data set.

    Args:
        X: numbers, shape (n_rows, n_columns).
        y: shape (n_rows,).
        split: which rows are held out.
        learning: how columns are encoded.
        names: of an array's columns; None: 0, 1, ...
        sample_weight: of the rows, shape (n_rows,), none negative; None: all the same.

    Raises:
        DataError: the shapes do not fit, a number is not finite, or a weight is negative.
    """
    labels = as_text(y) if learning.task == "classification" else as_numbers("y", y)
    if len(labels) != X.shape[0] or len(labels) == 0:
        raise DataError(f"expected a target for each row, got {X.shape[0]} rows, {len(labels)}")
    weight, beside = None, dict[str, Column]()
    if sample_weight is not None:
        weight = next(n for n in ("sample_weight", "the sample_weight") if n not in (names or ()))
        beside = {weight: row_weights(weight, as_numbers(weight, sample_weight))}
        if len(beside[weight]) != len(labels):
            raise DataError(
                f"expected a sample_weight for each of {len(labels)} rows, got "
                f"{len(beside[weight])}"
            )
    if hasattr(X, "tocsr"):
        table = Table({"y": labels} | beside, rows_of_matrix(X))
        source = Source("a matrix in memory", table, Schema("y", weight=weight))
        return prepare("arrays", source, split, learning)
    names = [str(j) for j in range(X.shape[1])] if names is None else list(names)
    target = next(name for name in ("y", "target", "the target") if name not in names)
    columns = dict(zip(names, np.asarray(X, np.float64).T.copy(), strict=True))
    for name, x in columns.items():
        finite(name, x[~np.isnan(x)] if learning.fill_missing else x)
    table = Table(columns | {target: labels} | beside)
    source = Source("an array in memory", table, Schema(target, names, weight=weight))
    return prepare("arrays", source, split, learning)


def as_table(source: Any, encoder: Encoder) -> Table:
    """The columns that an encoder needs, as far as the source has them.

    Args:
        source: a mapping of columns, a pandas or pyarrow table, a scipy matrix, or a
            two-dimensional array whose columns are those of the encoder in order (numeric, then
            categorical).
        encoder: knows which columns are numbers and which are names.

    Raises:
        DataError: it is none of these, the columns differ in length, or a cell is no number.
    """
    if isinstance(source, Table):
        return source
    if encoder.block is not None:
        return Table({}, _block_of(source, encoder.block.first))
    numeric, categorical = encoder.number_columns, encoder.text_columns
    if isinstance(source, np.ndarray):
        if source.ndim != 2 or source.shape[1] != len(numeric) + len(categorical):
            raise DataError(
                f"expected {len(numeric) + len(categorical)} columns, got an array of shape "
                f"{source.shape}"
            )
        source = dict(zip([*numeric, *categorical], source.T, strict=True))
    columns = columns_of(source)
    lists = {n: as_text(columns[n], s) for n, s in encoder.separators.items() if n in columns}
    return table_of({**columns, **lists}, numeric, categorical, encoder.dates)


def table_of(
    columns: Mapping[str, Any],
    numeric: Iterable[str],
    categorical: Iterable[str],
    dates: Mapping[str, str] | None = None,
) -> Table:
    """The named columns, as far as they are there, as numbers and as texts.

    Args:
        columns: by name.
        numeric: columns of numbers.
        categorical: columns of texts.
        dates: of the numeric columns those of dates, and how they are written.

    Raises:
        DataError: the columns differ in length, or a cell is no number.
    """
    table: dict[str, Column] = {
        n: as_numbers(n, columns[n], (dates or {}).get(n)) for n in numeric if n in columns
    }
    table |= {name: as_text(columns[name]) for name in categorical if name in columns}
    lengths = {name: len(column) for name, column in table.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"columns must be of equal length, got {lengths}")
    return Table(table)


def columns_of(source: Any) -> Mapping[str, Any]:
    """The columns of a mapping, a pandas or a pyarrow table.

    Raises:
        DataError: it is none of these.
    """
    if isinstance(source, Mapping):
        return source
    if hasattr(source, "column_names") and hasattr(source, "column"):  # pyarrow
        return {name: source.column(name).to_pylist() for name in source.column_names}
    if hasattr(source, "columns"):  # pandas
        return {str(name): _values(source[name]) for name in source.columns}
    raise DataError(
        "expected a mapping of columns, a pandas or pyarrow table, a two-dimensional array or a "
        f"scipy matrix, got {type(source).__name__}"
    )


def _values(series: Any) -> np.ndarray:
    """The values of a pandas column; NaN where a nullable number is missing."""
    values = np.asarray(series.to_numpy())
    if values.dtype == object and getattr(series.dtype, "kind", "O") in "biuf":
        return np.asarray(series.to_numpy(dtype="float64", na_value=np.nan))
    return values


def rows_of_matrix(matrix: Any) -> CSR:
    """A scipy matrix or a two-dimensional array as sparse rows, without its zeros, float64.

    Raises:
        DataError: it is neither.
    """
    if hasattr(matrix, "tocsr"):
        return CSR.from_scipy(matrix)
    if isinstance(matrix, np.ndarray) and matrix.ndim == 2:
        return CSR.from_dense(matrix.astype(np.float64))
    raise DataError(f"expected a scipy matrix or an array, got {type(matrix).__name__}")


def _block_of(source: Any, first: int) -> CSR:
    """Sparse rows whose features are numbered from `first`."""
    if isinstance(source, Mapping) and BLOCK in source:
        from fmexp.data.libsvm import rows_of_texts

        return rows_of_texts(list(source[BLOCK]))
    rows = rows_of_matrix(source)
    indices = (rows.indices + first).astype(np.int32)
    return CSR(rows.indptr, indices, rows.values, rows.n_features + first)


def as_numbers(name: str, values: Any, date: str | None = None) -> np.ndarray:
    """A column as float64, shape (n_rows,); None becomes NaN, dates and times days since 1970.

    Args:
        name: the column's.
        values: its cells.
        date: how they are written where they are dates; else None.
    """
    array = np.asarray(values)
    if array.dtype.kind == "M":
        exact = array.astype("datetime64[us]").astype(np.int64)
        return np.where(np.isnat(array), np.nan, exact / 86400e6)
    try:
        numbers = days_of_objects(array.tolist(), date) if date else np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"column {name!r} must hold numbers: {error}") from None
    if date and np.isinf(numbers).any():
        wrong = array[np.isinf(numbers)][0]
        raise DataError(f"column {name!r}: expected a date as {date}, got {str(wrong)[:60]!r}")
    if numbers.ndim != 1:
        raise DataError(f"column {name!r} must have one dimension, got shape {numbers.shape}")
    return numbers


def as_text(values: Any, separator: str = LIST_SEPARATOR) -> Text:
    """A column as texts; None and NaN become "", lists their categories with the separator."""
    if isinstance(values, Text):
        return values
    is_plain = isinstance(values, np.ndarray) and values.dtype != object
    if not is_plain and any(isinstance(cell, LISTS) for cell in values):
        values = [list_text(x, separator) if isinstance(x, LISTS) else x for x in values]
    array = np.asarray(values)
    if array.dtype.kind == "M":
        isos = np.datetime_as_string(array.astype("datetime64[us]"), unit="auto")
        return _text_of_objects(["" if iso == "NaT" else iso for iso in isos.tolist()])
    if array.dtype.kind == "b":
        array = array.astype(np.int8)
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
    return number_text(value) if isinstance(value, float) else str(value)
