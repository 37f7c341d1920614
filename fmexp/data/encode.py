"""How a raw table becomes feature rows and targets: the columns' schema with its statistics."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from fmexp.data.cells import TextFormat
from fmexp.data.fields import Block, Categorical, Numeric, finite, listed, numbers_of
from fmexp.data.joins import Join
from fmexp.data.related import FeatureRows, Related, expanded
from fmexp.data.sparse_rows import (
    Run,
    category_codes,
    n_entries,
    numeric_features,
    runs,
    sparse_rows,
)
from fmexp.data.table import BLOCK, Column, Table, Text, text_of_numbers
from fmexp.errors import DataError

if TYPE_CHECKING:
    from fmexp.data.features import Features


@dataclass(frozen=True)
class Encoder:
    """What was learned from the training part; the features are numeric columns, then categories.

    Attributes:
        target_name: the target's column.
        target_offset: the target in training is (y - target_offset) / target_scale.
        target_scale: never 0.
        target_range: lowest and highest target of the training part, in its own units.
        labels: the names that stand for 0 and 1 in classification, else None.
        numeric: in the order of their features.
        categorical: in the order of their features.
        block: features without names, instead of columns; else None.
        sparse: whether feature rows are CSR.
        text: how the text was written that the table came from; new text is read the same way.
        joins: second tables, whose columns belong to rows by a key.
    """

    target_name: str
    target_offset: float
    target_scale: float
    target_range: tuple[float, float]
    labels: tuple[str, str] | None
    numeric: tuple[Numeric, ...]
    categorical: tuple[Categorical, ...]
    block: Block | None
    sparse: bool
    text: TextFormat = TextFormat()  # noqa: RUF009 -- frozen
    joins: tuple[Join, ...] = ()

    @cached_property
    def feature_names(self) -> list[str]:
        """The name of each feature."""
        names: list[str] = []
        for column in self.numeric:
            names += [column.name, f"{column.name} (missing)"][: column.width]
        for field in self.categorical:
            names += [f"{field.name}={category}" for category in field.categories]
            names += [f"{field.name}=(rare)"] * field.rare
        if self.block is not None and self.block.sparse:
            names += self.block.names()
        return names

    @property
    def n_features(self) -> int:
        """Number of features."""
        if self.block is not None:
            return self.block.n_features
        return sum(c.width for c in self.numeric) + sum(c.width for c in self.categorical)

    @property
    def groups(self) -> np.ndarray:
        """The group of each feature that a hierarchical prior is for; int64, shape (n_features,).

        The numeric columns together are one, and each categorical column is; a block is one.
        """
        if self.block is not None:
            return np.zeros(self.block.n_features, np.int64)
        numeric = sum(column.width for column in self.numeric)
        widths = [numeric] * (numeric > 0) + [field.width for field in self.categorical]
        return np.repeat(np.arange(len(widths)), widths)

    @property
    def column_names(self) -> list[str]:
        """The columns that the features are made of."""
        if self.block is not None:
            return [BLOCK]
        names = [c.name for c in self.numeric] + [c.column for c in self.categorical]
        return list(dict.fromkeys(names))

    @cached_property
    def _joined(self) -> dict[str, Join]:
        """The columns that are joined."""
        return {name: join for join in self.joins for name in join.columns}

    @property
    def own_columns(self) -> list[str]:
        """The columns that a table must have: those above that are not joined, and the keys."""
        names = [name for name in self.column_names if name not in self._joined]
        names += [field.without for field in self.categorical if field.without]
        return list(dict.fromkeys([*names, *(join.key for join in self.joins)]))

    @property
    def number_columns(self) -> list[str]:
        """Those of the table's own that are read as numbers."""
        return [c.name for c in self.numeric if c.name in self.own_columns]

    @property
    def text_columns(self) -> list[str]:
        """Those of the table's own that are read as texts."""
        return [name for name in self.own_columns if name not in self.number_columns]

    def with_joined(self, table: Table, where: str = "the rows", first: int = 0) -> Table:
        """The table with the columns of second tables; arguments as `Join.attach`.

        Raises:
            DataError: a row has a key that the joined table does not have.
        """
        for join in (join for join in self.joins if not join.learned):
            table = join.attach(table, where, first)
        return table.take(slice(None)) if table.references else table

    @property
    def dates(self) -> dict[str, str]:
        """The numeric columns that hold dates, and how these are written."""
        return {column.name: column.date for column in self.numeric if column.date}

    @property
    def separators(self) -> dict[str, str]:
        """What is between the categories of a cell, of the columns that hold several."""
        return {field.column: field.separator for field in self.categorical if field.separator}

    @property
    def signs(self) -> dict[str, str]:
        """The numeric columns whose numbers stand with a sign in text, and that sign."""
        return {c.name: c.sign for c in self.numeric if c.sign is not None}

    def features(self, table: Table) -> Features:
        """Feature rows of a table, shape (n_rows, n_features); further columns are ignored.

        Raises:
            DataError: a column is missing, or a cell is no finite number.
        """
        return expanded(self.feature_rows(table))

    def feature_rows(self, table: Table) -> FeatureRows:
        """The same, with long runs of features that rows share kept once."""
        if self.block is not None and self.block.sparse:
            return self.block.rows(table)
        if self.block is None:
            self.check_columns(list(table.columns), "the table")
        if not self.sparse:
            return self._dense_rows(self.with_joined(table))
        mine = [placed for placed in self._placed if placed[1].column not in self._joined]
        own = sparse_rows(table, mine, self.n_features)
        short = tuple(run.of(table) for run in self._runs if not run.is_shared)
        if short:
            own = Related(own, short).expand()
        shared = tuple(run.of(table) for run in self.shared_runs)
        return Related(own, shared) if shared else own

    @cached_property
    def _runs(self) -> list[Run]:
        return runs(self._placed, self._joined)

    @property
    def shared_runs(self) -> tuple[Run, ...]:
        """The runs of features that rows share and that are kept once."""
        return tuple(run for run in self._runs if run.is_shared)

    def n_entries(self, table: Table, shared: bool) -> int:
        """How many entries the sparse rows of a table have, zeros among them.

        Args:
            table: the rows.
            shared: whether what rows share counts once.
        """
        n = 0
        for _, column in self._placed:
            if column.column in self._joined:
                continue
            n += n_entries(column, table)
        for run in self._runs:
            n += run.n_entries() if shared and run.is_shared else run.n_entries(table)
        return n

    def check_columns(self, names: list[str], where: str) -> None:
        """Refuse a table without the columns that the features are made of.

        Raises:
            DataError: naming those that are missing.
        """
        missing = [name for name in self.own_columns if name not in names]
        if missing:
            raise DataError(
                f"{where} has no column {listed(missing)}; the model needs "
                f"{listed(self.own_columns)}, there are {listed(names)}"
            )

    def target(self, table: Table) -> np.ndarray:
        """The targets as they are trained on; float64, shape (n_rows,).

        Raises:
            DataError: a target is missing, not finite, or none of the two labels.
        """
        column = table.columns[self.target_name]
        if self.labels is not None:
            return _label_codes(self.target_name, column, self.labels)
        y = finite(self.target_name, numbers_of(self.target_name, column))
        return (y - self.target_offset) / self.target_scale

    def decode_target(self, target: np.ndarray) -> np.ndarray:
        """Targets or scores of a regression in the target's own units; 0 and 1 stay."""
        return target * self.target_scale + self.target_offset

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON knows it."""
        return asdict(self)

    @staticmethod
    def from_json(stored: dict[str, Any]) -> Encoder:
        """The encoder that `to_json` wrote.

        Raises:
            ValueError, KeyError, TypeError: it did not write this.
        """
        low, high = stored["target_range"]
        labels = stored["labels"]
        return Encoder(
            target_name=stored["target_name"],
            target_offset=stored["target_offset"],
            target_scale=stored["target_scale"],
            target_range=(low, high),
            labels=(labels[0], labels[1]) if labels else None,
            numeric=tuple(Numeric(**column) for column in stored["numeric"]),
            categorical=tuple(
                Categorical(**(c | {"categories": tuple(c["categories"])}))
                for c in stored["categorical"]
            ),
            block=_block_of_json(stored["block"]) if stored["block"] else None,
            sparse=stored["sparse"],
            text=_text_of_json(stored.get("text", {})),
            joins=tuple(
                Join(**(join | {"keys": tuple(join["keys"])})) for join in stored.get("joins", ())
            ),
        )

    def _dense_rows(self, table: Table) -> np.ndarray:
        if self.block is not None:
            names, raw = self.block.names(), self.block.rows(table).to_dense()
            table = Table({name: raw[:, j] for j, name in enumerate(names)})
        X = np.empty((len(table), self.n_features))
        columns = (x for column in self.numeric for x in numeric_features(column, table))
        for feature, values in enumerate(columns):
            X[:, feature] = values
        return X

    @cached_property
    def _placed(self) -> list[tuple[int, Numeric | Categorical]]:
        """The columns, each with its first feature."""
        columns: list[Numeric | Categorical] = [*self.numeric, *self.categorical]
        starts = np.cumsum([0, *(column.width for column in columns)]).tolist()
        return list(zip(starts, columns, strict=False))


def _block_of_json(stored: dict[str, Any]) -> Block:
    scales = stored["scales"]
    return Block(
        stored["first"], stored["n_features"], stored["sparse"], tuple(scales) if scales else None
    )


def _text_of_json(stored: dict[str, Any]) -> TextFormat:
    return TextFormat(**(stored | {"missing": tuple(stored.get("missing", ()))}))


def _label_codes(name: str, column: Column, labels: tuple[str, str]) -> np.ndarray:
    text = column if isinstance(column, Text) else text_of_numbers(column)
    codes = category_codes(Categorical(name, labels), text)
    unknown = np.flatnonzero(codes < 0)
    if len(unknown):
        raise DataError(
            f"column {name!r} must hold {labels[0]!r} or {labels[1]!r} (the labels of the "
            f"training rows), got {text.names[text.codes[unknown[0]]]!r} in row {unknown[0] + 1}"
        )
    return codes.astype(np.float64)
