"""Quotes of delimited text that belong to no quoted cell: where two of them may pair."""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING

import numpy as np

from fmexp.data import files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


Record = tuple[int, list[str], str]
"""One record of a text: the number of its first line, its cells, and as it is written."""


def count(file: Path, delimiter: str, encoding: str) -> tuple[int, bool]:
    """How many quotes a file holds, and whether some may pair outside quoted cells.

    In a well-formed text every other quote, from the first on, opens a cell or follows another
    quote (a doubled one), and the rest close a cell or precede another quote. From where that no
    longer holds, each line with two quotes must hold to it by itself.
    """
    if not any(b'"' in chunk for chunk in files.chunks(file)):  # ten times as fast as counting
        return 0, False
    if '"'.encode(encoding) != b'"':  # UTF-16 and its like
        return sum(chunk.count(b'"') for chunk in files.chunks(file)), True
    delimits = np.zeros(256, bool)
    delimits[[*b'\r\n"', ord(delimiter)]] = True
    n_quotes, may_pair, well_formed = 0, False, True
    for lines in _whole_lines(file):
        if b'"' not in lines:
            continue
        text = np.frombuffer(b"\n" + lines + b"\n", np.uint8)
        quotes = np.flatnonzero(text == ord('"'))
        first = n_quotes % 2
        opening, closing = quotes[first::2], quotes[1 - first :: 2]
        well_formed = well_formed and bool(
            delimits[text[opening - 1]].all() and delimits[text[closing + 1]].all()
        )
        may_pair = may_pair or (not well_formed and _may_pair(text, quotes, delimits))
        n_quotes += len(quotes)
    return n_quotes, may_pair


def _whole_lines(file: Path) -> Iterator[bytes]:
    """The bytes of a file, cut at line ends where there are any."""
    rest = b""
    for chunk in files.chunks(file):
        text = rest + chunk
        end = 1 + max(text.rfind(b"\n"), text.rfind(b"\r")) or len(text)
        yield text[:end].removeprefix(codecs.BOM_UTF8)
        rest = text[end:]
    yield rest


def _may_pair(text: np.ndarray, quotes: np.ndarray, delimits: np.ndarray) -> bool:
    """Whether a line with two quotes is not well-formed by itself."""
    line = np.searchsorted(np.flatnonzero((text == ord("\n")) | (text == ord("\r"))), quotes)
    opens = (np.arange(len(line)) - np.searchsorted(line, line)) % 2 == 0
    wrong = ~delimits[text[np.where(opens, quotes - 1, quotes + 1)]]
    return bool((wrong & (np.bincount(line)[line] >= 2)).any())


def paired(record: Record, delimiter: str) -> tuple[int, int] | None:
    """The first two unquoted cells whose quotes pair with each other around a delimiter."""
    _, read, text = record
    if sum('"' in cell for cell in read) < 2:
        return None
    d = re.escape(delimiter)
    cells = re.findall(rf'("(?:[^"]|"")*"|[^{d}]*)(?:{d}|\Z)', text.rstrip("\r\n"))
    odd = [j for j, cell in enumerate(cells) if cell[:1] != '"' and cell.count('"') % 2]
    return (odd[0], odd[1]) if len(odd) > 1 else None


def explain(record: Record, names: list[str], first: int, second: int) -> str:
    """What is wrong with a record whose quotes in two cells pair, in words."""
    line, read, _ = record
    cells = read[first], read[second]
    where = [repr(names[j]) if j < len(names) else f"cell {j + 1}" for j in (first, second)]
    return (
        f"line {line}, column {where[0]}: the quote within {cells[0][:40]!r} seems to close "
        f"in column {where[1]} ({cells[1][:40]!r}): quote the whole cell, mend a lost "
        f"separator, or set data.quoting=false (a quote is a character like others)"
    )
