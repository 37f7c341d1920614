"""Learning an encoding from the training rows, and from nothing else."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from fmexp.data.cells import MISSING, MISSING_TARGET_HINT
from fmexp.data.encode import Encoder
from fmexp.data.fields import (
    Block,
    Categorical,
    Numeric,
    finite,
    listed,
    numbers_of,
    sorted_names,
)
from fmexp.data.history import HistoryStatistics
from fmexp.data.statistics import BlockStatistics, NameStatistics, NumberStatistics
from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from fmexp.data.schema import Schema
    from fmexp.data.table import Table

SPARSE_BELOW = 0.25
"""A numeric table with a smaller share of non-zero cells than this is kept as CSR."""


@dataclass(frozen=True)
class Learning:
    """What `learn` is asked for.

    Attributes:
        task: regression or classification.
        standardize: centre and scale numeric columns and a regression target.
        min_count: categories with fewer training rows share one feature.
        fill_missing: missing numbers become the mean, with a feature that marks them.
        date_parts: weekday, month or hour of each column of dates, as categories.
        list_weight: of each of n categories in a cell: sqrt (1/sqrt(n)), mean (1/n) or one.
        history: columns of users, each with the column of items that make their histories.
        history_own: whether a row's own item is among those of its history.
    """

    task: str = "regression"
    standardize: bool = True
    min_count: int = 1
    fill_missing: bool = False
    date_parts: tuple[str, ...] = ()
    list_weight: str = "sqrt"
    history: Mapping[str, str] = dataclasses.field(default_factory=dict)
    history_own: bool = True


def learn(
    training: Callable[[], Iterable[Table]], schema: Schema, learning: Learning, first: int = 0
) -> Encoder:
    """Learn the encoding from the training rows.

    Args:
        training: gives the rows of the training part, chunk by chunk, as often as it is called.
        schema: what each column is for.
        learning: how.
        first: number of the first feature of a block of sparse rows.

    Raises:
        DataError: a number is missing or not finite, or the labels are not two.
    """
    seen = _Seen(schema, learning, training())
    block, numbers = None, seen.numbers
    if seen.block.n_rows:
        block = _learn_block(seen.block, learning, first)
        if not block.sparse:
            numbers = _column_statistics(block, training())
    has_names = bool(seen.fields or seen.histories)
    sparse = block.sparse if block else has_names or seen.density() < SPARSE_BELOW
    histories = [each.learn(learning.min_count, learning.history_own) for each in seen.histories]
    offset, scale, (low, high), labels = seen.learn_target()
    return Encoder(
        target_name=schema.target,
        target_offset=offset,
        target_scale=scale,
        target_range=(low, high),
        labels=labels,
        numeric=tuple(
            replace(
                _learn_date(name, x, learning)
                if name in schema.dates
                else _learn_numeric(name, x, learning, sparse=sparse, keep_zeros=not has_names),
                date=schema.dates.get(name),
                sign=schema.signs.get(name),
            )
            for name, x in numbers.items()
        ),
        categorical=(
            *(_learn_categorical(f, n, learning.min_count) for f, n in seen.fields),
            *(field for _, field in histories),
        ),
        block=block,
        sparse=sparse,
        text=schema.text,
        joins=(*schema.joins, *(join for join, _ in histories)),
    )


class _Seen:
    """Statistics of all columns of the training rows."""

    def __init__(self, schema: Schema, learning: Learning, training: Iterable[Table]) -> None:
        self.target, self.learning = schema.target, learning
        self.numbers = {name: NumberStatistics() for name in schema.numeric}
        fields = [
            Categorical(name, (), separator=separator, weight=separator and learning.list_weight)
            for name in schema.categorical
            for separator in [schema.lists.get(name)]
        ]
        fields += [
            Categorical(f"{name} ({part})", (), part=part)
            for name in schema.numeric
            for part in learning.date_parts
            if name in schema.dates
        ]
        self.fields = [(field, NameStatistics()) for field in fields]
        self.histories = [HistoryStatistics(*each) for each in learning.history.items()]
        self.block = BlockStatistics()
        self.labels, self.y = NameStatistics(), NumberStatistics()
        for table in training:
            self._add(table)

    def _add(self, table: Table) -> None:
        for name, numbers in self.numbers.items():
            x = numbers_of(name, table.columns[name])
            numbers.add(x if self.learning.fill_missing else finite(name, x))
        for field, names in self.fields:
            names.add(field.text_of(table), field.split)
        for history in self.histories:
            history.add(table)
        if table.block is not None:
            self.block.add(table.block)
        y = table.columns[self.target]
        if self.learning.task == "classification":
            self.labels.add(y)
        else:
            self.y.add(finite(self.target, numbers_of(self.target, y)))

    def density(self) -> float:
        """The share of numeric cells that are not zero."""
        n_cells = sum(x.n + x.missing for x in self.numbers.values())
        return sum(x.nonzero + x.missing for x in self.numbers.values()) / max(n_cells, 1)

    def learn_target(self) -> tuple[float, float, tuple[float, float], tuple[str, str] | None]:
        """Offset, scale, range and labels of the target."""
        if self.learning.task == "classification":
            return 0.0, 1.0, (0.0, 1.0), _labels(self.target, list(self.labels.counts))
        offset, scale = 0.0, 1.0
        if self.learning.standardize:
            offset, scale = self.y.centre_and_spread(self.target)
        return offset, scale, (self.y.low, self.y.high), None


def _learn_numeric(
    name: str, x: NumberStatistics, learning: Learning, *, sparse: bool, keep_zeros: bool
) -> Numeric:
    """The encoding of a numeric column.

    In a sparse table a column is not centred, so that its zeros stay zeros; unless there are
    categories too (`keep_zeros` is false) and less than half of the column is zeros.
    """
    if x.n == 0:
        raise DataError(f"column {name!r} has no number in the training rows: drop it (data.drop)")
    mean, spread = x.centre_and_spread(name)
    fill = mean if learning.fill_missing else None
    offset, scale = mean, spread
    if not learning.standardize:
        offset, scale = 0.0, 1.0
    elif sparse and (keep_zeros or 2 * x.nonzero < x.n):
        offset, scale = 0.0, x.typical_size(name)
    return Numeric(name, offset, scale, fill, marked=x.missing > 0)


def _learn_date(name: str, x: NumberStatistics, learning: Learning) -> Numeric:
    """Days since the first training row's; standardised like any other number, but never sparse."""
    centred = _learn_numeric(name, x, learning, sparse=False, keep_zeros=False)
    return centred if learning.standardize else replace(centred, offset=x.low)


