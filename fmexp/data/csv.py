"""Reading delimited text (CSV, TSV, ...): a sample, then all columns, with errors by line."""

from __future__ import annotations

import codecs
import csv
import io
import sys
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fmexp.data import files, quotes
from fmexp.data.cells import MISSING, MISSING_HINT, MISSING_TARGET_HINT, is_number
from fmexp.data.dates import days
from fmexp.data.read_plan import ReadPlan, TableFiles, sample_rows
from fmexp.data.table import Column, Table, Text, arrow_values
from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fmexp.config.schema import CsvConfig
    from fmexp.data.quotes import Record

MOST_MISTAKES = 10
"""Mistakes that one message lists."""

CHUNK_BYTES = 1 << 21
"""Text that is parsed at once. Half of it takes a seventh more time, since each chunk has a
dictionary of its own for each column of texts; twice as much takes 20 MB more memory."""

DELIMITERS = ",\t;|"


@dataclass(frozen=True)
class Dialect:
    """How a text file is written.

    Attributes:
        delimiter: between two cells.
        encoding: of the characters, as Python names it.
        quoting: whether cells may stand in double quotes.
        names: the columns, where the file has no header; else None.
    """

    delimiter: str = ","
    encoding: str = "utf-8"
    quoting: bool = True
    names: tuple[str, ...] | None = None


def open_table(found: list[Path], data: CsvConfig) -> TableFiles:
    """Look into the files of a table: how they are written, and the first rows.

    Raises:
        DataError: the first is no such text, or has no usable columns.
    """
    dialect = sniff(found[0], data.delimiter, data.encoding, data.quoting, data.names)
    first = sample(found[0], dialect)
    n_rows = estimate_rows(first, sum(map(files.unpacked_size, found)))
    return TableFiles(
        found,
        first,
        n_rows,
        str(dialect),
        names_of=lambda file: header(file, dialect),
        batches=lambda file, plan: batches(file, dialect, plan),
    )


def sniff(
    file: Path,
    delimiter: str | None,
    encoding: str,
    quoting: bool,
    names: list[str] | None,
) -> Dialect:
    """The dialect of a file, as far as it is not given.

    Raises:
        DataError: the file is no text, is not in this encoding, or the delimiter cannot be told.
    """
    start = files.head_of_text(file)
    delimiter = {"\\t": "\t", "tab": "\t"}.get(delimiter or "", delimiter)
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n' or delimiter > "~"):
        raise DataError(f"data.delimiter must be one ASCII character or tab, got {delimiter!r}")
    try:
        if not getattr(codecs.lookup(encoding), "_is_text_encoding", True):  # rot13
            raise LookupError
        b"a\n".decode(encoding, "replace")
    except (LookupError, ValueError):
        raise DataError(f"data.encoding={encoding} is no encoding that Python knows") from None
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) and encoding == "utf-8":
        encoding = "utf-16"
    if delimiter is None:
        delimiter = _find_delimiter(start.decode(encoding, "replace"), quoting)
    return Dialect(delimiter, encoding, quoting, tuple(names) if names else None)


def sample(file: Path, dialect: Dialect) -> dict[str, list[str]]:
    """The first rows as texts, by column.

    Raises:
        DataError: there is no usable header or no row.
    """
    names = header(file, dialect)
    rows = [cells for _, cells, _ in islice(_rows(file, dialect), sample_rows(len(names)))]
    if not rows:
        raise DataError(f"{file} has a header but no rows")
    rows = [cells for cells in rows if len(cells) == len(names)]
    if not rows:
        _explain(file, dialect, names, ReadPlan({}, []))
    return {name: [row[j] for row in rows] for j, name in enumerate(names)}


def estimate_rows(sample: dict[str, list[str]], n_bytes: int) -> float:
    """About how many rows there are in so many bytes, judged by the first ones."""
    columns = list(sample.values())
    width = sum(len("".join(cells)) + len(cells) for cells in columns) / len(columns[0])
    n_rows = n_bytes / width
    is_all = len(columns[0]) < sample_rows(len(columns))
    return len(columns[0]) if is_all else n_rows


