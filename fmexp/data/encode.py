"""The column contract with its statistics: how a raw table becomes feature rows and targets."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from fmexp.data.dataset import CSR, Features
from fmexp.data.table import Column, Table, Text
from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SPARSE_BELOW = 0.25
"""A numeric table with a smaller share of non-zero cells than this is kept as CSR."""


@dataclass(frozen=True)
class Numeric:
    """A numeric column; its feature is (x - offset) / scale.

    Attributes:
        name: the column's.
        offset: subtracted; the training mean, 0 for a column that stays sparse.
        scale: divided by; never 0.
        fill: stands in for a missing cell, next to a second feature that is 1 there; None where
            missing cells are refused.
    """

    name: str
    offset: float = 0.0
    scale: float = 1.0
    fill: float | None = None

    @property
    def width(self) -> int:
        """Number of features."""
        return 1 if self.fill is None else 2


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
        sparse: whether feature rows are CSR.
    """

    target_name: str
    target_offset: float
    target_scale: float
    target_range: tuple[float, float]
    labels: tuple[str, str] | None
    numeric: tuple[Numeric, ...]
    categorical: tuple[Categorical, ...]
    sparse: bool

    @cached_property
    def feature_names(self) -> list[str]:
        """The name of each feature."""
        names: list[str] = []
        for column in self.numeric:
            names += [column.name, f"{column.name} (missing)"][: column.width]
        for field in self.categorical:
            names += [f"{field.name}={category}" for category in field.categories]
            names += [f"{field.name}=(rare)"] * field.rare
        return names

    @property
    def n_features(self) -> int:
        """Number of features."""
        return sum(c.width for c in self.numeric) + sum(c.width for c in self.categorical)

    @property
    def column_names(self) -> list[str]:
        """The columns that a table must have."""
        return [c.name for c in self.numeric] + [c.name for c in self.categorical]

    def features(self, table: Table) -> Features:
        """Feature rows of a table; columns beyond the contract are ignored.

        Raises:
            DataError: a column is missing, or a cell is no finite number.
        """
        missing = [name for name in self.column_names if name not in table.columns]
        if missing:
            raise DataError(
                f"the table has no column {_list(missing)}; the model needs "
                f"{_list(self.column_names)}, the table has {_list(list(table.columns))}"
            )
        return self._sparse_rows(table) if self.sparse else self._dense_rows(table)

    def target(self, table: Table) -> np.ndarray:
        """The targets as they are trained on; float64, shape (n_rows,).

        Raises:
            DataError: a target is missing, not finite, or none of the two labels.
        """
        column = table.columns[self.target_name]
        if self.labels is not None:
            return _label_codes(self.target_name, column, self.labels)
        y = _finite(self.target_name, _numbers(self.target_name, column))
        return (y - self.target_offset) / self.target_scale

    def decode_target(self, target: np.ndarray) -> np.ndarray:
        """Targets or scores of a regression in the target's own units; 0 and 1 stay."""
        return target * self.target_scale + self.target_offset

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON knows it."""
        return asdict(self)

    @staticmethod
    def from_json(stored: dict[str, Any]) -> Encoder:
        """The encoder that `to_json` wrote."""
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
            sparse=stored["sparse"],
        )

    def _dense_rows(self, table: Table) -> np.ndarray:
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
            x = _numbers(column.name, table.columns[column.name])
            missing = np.isnan(x)
            if column.fill is not None:
                x = np.where(missing, column.fill, x)
            yield column, (_finite(column.name, x) - column.offset) / column.scale
            if column.fill is not None:
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


def fit_encoder(
    training: Table,
    target: str,
    numeric: Sequence[str],
    categorical: Sequence[str],
    *,
    task: str,
    standardize: bool,
    min_count: int = 1,
    fill_missing: bool = False,
) -> Encoder:
    """Learn the encoding from the training rows.

    Args:
        training: rows of the training part alone.
        target: the target's column.
        numeric: columns of numbers.
        categorical: columns of names.
        task: regression or classification.
        standardize: centre and scale numeric columns and a regression target.
        min_count: categories with fewer training rows share one feature.
        fill_missing: missing numbers become the mean, with a feature that marks them.

    Raises:
        DataError: a number is missing or not finite, or the labels are not two.
    """
    numbers = {name: _numbers(name, training.columns[name]) for name in numeric}
    sparse = bool(categorical) or _density(numbers, len(training)) < SPARSE_BELOW
    labels, low, high = None, 0.0, 1.0
    offset, scale = 0.0, 1.0
    if task == "classification":
        labels = _labels(target, training.columns[target])
    else:
        y = _finite(target, _numbers(target, training.columns[target]))
        low, high = float(y.min()), float(y.max())
        if standardize:
            offset, scale = _centre_and_spread(target, y)
    return Encoder(
        target_name=target,
        target_offset=offset,
        target_scale=scale,
        target_range=(low, high),
        labels=labels,
        numeric=tuple(
            _fit_numeric(name, x, standardize=standardize, sparse=sparse, fill=fill_missing)
            for name, x in numbers.items()
        ),
        categorical=tuple(
            _fit_categorical(name, training.columns[name], min_count) for name in categorical
        ),
        sparse=sparse,
    )


def category_codes(field: Categorical, column: Column) -> np.ndarray:
    """The category number of every row, -1 for none; int32, shape (n_rows,)."""
    text = column if isinstance(column, Text) else text_of_numbers(column)
    unknown = len(field.categories) if field.rare else -1
    number = {category: i for i, category in enumerate(field.categories)}
    lookup = np.array([number.get(name, unknown) for name in text.names], np.int32)
    codes: np.ndarray = lookup[text.codes]
    return codes


def text_of_numbers(column: np.ndarray) -> Text:
    """Numbers as texts: whole ones without a point, NaN as ""."""
    distinct, codes = np.unique(column, return_inverse=True)
    return Text(codes.astype(np.int32), [number_text(x) for x in distinct.tolist()])


def number_text(x: float) -> str:
    """The shortest text of a number; whole ones without a point."""
    if x != x:
        return ""
    return str(int(x)) if x.is_integer() and abs(x) < 2**53 else repr(x)


def _fit_numeric(
    name: str, x: np.ndarray, *, standardize: bool, sparse: bool, fill: bool
) -> Numeric:
    present = x[~np.isnan(x)]
    if not fill:
        _finite(name, x)
    elif len(present) == 0:
        raise DataError(f"column {name!r} has no number in the training rows: drop it (data.drop)")
    else:
        _finite(name, present)
    mean, spread = _centre_and_spread(name, present)
    fill_value = mean if fill and len(present) < len(x) else None
    if not standardize:
        return Numeric(name, fill=fill_value)
    if sparse and 2 * np.count_nonzero(x) < len(x):
        return Numeric(name, 0.0, _typical_size(name, present), fill_value)
    return Numeric(name, mean, spread, fill_value)


def _fit_categorical(name: str, column: Column, min_count: int) -> Categorical:
    text = column if isinstance(column, Text) else text_of_numbers(column)
    counts = np.bincount(text.codes, minlength=len(text.names))
    frequent = [text.names[i] for i in np.flatnonzero(counts >= max(min_count, 1))]
    has_rare = bool(((counts > 0) & (counts < min_count)).any())
    return Categorical(name, tuple(_sorted_names(frequent)), has_rare)


def _sorted_names(names: list[str]) -> list[str]:
    """In order: as integers where all are plain ones, else as texts."""
    if all(name.isdecimal() and name.isascii() and str(int(name)) == name for name in names):
        return sorted(names, key=int)
    return sorted(names)


def _density(numbers: dict[str, np.ndarray], n_rows: int) -> float:
    """The share of cells that are not zero."""
    n_cells = n_rows * len(numbers)
    return sum(int(np.count_nonzero(x)) for x in numbers.values()) / max(n_cells, 1)


def _centre_and_spread(name: str, x: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation; a constant column has the spread 1."""
    if x.min() == x.max():
        return float(x[0]), 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        mean, spread = float(x.mean()), float(x.std())
    _check_range(name, x, mean, spread)
    return mean, spread


