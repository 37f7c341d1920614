"""Rows of a file for a model that exists: its columns are read as the model's schema says."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fmexp.data import files, joins
from fmexp.data.fields import listed
from fmexp.data.read_plan import ReadPlan
from fmexp.data.table import Dictionary, Table
from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fmexp.data.encode import Encoder


ALL = "all"
"""Carries every column of a file along."""


def batches(
    path: str | Path, encoder: Encoder, encoding: str | None = None, carry: Sequence[str] = ()
) -> Iterator[Table]:
    """The rows, some at a time, with the columns that the encoder needs, and some others.

    Text is read as the table was that the model learned from. Lines before the one that names the
    columns are skipped.

    Args:
        path: Parquet, delimited text with a header, or, for a model of libsvm text, that; one
            file, a folder or a glob.
        encoder: the model's.
        encoding: of delimited text; None: the model's.
        carry: further columns, which are read as texts; [ALL] for all.

    Raises:
        DataError: a column is missing, or a cell is not what the schema says.
    """
    for file in files.find(str(path)):
        yield from _batches(file, encoder, encoding, carry)


def _batches(
    file: Path, encoder: Encoder, encoding: str | None, carry: Sequence[str]
) -> Iterator[Table]:
    from fmexp.data import csv, delimited, libsvm, parquet

    if encoder.block is not None:
        if carry:
            raise DataError(f"{file} is libsvm text, which has no columns to carry along")
        yield from libsvm.batches(file)
        return
    read: Callable[[ReadPlan], Iterator[Table]]
    if files.head(file).startswith(b"PAR1"):
        names = parquet.names(file)
        read = partial(parquet.batches, file)
    else:
        text = replace(encoder.text, encoding=encoding or encoder.text.encoding)
        dialect = delimited.with_header(file, delimited.sniff(file, text), encoder.own_columns)
        names, _ = delimited.header(file, dialect)
        read = partial(csv.batches, file, dialect)
    encoder.check_columns(names, str(file))
    if unknown := [name for name in carry if name not in names and [*carry] != [ALL]]:
        raise DataError(f"{file} has no column {listed(unknown)}; there are {listed(names)}")
    known = set(encoder.own_columns)
    further = [n for n in (names if [*carry] == [ALL] else carry) if n not in known]
    plan = ReadPlan(
        {c.name: c.fill is not None for c in encoder.numeric if c.name in known},
        [*encoder.text_columns, *further],
        encoder.dates,
        signs=encoder.signs,
    )
    plan.separators = encoder.separators
    n_rows = 0
    for table in read(plan):
        yield encoder.with_joined(table, str(file), n_rows)
        n_rows += len(table)
        plan.dictionaries |= {name: Dictionary() for name in further}  # ids would pile up


def with_other_joins(encoder: Encoder, paths: Mapping[str, str]) -> Encoder:
    """The encoder with second tables from files in the place of those that it has kept.

    Args:
        encoder: the model's.
        paths: by the column that joins.

    Raises:
        DataError: the model has no such table, or a file lacks one of its columns.
    """
    of_files = [join.key for join in encoder.joins if not join.learned]
    unknown = [key for key in paths if key not in of_files]
    if unknown:
        raise DataError(f"--join: the model has no table that is joined by {listed(unknown)}")
    fields = {c.name: c.date for c in encoder.numeric}
    found = []
    for old in encoder.joins:
        if old.learned or old.key not in paths:
            found.append(old)
            continue
        file = joins.read(old.key, paths[old.key], Path(), encoder.text, encoder.separators)
        if lacking := [name for name in old.columns if name not in file.names]:
            raise DataError(f"{file.found[0]} has no column {listed(lacking)}")
        numbers = {name: fields[name] for name in old.columns if name in fields}
        found.append(file.join(numbers, list(old.columns), old.may_miss))
    return replace(encoder, joins=tuple(found))
