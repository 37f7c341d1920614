"""The role of each column: target, numbers, categories or dropped, as named or inferred."""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fmexp.data import dates
from fmexp.data.cells import MISSING, TYPO_SHARE, TextFormat, is_number
from fmexp.data.read_plan import ReadPlan
from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fmexp.data.joins import Join


TARGETS = ("target", "y", "label", "rating")
"""Names that mark the target where data.target does not."""

REPEATS = 5
"""An integer column whose values come back this often, on average, is taken for names (ids)."""

_INTEGER = re.compile(r"[0-9]+")
_PADDED = re.compile(r"0[0-9]+")


@dataclass(frozen=True)
class Schema:
    """What each column is for.

    Attributes:
        target: the column to predict.
        numeric: columns of numbers, in the table's order.
        categorical: columns of names, in the table's order.
        dropped: columns that are not used.
        notes: what was inferred, in sentences for the user.
        dates: how the cells of those columns are written that hold dates; read as numbers.
        split_by: the column that decides the parts, if one does.
        split_by_text: whether that column is read as texts, not as numbers.
        missing_labels: texts of the target that stand for a missing label.
        text: how characters and numbers are written, where the table is text.
        signs: the percent or currency sign beside the numbers of a column; see `ReadPlan`.
        lists: the categorical columns with several categories in a cell, and their separators.
        keys: columns of keys to joined tables and of histories, which are read as texts.
        joins: the joined tables.
        weight: the column of the rows' weights, which is no feature; None: all count the same.
    """

    target: str
    numeric: Sequence[str] = ()
    categorical: Sequence[str] = ()
    dropped: Sequence[str] = ()
    notes: Sequence[str] = ()
    dates: Mapping[str, str] = field(default_factory=dict)
    split_by: str | None = None
    split_by_text: bool = True
    missing_labels: frozenset[str] = MISSING
    text: TextFormat = TextFormat()  # noqa: RUF009 -- frozen
    signs: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, str] = field(default_factory=dict)
    keys: Sequence[str] = ()
    joins: tuple[Join, ...] = ()
    weight: str | None = None

    def read_plan(self, task: str, fill_missing: bool, drop_missing_targets: bool) -> ReadPlan:
        """What a reader is to read.

        Args:
            task: regression or classification, whose target is read as texts.
            fill_missing: numeric columns may have missing cells.
            drop_missing_targets: so may the target; such rows are left out.
        """
        numbers = dict.fromkeys(self.numeric, fill_missing)
        texts = list(self.categorical)
        if task == "classification":
            texts.append(self.target)
        else:
            numbers[self.target] = drop_missing_targets
        if self.weight:
            numbers[self.weight] = False
        if self.split_by and self.split_by not in [*numbers, *texts]:
            if self.split_by_text:
                texts.append(self.split_by)
            else:
                numbers[self.split_by] = False
        texts += [key for key in self.keys if key not in texts]
        labels = self.missing_labels if drop_missing_targets else None
        return ReadPlan(
            numbers, texts, self.dates, self.target, labels, self.signs, self.weight or ""
        )


@dataclass(frozen=True)
class ColumnOptions:
    """What the user said about the columns (data.target, data.numeric, ...); None: infer.

    Attributes:
        target: the column to predict.
        numeric: columns of numbers.
        categorical: columns of names.
        drop: columns that are not used.
        split_by: group, time or column, and the column that decides the parts (split.by).
        dates: columns of dates, each with its format (data.dates).
        lists: columns with several categories in a cell, each with its separator (data.lists).
        keys: columns of keys to joined tables (data.joins).
        history: columns of users, each with the column of its items (data.history).
        weight: the column of the rows' weights (data.weight); None: there is none.
    """

    target: str | None = None
    numeric: Sequence[str] | None = None
    categorical: Sequence[str] | None = None
    drop: Sequence[str] = ()
    split_by: tuple[str, str] | None = None
    dates: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, str] = field(default_factory=dict)
    keys: Sequence[str] = ()
    history: Mapping[str, str] = field(default_factory=dict)
    weight: str | None = None

    @property
    def names(self) -> dict[str, str]:
        """The columns that must be names, each with the key that says so."""
        of_history = [*self.history, *self.history.values()]
        return dict.fromkeys(of_history, "data.history") | dict.fromkeys(self.keys, "data.joins")


