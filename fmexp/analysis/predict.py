"""Predictions for the rows of a file, by a model that a run or a folder holds."""

from __future__ import annotations

import csv
import dataclasses
import sys
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from fmexp.data import dates, new_rows
from fmexp.data.table import Text
from fmexp.errors import DataError
from fmexp.model import DESCRIPTION, Model, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fmexp.data.table import Table

PREDICTED = ("y_pred", "label", "y_stdev")
"""The columns that are written."""


def find_model(run: str, uri: str) -> Model:
    """The model of a run, or of a folder: `model/` itself or what it lies in.

    Args:
        run: run id, the beginning of one, run name, `latest`, or a folder.
        uri: absolute tracking URI, where a run is looked for.

    Raises:
        UserError: there is no such run or folder, or it holds no model.
        StoreError: the store does not answer.
    """
    folder = Path(run)
    for candidate in (folder, folder / "model"):
        if (candidate / DESCRIPTION).is_file():
            return load(candidate)
    from fmexp.record.queries import StoredRuns

    with StoredRuns(uri) as records:
        return load(records.artifact(records.find_trained(run), "model"))


@dataclass(frozen=True)
class Request:
    """What is to be predicted, and what is written.

    Attributes:
        data: CSV, Parquet or libsvm text with the model's columns, in any order.
        out: the file to write, Parquet where it is called so, else CSV; None: CSV on standard
            output.
        encoding: of delimited text; None: as in the table that the model learned from.
        carry: columns of the data that are written before the predictions; ["all"] for all.
        joins: files in the place of the joined tables that the model keeps, by their keys.
    """

    data: str
    out: Path | None = None
    encoding: str | None = None
    carry: tuple[str, ...] = ()
    joins: Mapping[str, str] = dataclasses.field(default_factory=dict)


def predict_file(run: str, uri: str, request: Request) -> int:
    """Write a prediction for every row of a file, in the file's order; returns the exit code.

    Written are the columns to carry along and `y_pred` (in classification the probability of the
    second label, with `label`, the more probable one, beside it; in regression by a model that
    holds samples with `y_stdev`, see `Model.predict_with_stdev`). A file appears only when it is
    complete.

    Args:
        run: see `find_model`.
        uri: see `find_model`.
        request: the rows.

    Raises:
        UserError: no such run, or the data lack a column or hold what is no number.
    """
    model, out = find_model(run, uri), request.out
    model = replace(model, encoder=new_rows.with_other_joins(model.encoder, request.joins))
    unknown: Counter[str] = Counter()
    n_rows = 0
    tables = new_rows.batches(request.data, model.encoder, request.encoding, request.carry)
    first = list(islice(tables, 1))  # a mistake shows before anything is written
    with _output(out) as write:
        if not first:
            write({"y_pred": []})
        for table in chain(first, tables):
            write(_carried(model, table, request.carry) | _predictions(model, table))
            unknown += count_unknown(model, table)
            n_rows += len(table)
    print(f"{n_rows:,} predictions{f' in {out}' if out else ''}", file=sys.stderr)
    for name, n in unknown.items():
        print(f"{n:,} rows have a {name!r} that training did not have", file=sys.stderr)
    return 0


def count_unknown(model: Model, table: Table) -> Counter[str]:
    """Rows with a category that training did not have, by column."""
    counts: Counter[str] = Counter()
    for field in model.encoder.categorical:
        if field.column not in table.columns:  # a history: training's own items
            continue
        column = field.text_of(table)
        cells = [field.split(cell) if field.split else [cell] for cell in column.names]
        names = list(dict.fromkeys(chain.from_iterable(cells)))
        new = {n for n, number in zip(names, field.numbers_of(names), strict=True) if number < 0}
        unknown = np.array([not new.isdisjoint(cell) for cell in cells], bool)
        counts[field.name] = int(unknown[column.codes].sum())
    return +counts


def _predictions(model: Model, table: Table) -> dict[str, list[Any]]:
    """The columns that are predicted."""
    mean, stdev = model.predict_with_stdev(table)
    columns: dict[str, list[Any]] = {"y_pred": mean.tolist()}
    if labels := model.encoder.labels:
        columns["label"] = [labels[p >= 0.5] for p in columns["y_pred"]]
    if stdev is not None:
        columns["y_stdev"] = stdev.tolist()
    return columns


def _carried(model: Model, table: Table, carry: Sequence[str]) -> dict[str, list[Any]]:
    """The columns that are carried along: numbers as such, all else as texts.

    Raises:
        DataError: one is called as what is predicted.
    """
    cells: dict[str, list[Any]] = {}
    joined = {name for join in model.encoder.joins for name in join.columns}
    all_of_file = [name for name in table.columns if name not in joined]
    for name in all_of_file if [*carry] == [new_rows.ALL] else carry:
        if name in PREDICTED:
            raise DataError(f"--with: a column {name!r} is in the data already: rename it there")
        column = table.columns[name]
        if isinstance(column, Text):
            cells[name] = column.texts()
        elif name in model.encoder.dates:
            cells[name] = dates.texts(column.tolist(), model.encoder.dates[name])
        else:
            cells[name] = [None if x != x else x for x in column.tolist()]
    return cells


@contextmanager
def _output(out: Path | None) -> Iterator[Callable[[dict[str, list[Any]]], None]]:
    """What writes columns, some rows at a time, on standard output or to a file.

    A file takes its name when all of it is written.
    """
    if out is None:
        yield _csv_rows(sys.stdout)
        return
    part = out.with_name(f".{out.name}.part")
    try:
        if out.suffix.lower() in (".parquet", ".pq"):
            with ExitStack() as opened:
                yield _parquet_rows(part, opened)
        else:
            with part.open("w", newline="", encoding="utf-8") as file:
                yield _csv_rows(file)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def _csv_rows(file: IO[str]) -> Callable[[dict[str, list[Any]]], None]:
    writer, names = csv.writer(file, lineterminator="\n"), list[str]()

    def write(columns: dict[str, list[Any]]) -> None:
        if not names:
            names.extend(columns)
            writer.writerow(names)
        writer.writerows(zip(*columns.values(), strict=True))

    return write


def _parquet_rows(part: Path, opened: ExitStack) -> Callable[[dict[str, list[Any]]], None]:
    import pyarrow as pa
    from pyarrow import parquet

    writers: list[Any] = []

    def write(columns: dict[str, list[Any]]) -> None:
        kinds = {n: pa.float64() if _are_numbers(x) else pa.string() for n, x in columns.items()}
        schema = writers[0].schema if writers else pa.schema(kinds)
        if not writers:
            writers.append(opened.enter_context(parquet.ParquetWriter(part, schema)))
        writers[0].write_table(pa.table(columns, schema=schema))

    return write


def _are_numbers(cells: list[Any]) -> bool:
    return not any(isinstance(cell, str) for cell in cells[:1])