def _learn_categorical(field: Categorical, names: NameStatistics, min_count: int) -> Categorical:
    frequent = [category for category, n in names.counts.items() if n >= min_count]
    has_rare = len(frequent) < len(names.counts)
    return replace(field, categories=tuple(sorted_names(frequent)), rare=has_rare)


def _learn_block(seen: BlockStatistics, learning: Learning, first: int) -> Block:
    counts, squares = seen.counts[first:], seen.squares[first:]
    n_cells = max(seen.n_rows * len(counts), 1)
    if counts.sum() >= SPARSE_BELOW * n_cells:
        return Block(first, len(counts), sparse=False)
    sizes = np.sqrt(np.divide(squares, counts, out=np.ones(len(counts)), where=counts > 0))
    if not np.isfinite(sizes).all() or (sizes == 0).any():
        j = first + int(np.flatnonzero(~np.isfinite(sizes) | (sizes == 0))[0])
        raise DataError(f"feature {j} has numbers whose squares do not fit: rescale it")
    if not learning.standardize or (sizes == 1).all():
        return Block(first, len(counts), sparse=True)
    return Block(first, len(counts), sparse=True, scales=tuple(sizes.tolist()))


def _column_statistics(block: Block, training: Iterable[Table]) -> dict[str, NumberStatistics]:
    """Statistics of a block that is dense enough to become columns."""
    found = {name: NumberStatistics() for name in block.names()}
    for table in training:
        X = block.rows(table).to_dense()
        for j, numbers in enumerate(found.values()):
            numbers.add(np.ascontiguousarray(X[:, j]))
    return found


def _labels(name: str, found: list[str]) -> tuple[str, str]:
    """The two distinct labels of the training part; the first stands for 0."""
    if "" in found or (len(found) > 2 and MISSING.intersection(found)):
        missing = sorted(MISSING.intersection(found))
        raise DataError(
            f"the target {name!r} is missing in some rows (cells {listed(missing)}) "
            f"{MISSING_TARGET_HINT}"
        )
    if len(found) != 2:
        raise DataError(
            f"task=classification needs a target of two labels, column {name!r} has {len(found):,} "
            f"in the training rows: {listed(sorted(found))}"
        )
    try:
        low, high = sorted(found, key=float)
    except ValueError:
        low, high = sorted(found)
    return low, high
