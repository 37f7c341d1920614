"""Predictions for the rows of a file, by a model that a run or a folder holds."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from fmexp.data import new_rows
from fmexp.model import DESCRIPTION, Model, load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fmexp.data.table import Table


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


def predict_file(
    run: str, data: str, out: Path | None, uri: str, encoding: str | None = None
) -> int:
    """Write a prediction for every row of a file, in the file's order; returns the exit code.

    The output is CSV: `y_pred` (in classification the probability of the second label, with
    `label`, the more probable one, beside it; in regression by a model that holds samples with
    `y_stdev`, see `Model.predict_with_stdev`). A file appears only when it is complete.

    Args:
        run: see `find_model`.
        data: CSV, Parquet or libsvm text with the model's columns, in any order.
        out: the file to write; None for standard output.
        uri: see `find_model`.
        encoding: of delimited text; None: as in the table that the model learned from.

    Raises:
        UserError: no such run, or the data lack a column or hold what is no number.
    """
    model = find_model(run, uri)
    unknown: Counter[str] = Counter()
    n_rows = 0
    tables = new_rows.batches(data, model.encoder, encoding)
    first = list(islice(tables, 1))  # a mistake shows before anything is written
    with _output(out) as file:
        writer = csv.writer(file, lineterminator="\n")
        labels = model.encoder.labels
        beside = ["label"] if labels else ["y_stdev"] if model.has_stdev else []
        writer.writerow(["y_pred", *beside])
        for table in chain(first, tables):
            columns = [x.tolist() for x in model.predict_with_stdev(table) if x is not None]
            if labels:
                columns.append([labels[p >= 0.5] for p in columns[0]])
            writer.writerows(zip(*columns, strict=True))
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
        column = field.text_of(table)
        split = field.split or (lambda cell: [cell])
        unknown = np.array([(field.numbers_of(split(n)) < 0).any() for n in column.names], bool)
        counts[field.name] = int(unknown[column.codes].sum())
    return +counts


@contextmanager
def _output(out: Path | None) -> Iterator[IO[str]]:
    """Standard output, or a file that takes its name when all of it is written."""
    if out is None:
        yield sys.stdout
        return
    part = out.with_name(f".{out.name}.part")
    try:
        with part.open("w", newline="", encoding="utf-8") as file:
            yield file
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