def _typical_size(name: str, x: np.ndarray) -> float:
    """Root mean square of the non-zero numbers: 1 for a column of zeros and ones."""
    present = x[x != 0]
    if len(present) == 0:
        return 1.0
    with np.errstate(over="ignore", under="ignore"):
        size = float(np.sqrt(np.mean(np.square(present))))
    _check_range(name, present, 0.0, size)
    return size


def _check_range(name: str, x: np.ndarray, mean: float, spread: float) -> None:
    if not (np.isfinite(mean) and np.isfinite(spread) and spread > 0):
        raise DataError(
            f"column {name!r} has numbers from {x.min():g} to {x.max():g}, whose squares "
            f"do not fit into a floating-point number: rescale the column"
        )


def _numbers(name: str, column: Column) -> np.ndarray:
    if isinstance(column, Text):
        example = next(iter(column.names), "")
        raise DataError(f"column {name!r} must hold numbers, got text such as {example!r}")
    return np.asarray(column, np.float64)


def _finite(name: str, x: np.ndarray) -> np.ndarray:
    wrong = np.flatnonzero(~np.isfinite(x))
    if len(wrong):
        got = "missing values" if np.isnan(x[wrong[0]]) else f"{x[wrong[0]]:g}"
        raise DataError(
            f"column {name!r} must hold finite numbers, got {got} in {len(wrong)} rows, "
            f"the first at row {wrong[0] + 1}"
        )
    return x


def _labels(name: str, column: Column) -> tuple[str, str]:
    """The two distinct labels of the training part; the first stands for 0."""
    text = column if isinstance(column, Text) else text_of_numbers(column)
    _refuse_missing_labels(name, text)
    found = [text.names[code] for code in np.unique(text.codes).tolist()]
    if len(found) != 2:
        raise DataError(
            f"task=classification needs a target of two labels, column {name!r} has {len(found)} "
            f"in the training rows: {_list(found)}"
        )
    try:
        low, high = sorted(found, key=float)
    except ValueError:
        low, high = sorted(found)
    return low, high


def _label_codes(name: str, column: Column, labels: tuple[str, str]) -> np.ndarray:
    text = column if isinstance(column, Text) else text_of_numbers(column)
    _refuse_missing_labels(name, text)
    codes = category_codes(Categorical(name, labels), text)
    unknown = np.flatnonzero(codes < 0)
    if len(unknown):
        raise DataError(
            f"column {name!r} must hold {labels[0]!r} or {labels[1]!r} (the labels of the "
            f"training rows), got {text.names[text.codes[unknown[0]]]!r}"
        )
    return codes.astype(np.float64)


def _refuse_missing_labels(name: str, text: Text) -> None:
    missing = np.flatnonzero(np.array([name == "" for name in text.names])[text.codes])
    if len(missing):
        raise DataError(
            f"the target {name!r} is missing in {len(missing)} rows, the first at row "
            f"{missing[0] + 1}: every row needs one"
        )


def _list(names: list[str]) -> str:
    """The first names, quoted, and how many more there are."""
    more = f" and {len(names) - 8:,} more" if len(names) > 8 else ""
    return ", ".join(repr(name) for name in names[:8]) + more
