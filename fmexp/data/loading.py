"""One data configuration in, one encoded and split data set out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fmexp.data.dataset import Dataset
from fmexp.data.encode import finite, numbers_of
from fmexp.data.learn import Learning
from fmexp.data.parts import split_and_encode
from fmexp.data.sources import Source, read
from fmexp.data.split import TEST, TRAIN, VALIDATION, SplitBy
from fmexp.data.table import Table
from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fmexp.config.schema import DataConfig, SplitConfig


def load(data: DataConfig, split: SplitConfig, task: str) -> Dataset:
    """Read or generate the table, split its rows, learn the encoding and apply it.

    Args:
        data: which table.
        split: which rows are held out.
        task: regression or classification.

    Raises:
        DataError: the table cannot be used as it is.
        MissingPackageError: the source needs a package that is not installed.
    """
    source = read(data, SplitBy.parse(split.by), task)
    learning = Learning(
        task,
        data.standardize,
        min_count=getattr(data, "min_count", 1),
        fill_missing=getattr(data, "missing", "error") == "mean",
    )
    return prepare(data.name, source, split, learning)


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
            mapping from columns to how their dates are written.

    Raises:
        DataError: the table cannot be used as it is.
    """
    from fmexp.data import frames, schema

    columns = frames.columns_of(table)
    n_rows = len(next(iter(columns.values()), ()))
    n_sample = schema.sample_rows(max(len(columns), 1))
    sample = {n: frames.as_text(c[:n_sample]).texts() for n, c in columns.items()}
    by = SplitBy.parse(split.by)
    split_by = (by.kind, by.column) if by.column else None
    wishes = schema.Wishes(target, split_by=split_by, **roles)
    found = schema.infer(sample, n_rows, wishes, "the table", learning.task)
    numbers, texts = found.kinds(learning.task, by.column)
    raw = frames.table_of(columns, numbers, texts, found.dates)
    for name in numbers:
        x = numbers_of(name, raw.columns[name])
        finite(name, x[~np.isnan(x)] if learning.fill_missing and name != target else x)
    ordered = Table({name: raw.columns[name] for name in columns if name in raw.columns})
    source = Source(
        "a table in memory",
        ordered,
        target,
        found.numeric,
        found.categorical,
        notes=tuple(found.notes),
        dates=found.dates,
    )
    return prepare("table", source, split, learning)


def from_arrays(
    X: Any, y: Any, split: SplitConfig, learning: Learning, names: Sequence[str] | None = None
) -> Dataset:
    """A two-dimensional array or a scipy matrix with a target for each row as a data set.

    Args:
        X: numbers, shape (n_rows, n_columns).
        y: shape (n_rows,).
        split: which rows are held out.
        learning: how columns are encoded.
        names: of an array's columns; None: 0, 1, ...

    Raises:
        DataError: the shapes do not fit, or a number is not finite.
    """
    from fmexp.data import frames

    labels = frames.as_text(y) if learning.task == "classification" else frames.as_numbers("y", y)
    if len(labels) != X.shape[0] or len(labels) == 0:
        raise DataError(f"expected a target for each row, got {X.shape[0]} rows, {len(labels)}")
    if hasattr(X, "tocsr"):
        table = Table({"y": labels}, frames.rows_of_matrix(X))
        return prepare("arrays", Source("a matrix in memory", table, "y", [], []), split, learning)
    names = [str(j) for j in range(X.shape[1])] if names is None else list(names)
    target = next(name for name in ("y", "target", "the target") if name not in names)
    columns = dict(zip(names, np.asarray(X, np.float64).T.copy(), strict=True))
    for name, x in columns.items():
        finite(name, x[~np.isnan(x)] if learning.fill_missing else x)
    source = Source("an array in memory", Table(columns | {target: labels}), target, names, [])
    return prepare("arrays", source, split, learning)


def prepare(name: str, source: Source, split: SplitConfig, learning: Learning) -> Dataset:
    """Split the rows of a raw table, learn the encoding and apply it.

    Raises:
        DataError: that cannot be done; a cache that was made for it is removed.
    """
    try:
        parts = split_and_encode(source, split, learning)
    except DataError:
        if source.cache is not None and source.cache.is_new:
            source.cache.discard()
        raise
    columns_digest = source.columns_digest()
    return Dataset(
        name=name,
        source=source.description,
        train=parts.rows[TRAIN],
        validation=parts.rows.get(VALIDATION),
        test=parts.rows.get(TEST),
        encoder=parts.encoder,
        data_digest=source.data_digest or columns_digest,
        columns_digest=columns_digest,
        split_digest=parts.split_digest,
        test_digest=parts.test_digest,
        table=source.table,
        noise_floor=source.noise_floor,
        notes=source.notes,
    )
