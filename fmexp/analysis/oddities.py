"""What looks odd in a table: what often goes wrong, and what is easily overlooked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fmexp.data.table import Table, Text

if TYPE_CHECKING:
    from fmexp.data.encode import Encoder
    from fmexp.data.fields import Categorical


def find(table: Table, encoder: Encoder, y: np.ndarray) -> list[str]:
    """What often goes wrong with such a table, in sentences.

    Args:
        table: all rows.
        encoder: learned from them.
        y: their targets, encoded.
    """
    found = []
    if y.min() == y.max():
        found.append(f"the target {encoder.target_name!r} is the same in all rows")
    elif encoder.labels is None and len(np.unique(y[:10_000])) == 2:
        found.append("the target has two values: task=classification may be what you want")
    if table.left_out:
        found.append(
            f"{table.left_out:,} rows have no {encoder.target_name!r}, the target: "
            "data.missing_target=drop leaves them out"
        )
    for key, n_rows in rows_without(encoder, table).items():
        found.append(
            f"{key}: {n_rows:,} rows have one that the joined table does not have; "
            "data.missing=mean takes what it would join as missing"
        )
    for column in () if encoder.block else encoder.numeric:
        found += _suspicious_numbers(column.name, np.asarray(table.column(column.name)), y)
    found += _history_hint(table, encoder)
    for field in (field for field in encoder.categorical if field.separator is None):
        text = table.column(field.name)
        assert isinstance(text, Text)
        counts = np.bincount(text.codes, minlength=len(text.names))
        if len(field.categories) == 1:
            found.append(f"{field.name}: the same in all rows tells nothing; data.drop to leave it")
        once, n_names = int((counts == 1).sum()), int((counts > 0).sum())
        found += _near_duplicates(field.name, [text.names[i] for i in np.flatnonzero(counts)])
        if n_names > 0.5 * len(text) > 10:
            found.append(
                f"{field.name}: {n_names:,} categories in {len(text):,} rows: most are too rare to "
                f"be learned; 'data.drop=[{field.name}]' if it names the rows"
            )
        elif once > 0.5 * n_names and n_names > 20:
            found.append(
                f"{field.name}: {once:,} of {n_names:,} categories occur once; "
                f"data.min_count=2 lets them share one feature"
            )
        found += _list_hint(field.name, text.names) + _gives_away(field, text, y)
        if "" in text.names and counts[text.names.index("")]:
            empty = int(counts[text.names.index("")])
            found.append(f"{field.name}: {empty:,} empty cells are a category of their own")
    return found


def rows_without(encoder: Encoder, table: Table) -> dict[str, int]:
    """How many rows have a key that a joined table does not have, by the key's column."""
    missing = {join.key: int(join.count(table)[-1]) for join in encoder.joins if join.columns}
    return {key: n for key, n in missing.items() if n}


def _history_hint(table: Table, encoder: Encoder) -> list[str]:
    """What to do where two columns of ids, each pair once, look like users and items."""
    ids = [
        (field.name, text.codes.astype(np.int64), len(text.names))
        for field in encoder.categorical
        if isinstance(text := table.columns.get(field.name), Text)
        if 20 <= len(field.categories) <= 0.5 * len(text)
    ]
    if len(ids) != 2:
        return []
    (user, users, _), (item, items, n_items) = ids
    if len(np.unique(users * n_items + items)) < 0.9 * len(users):
        return []
    key = f"'data.history={{{user}: {item}}}'"
    return [f"{user}, {item}: users and items? {key} gives each row the items of its {user}"]


def _near_duplicates(name: str, names: list[str]) -> list[str]:
    """Categories that differ in case and spaces alone."""
    alike: dict[str, list[str]] = {}
    for category in names:
        alike.setdefault(" ".join(category.casefold().split()), []).append(category)
    several = [group for group in alike.values() if len(group) > 1]
    if not several:
        return []
    shown, more = ", ".join(map(repr, several[0][:3])), len(several) - 1
    others = f" (and {more:,} more such groups)" * bool(more)
    return [f"{name}: {shown} differ in case or spaces only{others}: write them alike in the file"]


def _gives_away(field: Categorical, text: Text, y: np.ndarray) -> list[str]:
    """Whether a column of a few categories says what the target is."""
    counts = np.bincount(text.codes, minlength=len(text.names))
    n_names = int((counts > 0).sum())
    if not 1 < n_names <= 50 or len(y) < 10 * n_names or y.min() == y.max():
        return []
    means = np.bincount(text.codes, y, len(text.names)) / np.maximum(counts, 1)
    left = float(np.square(y - means[text.codes]).mean() / y.var())
    said = f"{field.name}: gives the target away (only {left:.2%} of its variance is left)"
    return [said] if left < 0.002 else []


def _list_hint(name: str, cells: list[str]) -> list[str]:
    """What to do where cells seem to hold several names of a few that come back."""
    for separator in ("|", ";", ","):
        split = [{c.strip() for c in cell.split(separator)} for cell in cells if cell]
        several = sum(len(names) > 1 for names in split)
        if several > 0.3 * len(split) and len(set().union(*split)) < len(split):
            key = f"'data.lists={{{name}: \"{separator}\"}}'"
            return [f"{name}: several categories in a cell? {key} makes a feature of each"]
    return []


def _suspicious_numbers(name: str, x: np.ndarray, y: np.ndarray) -> list[str]:
    present = ~np.isnan(x)
    n_missing = len(x) - int(present.sum())
    x, y = x[present], y[present]
    if len(x) == 0 or x.min() == x.max():
        return [f"{name}: the same number in all rows tells nothing; data.drop=[{name}]"]
    spread, found = x.std(), []
    if n_missing:
        found.append(
            f"{name}: {n_missing:,} missing numbers; data.missing=mean fills and marks them"
        )
    furthest = float(np.abs(x - x.mean()).max() / spread)
    if furthest > 30:
        found.append(f"{name}: a number lies {furthest:.0f} standard deviations from the mean")
    if y.min() < y.max() and len(x) > 9:
        correlation = abs(float(np.corrcoef(x, y)[0, 1]))
        if correlation > 0.999:
            found.append(f"{name}: gives the target away (correlation {correlation:.4f})")
    if np.abs(x).max() > 2**53:
        found.append(f"{name}: whole numbers beyond 2^53 lose digits; ids belong to categorical")
    return found
