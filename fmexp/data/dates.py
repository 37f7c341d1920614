"""Dates and times as numbers: days since 1970-01-01, in UTC where they have an offset."""

from __future__ import annotations

import datetime as dt
import math
import re
from typing import TYPE_CHECKING

import numpy as np

from fmexp.data.cells import MISSING
from fmexp.data.table import Text
from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

COMMON = (
    "%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%Y/%m/%d", "%d-%m-%Y", "%m-%d-%Y",
    "%d.%m.%y", "%m/%d/%y", "%d/%m/%y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y",
    "%Y-%m-%d %H:%M:%S", "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S", "%m/%d/%Y %H:%M",
    "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %I:%M:%S %p", "%d/%m/%Y %H:%M", "%d/%m/%Y %H:%M:%S",
)  # fmt: skip
"""How dates are often written, as Python's strptime names it."""

ISO = "ISO 8601"
"""The form of dates as ISO 8601 has them, which needs no format of strptime."""

PARTS = ("weekday", "month", "hour")
"""What of a date can be a category (data.date_parts)."""

_WEEKDAYS = ("Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday")
"""From 1970-01-01 on."""

_ISO = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:?\d\d.*)?")

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def check(form: str, key: str) -> None:
    """Refuse a format that is none, or that leaves the year out.

    Raises:
        DataError: naming `key`.
    """
    if form == ISO:
        return
    moments = (
        dt.datetime(2001, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
        dt.datetime(2012, 2, 3, tzinfo=dt.UTC),
    )
    try:
        texts = [moment.strftime(form) for moment in moments]
        years = [dt.datetime.strptime(text, form).year for text in texts]  # noqa: DTZ007
    except (ValueError, re.error) as error:  # re.error: a part of the date occurs twice
        raise DataError(f"{key} must be a format of strptime, got {form!r}: {error}") from None
    if years != [2001, 2012]:
        raise DataError(f"{key} must hold the year (%Y or %y), got {form!r}")


def days(texts: Iterable[str], form: str) -> np.ndarray:
    """The days of texts in a format of strptime; float64, shape (n_texts,).

    NaN for a missing cell, infinity for a text that is not written so.
    """
    return np.array([_days(text, form) for text in texts], np.float64)


def days_of_objects(values: Iterable[object], form: str) -> np.ndarray:
    """The same for texts, dates, times and numbers of days, mixed."""
    found = []
    for value in values:
        if isinstance(value, str):
            found.append(_days(value, form))
        elif isinstance(value, dt.datetime):
            found.append(_since_1970(value))
        elif isinstance(value, dt.date):
            found.append(_since_1970(dt.datetime(*value.timetuple()[:3], tzinfo=dt.UTC)))
        else:
            found.append(math.nan if value is None or value != value else float(value))  # type: ignore[arg-type]
    return np.array(found, np.float64)


def texts(days: Iterable[float], form: str) -> list[str]:
    """Days as they are written; "" where missing."""
    moments = [None if x != x else _EPOCH + dt.timedelta(days=x) for x in days]
    if form == ISO:
        return [
            m.isoformat().removesuffix("+00:00").removesuffix("T00:00:00") if m else ""
            for m in moments
        ]
    return [moment.strftime(form) if moment else "" for moment in moments]


def part_of(days: np.ndarray, part: str) -> Text:
    """The weekday, month (1 to 12) or hour (0 to 23) of days since 1970-01-01; "" where missing."""
    missing = np.isnan(days)
    moments = np.round(np.where(missing, 0, days) * 86400e6).astype("datetime64[us]")
    names: tuple[str, ...] = _WEEKDAYS
    if part == "weekday":
        codes = moments.astype("datetime64[D]").astype(np.int64) % 7
    elif part == "month":
        names = tuple(str(month + 1) for month in range(12))
        codes = moments.astype("datetime64[M]").astype(np.int64) % 12
    else:
        names = tuple(map(str, range(24)))
        codes = moments.astype("datetime64[h]").astype(np.int64) % 24
    return Text(np.where(missing, len(names), codes).astype(np.int32), [*names, ""])


def are_iso(texts: Iterable[str]) -> bool:
    """Whether all texts that are there are dates, perhaps with times, in ISO 8601."""
    present = [text.strip() for text in texts if text.strip() not in MISSING]
    return bool(present) and all(_ISO.fullmatch(t) and iso_days(t) < math.inf for t in present)


def iso_days(text: str) -> float:
    """The days of a text in ISO 8601 (year and month are enough); infinity for another text."""
    try:
        return _since_1970(dt.datetime.fromisoformat(text.strip()))
    except ValueError:
        found = re.fullmatch(r"(\d{4})(?:-(0[1-9]|1[0-2]))?", text.strip())
    if not found or found[1] == "0000":
        return math.inf
    return _since_1970(dt.datetime(int(found[1]), int(found[2] or 1), 1, tzinfo=dt.UTC))


def fitting(texts: Sequence[str]) -> list[str]:
    """The common formats that all of some texts have."""
    present = [text for text in texts if text.strip() not in MISSING][:1000]
    return [form for form in COMMON if present and all(_days(t, form) < math.inf for t in present)]


def _days(text: str, form: str) -> float:
    text = text.strip()
    if text in MISSING:
        return math.nan
    if form == ISO:
        return iso_days(text)
    try:
        return _since_1970(dt.datetime.strptime(text, form))  # noqa: DTZ007 -- see _since_1970
    except ValueError:
        return math.inf


def _since_1970(moment: dt.datetime) -> float:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return (moment - _EPOCH).total_seconds() / 86400