def infer(
    sample: dict[str, list[str]],
    n_rows: float,
    options: ColumnOptions,
    where: str,
    task: str,
    signs: Mapping[str, str] | None = None,
) -> Schema:
    """The schema of a table, from its first rows.

    Args:
        sample: the cells of the first rows as texts, by column; numbers without their signs.
        n_rows: how many rows the whole table has, about.
        options: what the user said.
        where: the table, for messages.
        task: regression or classification.
        signs: as `Schema.signs`, of every column of numbers.

    Raises:
        DataError: a column that was named is not there or named twice, there is no target, or
            nothing is left to learn from.
    """
    names = list(sample)
    target = options.target or find_target(names, where)
    _check_names(names, target, options, where)
    notes = [] if options.target else [f"target: {target} (by its name)"]
    said, signs = _said(options), signs or {}
    others = [name for name in names if name not in (target, options.weight)]
    iso = [n for n in others if said.get(n) != "categorical" and _is_iso(sample[n])]
    numbers = {name: f"numbers with {sign or 'grouped digits'}" for name, sign in signs.items()}
    numbers |= {name: f"dates, {dates.ISO}; or data.categorical=[{name}]" for name in iso}
    roles: dict[str, list[str]] = {"numeric": [], "categorical": [], "dropped": []}
    for name in others:
        role, why = _role(name, sample[name], n_rows, said.get(name), options.split_by)
        if name in numbers and name not in said and name not in (options.split_by or ()):
            role, why = "numeric", numbers[name]
        roles[role].append(name)
        if why:
            notes.append(f"{role}: {name} ({why})")
    if not roles["numeric"] and not roles["categorical"]:
        raise DataError(
            "\n".join([f"{where}: no column is left to predict {target!r} from", *notes])
        )
    if task == "regression":
        _check_numeric_target(target, sample[target], where)
    return Schema(
        target,
        roles["numeric"],
        roles["categorical"],
        roles["dropped"],
        notes,
        dates=dict.fromkeys(iso, dates.ISO) | dict(options.dates),
        split_by=options.split_by[1] if options.split_by else None,
        split_by_text=_is_split_by_text(sample, options),
        missing_labels=_missing_labels(sample[target]),
        signs=signs,
        lists=dict(options.lists),
        keys=list(options.names),
        weight=options.weight,
    )


def _missing_labels(cells: list[str]) -> frozenset[str]:
    """What stands for no label: of two labels both are ones, however they read."""
    labels = {cell.strip() for cell in set(cells)} - {""}
    return MISSING if len(labels) > 2 else frozenset([""])


def _said(options: ColumnOptions) -> dict[str, str]:
    """The role of each column that the user named."""
    decides = options.split_by[1] if options.split_by else None
    said = dict.fromkeys((n for n in options.dates if n != decides), "numeric")
    said |= dict.fromkeys([*options.lists, *options.names], "categorical")
    said |= dict.fromkeys(options.numeric or (), "numeric")
    said |= dict.fromkeys(options.categorical or (), "categorical")
    return said | dict.fromkeys(options.drop, "dropped")


def _is_split_by_text(sample: dict[str, list[str]], options: ColumnOptions) -> bool:
    """Whether the column that decides the parts is read as texts."""
    kind, column = options.split_by or ("", "")
    return kind != "time" or not (column in options.dates or _all_numbers(sample[column]))


def _role(
    name: str,
    cells: list[str],
    n_rows: float,
    said: str | None,
    split_by: tuple[str, str] | None,
) -> tuple[str, str]:
    """The role of a column, and why where the user did not name it and it needs saying."""
    if split_by and split_by[1] == name and (said is None or split_by[0] == "column"):
        return "dropped", f"it decides the parts (split.by={':'.join(split_by)})"
    return (said, "") if said else _guess(name, cells, n_rows)


def _is_iso(cells: list[str]) -> bool:
    return "-" in "".join(cells[:9]) and dates.are_iso(dict.fromkeys(cells))


def _guess(name: str, cells: list[str], n_rows: float) -> tuple[str, str]:
    """The role that the cells of a column suggest, and why."""
    present = [cell for cell in map(str.strip, cells) if cell not in MISSING]
    if not present:
        return "dropped", "all of its cells are empty"
    distinct = Counter(present)
    share = sum(n for cell, n in distinct.items() if is_number(cell)) / len(present)
    if TYPO_SHARE > 1 - share > 0:
        return "numeric", f"{share:.1%} of its cells are numbers"
    if share < 1:
        unlike = len(distinct) == len(present) >= 20
        why = _numbers_written_otherwise(present) or "every row has another text" * unlike
        return "dropped" if unlike else "categorical", why
    if any(map(_PADDED.fullmatch, distinct)):
        return "categorical", "numbers with leading zeros are names"
    if (
        not all(map(_INTEGER.fullmatch, distinct))
        or distinct.keys() <= {"0", "1"}
        or len(distinct) == 1
    ):
        return "numeric", ""
    if _counts_rows(name, present):
        return "dropped", "it numbers the rows"
    n_distinct = _distinct_in_all(len(distinct), len(present))
    if n_distinct * REPEATS <= n_rows:
        about = f"{'about ' if len(present) < n_rows else ''}{n_distinct:,.0f} integers"
        return "categorical", f"{about} that repeat; if they are quantities, data.numeric=[{name}]"
    return "numeric", ""


