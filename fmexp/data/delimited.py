"""How delimited text is cut: its dialect, its header, and its records one by one."""

from __future__ import annotations

import codecs
import csv
import io
import re
import sys
from collections import Counter
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Literal

from fmexp.data import files, workbook
from fmexp.data.cells import TextFormat, is_number
from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from fmexp.data.quotes import Record

MOST_TITLES = 50
"""Lines before a header among which it is looked for."""

DELIMITERS = ",\t;|"


@dataclass(frozen=True)
class Dialect:
    """How a text file is cut into cells.

    Attributes:
        delimiter: between two cells.
        text: how characters and numbers are written.
        names: the columns, where the file has no header; else None.
        skip_lines: lines before the header, or before the first row: titles, and `sep=;`.
    """

    delimiter: str = ","
    text: TextFormat = TextFormat()  # noqa: RUF009 -- frozen
    names: tuple[str, ...] | None = None
    skip_lines: int = 0


def sniff(
    file: Path,
    text: TextFormat,
    delimiter: str | None = None,
    names: list[str] | None = None,
    skip_rows: int = 0,
) -> Dialect:
    """The dialect of a file, as far as it is not given.

    A first line `sep=;`, which Excel reads and writes, names the delimiter and is skipped.

    Raises:
        DataError: the file is no text, is not in this encoding, or the delimiter cannot be told.
    """
    start = files.head_of_text(file)
    delimiter = {"\\t": "\t", "tab": "\t"}.get(delimiter or "", delimiter)
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n' or delimiter > "~"):
        raise DataError(f"data.delimiter must be one ASCII character or tab, got {delimiter!r}")
    encoding = text.encoding
    try:
        if not getattr(codecs.lookup(encoding), "_is_text_encoding", True):  # rot13
            raise LookupError
        b"a\n".decode(encoding, "replace")
    except (LookupError, ValueError):
        raise DataError(f"data.encoding={encoding} is no encoding that Python knows") from None
    if workbook.is_workbook(file):
        text = replace(text, encoding="utf-8")
    elif start.startswith((b"\xff\xfe", b"\xfe\xff")) and encoding == "utf-8":
        text = replace(text, encoding="utf-16")
    lines = start.decode(text.encoding, "replace").removeprefix("\ufeff").splitlines()
    if said := re.fullmatch(r"sep=(.)", lines[0] if lines else ""):
        delimiter, skip_rows = delimiter or said[1], max(skip_rows, 1)
    if delimiter is None:
        delimiter = _find_delimiter(lines[skip_rows:], text.quoting)
    return Dialect(delimiter, text, tuple(names) if names else None, skip_rows)


def header(file: Path, dialect: Dialect) -> tuple[list[str], int]:
    """The column names, and how many lines stand before their line (or before the first row).

    Raises:
        DataError: there are none, two are equal, or they are numbers.
    """
    line, first, _ = next(records(file, dialect), (1, [], ""))
    if dialect.names is not None:
        if len(first) != len(dialect.names):
            raise DataError(
                f"{file}, line {line}: expected {len(dialect.names)} cells (data.names), got "
                f"{len(first)}: {first[:6]}"
            )
        return list(dialect.names), dialect.skip_lines
    names = [cell.strip() or f"column {j + 1}" for j, cell in enumerate(first)]
    if not names:
        raise DataError(f"{file} is empty: a header and rows were expected")
    if wrong := next(filter(undecoded, names), None):
        raise DataError(f"{file}, line {line}: the header holds {not_utf8(wrong)}")
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
    return names, line - 1


def first_records(file: Path, dialect: Dialect) -> list[tuple[int, list[str]]]:
    """The first records, among which the header is: the line of each, and its cells."""
    return [(line, cells) for line, cells, _ in islice(records(file, dialect), MOST_TITLES)]


def titles(file: Path, dialect: Dialect) -> tuple[int, list[str]]:
    """How many lines seem to stand before the header, and what is in them.

    These are records that are narrower than the others, or mostly empty.
    """
    first = first_records(file, dialect)
    width = Counter(len(cells) for _, cells in first).most_common(1)[0][0] if first else 0
    found: list[str] = []
    for line, cells in first:
        filled = [cell for cell in cells if cell.strip()]
        mostly_empty = len(filled) * 2 <= len(cells) and cells[0].strip()
        if len(cells) == width and not mostly_empty:
            return line - 1, found
        found.append(next(iter(filled), ""))
    return 0, []


def with_header(file: Path, dialect: Dialect, names: Collection[str]) -> Dialect:
    """The dialect that begins at the header, which is the first line that has all these names."""
    for line, cells in first_records(file, dialect):
        if {cell.strip() for cell in cells}.issuperset(names):
            return replace(dialect, skip_lines=line - 1)
    return dialect


def _find_delimiter(lines: list[str], quoting: bool) -> str:
    """The delimiter that cuts the most of the first lines into equally many cells."""
    lines = [line for line in lines if line.strip()][:20]
    found = {}
    for delimiter in DELIMITERS:
        reader = csv.reader(lines, delimiter=delimiter, quoting=_quotes(quoting))
        widths = Counter(map(len, reader))
        width, n = widths.most_common(1)[0] if widths else (1, 0)
        found[delimiter] = (n if width > 1 else 0, width)
    best = max(found, key=lambda delimiter: found[delimiter])
    return best if found[best][1] > 1 else ","


def records(file: Path, dialect: Dialect, with_text: bool = False) -> Iterator[Record]:
    """Each record that is not empty; its text is "" unless it is asked for.

    Bytes that are not of the encoding become surrogates, which `_explain` reports.

    Raises:
        DataError: a quote stays open, or the text breaks off.
    """
    csv.field_size_limit(sys.maxsize)
    encoding = "utf-8-sig" if dialect.text.encoding == "utf-8" else dialect.text.encoding
    line = 1 + dialect.skip_lines
    with io.TextIOWrapper(
        files.open_bytes(file), encoding=encoding, errors="surrogateescape", newline=""
    ) as text:
        lines: list[str] = []  # of the record that is being read
        for _ in range(dialect.skip_lines):
            text.readline()

        def noted() -> Iterator[str]:
            for each in text:
                lines.append(each)
                yield each

        reader = csv.reader(
            noted() if with_text else text,
            delimiter=dialect.delimiter,
            quoting=_quotes(dialect.text.quoting),
            strict=True,
        )
        try:
            for cells in reader:
                if cells:
                    yield line, cells, "".join(lines)
                lines.clear()
                line = reader.line_num + dialect.skip_lines + 1
        except csv.Error as error:
            raise DataError(f"{file}, line {line}: {_in_words(error)}") from None
        except files.DAMAGED as error:
            raise DataError(f"{file}: the gzipped file is damaged or cut short ({error})") from None
        except UnicodeError as error:
            raise DataError(f"{file}, line {line}: not {dialect.text.encoding}: {error}") from None


def undecoded(text: str) -> bool:
    """Whether it holds bytes that are not of the file's encoding."""
    return any("\udc80" <= character <= "\udcff" for character in text)


def not_utf8(text: str) -> str:
    """What is wrong with such a text, and what to do."""
    raw = text.encode("utf-8", "surrogateescape")[:40]
    return f"{raw!r} is not UTF-8; name the file's encoding, such as data.encoding=latin-1"


def _quotes(quoting: bool) -> Literal[0, 3]:
    return csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE


def _in_words(error: csv.Error) -> str:
    if "unexpected end of data" in str(error):
        return "a quote is opened here that is never closed"
    return f"not readable as delimited text ({error})"
