"""One table, whatever it comes in, gives the same bits; and one split, whatever decides it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmexp.config.schema import SplitConfig
from fmexp.data.dataset import Dataset
from fmexp.data.features import CSR
from fmexp.data.learn import Learning
from fmexp.data.memory import from_arrays, from_table
from fmexp.errors import DataError
from fmexp.training.fitting import fit
from tests.data_support import WHOLE, lines, load_csv, load_libsvm, load_parquet
from tests.training_fakes import make_config

PARTS = SplitConfig(0.2, 0.2, None, 3)


def curve(data: Dataset) -> list[float]:
    """Losses of a short training, all bits of them."""
    keys = {"shuffle": True, "reg_w": 0.01, "reg_V": 0.01, "epochs": 3, "seed": 1}
    fitted = fit(make_config(**keys, learning_rate=0.02), data)
    return fitted.train_losses + fitted.validation_losses


def as_csv(folder: Path, X: np.ndarray, y: np.ndarray) -> Path:
    names = ",".join([f"c{j}" for j in range(X.shape[1])] + ["y"])
    rows = [",".join(map(repr, [*x, t])) for x, t in zip(X.tolist(), y.tolist(), strict=True)]
    (folder / "t.csv").write_bytes(lines(names, *rows))
    return folder / "t.csv"


def as_parquet(folder: Path, X: np.ndarray, y: np.ndarray) -> Path:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {f"c{j}": X[:, j] for j in range(X.shape[1])} | {"y": y}
    parquet.write_table(pa.table(columns), folder / "t.parquet")
    return folder / "t.parquet"


def as_libsvm(folder: Path, X: np.ndarray, y: np.ndarray) -> Path:
    rows = [
        " ".join([repr(t), *(f"{j + 1}:{x[j]!r}" for j in np.flatnonzero(x).tolist())])
        for x, t in zip(X.tolist(), y.tolist(), strict=True)
    ]
    (folder / "t.svm").write_bytes(lines(*rows))
    return folder / "t.svm"


def of_each_kind(folder: Path, X: np.ndarray, y: np.ndarray) -> dict[str, Dataset]:
    pandas = pytest.importorskip("pandas")
    sparse = pytest.importorskip("scipy.sparse")
    frame = pandas.DataFrame({f"c{j}": X[:, j] for j in range(X.shape[1])} | {"y": y})
    numbers = [f"c{j}" for j in range(X.shape[1])]
    return {
        "csv": load_csv(as_csv(folder, X, y), PARTS, numeric=numbers),
        "parquet": load_parquet(as_parquet(folder, X, y), PARTS, numeric=numbers),
        "arrays": from_arrays(X, y, PARTS, Learning()),
        "pandas": from_table(frame, "y", PARTS, Learning(), numeric=numbers),
        "libsvm": load_libsvm(as_libsvm(folder, X, y), PARTS),
        "scipy": from_arrays(sparse.csr_array(X), y, PARTS, Learning()),
    }


def test_a_numeric_table_gives_the_same_curve_from_every_format(tmp_path: Path) -> None:
    stream = np.random.default_rng(0)
    X = stream.normal(3, 2, (300, 6))
    sets = of_each_kind(tmp_path, X, X[:, 0] * X[:, 1] + stream.normal(size=300))
    assert all(isinstance(data.train.features, np.ndarray) for data in sets.values())
    curves = {kind: curve(data) for kind, data in sets.items()}
    assert all(found == curves["csv"] for found in curves.values())


@pytest.mark.parametrize("one_hot", [True, False])
def test_a_sparse_table_gives_the_same_curve_from_every_format(
    tmp_path: Path, one_hot: bool
) -> None:
    stream = np.random.default_rng(1)
    X = (stream.random((400, 30)) < 0.1).astype(float)
    if not one_hot:
        X *= stream.normal(5, 3, X.shape)
    sets = of_each_kind(tmp_path, X, X @ stream.normal(size=30) + stream.normal(size=400))
    assert all(isinstance(data.train.features, CSR) for data in sets.values())
    assert all((data.train.features.values is None) == one_hot for data in sets.values())
    curves = {kind: curve(data) for kind, data in sets.items()}
    assert all(found == curves["csv"] for found in curves.values())


def test_categories_and_their_one_hot_libsvm_text_give_the_same_curve(tmp_path: Path) -> None:
    stream = np.random.default_rng(2)
    codes, y = stream.integers(5, size=(300, 2)), stream.normal(size=300)
    X = np.hstack([np.eye(5)[codes[:, 0]], np.eye(5)[codes[:, 1]]])
    rows = [f"{a},{b},{t!r}" for (a, b), t in zip(codes.tolist(), y.tolist(), strict=True)]
    (tmp_path / "c.csv").write_bytes(lines("a,b,y", *rows))
    names = load_csv(tmp_path / "c.csv", PARTS, categorical=["a", "b"])
    numbers = load_libsvm(as_libsvm(tmp_path, X, y), PARTS)
    assert names.train.features.values is numbers.train.features.values is None
    assert curve(names) == curve(numbers)


def test_the_same_cells_have_the_same_digest_as_csv_and_parquet(tmp_path: Path) -> None:
    X, y = np.arange(120.0).reshape(60, 2) / 7, np.arange(60.0)
    text, columns = as_csv(tmp_path, X, y), as_parquet(tmp_path, X, y)
    kinds = [load_csv(text, PARTS), load_parquet(columns, PARTS)]
    assert kinds[0].columns_digest == kinds[1].columns_digest
    assert kinds[0].test_digest == kinds[1].test_digest
    assert kinds[0].data_digest != kinds[1].data_digest


def test_a_digit_in_the_last_row_changes_the_digest(tmp_path: Path) -> None:
    X, y = np.arange(40_000.0).reshape(20_000, 2) / 7, np.arange(20_000.0)
    before = load_csv(as_csv(tmp_path, X, y)).data_digest
    X[-1, -1] += 1e-9
    assert load_csv(as_csv(tmp_path, X, y)).data_digest != before


ROWS = [f"u{i % 8},2024-01-{1 + i % 28:02d},{i % 5}.5,{'tvs'[i % 3]},{i}" for i in range(120)]
TABLE = lines("user,day,a,part,y", *ROWS)


def split(tmp_path: Path, by: str, table: bytes = TABLE, **keys: Any) -> Dataset:
    (tmp_path / "t.csv").write_bytes(table)
    return load_csv(tmp_path / "t.csv", SplitConfig(0.2, 0.25, by, 0), **keys)


def cells(data: Dataset, column: str) -> list[set[str]]:
    parts = (data.train, data.validation, data.test)
    return [set(data.table.cells(part.rows)[column]) for part in parts if part is not None]


def test_rows_of_a_group_stay_together(tmp_path: Path) -> None:
    data = split(tmp_path, "group:user")
    train, validation, test = cells(data, "user")
    assert not (train & validation | train & test | validation & test)
    assert (len(train), len(validation), len(test)) == (4, 2, 2)
    assert "user" not in {c.name for c in data.encoder.categorical}


def test_a_group_stays_a_feature_when_it_is_named(tmp_path: Path) -> None:
    data = split(tmp_path, "group:user", categorical=["user"])
    assert "user" in {c.name for c in data.encoder.categorical}


@pytest.mark.parametrize("column", ["day", "y2"])
def test_the_latest_rows_are_held_out(tmp_path: Path, column: str) -> None:
    table = TABLE.replace(b"day", column.encode())
    if column == "y2":
        table = lines("user,y2,a,part,y", *(r.replace("2024-01-", "") for r in ROWS))
    data = split(tmp_path, f"time:{column}", table)
    train, validation, test = cells(data, column)
    assert max(train) < min(validation)
    assert max(validation) < min(test)
    assert abs(len(data.test.rows) - 30) <= 5


def test_a_column_can_name_the_parts(tmp_path: Path) -> None:
    table = lines("user,day,a,part,y", *(r.replace(",t,", ",train,") for r in ROWS))
    table = table.replace(b",v,", b",Validation,").replace(b",s,", b",test,")
    data = split(tmp_path, "column:part", table)
    assert cells(data, "part") == [{"train"}, {"Validation"}, {"test"}]
    assert "part" not in data.encoder.column_names


def test_a_part_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected train, validation or test, got 't', 'v', 's'"):
        split(tmp_path, "column:part")


def test_files_can_be_the_parts(tmp_path: Path) -> None:
    for name, value in {"train-1": 1, "train-2": 2, "my_valid": 3, "test": 4}.items():
        (tmp_path / f"{name}.csv").write_bytes(lines("a,y", f"0.5,{value}", f"1.5,{value}"))
    data = load_csv(tmp_path, SplitConfig(0.2, 0.2, "files", 0))
    decode = data.encoder.decode_target
    assert set(decode(data.train.target)) == {1, 2}
    assert set(decode(data.validation.target)) == {3}
    assert set(decode(data.test.target)) == {4}


@pytest.mark.parametrize(
    ("by", "reason"),
    [
        ("groups", "split.by must be null"),
        ("group:", "split.by must be null"),
        ("group:nobody", "split.by names 'nobody', which is no column"),
        ("files", "split.by=files: expected train, validation or test, got 't.csv'"),
    ],
)
def test_a_wrong_split_by_is_refused(tmp_path: Path, by: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        split(tmp_path, by)


def test_pandas_columns_of_every_kind_are_taken_by_position() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "id": pandas.array([7, None, 2**60, 7], dtype="Int64"),
            "size": pandas.array([1.5, 2.5, 3.0, 4.0], dtype="Float64"),
            "shop": pandas.Categorical(["x", "y", None, "x"]),
            "open": [True, False, True, True],
            "y": [1, 2, 3, 4],
        },
        index=[30, 10, 0, 2],
    )
    data = from_table(frame, "y", WHOLE, Learning(), categorical=["id", "shop", "open"])
    cells = data.table.cells(np.arange(4))
    assert cells["shop"] == ["x", "y", "", "x"]
    assert cells["open"] == ["1", "0", "1", "1"]
    assert cells["id"][:2] == ["7", ""]
    assert cells["size"].tolist() == [1.5, 2.5, 3, 4]
    assert data.encoder.decode_target(data.train.target).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("cell", [np.nan, np.inf])
def test_a_wrong_number_in_memory_is_named_by_its_row_in_the_whole_table(cell: float) -> None:
    X = np.ones((100, 2)) * np.arange(100)[:, None]
    X[57, 1] = cell
    with pytest.raises(DataError, match=r"column '1' must hold finite .* the first at row 58"):
        from_arrays(X, X[:, 0], PARTS, Learning())
    with pytest.raises(DataError, match=r"column 'b' must hold finite .* the first at row 58"):
        from_table({"a": X[:, 0], "b": X[:, 1], "y": X[:, 0]}, "y", PARTS, Learning())


def test_labels_may_be_names_in_any_format(tmp_path: Path) -> None:
    labels = ["yes" if i % 3 else "no" for i in range(30)]
    data = from_table({"a": np.arange(30.0), "y": labels}, "y", WHOLE, Learning("classification"))
    assert data.encoder.labels == ("no", "yes")
    assert data.train.target.tolist() == [float(label == "yes") for label in labels]
