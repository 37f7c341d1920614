"""`fmexp predict` and `Model.predict` on files that are not the one it was trained on."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from fmexp import fm, model
from fmexp.analysis.predict import Request, predict_file
from fmexp.data.learn import Learning
from fmexp.data.memory import from_table
from fmexp.errors import DataError, UserError
from tests.data_support import WHOLE, lines, load_libsvm

if TYPE_CHECKING:
    from pathlib import Path

TABLE = {
    "size": [1.5, 2.5, 3.0, 4.0, 2.0, 2.25],
    "colour": ["red", "blue", "red", "green", "blue", "red"],
    "y": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
}


def trained(task: str = "regression", **changes: Any) -> model.Model:
    table = TABLE | changes
    data = from_table(table, "y", WHOLE, Learning(task), categorical=["colour"])
    parameters = fm.initial_parameters(data.encoder.n_features, 2, 0.5, seed=1)
    return model.Model(parameters, data.encoder, task)  # type: ignore[arg-type]


def predictions(kept: model.Model, folder: Path, content: bytes) -> list[dict[str, str]]:
    kept.save(folder / "model")
    (folder / "new.csv").write_bytes(content)
    out = folder / "out.csv"
    assert predict_file(str(folder), "", Request(str(folder / "new.csv"), out)) == 0
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


def test_columns_in_another_order_further_ones_and_unknown_categories(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = lines("colour,note,size", "blue,x,1.5", "violet,,2.5", "green,z,-1e3", "black,,1")
    rows = predictions(trained(), tmp_path, content)
    expected = trained().predict(
        {"size": [1.5, 2.5, -1e3, 1], "colour": ["blue", "?", "green", "?"]}
    )
    assert [float(row["y_pred"]) for row in rows] == expected.tolist()
    assert "2 rows have a 'colour' that training did not have" in capsys.readouterr().err


def test_a_missing_column_is_refused_by_name_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=r"new.csv has no column 'colour'; the model needs"):
        predictions(trained(), tmp_path, lines("color,size", "red,1"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "new.csv"]
    with pytest.raises(DataError, match="has no column 'colour'"):
        predict_file(str(tmp_path), "", Request(str(tmp_path / "new.csv")))
    assert capsys.readouterr().out == ""


def test_an_id_with_a_point_and_zeros_is_the_id_that_was_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = trained(colour=["196", "7", "196", "007", "x.0", "7.5"])
    cells = ["196.0", "7.00", "007", "x.0", "7.5", "196"]
    rows = predictions(kept, tmp_path, lines("size,colour", *(f"1,{cell}" for cell in cells)))
    expected = kept.predict({"size": [1] * 6, "colour": ["196", "7", "007", "x.0", "7.5", "196"]})
    assert [float(row["y_pred"]) for row in rows] == expected.tolist()
    assert "did not have" not in capsys.readouterr().err
    predictions(kept, tmp_path, lines("size,colour", "1,7.51", "1,x", "1,.0", "1,07"))
    assert "4 rows have a 'colour'" in capsys.readouterr().err


@pytest.mark.parametrize("cell", ["", "big", "inf"])
def test_a_cell_that_is_no_number_is_refused_with_its_line(tmp_path: Path, cell: str) -> None:
    content = lines("size,colour", "1.5,red", f"{cell},red")
    with pytest.raises(DataError, match="line 3, column 'size'"):
        predictions(trained(), tmp_path, content)
    assert not (tmp_path / "out.csv").exists()


def test_labels_come_with_their_probability(tmp_path: Path) -> None:
    kept = trained("classification", y=["no", "yes", "yes", "no", "no", "yes"])
    rows = predictions(kept, tmp_path, lines("size,colour", "1.5,red", "9,blue", "-9,blue"))
    probability = kept.predict({"size": [1.5, 9, -9], "colour": ["red", "blue", "blue"]})
    assert [float(row["y_pred"]) for row in rows] == probability.tolist()
    assert [row["label"] for row in rows] == ["yes" if p >= 0.5 else "no" for p in probability]


def test_parquet_and_csv_give_the_same_bits(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = {"colour": ["red", "blue"], "size": [0.1, 1 / 3]}
    parquet.write_table(pa.table(rows), tmp_path / "new.parquet")
    (tmp_path / "new.csv").write_bytes(lines("size,colour", "0.1,red", f"{1 / 3!r},blue"))
    kept = trained()
    expected = kept.predict(rows).tolist()
    assert kept.predict(tmp_path / "new.parquet").tolist() == expected
    assert kept.predict(str(tmp_path / "new.csv")).tolist() == expected


def test_a_large_file_is_predicted_in_its_order(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=250_000)
    content = lines("colour,size", *(f"red,{value!r}" for value in x.tolist()))
    rows = predictions(trained(), tmp_path, content)
    expected = trained().predict({"size": x, "colour": ["red"] * len(x)})
    assert [float(row["y_pred"]) for row in rows] == expected.tolist()


def test_a_model_of_libsvm_text_predicts_text_and_matrices_alike(tmp_path: Path) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    stream = np.random.default_rng(0)
    X = (stream.random((50, 20)) < 0.1) * stream.normal(size=(50, 20))
    rows = [
        " ".join(["1.5", *(f"{j + 1}:{x[j]!r}" for j in np.flatnonzero(x))]) for x in X.tolist()
    ]
    (tmp_path / "t.svm").write_bytes(lines(*rows))
    data = load_libsvm(tmp_path / "t.svm")
    kept = model.Model(
        fm.initial_parameters(data.encoder.n_features, 3, 0.5, 0), data.encoder, "regression"
    )
    expected = kept.predict(tmp_path / "t.svm")
    assert (kept.predict(sparse.csr_array(X)) == expected).all()
    assert (kept.predict(X) == expected).all()
    assert (kept.predict(data.raw(data.train.rows)) == expected).all()


def test_an_array_has_the_columns_in_the_models_order() -> None:
    kept = trained()
    as_objects = np.array([[1.5, "red"], [2.5, "blue"]], dtype=object)
    expected = kept.predict({"size": [1.5, 2.5], "colour": ["red", "blue"]})
    assert (kept.predict(as_objects) == expected).all()
    with pytest.raises(DataError, match=r"expected 2 columns, got an array of shape \(2, 3\)"):
        kept.predict(np.zeros((2, 3)))


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no store"):
        predict_file("nobody", f"sqlite:///{tmp_path}/none.db", Request("x.csv"))


@pytest.mark.usefixtures("store_folder")
def test_the_command_predicts_with_a_run_from_the_store(fmexp: Any) -> None:
    rows = [f"{i % 5},{i % 7}.5,{i}.25" for i in range(60)]
    (fmexp.folder / "old.csv").write_bytes(lines("user,a,y", *rows))
    (fmexp.folder / "new.csv").write_bytes(lines("a,user", "3.5,2", "1.5,77"))
    keys = ["data=csv", "data.path=old.csv", "data.categorical=[user]", "training.epochs=3"]
    fmexp("run", *keys)
    fmexp("predict", "latest", "--data", "new.csv", "--out", "out.csv")
    (run,) = fmexp.runs()
    folder = fmexp.store.download_artifacts(run.info.run_id, "model")
    expected = model.load(__import__("pathlib").Path(folder)).predict(fmexp.folder / "new.csv")
    said = (fmexp.folder / "out.csv").read_text().split()
    assert said == ["y_pred", *map(repr, expected.tolist())]


CARRIED = ("id", "size", "note")


@pytest.mark.parametrize(
    ("carry", "names"),
    [(CARRIED, [*CARRIED]), (("all",), ["note", "colour", "id", "size"]), ((), [])],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_columns_are_carried_along_into_csv_and_parquet(
    tmp_path: Path, kind: str, carry: tuple[str, ...], names: list[str]
) -> None:
    kept = trained()
    kept.save(tmp_path / "model")
    rows = lines("note,colour,id,size", '"a, b",red,007,1.5', ",blue,1.50,2")
    (tmp_path / "new.csv").write_bytes(rows)
    out = tmp_path / f"out.{kind}"
    assert (
        predict_file(str(tmp_path), "", Request(str(tmp_path / "new.csv"), out, None, carry)) == 0
    )
    frame = (pd.read_csv if kind == "csv" else pd.read_parquet)(
        out, **({"dtype": {"id": str}, "keep_default_na": False} if kind == "csv" else {})
    )
    assert list(frame) == [*names, "y_pred"]
    assert (frame["y_pred"] == kept.predict({"size": [1.5, 2], "colour": ["red", "blue"]})).all()
    if names:
        assert list(frame["id"]) == ["007", "1.50"]
        assert list(frame["note"]) == ["a, b", ""]
        assert list(frame["size"]) == [1.5, 2.0]


@pytest.mark.parametrize(
    ("carry", "said"), [("idd", "no column 'idd'; there are 'size'"), ("y_pred", "rename it there")]
)
def test_columns_that_cannot_be_carried_are_refused(tmp_path: Path, carry: str, said: str) -> None:
    trained().save(tmp_path / "model")
    (tmp_path / "new.csv").write_bytes(lines("size,colour,y_pred", "1,red,2"))
    with pytest.raises(DataError, match=said):
        predict_file(str(tmp_path), "", Request(str(tmp_path / "new.csv"), None, None, (carry,)))
