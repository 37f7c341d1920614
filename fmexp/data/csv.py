"""Reading delimited text (CSV, TSV, ...): a sample, then all columns, with errors by line."""

from __future__ import annotations

import io
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from fmexp.data import files, quotes
from fmexp.data.arrow import arrow_values, in_data_errors
from fmexp.data.cells import MISSING, MISSING_HINT, MISSING_TARGET_HINT, TextFormat
from fmexp.data.dates import days
from fmexp.data.delimited import header, not_utf8, records, sniff, titles, undecoded
from fmexp.data.read_plan import WEIGHT, ReadPlan, TableFiles, sample_rows
from fmexp.data.table import Column, Table, Text
from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fmexp.config.schema import CsvConfig
    from fmexp.data.delimited import Dialect
    from fmexp.data.quotes import Record

MOST_MISTAKES = 10
"""Mistakes that one message lists."""

CHUNK_BYTES = 1 << 21
"""Text that is parsed at once. Half of it takes a seventh more time, since each chunk has a
dictionary of its own for each column of texts; twice as much takes 20 MB more memory."""


def open_table(found: list[Path], data: CsvConfig) -> TableFiles:
    """Look into the files of a table: how they are written, and the first rows.

    Raises:
        DataError: the first is no such text, or has no usable columns.
    """
    text = TextFormat(
        data.encoding, data.quoting, data.decimal, data.thousands, tuple(data.missing_values)
    )
    return _opened(found, sniff(found[0], text, data.delimiter, data.names, data.skip_rows))


def open_text(found: list[Path], text: TextFormat) -> TableFiles:
    """Look into files of which nothing else is said.

    Raises:
        DataError: the first is no such text, or has no usable columns.
    """
    return _opened(found, sniff(found[0], text))


def _opened(found: list[Path], dialect: Dialect) -> TableFiles:
    text = dialect.text
    cells = sample(found[0], dialect)
    n_rows = estimate_rows(cells, sum(map(files.unpacked_size, found)))
    signs = {n: sign for n in cells if (sign := text.sign_of(cells[n])) is not None}
    return TableFiles(
        found,
        {name: text.readable(column, signs.get(name, "")) for name, column in cells.items()},
        n_rows,
        str(dialect),
        names_of=lambda file: header(file, dialect)[0],
        batches=lambda file, plan: batches(file, dialect, plan),
        text=text,
        signs=signs,
        hint=lambda: _title_hint(found[0], dialect),
    )


def _title_hint(file: Path, dialect: Dialect) -> str:
    """The key to set where titles stand before the line that names the columns."""
    n_lines, seen = titles(file, dialect) if dialect.names is None else (0, [])
    if not seen:
        return ""
    return f"; {seen[0][:30]!r} looks like a title: data.skip_rows={n_lines} skips it"


def sample(file: Path, dialect: Dialect) -> dict[str, list[str]]:
    """The first rows as texts, by column.

    Raises:
        DataError: there is no usable header or no row.
    """
    names, _ = header(file, dialect)
    rows = [cells for _, cells, _ in islice(_rows(file, dialect), sample_rows(len(names)))]
    if not rows:
        raise DataError(f"{file} has a header but no rows")
    rows = [cells for cells in rows if len(cells) == len(names)]
    if not rows:
        hint = f"If the columns are named further down, `fmexp data {file}` finds data.skip_rows."
        _explain(file, dialect, names, ReadPlan({}, []), hint)
    return {name: [row[j] for row in rows] for j, name in enumerate(names)}


def estimate_rows(sample: dict[str, list[str]], n_bytes: int) -> float:
    """About how many rows there are in so many bytes, judged by the first ones."""
    columns = list(sample.values())
    width = sum(len("".join(cells)) + len(cells) for cells in columns) / len(columns[0])
    n_rows = n_bytes / width
    is_all = len(columns[0]) < sample_rows(len(columns))
    return len(columns[0]) if is_all else n_rows