def header(file: Path, dialect: Dialect) -> list[str]:
    """The column names.

    Raises:
        DataError: there are none, two are equal, or they are numbers.
    """
    line, first, _ = next(_records(file, dialect), (1, [], ""))
    if dialect.names is not None:
        if len(first) != len(dialect.names):
            raise DataError(
                f"{file}, line {line}: expected {len(dialect.names)} cells (data.names), got "
                f"{len(first)}: {first[:6]}"
            )
        return list(dialect.names)
    names = [cell.strip() or f"column {j + 1}" for j, cell in enumerate(first)]
    if not names:
        raise DataError(f"{file} is empty: a header and rows were expected")
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice:
        raise DataError(
            f"{file}, line {line}: column names must differ, got "
            f"{', '.join(map(repr, twice[:5]))} more than once"
        )
    if all(map(is_number, names)):
        raise DataError(
            f"{file}, line {line}: expected column names, got numbers ({', '.join(names[:4])}): "
            f"add a header, or name the columns by data.names=[...]"
        )
    return names


def batches(file: Path, dialect: Dialect, plan: ReadPlan) -> Iterator[Table]:
    """The columns that are asked for, some rows at a time.

    Raises:
        DataError: up to ten mistakes, each with its line, column and cell.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    names = header(file, dialect)
    wanted = {**dict.fromkeys(plan.numbers, pa.float64())}
    texts = [*plan.texts, *plan.dates]
    wanted |= dict.fromkeys(texts, pa.dictionary(pa.int32(), pa.string()))
    n_quotes, may_pair = (
        quotes.count(file, dialect.delimiter, dialect.encoding) if dialect.quoting else (0, False)
    )
    if n_quotes % 2 or may_pair:
        _explain(file, dialect, names, plan)
    stream = files.open_bytes(file)
    try:
        reader = arrow_csv.open_csv(
            pa.PythonFile(stream, "r") if not isinstance(stream, io.BufferedReader) else str(file),
            read_options=arrow_csv.ReadOptions(
                block_size=CHUNK_BYTES,
                encoding=dialect.encoding,
                column_names=names,
                skip_rows_after_names=0 if dialect.names else 1,
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=dialect.delimiter,
                quote_char='"' if dialect.quoting else False,
                newlines_in_values=n_quotes > 0,
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=wanted,
                include_columns=[name for name in names if name in wanted],
                null_values=sorted(MISSING),
                strings_can_be_null=False,
            ),
        )
        for batch in reader:
            table = _table(batch, plan)
            if not plan.accepts(table):
                _explain(file, dialect, names, plan)
            yield table
    except (pa.ArrowInvalid, pa.ArrowKeyError, UnicodeError, *files.DAMAGED) as error:
        _explain(file, dialect, names, plan)
        if "straddling" in str(error):
            raise DataError(f"{file}: a row is longer than {CHUNK_BYTES:,} bytes") from None
        raise DataError(f"{file} cannot be read: {error}") from error
    finally:
        stream.close()


def _table(batch: Any, plan: ReadPlan) -> Table:
    """A pyarrow batch as ours."""
    columns: dict[str, Column] = {}
    dictionaries = plan.dictionaries
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name in plan.dates:
            of_text = days(column.dictionary.to_pylist(), plan.dates[name])
            columns[name] = of_text[arrow_values(column.indices, np.int32)]
        elif name in dictionaries:
            codes = dictionaries[name].codes_of(column.dictionary.to_pylist())
            columns[name] = Text(
                codes[arrow_values(column.indices, np.int32)], dictionaries[name].names
            )
        else:
            columns[name] = arrow_values(column)
    return Table(columns)


def _find_delimiter(start: str, quoting: bool) -> str:
    """The delimiter that cuts the most of the first lines into equally many cells."""
    lines = [line for line in start.splitlines() if line.strip()][:20]
    found = {}
    for delimiter in DELIMITERS:
        reader = csv.reader(lines, delimiter=delimiter, quoting=_quotes(quoting))
        widths = Counter(map(len, reader))
        width, n = widths.most_common(1)[0] if widths else (1, 0)
        found[delimiter] = (n if width > 1 else 0, width)
    best = max(found, key=lambda delimiter: found[delimiter])
    return best if found[best][1] > 1 else ","


def _explain(file: Path, dialect: Dialect, names: list[str], plan: ReadPlan) -> None:
    """Read the file again, slowly, and raise what is wrong with it; return if nothing is.

    Raises:
        DataError: the first mistakes, with line, column and cell.
    """
    mistakes: list[str] = []
    for record in _rows(file, dialect, with_text=True):
        mistakes += _mistakes(record, names, plan)
        if dialect.quoting and (pair := quotes.paired(record, dialect.delimiter)):
            mistakes += [quotes.explain(record, names, *pair)]
        if len(mistakes) >= MOST_MISTAKES:
            break
    if mistakes:
        raise DataError("\n".join([f"{file} cannot be used:", *mistakes[:MOST_MISTAKES]]))


def _mistakes(record: Record, names: list[str], plan: ReadPlan) -> Iterator[str]:
    """What is wrong with one record."""
    numbers = plan.numbers
    line, cells, _ = record
    if len(cells) != len(names):
        seen = ", ".join(repr(cell[:30]) for cell in cells[:6])
        yield f"line {line}: expected {len(names)} cells, got {len(cells)}: {seen}"
        return
    if cells == names:
        yield f"line {line}: the header is repeated here"
        return
    for name, cell in zip(names, cells, strict=True):
        if any("\udc80" <= character <= "\udcff" for character in cell):
            raw = cell.encode("utf-8", "surrogateescape")[:40]
            yield (
                f"line {line}, column {name!r}: {raw!r} is not UTF-8; "
                f"name the file's encoding, such as data.encoding=latin-1"
            )
        elif name in numbers and cell in MISSING:
            if not numbers[name]:
                hint = MISSING_TARGET_HINT if name == plan.target else MISSING_HINT
                yield (
                    f"line {line}, column {name!r}: expected a number, got a missing value "
                    f"{cell!r} {hint}"
                )
        elif name in plan.dates:
            if not np.isfinite(days([cell], plan.dates[name])[0]):
                form = plan.dates[name]
                yield f"line {line}, column {name!r}: expected a date as {form}, got {cell[:60]!r}"
        elif name in numbers and not (is_number(cell) and np.isfinite(float(cell))):
            yield f"line {line}, column {name!r}: expected a finite number, got {cell[:60]!r}"


def _rows(file: Path, dialect: Dialect, with_text: bool = False) -> Iterator[Record]:
    """The records after the header."""
    return islice(_records(file, dialect, with_text), 0 if dialect.names else 1, None)


def _records(file: Path, dialect: Dialect, with_text: bool = False) -> Iterator[Record]:
    """Each record that is not empty; its text is "" unless it is asked for.

    Bytes that are not of the encoding become surrogates, which `_explain` reports.

    Raises:
        DataError: a quote stays open, or the text breaks off.
    """
    csv.field_size_limit(sys.maxsize)
    encoding = "utf-8-sig" if dialect.encoding == "utf-8" else dialect.encoding
    line = 1
    with io.TextIOWrapper(
        files.open_bytes(file), encoding=encoding, errors="surrogateescape", newline=""
    ) as text:
        lines: list[str] = []  # of the record that is being read

        def noted() -> Iterator[str]:
            for each in text:
                lines.append(each)
                yield each

        reader = csv.reader(
            noted() if with_text else text,
            delimiter=dialect.delimiter,
            quoting=_quotes(dialect.quoting),
            strict=True,
        )
        try:
            for cells in reader:
                if cells:
                    yield line, cells, "".join(lines)
                lines.clear()
                line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{file}, line {line}: {_in_words(error)}") from None
        except files.DAMAGED as error:
            raise DataError(f"{file}: the gzipped file is damaged or cut short ({error})") from None
        except UnicodeError as error:
            raise DataError(f"{file}, line {line}: not {dialect.encoding}: {error}") from None


def _quotes(quoting: bool) -> Literal[0, 3]:
    return csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE


def _in_words(error: csv.Error) -> str:
    if "unexpected end of data" in str(error):
        return "a quote is opened here that is never closed"
    return f"not readable as delimited text ({error})"
