"""From raw columns to feature rows: statistics of the training part, categories, sparseness."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from fmexp.data.encode import Encoder
from fmexp.data.features import CSR
from fmexp.data.learn import Learning, learn
from fmexp.data.memory import as_text
from fmexp.data.schema import Schema
from fmexp.data.table import Table, Text, text_of_numbers
from fmexp.errors import DataError


def fit(columns: dict[str, Any], **options: Any) -> tuple[Encoder, Table]:
    table = Table(
        {n: c if isinstance(c, Text) else np.asarray(c, float) for n, c in columns.items()}
    )
    names = [name for name in columns if name != "y"]
    texts = [name for name in names if isinstance(table.columns[name], Text)]
    numbers = [name for name in names if name not in texts]
    return learn(lambda: [table], Schema("y", numbers, texts), Learning(**options)), table


def dense(features: Any) -> np.ndarray:
    if not isinstance(features, CSR):
        return features
    X = np.zeros(features.shape)
    for i in range(len(X)):
        at = slice(features.indptr[i], features.indptr[i + 1])
        X[i, features.indices[at]] = 1 if features.values is None else features.values[at]
    return X


def test_numeric_columns_and_target_are_centred_and_scaled() -> None:
    encoder, table = fit({"a": [1, 2, 3, 6], "y": [10, 20, 30, 60]})
    assert encoder.features(table)[:, 0] == pytest.approx(np.array([-2, -1, 0, 3]) / 3.5**0.5)
    assert encoder.target(table).std() == pytest.approx(1)
    assert encoder.decode_target(encoder.target(table)) == pytest.approx([10, 20, 30, 60])


def test_without_standardize_every_bit_stays() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 30))
    encoder, table = fit({"a": x, "y": y}, standardize=False)
    assert (encoder.features(table)[:, 0] == x).all()
    assert (encoder.target(table) == y).all()
    assert (encoder.decode_target(y) == y).all()


@pytest.mark.parametrize("value", [0.0, 0.1, -7.0, 1e300])
def test_a_constant_column_becomes_zero(value: float) -> None:
    encoder, table = fit({"a": [value] * 7, "b": range(7), "y": [value] * 7})
    assert (encoder.features(table)[:, 0] == 0).all()
    assert (encoder.target(table) == 0).all()


def test_a_number_beside_a_constant_of_training_stays_small() -> None:
    encoder, _ = fit({"a": [1e6] * 7, "b": range(7), "y": range(7)})
    assert encoder.features(Table({"a": np.array([2e6]), "b": np.zeros(1)}))[0, 0] == 1


def test_categories_are_those_of_the_training_rows_in_order() -> None:
    encoder, table = fit(
        {"a": as_text(["10", "9", "10"]), "b": as_text(list("zab")), "y": [1, 2, 3]}
    )
    assert encoder.feature_names == ["a=9", "a=10", "b=a", "b=b", "b=z"]
    assert dense(encoder.features(table)).tolist() == [
        [0, 1, 0, 0, 1],
        [1, 0, 1, 0, 0],
        [0, 1, 0, 1, 0],
    ]


def test_an_unknown_category_adds_nothing() -> None:
    encoder, _ = fit({"a": as_text(list("xy")), "b": as_text(list("uv")), "y": [1, 2]})
    features = encoder.features(Table({"b": as_text(list("vu")), "a": as_text(list("?y"))}))
    assert dense(features).tolist() == [[0, 0, 0, 1], [0, 1, 1, 0]]


def test_rare_categories_share_a_feature_with_unknown_ones() -> None:
    encoder, table = fit({"a": as_text(list("xxyyz")), "y": range(5)}, min_count=2)
    assert encoder.feature_names == ["a=x", "a=y", "a=(rare)"]
    assert dense(encoder.features(table))[4].tolist() == [0, 0, 1]
    assert dense(encoder.features(Table({"a": as_text(list("q"))}))).tolist() == [[0, 0, 1]]


def test_one_hot_rows_have_no_values_and_mixed_rows_do() -> None:
    names = as_text(list("xyxy"))
    one_hot, table = fit({"a": names, "flag": [0, 1, 0, 0], "y": range(4)})
    assert one_hot.features(table).values is None
    mixed, table = fit({"a": names, "b": [1.5, 2, 3, 4], "y": range(4)})
    assert mixed.features(table).values is not None
    assert dense(mixed.features(table))[:, 0].std() == pytest.approx(1)


def test_feature_numbers_ascend_within_each_row() -> None:
    stream = np.random.default_rng(5)
    columns = {str(j): stream.normal(size=40) * (stream.random(40) < 0.1) for j in range(30)}
    columns |= {"a": as_text(list(map(str, stream.integers(5, size=40)))), "y": range(40)}
    encoder, table = fit(columns)
    features = encoder.features(table)
    rows = [
        features.indices[i:j] for i, j in zip(features.indptr, features.indptr[1:], strict=False)
    ]
    assert all((np.diff(row) > 0).all() for row in rows)
    assert features.indices.dtype == np.int32
    assert features.indptr.dtype == np.int64


def test_a_mostly_zero_table_is_sparse_and_scaled_but_not_centred() -> None:
    stream = np.random.default_rng(1)
    X = np.where(stream.random((200, 9)) < 0.1, stream.normal(50, 5, (200, 9)), 0)
    encoder, table = fit({str(j): X[:, j] for j in range(9)} | {"y": range(200)})
    encoded = dense(encoder.features(table))
    assert encoder.sparse
    assert ((encoded == 0) == (X == 0)).all()
    assert np.sqrt(np.mean(encoded[encoded != 0] ** 2)) == pytest.approx(1, rel=0.01)


def test_a_mostly_filled_table_is_dense() -> None:
    encoder, table = fit({"a": [0, 1, 2], "b": [3, 0, 0], "y": range(3)})
    assert isinstance(encoder.features(table), np.ndarray)


def test_missing_numbers_become_the_mean_and_a_mark() -> None:
    encoder, table = fit({"a": [1, np.nan, 3], "y": range(3)}, fill_missing=True)
    assert encoder.feature_names == ["a", "a (missing)"]
    assert dense(encoder.features(table)).tolist() == [[-1, 0], [0, 1], [1, 0]]


def test_a_column_without_missing_numbers_in_training_is_filled_later_without_a_mark() -> None:
    encoder, _ = fit({"a": [1, 2, 6], "y": range(3)}, fill_missing=True)
    assert encoder.feature_names == ["a"]
    assert encoder.features(Table({"a": np.array([np.nan, 3.0])})).tolist() == [[0], [0]]


@pytest.mark.parametrize("cell", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_refused_with_its_column(cell: float) -> None:
    with pytest.raises(
        DataError, match=r"'a' must hold finite numbers.*1 rows, the first at row 2"
    ):
        fit({"a": [1, cell, 3], "y": range(3)})


def test_numbers_whose_squares_overflow_are_refused() -> None:
    with pytest.raises(DataError, match="'a' has numbers from -1e\\+300 to 1e\\+300"):
        fit({"a": [-1e300, 1e300, 0], "y": range(3)})


@pytest.mark.parametrize(
    ("cells", "labels"),
    [([0, 1, 1], ("0", "1")), ([-1, 1, 1], ("-1", "1")), (as_text(list("nyy")), ("n", "y"))],
)
def test_two_labels_become_0_and_1(cells: Any, labels: tuple[str, str]) -> None:
    encoder, table = fit({"a": [1, 2, 3], "y": cells}, task="classification")
    assert encoder.labels == labels
    assert encoder.target(table).tolist() == [0, 1, 1]


@pytest.mark.parametrize("cells", [[1, 1, 1], [0, 1, 2], as_text(list("abc"))])
def test_labels_that_are_not_two_are_refused(cells: Any) -> None:
    with pytest.raises(DataError, match=r"needs a target of two labels, column 'y' has [13]"):
        fit({"a": [1, 2, 3], "y": cells}, task="classification")


def test_a_third_label_outside_training_is_refused() -> None:
    encoder, _ = fit({"a": [1, 2], "y": as_text(list("ny"))}, task="classification")
    with pytest.raises(DataError, match=r"must hold 'n' or 'y'.*got 'm'"):
        encoder.target(Table({"y": as_text(list("nm"))}))


def test_json_keeps_every_bit() -> None:
    encoder, _ = fit(
        {"a": [0.1, 0.2, 0.7], "b": as_text(list("ü,x")), "y": [1 / 3, 2, 3]}, min_count=2
    )
    assert Encoder.from_json(json.loads(json.dumps(encoder.to_json()))) == encoder


def test_numbers_as_names_have_no_point_unless_they_need_one() -> None:
    text = text_of_numbers(np.array([3.0, 2.5, np.nan, 3.0]))
    assert text.texts() == ["3", "2.5", "", "3"]