def batches(file: Path, dialect: Dialect, plan: ReadPlan) -> Iterator[Table]:
    """The columns that are asked for, some rows at a time.

    Raises:
        DataError: up to ten mistakes, each with its line, column and cell.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    names, n_before = header(file, dialect)
    text = dialect.text
    n_quotes, may_pair = (
        quotes.count(file, dialect.delimiter, text.encoding) if text.quoting else (0, False)
    )
    if n_quotes % 2 or may_pair:
        _explain(file, dialect, names, plan)

    def explain(error: Exception) -> None:
        _explain(file, dialect, names, plan)
        if "straddling" in str(error):
            raise DataError(f"{file}: a row is longer than {CHUNK_BYTES:,} bytes") from None

    with files.open_bytes(file) as stream, in_data_errors(f"{file} cannot be read", explain):
        reader = arrow_csv.open_csv(
            pa.PythonFile(stream, "r") if not isinstance(stream, io.BufferedReader) else str(file),
            read_options=arrow_csv.ReadOptions(
                block_size=CHUNK_BYTES,
                encoding=text.encoding,
                column_names=names,
                skip_rows=n_before,
                skip_rows_after_names=0 if dialect.names else 1,
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=dialect.delimiter,
                quote_char='"' if text.quoting else False,
                newlines_in_values=n_quotes > 0,
            ),
            convert_options=_conversion(names, plan, text),
        )
        for batch in reader:
            table = _table(batch, plan, text)
            if not plan.accepts(table):
                _explain(file, dialect, names, plan)
            yield table


def _conversion(names: list[str], plan: ReadPlan, text: TextFormat) -> Any:
    """What pyarrow is to make of each column: numbers, or texts for `_table`."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    wanted = dict.fromkeys(plan.numbers, pa.float64())
    texts = [*plan.texts, *plan.dates, *(plan.numbers if text.thousands else plan.signs)]
    wanted |= dict.fromkeys(texts, pa.dictionary(pa.int32(), pa.string()))
    return arrow_csv.ConvertOptions(
        column_types=wanted,
        include_columns=[name for name in names if name in wanted],
        null_values=sorted(MISSING.union(text.missing)),
        decimal_point=text.decimal,
        strings_can_be_null=False,
    )


def _table(batch: Any, plan: ReadPlan, text: TextFormat) -> Table:
    """A pyarrow batch as ours."""
    columns: dict[str, Column] = {}
    dictionaries = plan.dictionaries
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if not hasattr(column, "dictionary"):
            columns[name] = arrow_values(column)
            continue
        texts = text.without_missing(column.dictionary.to_pylist())
        codes = arrow_values(column.indices, np.int32)
        if name in plan.dates:
            columns[name] = days(texts, plan.dates[name])[codes]
        elif name in dictionaries:
            numbers = dictionaries[name].codes_of(texts)
            columns[name] = Text(numbers[codes], dictionaries[name].names)
        else:
            sign = plan.signs.get(name, "")
            columns[name] = np.array([text.number(cell, sign) for cell in texts], float)[codes]
    return Table(columns)


def _explain(file: Path, dialect: Dialect, names: list[str], plan: ReadPlan, *hint: str) -> None:
    """Read the file again, slowly, and raise what is wrong with it; return if nothing is.

    Raises:
        DataError: the first mistakes, with line, column and cell.
    """
    mistakes: list[str] = []
    for record in _rows(file, dialect, with_text=True):
        mistakes += _mistakes(record, names, plan, dialect.text)
        if dialect.text.quoting and (pair := quotes.paired(record, dialect.delimiter)):
            mistakes += [quotes.explain(record, names, *pair)]
        if len(mistakes) >= MOST_MISTAKES:
            break
    if mistakes:
        raise DataError("\n".join([f"{file} cannot be used:", *mistakes[:MOST_MISTAKES], *hint]))


def _mistakes(record: Record, names: list[str], plan: ReadPlan, text: TextFormat) -> Iterator[str]:
    """What is wrong with one record."""
    line, cells, _ = record
    if len(cells) != len(names):
        seen = ", ".join(repr(cell[:30]) for cell in cells[:6])
        yield f"line {line}: expected {len(names)} cells, got {len(cells)}: {seen}"
        return
    if cells == names:
        yield f"line {line}: the header is repeated here"
        return
    for name, cell in zip(names, cells, strict=True):
        if wrong := not_utf8(cell) if undecoded(cell) else _mistake(name, cell, plan, text):
            yield f"line {line}, column {name!r}: {wrong}"


def _mistake(name: str, cell: str, plan: ReadPlan, text: TextFormat) -> str | None:
    """What is wrong with one cell."""
    if name not in plan.numbers:
        return None
    sign = plan.signs.get(name, "")
    if name == plan.weight:
        good = 0 <= text.number(cell, sign) < np.inf
        return None if good else f"expected {WEIGHT}, got {cell[:60]!r}"
    if text.is_missing(cell):
        hint = MISSING_TARGET_HINT if name == plan.target else MISSING_HINT
        got = f"expected a number, got a missing value {cell!r} {hint}"
        return None if plan.numbers[name] else got
    if name in plan.dates:
        form, good = plan.dates[name], np.isfinite(days([cell], plan.dates[name])[0])
        return None if good else f"expected a date as {form}, got {cell[:60]!r}"
    good = np.isfinite(text.number(cell, sign))
    return None if good else f"expected {text.wanted(sign)}, got {cell[:60]!r}"


def _rows(file: Path, dialect: Dialect, with_text: bool = False) -> Iterator[Record]:
    """The records after the header."""
    return islice(records(file, dialect, with_text), 0 if dialect.names else 1, None)
