"""Rows of a file for a model that exists: its columns are read as the model's schema says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fmexp.data import files
from fmexp.data.read_plan import ReadPlan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fmexp.data.encode import Encoder
    from fmexp.data.table import Table


def batches(path: str | Path, encoder: Encoder, encoding: str = "utf-8") -> Iterator[Table]:
    """The rows, some at a time, with the columns that the encoder needs.

    Args:
        path: Parquet, delimited text with a header, or, for a model of libsvm text, that; one
            file, a folder or a glob.
        encoder: the model's.
        encoding: of delimited text.

    Raises:
        DataError: a column is missing, or a cell is not what the schema says.
    """
    for file in files.find(str(path)):
        yield from _batches(file, encoder, encoding)


def _batches(file: Path, encoder: Encoder, encoding: str) -> Iterator[Table]:
    from fmexp.data import csv, libsvm, parquet

    if encoder.block is not None:
        yield from libsvm.batches(file)
        return
    plan = ReadPlan(
        {column.name: column.fill is not None for column in encoder.numeric},
        [column.name for column in encoder.categorical],
        encoder.dates,
    )
    if files.head(file).startswith(b"PAR1"):
        encoder.check_columns(parquet.names(file), str(file))
        yield from parquet.batches(file, plan)
        return
    dialect = csv.sniff(file, None, encoding, quoting=True, names=None)
    encoder.check_columns(csv.header(file, dialect), str(file))
    yield from csv.batches(file, dialect, plan)
