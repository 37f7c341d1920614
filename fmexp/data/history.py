"""The items of each user in the training part, as a table that joins rows by the user."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fmexp.data import budget
from fmexp.data.cells import LIST_SEPARATOR
from fmexp.data.fields import Categorical, sorted_names
from fmexp.data.joins import Join
from fmexp.data.schema import history_name
from fmexp.data.table import Dictionary, Table, Text, text_of_numbers
from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

PAIR_BYTES = 60
"""Memory that a user's item takes while histories are learned, about."""


class HistoryStatistics:
    """Which items each user has in the training rows.

    Args:
        user: the column of users. A row without one has no history.
        item: the column of items.
    """

    def __init__(self, user: str, item: str) -> None:
        self.user, self.item = user, item
        self._users, self._items = Dictionary(), Dictionary()
        self._pairs: list[np.ndarray] = []

    def add(self, table: Table) -> None:
        """Take in a chunk of training rows.

        Raises:
            DataError: an item has a tab in its name.
        """
        users = _codes_in(self._users, table, self.user, str)
        items = _codes_in(self._items, table, self.item, str.strip)  # as lists of them are split
        pairs = (users.astype(np.int64) << 32) + items
        self._pairs.append(np.unique(pairs[(users >= 0) & (items >= 0)]))

    def learn(self, min_count: int, own: bool) -> tuple[Join, Categorical]:
        """The users' items as a joined table, and what becomes of them.

        Args:
            min_count: items of fewer users are left out.
            own: whether a row's own item is among them.

        Raises:
            DataError: there is not enough memory.
        """
        n_pairs = sum(map(len, self._pairs))
        budget.claim(PAIR_BYTES * n_pairs, f"the histories of {self.user!r}", "use fewer rows")
        pairs = np.unique(np.concatenate([np.empty(0, np.int64), *self._pairs]))
        users, items = pairs >> 32, pairs & (2**32 - 1)
        counts = np.bincount(items, minlength=len(self._items.names))
        frequent = counts[items] >= min_count
        users, user_names = _in_order(users[frequent], self._users)
        items, item_names = _in_order(items[frequent], self._items)
        order = np.lexsort((items, users))
        names = [item_names[i] for i in items[order].tolist()]
        ends = np.cumsum(np.bincount(users, minlength=len(user_names))).tolist()
        cells = [LIST_SEPARATOR.join(names[a:b]) for a, b in zip([0, *ends], ends, strict=False)]
        name = history_name(self.item)
        join = Join(self.user, tuple(user_names), {name: cells}, may_miss=True, learned=True)
        without = None if own else self.item
        return join, Categorical(
            name, tuple(item_names), separator=LIST_SEPARATOR, weight="sqrt", without=without
        )


def _codes_in(
    dictionary: Dictionary, table: Table, name: str, clean: Callable[[str], str]
) -> np.ndarray:
    """The number of each row's name in the dictionary, -1 for empty cells; int32."""
    column = table.columns[name]
    text = column if isinstance(column, Text) else text_of_numbers(column)
    used = np.unique(text.codes)  # other names may be those of held-out rows
    names = [clean(text.names[code]) for code in used.tolist()]
    if wrong := [each for each in names if LIST_SEPARATOR in each]:
        raise DataError(f"data.history: expected names without tabs in {name!r}, got {wrong[0]!r}")
    numbers = dictionary.codes_of(names)
    numbers[np.array([not each for each in names], bool)] = -1
    return np.asarray(numbers[np.searchsorted(used, text.codes)])


def _in_order(numbers: np.ndarray, dictionary: Dictionary) -> tuple[np.ndarray, list[str]]:
    """Numbers of the names that occur, counted anew in the names' order, and these names."""
    used = np.unique(numbers)
    place = {dictionary.names[i]: i for i in used.tolist()}
    names = sorted_names(list(place))
    rank = np.empty(len(dictionary.names), np.int64)
    rank[[place[name] for name in names]] = np.arange(len(names))
    return rank[numbers], names
