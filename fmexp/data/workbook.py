"""A sheet of a workbook (xlsx, xlsb, ods, xls) as delimited text, which is read like any other."""

from __future__ import annotations

import csv
import datetime as dt
import io
import zipfile
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fmexp.data import budget
from fmexp.data.cells import number_text
from fmexp.errors import DataError, MissingPackageError

if TYPE_CHECKING:
    from pathlib import Path

_OLD = b"\xd0\xcf\x11\xe0"
_PARTS = {"xl/workbook.xml", "xl/workbook.bin", "content.xml"}


def is_workbook(file: Path) -> bool:
    """Whether a file is one, by its content."""
    with file.open("rb") as opened:
        start = opened.read(4)
    if start != b"PK\x03\x04":
        return start == _OLD
    try:
        with zipfile.ZipFile(file) as parts:
            return not _PARTS.isdisjoint(parts.namelist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError):  # a version or name that none has
        return False


def text_of(file: Path) -> bytes:
    """The one sheet that has rows, as CSV in UTF-8: numbers, ISO dates, 1 and 0 for true and false.

    Raises:
        DataError: it cannot be read, or not one sheet has rows.
        MissingPackageError: the reader is not installed.
    """
    about = file.stat()
    return _text(file.resolve(), about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=1)
def _text(file: Path, _changed: int, _size: int) -> bytes:
    try:
        from python_calamine import CalamineError, CalamineWorkbook
    except ImportError:
        raise MissingPackageError(
            f"{file}: reading a workbook needs python-calamine: pip install 'fmexp[excel]', "
            f"or save the sheet as CSV"
        ) from None
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as parts:
            unpacked = sum(part.file_size for part in parts.infolist())
        budget.claim(2.0 * unpacked, f"the sheets of {file.name}", "save the sheet as CSV")
    try:
        with CalamineWorkbook.from_path(file) as book:
            sheets = [book.get_sheet_by_name(name) for name in book.sheet_names]
            filled = [sheet for sheet in sheets if sheet.height]
            if len(filled) != 1:
                names = ", ".join(repr(sheet.name) for sheet in filled) or "none"
                raise DataError(
                    f"{file}: expected a workbook with rows on one sheet, got {names}: "
                    f"save the one to use as a file of its own"
                )
            return _csv(filled[0].to_python(skip_empty_area=False))
    except (CalamineError, OSError, ValueError) as error:
        raise DataError(f"{file}: the workbook is damaged: {error}") from None


def _csv(rows: list[list[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        cells = list(map(_cell, row))
        writer.writerow(cells) if any(cells) else text.write("\n")
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return number_text(value)
    if isinstance(value, dt.date | dt.time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return number_text(value / dt.timedelta(days=1))
    return str(value)
