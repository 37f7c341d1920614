"""How a raw table becomes feature rows and targets: the columns' schema with its statistics."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from fmexp.data.cells import TextFormat, id_text
from fmexp.data.features import CSR, Features
from fmexp.data.table import BLOCK, Column, Table, Text, text_of_numbers
from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Numeric:
    """A numeric column; its feature is (x - offset) / scale.

    Attributes:
        name: the column's.
        offset: subtracted; the training mean, 0 for a column that stays sparse.
        scale: divided by; never 0.
        fill: stands in for a missing cell; None where missing cells are refused.
        marked: whether a second feature is 1 where the cell is missing and 0 elsewhere; it exists
            where training rows had missing cells.
        date: of a column of dates how they are written (strptime's format); x is then the days
            since 1970-01-01.
        sign: the percent or currency sign that text has beside each number.
    """

    name: str
    offset: float = 0.0
    scale: float = 1.0
    fill: float | None = None
    marked: bool = False
    date: str | None = None
    sign: str | None = None

    @property
    def width(self) -> int:
        """Number of features."""
        return 1 + self.marked


@dataclass(frozen=True)
class Categorical:
    """A column of names; each category that the training part has is one feature.

    Attributes:
        name: the column's.
        categories: those of the training part, sorted (as integers where all are).
        rare: whether a last feature stands for all categories that are not listed. It exists
            when the training part had some that were too rare to be listed. Without it an
            unknown category adds nothing to the score, as its parameters would be zero.
    """

    name: str
    categories: tuple[str, ...]
    rare: bool = False

    @property
    def width(self) -> int:
        """Number of features."""
        return len(self.categories) + self.rare

    def numbers_of(self, names: list[str]) -> np.ndarray:
        """The position of each name among the categories, -1 for others; int32, shape (n_names,).

        An id that is written 196.0 is the category 196 and the other way round: whatever has made
        a column floating point (pandas, where a cell is missing) writes its ids so.
        """
        number = {category: i for i, category in enumerate(self.categories)}
        whole: dict[str, int] = {}
        for category, i in number.items():
            whole.setdefault(id_text(category), i)
        return np.array([number.get(n, whole.get(id_text(n), -1)) for n in names], np.int32)


@dataclass(frozen=True)
class Block:
    """Features that have numbers instead of names (libsvm text, scipy matrices).

    Attributes:
        first: number of the first feature in the source (0 or 1).
        n_features: how many the training rows have; later ones are unknown and add nothing.
        sparse: whether rows stay sparse; else each feature is also in `Encoder.numeric`.
        scales: what each sparse feature is divided by; None for 1.
    """

    first: int
    n_features: int
    sparse: bool
    scales: tuple[float, ...] | None = None

    def names(self) -> list[str]:
        """The features' numbers in the source."""
        return [str(self.first + j) for j in range(self.n_features)]

    def rows(self, table: Table) -> CSR:
        """The table's rows, features counted from 0, without unknown ones and zeros, scaled."""
        block = _block(table)
        values = block.values_or_ones()
        if not np.isfinite(values).all():
            raise DataError("the values of features must be finite numbers")
        indices = (block.indices - self.first).astype(np.int32)
        known = (indices >= 0) & (indices < self.n_features) & (values != 0)
        rows = CSR(block.indptr, indices, values, self.n_features).keep(known)
        values = rows.values_or_ones()
        if self.scales is not None:
            values = values / np.asarray(self.scales)[rows.indices]
        return replace(rows, values=None if (values == 1).all() else values)


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
        """The columns that a table must have."""
        if self.block is not None:
            return [BLOCK]
        return [c.name for c in self.numeric] + [c.name for c in self.categorical]

    @property
    def dates(self) -> dict[str, str]:
        """The numeric columns that hold dates, and how these are written."""
        return {column.name: column.date for column in self.numeric if column.date}

    @property
    def signs(self) -> dict[str, str]:
        """The numeric columns whose numbers stand with a sign in text, and that sign."""
        return {c.name: c.sign for c in self.numeric if c.sign is not None}

    def features(self, table: Table) -> Features:
        """Feature rows of a table, shape (n_rows, n_features); further columns are ignored.

        Raises:
            DataError: a column is missing, or a cell is no finite number.
        """
        if self.block is not None and self.block.sparse:
            return self.block.rows(table)
        if self.block is None:
            self.check_columns(list(table.columns), "the table")
        return self._sparse_rows(table) if self.sparse else self._dense_rows(table)

    def check_columns(self, names: list[str], where: str) -> None:
        """Refuse a table without the columns that the features are made of.

        Raises:
            DataError: naming those that are missing.
        """
        missing = sorted(set(self.column_names) - set(names), key=self.column_names.index)
        if missing:
            raise DataError(
                f"{where} has no column {listed(missing)}; the model needs "
                f"{listed(self.column_names)}, there are {listed(names)}"
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
                Categorical(c["name"], tuple(c["categories"]), c["rare"])
                for c in stored["categorical"]
            ),
            block=_block_of_json(stored["block"]) if stored["block"] else None,
            sparse=stored["sparse"],
            text=_text_of_json(stored.get("text", {})),
        )

    def _dense_rows(self, table: Table) -> np.ndarray:
        if self.block is not None:
            names, raw = self.block.names(), self.block.rows(table).to_dense()
            table = Table({name: raw[:, j] for j, name in enumerate(names)})
        X = np.empty((len(table), self.n_features))
        for feature, (_, values) in enumerate(self._numeric_features(table)):
            X[:, feature] = values
        return X

    def _sparse_rows(self, table: Table) -> CSR:
        entries = list(self._entries(table))
        n_rows = len(table)
        counts = np.zeros(n_rows, np.int64)
        for rows, _, _ in entries:
            counts[rows] += 1
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        indices = np.empty(indptr[-1], np.int32)
        values = None if all(v is None for _, _, v in entries) else np.ones(indptr[-1])
        following = indptr[:-1].copy()
        for rows, features, numbers in entries:
            at = following[rows]
            indices[at] = features
            if values is not None and numbers is not None:
                values[at] = numbers
            following[rows] += 1
        return CSR(indptr, indices, values, self.n_features)

    def _numeric_features(self, table: Table) -> Iterator[tuple[Numeric, np.ndarray]]:
        """The feature columns of the numeric columns: the number, then whether it was missing."""
        for column in self.numeric:
            x = numbers_of(column.name, table.columns[column.name])
            missing = np.isnan(x)
            if column.fill is not None:
                x = np.where(missing, column.fill, x)
            yield column, (finite(column.name, x) - column.offset) / column.scale
            if column.marked:
                yield column, missing.astype(np.float64)

    def _entries(
        self, table: Table
    ) -> Iterator[tuple[np.ndarray | slice, int | np.ndarray, np.ndarray | None]]:
        """Row numbers, feature numbers and values of what is not zero; None for all ones."""
        feature = 0
        for _, numbers in self._numeric_features(table):
            rows = np.flatnonzero(numbers)
            values = numbers[rows]
            yield rows, feature, None if (values == 1).all() else values
            feature += 1
        for field in self.categorical:
            codes = category_codes(field, table.columns[field.name])
            if (codes >= 0).all():
                yield slice(None), codes + np.int32(feature), None
            else:
                rows = np.flatnonzero(codes >= 0)
                yield rows, codes[rows] + np.int32(feature), None
            feature += field.width