def _numbers_written_otherwise(cells: list[str]) -> str:
    """What to do where texts are numbers with commas; "" for other texts."""
    forms = TextFormat(decimal=",", thousands="."), TextFormat(thousands=",")
    for form in forms:
        sign = form.sign_of(cells) or ""
        n = sum(form.plain(cell, sign) is not None for cell in cells[:1000])
        if n > (1 - TYPO_SHARE) * len(cells[:1000]):
            return f"such as {cells[0]!r}; if these are numbers, `fmexp data` finds the keys"
    return ""


def _distinct_in_all(n_distinct: int, n_drawn: int) -> float:
    """How many distinct values there are where n_drawn random ones hold n_distinct.

    Of D values n draws meet D (1 - e^(-n/D)) on average, which grows with D.

    >>> round(_distinct_in_all(3935, 5000), -2)
    10000.0
    """
    if n_distinct == n_drawn:
        return math.inf
    low, high = float(n_distinct), 1e12
    for _ in range(100):
        middle = math.sqrt(low * high)
        met = -middle * math.expm1(-n_drawn / middle)
        low, high = (middle, high) if met < n_distinct else (low, middle)
    return low


def _all_numbers(cells: list[str]) -> bool:
    return all(is_number(cell) for cell in set(cells) if cell.strip() not in MISSING)


def _counts_rows(name: str, cells: list[str]) -> bool:
    """Whether a nameless or so-named column just counts up."""
    so_named = name.lower() in ("index", "id", "row", "unnamed: 0") or name.startswith("column ")
    if not so_named or len(cells) < 3:
        return False
    return bool((np.diff(np.array(cells, np.float64)) == 1).all())


def find_target(names: list[str], where: str) -> str:
    """The one column that is named as targets are.

    Raises:
        DataError: there is none, or several.
    """
    found = [name for name in names if name.lower() in TARGETS]
    if len(found) == 1:
        return found[0]
    raise DataError(
        f"{where}: which column is to be predicted? Say data.target=NAME; "
        f"the columns are {', '.join(map(repr, names))}"
    )


def _check_names(names: list[str], target: str, options: ColumnOptions, where: str) -> None:
    """Every name that the user gave is a column, and each is named once."""
    for name, form in options.dates.items():
        dates.check(form, f"data.dates.{name}")
    for name, separator in options.lists.items():
        if not separator:
            raise DataError(f"data.lists.{name} must be what separates the categories, got ''")
    given = [("data.target", target)]
    given += [("data.weight", options.weight)] if options.weight else []
    for key, listed in (
        ("data.numeric", options.numeric),
        ("data.categorical", options.categorical),
        ("data.drop", options.drop),
        ("data.lists", options.lists),
    ):
        given += [(key, name) for name in listed or ()]
    by = [("split.by", options.split_by[1])] if options.split_by else []
    of_dates = [("data.dates", name) for name in options.dates]
    by += [(key, name) for name, key in options.names.items()]
    for name, key in options.names.items():
        if name in (target, options.weight, *(options.numeric or ())):
            raise DataError(f"{where}: {key} names {name!r}, which is a number: keys are names")
    unknown = [(key, name) for key, name in given + by + of_dates if name not in names]
    if unknown:
        said = "; ".join(f"{key} names {name!r}" for key, name in unknown)
        near = [n for _, name in unknown for n in difflib.get_close_matches(name, names, n=1)]
        guess = f" (did you mean {' and '.join(map(repr, near))}?)" if near else ""
        raise DataError(
            f"{where}: {said}, which is no column{guess}; "
            f"the columns are {', '.join(map(repr, names))}"
        )
    _check_history(names, options, where)
    keys: dict[str, str] = {}
    numbers = set(options.numeric or ()) | set(options.drop)  # may be dates too
    given += [(key, name) for key, name in of_dates if name not in numbers]
    for key, name in given:
        if name in keys:
            raise DataError(
                f"{where}: column {name!r} is in {keys[name]} and in {key}: one of them"
            )
        keys[name] = key


def _check_history(names: list[str], options: ColumnOptions, where: str) -> None:
    """Users and items are two columns, one item a cell, and a column of items has one history."""
    items = list(options.history.values())
    for user, item in options.history.items():
        said = f"{where}: data.history={{{user}: {item}}}"
        if user == item or items.count(item) > 1:
            raise DataError(f"{said}: expected a column of users, and one of items for it alone")
        if item in options.lists:
            raise DataError(f"{said}: expected one item a cell, but data.lists names {item!r}")
        if history_name(item) in names:
            raise DataError(f"{said}: there is a column {history_name(item)!r} already: rename it")


def history_name(item: str) -> str:
    """What the features are called that a column of items gives its users' rows."""
    return f"history:{item}"


def _check_numeric_target(target: str, cells: list[str], where: str) -> None:
    present = [cell for cell in cells if cell.strip() not in MISSING]
    wrong = [cell for cell in present if not is_number(cell)]
    if wrong and len(wrong) == len(present):
        raise DataError(
            f"{where}: the target {target!r} holds text such as {wrong[0]!r}; regression needs "
            f"numbers (for two names: task=classification; for numbers that are written otherwise: "
            f"`fmexp data` finds the keys)"
        )
