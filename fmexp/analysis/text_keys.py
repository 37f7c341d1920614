"""The keys of `data=csv` that a text needs to be read as it is meant, by its first lines."""

from __future__ import annotations

import codecs
import re
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fmexp.data import csv, delimited, files, workbook
from fmexp.data.cells import EXCEL_ERRORS, TYPO_SHARE, TextFormat

if TYPE_CHECKING:
    from pathlib import Path

Found = dict[str, tuple[Any, str]]
"""By key its value, and what was seen that calls for it."""

_FORMATS = [(d, t) for t in (None, ",", ".", " ", "'") for d in ".," if d != t]
"""How numbers are written: decimal and thousands, the simplest first."""

_SAMPLE = 1000
"""Cells of a column that are looked at."""


def find(file: Path, delimiter: str | None, encoding: str | None) -> Found:
    """What differs from the defaults; `delimiter` and `encoding` as far as they are given.

    Raises:
        DataError: the file is no text, or has no usable columns.
    """
    found: Found = {} if encoding else _encoding(file)
    text = TextFormat(encoding or (found["encoding"][0] if found else "utf-8"))
    dialect = delimited.sniff(file, text, delimiter)
    found |= _titles(file, dialect)
    if "skip_rows" in found:
        dialect = delimited.sniff(file, text, delimiter, skip_rows=found["skip_rows"][0])
    cells = {name: column[:_SAMPLE] for name, column in csv.sample(file, dialect).items()}
    found |= _numbers(cells, dialect)
    written = {key: found[key][0] for key in ("decimal", "thousands") if key in found}
    return found | _missing(cells, replace(text, **written))


def _encoding(file: Path) -> Found:
    """Whether the bytes are UTF-8; else one of its likely predecessors."""
    if workbook.is_workbook(file) or files.head(file).startswith((b"\xff\xfe", b"\xfe\xff")):
        return {}
    decoder = codecs.getincrementaldecoder("utf-8")()
    for chunk in files.chunks(file):
        try:
            decoder.decode(chunk)
        except UnicodeDecodeError as error:
            start, end = max(error.start - 10, 0), error.start + 10
            around = error.object[start:end]
            windows = any(0x80 <= byte < 0xA0 for byte in error.object)
            name = "cp1252" if windows else "latin-1"
            word = next(
                (w for w in re.findall(r"\w+", around.decode(name, "replace")) if not w.isascii()),
                around.decode(name, "replace"),
            )
            return {"encoding": (name, f"the text is not UTF-8; read as {name} it holds {word!r}")}
    return {}


def _titles(file: Path, dialect: delimited.Dialect) -> Found:
    """Lines before the header."""
    n_lines, titles = delimited.titles(file, dialect)
    seen = ", ".join(repr(title[:30]) for title in titles[:2])
    why = f"the columns are named in line {n_lines + 1}; before it {seen}"
    return {"skip_rows": (n_lines, why)} if titles else {}


def _numbers(cells: dict[str, list[str]], dialect: delimited.Dialect) -> Found:
    """How numbers are written: so that most columns, and most cells of them, are numbers."""
    texts = [
        replace(dialect.text, decimal=decimal, thousands=thousands)
        for decimal, thousands in _FORMATS
    ]
    scores = {text: _score(text, cells) for text in texts}
    best = max(texts, key=lambda text: scores[text])
    english = next(text for text in texts if (text.decimal, text.thousands) == (".", ","))
    as_grouped = (best.decimal, best.thousands) == (",", None) and scores[english] == scores[best]
    if as_grouped and dialect.delimiter == ",":
        best = english
    plain, found = texts[0], {}
    for key, default in (("decimal", plain.decimal), ("thousands", plain.thousands)):
        value = getattr(best, key)
        if value != default:
            name, cell = next(
                (name, cell)
                for name, column in cells.items()
                for cell in column
                if value in cell and best.plain(cell, best.sign_of(column) or "") is not None
            )
            read = best.plain(cell, best.sign_of(cells[name]) or "")
            doubt = "; it may be meant otherwise, look at the ranges" * as_grouped
            found[key] = (value, f"{name}: {cell!r} is read as {read}{doubt}")
    return found


def _score(text: TextFormat, cells: dict[str, list[str]]) -> tuple[int, int]:
    """How many columns are numbers, and how many cells of these."""
    n_columns = n_cells = 0
    for column in cells.values():
        present = [cell for cell in column if not text.is_missing(cell)]
        sign = text.sign_of(present) or ""
        n = sum(text.plain(cell, sign) is not None for cell in present)
        if n > (1 - TYPO_SHARE) * len(present):
            n_columns, n_cells = n_columns + 1, n_cells + n
    return n_columns, n_cells


def _missing(cells: dict[str, list[str]], text: TextFormat) -> Found:
    """Words that come back in columns of numbers, and Excel's errors among names."""
    missing: dict[str, str] = {}
    for name, column in cells.items():
        present = [cell for cell in column if not text.is_missing(cell)]
        sign = text.sign_of(present) or ""
        others = Counter(cell for cell in present if text.plain(cell, sign) is None)
        if sum(others.values()) < 0.5 * len(present):
            wordy = [c for c, n in others.items() if n > 1 and not re.search(r"\d", c)]
            missing |= dict.fromkeys(wordy if len(wordy) == len(others) <= 3 else (), name)
        else:
            missing |= dict.fromkeys(set(EXCEL_ERRORS).intersection(column), name)
    if not missing:
        return {}
    why = ", ".join(f"{cell!r} in {name}" for cell, name in missing.items())
    return {"missing_values": (list(missing), f"{why} seem to stand for missing cells")}