def category_codes(field: Categorical, column: Column) -> np.ndarray:
    """The category number of every row, -1 for none; int32, shape (n_rows,)."""
    text = column if isinstance(column, Text) else text_of_numbers(column)
    lookup = field.numbers_of(text.names)
    if field.rare:
        lookup[lookup < 0] = len(field.categories)
    codes: np.ndarray = lookup[text.codes]
    return codes


def numbers_of(name: str, column: Column) -> np.ndarray:
    """The column as float64, shape (n_rows,); text is refused."""
    if isinstance(column, Text):
        example = next(iter(column.names), "")
        raise DataError(f"column {name!r} must hold numbers, got text such as {example!r}")
    return np.asarray(column, np.float64)


def finite(name: str, x: np.ndarray) -> np.ndarray:
    """The same numbers; missing and infinite ones are refused, with the first one's place."""
    wrong = np.flatnonzero(~np.isfinite(x))
    if len(wrong):
        got = "missing values" if np.isnan(x[wrong[0]]) else f"{x[wrong[0]]:g}"
        raise DataError(
            f"column {name!r} must hold finite numbers, got {got} in {len(wrong)} rows, "
            f"the first at row {wrong[0] + 1}"
        )
    return x


def _block(table: Table) -> CSR:
    if table.block is None:
        raise DataError("the model needs sparse rows (libsvm text or a scipy matrix)")
    return table.block


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


def listed(names: list[str]) -> str:
    """The first names, quoted, and how many more there are."""
    more = f" and {len(names) - 8:,} more" if len(names) > 8 else ""
    return ", ".join(repr(name) for name in names[:8]) + more
