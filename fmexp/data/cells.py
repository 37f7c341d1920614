"""What the text of a single cell means: a number, an id, or nothing."""

from __future__ import annotations

import re

MISSING = frozenset(
    ["", "NA", "N/A", "n/a", "NaN", "nan", "NAN", "null", "NULL", "None", "none", "?", "-"]
)
"""Cells of a column of numbers that stand for a missing one."""

MISSING_HINT = "(data.missing=mean fills features; `fmexp data`: --missing mean)"

MISSING_TARGET_HINT = "(data.missing_target=drop leaves rows without a target out)"

_NUMBER = re.compile(
    r"[ \t]*[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|inf|infinity)[ \t]*", re.IGNORECASE
)


def is_number(cell: str) -> bool:
    """Whether a cell reads as a number (infinities too; those are refused by name later)."""
    return _NUMBER.fullmatch(cell) is not None


def number_text(x: float) -> str:
    """The shortest text of a number; whole ones without a point."""
    if x != x:
        return ""
    return str(int(x)) if x.is_integer() and abs(x) < 2**53 else repr(x)


def id_text(text: str) -> str:
    """A whole number without the point and the zeros behind it; other texts as they are."""
    number, point, zeros = text.partition(".")
    if point and not zeros.strip("0") and number.removeprefix("-").isdecimal():
        return number
    return text
