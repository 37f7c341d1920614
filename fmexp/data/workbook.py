"""A sheet of a workbook (xlsx, xlsb, ods, xls) as delimited text, which is read like any other."""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import importlib.util
import io
import resource
import subprocess
import sys
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from fmexp.data import budget
from fmexp.data.cells import number_text
from fmexp.errors import DataError, MissingPackageError

_OLD = b"\xd0\xcf\x11\xe0"
_PARTS = {"xl/workbook.xml", "xl/workbook.bin", "content.xml"}

_NO_ZIP = (zipfile.BadZipFile, NotImplementedError, ValueError)
"""What zipfile raises: of no archive, of a version or name that none has."""


def is_workbook(file: Path) -> bool:
    """Whether a file is one, by its content."""
    with file.open("rb") as opened:
        start = opened.read(4)
    if start != b"PK\x03\x04":
        return start == _OLD
    try:
        with zipfile.ZipFile(file) as parts:
            return not _PARTS.isdisjoint(parts.namelist())
    except _NO_ZIP:
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
    """In a process of its own: a few cells far apart are made a table without end.

    The reader's libraries end the process where they lack memory, or meet what they did not expect.
    """
    if importlib.util.find_spec("python_calamine") is None:
        raise MissingPackageError(
            f"{file}: reading a workbook needs python-calamine: pip install 'fmexp[excel]', "
            f"or save the sheet as CSV"
        )
    budget.claim(2.0 * _unpacked(file), f"the sheets of {file.name}", "save the sheet as CSV")
    memory = budget.available() / 2  # the other half is for the text
    command = [sys.executable, "-P", "-m", "fmexp.data.workbook", str(file), str(int(memory))]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 (our own module)
    if done.returncode == 0:
        return done.stdout
    if done.returncode == _REFUSED:
        raise DataError(f"{file}: {done.stderr.decode(errors='replace').splitlines()[-1]}")
    raise DataError(
        f"{file}: the workbook is damaged, or its cells, also those between them, take more than "
        f"{budget.size(memory)} of memory: save the sheet as CSV"
    )


_REFUSED = 2


def _main(path: str, memory: str) -> None:
    """Write the text on standard output; what is wrong, on standard error."""
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (int(memory) + _BASE, int(memory) + _BASE))
    try:
        sys.stdout.buffer.write(_sheet(Path(path)))
    except DataError as error:
        print(str(error), file=sys.stderr)
        sys.exit(_REFUSED)


_BASE = 300 << 20
"""Bytes of addresses that Python and the reader have before they read."""


def _sheet(file: Path) -> bytes:
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        with CalamineWorkbook.from_path(file) as book:
            sheets = [book.get_sheet_by_name(name) for name in book.sheet_names]
            filled = [sheet for sheet in sheets if sheet.height]
            if len(filled) != 1:
                names = ", ".join(repr(sheet.name) for sheet in filled) or "none"
                raise DataError(
                    f"expected a workbook with rows on one sheet, got {names}: "
                    f"save the one to use as a file of its own"
                )
            return _csv(filled[0].to_python(skip_empty_area=False))
    except (CalamineError, OSError, ValueError) as error:
        raise DataError(f"the workbook is damaged: {error}") from None


def _unpacked(file: Path) -> int:
    """Bytes of its parts, as it says itself; 0 for what is no zip archive."""
    try:
        with zipfile.ZipFile(file) as parts:
            return sum(part.file_size for part in parts.infolist())
    except _NO_ZIP:
        return 0


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


if __name__ == "__main__":
    _main(*sys.argv[1:])
