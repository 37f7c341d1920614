"""Rows of a file for a model that exists: its columns are read as the model's schema says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fmexp.data import files
from fmexp.data.read_plan import ReadPlan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fmexp.data.encode import Encoder
    from fmexp.data.table import Table


def batches(path: str | Path, encoder: Encoder, encoding: str | None = None) -> Iterator[Table]:
    """The rows, some at a time, with the columns that the encoder needs.

    Text is read as the table was that the model learned from. Lines before the one that names the
    columns are skipped.

    Args:
        path: Parquet, delimited text with a header, or, for a model of libsvm text, that; one
            file, a folder or a glob.
        encoder: the model's.
        encoding: of delimited text; None: the model's.

    Raises:
        DataError: a column is missing, or a cell is not what the schema says.
    """
    for file in files.find(str(path)):
        yield from _batches(file, encoder, encoding)


def _batches(file: Path, encoder: Encoder, encoding: str | None) -> Iterator[Table]:
    from fmexp.data import csv, delimited, libsvm, parquet

    if encoder.block is not None:
        yield from libsvm.batches(file)
        return
    plan = ReadPlan(
        {column.name: column.fill is not None for column in encoder.numeric},
        encoder.text_columns,
        encoder.dates,
        signs=encoder.signs,
    )
    if files.head(file).startswith(b"PAR1"):
        encoder.check_columns(parquet.names(file), str(file))
        yield from parquet.batches(file, plan)
        return
    text = replace(encoder.text, encoding=encoding or encoder.text.encoding)
    dialect = delimited.with_header(file, delimited.sniff(file, text), encoder.column_names)
    encoder.check_columns(delimited.header(file, dialect)[0], str(file))
    yield from csv.batches(file, dialect, plan)
