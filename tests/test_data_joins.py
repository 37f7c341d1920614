"""Second tables by key: the same model as on the product of the tables, without the product."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fmexp import fm
from fmexp.analysis.predict import Request, predict_file
from fmexp.config.schema import SplitConfig
from fmexp.data import budget, cache, csv, encoded_split, features, sparse_rows
from fmexp.data.related import Related, expanded
from fmexp.errors import DataError
from fmexp.model import Model, load
from tests.data_support import PARTS, lines, load_csv

if TYPE_CHECKING:
    from pathlib import Path

    from fmexp.data.dataset import Dataset

ITEMS = {f"i{j}": (f"{'AB'[j % 2]}|{'CDE'[j % 3]}", f"{j * j / 4}") for j in range(12)}
USERS = {f"{100 + u}": (f"{20 + 3 * (u % 7)}.5", f"2020-01-{u + 1:02}") for u in range(9)}
KEYS: dict[str, Any] = {"lists": {"genres": "|"}, "categorical": ["user", "item"]}


def rows(n: int = 200) -> list[tuple[str, str, int]]:
    return [(f"{100 + i * 7 % 9}", f"i{i * 5 % 12}", i * 11 % 17) for i in range(n)]


def joined(folder: Path, split: SplitConfig = PARTS, **keys: Any) -> Dataset:
    (folder / "items.csv").write_bytes(
        lines("item;genres;price", *(f"{key};{g};{p}" for key, (g, p) in ITEMS.items()))
    )
    (folder / "users.csv").write_bytes(
        lines("user,age,since", *(f"{key}.0,{a},{s}" for key, (a, s) in USERS.items()))
    )
    (folder / "t.csv").write_bytes(lines("user,item,y", *(f"{u},{i},{y}" for u, i, y in rows())))
    given = {"joins": {"item": "items.csv", "user": "users.csv"}, **KEYS}
    return load_csv(folder / "t.csv", split, **(given | keys))


def product(folder: Path, split: SplitConfig = PARTS, **keys: Any) -> Dataset:
    cells = [",".join((u, i, *ITEMS[i], *USERS[u], str(y))) for u, i, y in rows()]
    (folder / "p.csv").write_bytes(lines("user,item,genres,price,age,since,y", *cells))
    return load_csv(folder / "p.csv", split, **(KEYS | keys))


def assert_equal(found: Dataset, expected: Dataset) -> None:
    assert found.encoder.feature_names == expected.encoder.feature_names
    assert found.encoder.numeric == expected.encoder.numeric
    for part in ("train", "validation", "test"):
        a, b = getattr(found, part), getattr(expected, part)
        assert (a.rows == b.rows).all()
        assert (a.target == b.target).all()
        assert (a.features.to_dense() == b.features.to_dense()).all()


def test_joined_rows_are_those_of_the_product(tmp_path: Path) -> None:
    found, expected = joined(tmp_path), product(tmp_path)
    assert_equal(found, expected)
    assert found.raw(np.array([5])) == {**expected.raw(np.array([5]))}


def test_tables_in_files_are_joined_chunk_by_chunk_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    by_user = SplitConfig(0.2, 0.2, "group:user", 0)
    monkeypatch.setattr(cache, "SMALLEST", 0)
    for module in (encoded_split, features):
        monkeypatch.setattr(module, "CHUNK_ROWS", 64)
    expected, found = product(tmp_path, by_user), joined(tmp_path, by_user)
    assert_equal(found, expected)
    again = joined(tmp_path, by_user)
    assert_equal(again, expected)
    assert (again.data_digest, again.columns_digest) == (found.data_digest, found.columns_digest)


def test_runs_that_are_kept_once_are_those_of_the_product(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse_rows, "SHARED_FROM", 0)
    found, expected = joined(tmp_path, shared=True), product(tmp_path)
    assert isinstance(found.train.features, Related)
    assert len(found.train.features.blocks) == 3  # price; age and since; genres
    assert (expanded(found.train.features).to_dense() == expected.train.features.to_dense()).all()  # type: ignore[union-attr]


def test_a_missing_number_is_an_error_where_a_row_has_its_key(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(
        lines("item,y", *(f"{'ab'[i % 2]},{i % 7}" for i in range(40)))
    )
    keys: dict[str, Any] = {"joins": {"item": "items.csv"}, "categorical": ["item"]}
    (tmp_path / "items.csv").write_bytes(lines("item,price", "a,2.5", "b,3", "c,"))
    assert load_csv(tmp_path / "t.csv", **keys).train.features.shape == (40, 3)
    (tmp_path / "items.csv").write_bytes(lines("item,price", "a,2.5", "b,", "c,3"))
    with pytest.raises(DataError, match="'price' must hold finite numbers, got missing values"):
        load_csv(tmp_path / "t.csv", **keys)


def test_another_separator_of_lists_is_another_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cache, "SMALLEST", 0)
    for module in (encoded_split, features):
        monkeypatch.setattr(module, "CHUNK_ROWS", 64)
    assert "genres=A" in product(tmp_path).encoder.feature_names
    other = load_csv(tmp_path / "p.csv", PARTS, **(KEYS | {"lists": {"genres": "/"}}))
    assert "genres=A|C" in other.encoder.feature_names


def test_another_joined_table_is_another_data_set(tmp_path: Path) -> None:
    before = joined(tmp_path)
    changed = (tmp_path / "items.csv").read_text().replace(";30.25", ";99")
    (tmp_path / "more.csv").write_text(changed)
    keys = {"joins": {"item": str(tmp_path / "more.csv"), "user": "users.csv"}, **KEYS}
    after = load_csv(tmp_path / "t.csv", PARTS, **keys)
    assert after.data_digest != before.data_digest
    assert after.columns_digest != before.columns_digest


def trained(folder: Path, **keys: Any) -> Model:
    encoder = joined(folder, **keys).encoder
    parameters = fm.initial_parameters(encoder.n_features, 3, 0.5, 0)
    Model(parameters, encoder, "regression").save(folder / "model")
    return load(folder / "model")


def test_a_model_keeps_the_joined_tables_for_new_rows(tmp_path: Path) -> None:
    model = trained(tmp_path)
    expected = Model(model.parameters, product(tmp_path).encoder, "regression").predict(
        tmp_path / "p.csv"
    )
    for name in ("items.csv", "users.csv"):
        (tmp_path / name).unlink()
    assert (model.predict(tmp_path / "t.csv") == expected).all()
    frame = {"user": [float(u) for u, _, _ in rows()], "item": [i for _, i, _ in rows()]}
    assert (model.predict(frame) == expected).all()


def test_predict_takes_a_newer_table(tmp_path: Path) -> None:
    model = trained(tmp_path)
    (tmp_path / "more.csv").write_bytes(lines("price,item,genres", "4,i99,A|C", "1,i1,B|D"))
    (tmp_path / "new.csv").write_bytes(lines("item,user", "i99,103"))
    request = Request(str(tmp_path / "new.csv"), tmp_path / "out.csv", None, ("all",))
    with pytest.raises(
        DataError, match="row 1, column 'item': 'i99' is no item of the joined table"
    ):
        predict_file(str(tmp_path), "", request)
    joins = {"item": str(tmp_path / "more.csv")}
    predict_file(str(tmp_path), "", Request(request.data, request.out, None, ("all",), joins))
    header, row = (tmp_path / "out.csv").read_text().split()
    assert header == "item,user,y_pred"
    of_user = dict(zip(("age", "since"), USERS["103"], strict=True))
    cells = {
        "item": "i99",
        "user": "103",
        "genres": "A|C",
        "price": 4.0,
        "age": float(of_user["age"]),
    }
    whole = {name: [cell] for name, cell in (cells | {"since": of_user["since"]}).items()}
    whole_model = Model(model.parameters, product(tmp_path).encoder, "regression")
    assert float(row.split(",")[-1]) == whole_model.predict(whole)[0]


def test_a_key_that_is_missing_is_named_by_its_row_of_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv, "CHUNK_BYTES", 1000)
    model = trained(tmp_path)
    new = tmp_path / "new.csv"
    new.write_bytes(lines("item,user", *["i1,103"] * 500, "i77,103"))
    with pytest.raises(DataError, match=r"new.csv, row 501, column 'item': 'i77' is no item"):
        model.predict(new)


def test_keys_that_are_missing_are_errors_or_missing_cells(tmp_path: Path) -> None:
    joined(tmp_path)
    with (tmp_path / "t.csv").open("a") as file:
        file.write("103,i77,3\n" * 40)
    keys: dict[str, Any] = {"joins": {"item": "items.csv", "user": "users.csv"}, **KEYS}
    with pytest.raises(
        DataError, match=r"row 201, column 'item': 'i77' is no item .*40 of the 240 rows"
    ):
        load_csv(tmp_path / "t.csv", PARTS, **keys)
    data = load_csv(tmp_path / "t.csv", PARTS, missing="mean", **keys)
    assert "price (missing)" in data.encoder.feature_names
    assert np.isnan(np.asarray(data.table.column("price"))[200:]).all()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "items.csv",
            "itme,a\nx,1\n",
            "data.joins.item needs a column 'item', there are 'itme', 'a'",
        ),
        (
            "items.csv",
            "item,a\nx,1\ni.0,2\nx,3\n",
            "row 3, column 'item': expected each key once, got 'x'",
        ),
        ("items.csv", "item,y\nx,1\n", "column 'y' is in another table too: rename one"),
    ],
)
def test_tables_that_cannot_be_joined_are_refused(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    (tmp_path / "t.csv").write_bytes(lines("item,y", "x,1", "x,2", "x,3"))
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=said):
        load_csv(tmp_path / "t.csv", joins={"item": "items.csv"})


def test_a_second_table_that_memory_does_not_hold_is_refused_with_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "STATED", 0)
    monkeypatch.setattr(budget, "available", lambda: 3000.0)
    with pytest.raises(DataError, match=r"the cells of items.csv need about 4.1 kB of memory, 3.0"):
        joined(tmp_path)


def test_a_damaged_joined_table_of_a_model_is_refused(tmp_path: Path) -> None:
    trained(tmp_path)
    about = json.loads((tmp_path / "model" / "model.json").read_text())
    about["encoder"]["joins"][0]["columns"]["price"] = [1.0]
    (tmp_path / "model" / "model.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match="joined column price must have a cell for each key"):
        load(tmp_path / "model")
