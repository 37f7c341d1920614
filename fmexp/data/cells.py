"""What the text of a single cell means: a number, an id, or nothing."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

EXCEL_ERRORS = ("#N/A", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#NULL!")
"""What Excel shows where a formula has no value."""

MISSING = frozenset([
    "", "NA", "N/A", "n/a", "NaN", "nan", "NAN", "-NaN", "-nan", "null", "NULL", "None", "none",
    "?", "-", "<NA>", "#NA", "#N/A N/A", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN", *EXCEL_ERRORS,
])  # fmt: skip
"""Cells of a column of numbers that stand for a missing one, as Excel and pandas have them."""

MISSING_HINT = "(data.missing=mean fills features)"

MISSING_TARGET_HINT = "(data.missing_target=drop leaves rows without a target out)"

TYPO_SHARE = 0.1
"""A column with fewer texts than this share among its numbers is numeric; the texts are errors."""

LIST_SEPARATOR = "\t"
"""Between the categories of a cell where they come as a list, and not as a text."""

_NUMBER = re.compile(
    r"[ \t]*[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|inf|infinity)[ \t]*", re.IGNORECASE
)

THOUSANDS = (None, ",", ".", " ", "'", "_")
"""What may stand between groups of three digits; None: nothing."""

_WRITTEN = {" ": "[ \u00a0\u2009\u202f]", "'": "['\u2019]"}
"""What is written for a separator: spaces that do not break a line, the typographic apostrophe."""


@dataclass(frozen=True)
class TextFormat:
    """How the cells of delimited text are written.

    Attributes:
        encoding: of the characters, as Python names it.
        quoting: whether cells may stand in double quotes.
        decimal: before the fraction of a number: a point or a comma.
        thousands: between groups of three digits; None: they are not grouped.
        missing: texts that stand for a missing cell in every column, beside MISSING in numbers.
    """

    encoding: str = "utf-8"
    quoting: bool = True
    decimal: str = "."
    thousands: str | None = None
    missing: tuple[str, ...] = ()

    def plain(self, cell: str, sign: str = "") -> str | None:
        """A number as Python writes it, without the sign beside it; None: the cell is no such one.

        >>> TextFormat(decimal=",", thousands=".").plain("-1.234,5 €", "€")
        '-1234.5'
        """
        text = cell.strip()
        if sign:
            minus = text[:1] if text[:1] in ("+", "-") else ""
            rest = text.removeprefix(minus).strip()
            beside = rest.removeprefix(sign) if rest.startswith(sign) else rest.removesuffix(sign)
            if beside == rest:
                return None
            text = minus + beside.strip()
        if not self._number.fullmatch(text):
            return None
        if self.thousands:
            text = self._separator.sub("", text)
        return text.replace(self.decimal, ".")

    def number(self, cell: str, sign: str = "") -> float:
        """The number; NaN for a missing cell, infinity for another text."""
        plain = self.plain(cell, sign)
        if plain is None:
            return float("nan" if self.is_missing(cell) else "inf")
        return float(plain)

    def is_missing(self, cell: str) -> bool:
        """Whether a cell of a column of numbers stands for a missing one."""
        return cell in MISSING or cell in self.missing

    def without_missing(self, texts: list[str]) -> list[str]:
        """Texts as they are, but "" for those that stand for a missing cell in every column."""
        missing = frozenset(self.missing)
        return ["" if text in missing else text for text in texts] if missing else texts

    def sign_of(self, cells: Sequence[str]) -> str | None:
        """The percent or currency sign that the numbers of a column stand with.

        "" where their digits are grouped and there is no sign; None for other columns.
        """
        characters = "".join(set("".join(cells)))
        signs = sorted(filter(_is_sign, characters))
        groups = bool(self.thousands and self._separator.search(characters))
        if not signs and not groups:
            return None
        present = [cell for cell in cells if not self.is_missing(cell)]
        least = (1 - TYPO_SHARE) * len(present)
        for sign in signs:
            if sum(self.plain(cell, sign) is not None for cell in present) > least:
                return sign
        numbers = [cell for cell in present if self.plain(cell) is not None]
        is_grouped = groups and len(numbers) > least and any(map(self._separator.search, numbers))
        return "" if is_grouped else None

    def readable(self, cells: list[str], sign: str = "") -> list[str]:
        """Cells whose numbers are as Python writes them, "" for those in `missing`."""
        if (self.decimal, self.thousands, sign) != (".", None, ""):
            cells = [plain if (plain := self.plain(c, sign)) is not None else c for c in cells]
        return self.without_missing(cells)

    def wanted(self, sign: str = "") -> str:
        """What a number looks like, for messages."""
        forms = [
            *(["a decimal comma"] if self.decimal == "," else []),
            *([f"{self.thousands!r} between thousands"] if self.thousands else []),
            *([f"the sign {sign}"] if sign else []),
        ]
        return "a finite number" + (f" with {' and '.join(forms)}" if forms else "")

    @cached_property
    def _separator(self) -> re.Pattern[str]:
        separator = str(self.thousands)
        return re.compile(_WRITTEN.get(separator, re.escape(separator)))

    @cached_property
    def _number(self) -> re.Pattern[str]:
        digits = "[0-9]+"
        if self.thousands:
            digits = f"(?:[0-9]{{1,3}}(?:{self._separator.pattern}[0-9]{{3}})+|[0-9]+)"
        d = re.escape(self.decimal)
        return re.compile(
            rf"[+-]?(({digits}(?:{d}[0-9]*)?|{d}[0-9]+)(e[+-]?[0-9]+)?|inf|infinity)", re.IGNORECASE
        )


def _is_sign(character: str) -> bool:
    return character in "%‰" or unicodedata.category(character) == "Sc"


def is_number(cell: str) -> bool:
    """Whether a cell reads as a number (infinities too; those are refused by name later)."""
    return _NUMBER.fullmatch(cell) is not None


def number_text(x: float) -> str:
    """The shortest text of a number; whole ones without a point."""
    if x != x:
        return ""
    return str(int(x)) if x.is_integer() and abs(x) < 2**53 else repr(x)


def list_text(names: Iterable[object], separator: str = LIST_SEPARATOR) -> str:
    """A list of categories as the text of one cell; None and NaN are none.

    Raises:
        DataError: a category holds what separates them.
    """
    texts = [str(name) for name in names if name is not None and name == name]
    if wrong := [text for text in texts if separator in text]:
        raise DataError(f"expected categories of a list without {separator!r}, got {wrong[0]!r}")
    return separator.join(texts)


def id_text(text: str) -> str:
    """A whole number without the point and the zeros behind it; other texts as they are."""
    number, point, zeros = text.partition(".")
    if point and not zeros.strip("0") and number.removeprefix("-").isdecimal():
        return number
    return text
