"""data.weight: a column that says how much each row counts, from the file to the record."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from fmexp.analysis.compare.choose import refuse_unlike
from fmexp.analysis.compare.command import gather
from fmexp.analysis.predict import Request, predict_file
from fmexp.analysis.preview import Options, inspect
from fmexp.analysis.report.command import _facts
from fmexp.analysis.reproduce import judge
from fmexp.analysis.score import score
from fmexp.config.schema import SplitConfig
from fmexp.data import cache, encoded_split, features
from fmexp.data.learn import Learning
from fmexp.data.memory import from_arrays, from_table
from fmexp.errors import DataError, UserError
from fmexp.record.queries import StoredRuns
from fmexp.training.fitting import fit
from tests.data_support import PARTS, WHOLE, lines, load_csv, load_parquet
from tests.record_support import copy_store, uri_of
from tests.recorded_support import record
from tests.training_fakes import make_config

if TYPE_CHECKING:
    from pathlib import Path

    from fmexp.data.dataset import Dataset


def frame(n_rows: int = 300) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(2, n_rows)).round(3)
    y = (a * b + draw.normal(size=n_rows)).round(3)
    return pd.DataFrame({"a": a, "n": draw.integers(0, 5, n_rows), "b": b, "y": y, "m": 1 + a * a})


@pytest.fixture
def table(tmp_path: Path) -> Path:
    frame().to_csv(tmp_path / "t.csv", index=False)
    frame().to_parquet(tmp_path / "t.parquet", index=False)
    return tmp_path / "t.csv"


def weights(data: Dataset) -> list[np.ndarray | None]:
    parts = (data.train, data.validation, data.test)
    return [part and part.row_weights for part in parts]


def test_the_weights_of_a_row_go_with_it_and_are_no_feature(table: Path) -> None:
    data = load_csv(table, PARTS, weight="n")
    assert data.encoder.feature_names == ["a", "b", "m"]
    for part in (data.train, data.validation, data.test):
        assert part is not None
        assert part.row_weights is not None
        assert (part.row_weights == frame()["n"].to_numpy()[part.rows]).all()
        assert part.total_weight == part.row_weights.sum()
    assert data.raw(np.array([0])).keys() == {"a", "b", "m"}


def test_every_source_gives_the_same_weights(table: Path) -> None:
    expected = load_csv(table, PARTS, weight="n")
    others = [
        load_parquet(table.with_suffix(".parquet"), PARTS, weight="n"),
        from_table(frame(), "y", PARTS, Learning(), weight="n"),
    ]
    for other in others:
        assert other.weight_digest == expected.weight_digest
        for found, wanted in zip(weights(other), weights(expected), strict=True):
            np.testing.assert_array_equal(found, wanted)
    X, y = frame()[["a", "b", "m"]].to_numpy(), frame()["y"].to_numpy()
    data = from_arrays(X, y, PARTS, Learning(), sample_weight=frame()["n"])
    np.testing.assert_array_equal(data.train.row_weights, expected.train.row_weights)
    assert data.weight_digest == expected.weight_digest


def test_what_is_in_files_trains_as_what_is_in_memory(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(table.parent)
    by_group = SplitConfig(0.2, 0.2, "group:m", 0)  # not drawn chunk by chunk
    expected, plain = load_csv(table, by_group, weight="n"), load_csv(table, by_group)
    monkeypatch.setattr(cache, "SMALLEST", 0)
    for module in (encoded_split, features):
        monkeypatch.setattr(module, "CHUNK_ROWS", 64)
    for _ in range(2):  # made, then found again
        data = load_csv(table, by_group, weight="n")
        assert isinstance(data.train.row_weights, np.ndarray)
        assert data.train.row_weights.base is not None
        for found, wanted in zip(weights(data), weights(expected), strict=True):
            np.testing.assert_array_equal(found, wanted)
        assert data.weight_digest == expected.weight_digest
    assert load_csv(table, by_group).train.row_weights is None
    curve = fit(make_config(), data)
    assert curve.train_losses == pytest.approx(fit(make_config(), expected).train_losses)
    assert curve.train_losses != pytest.approx(fit(make_config(), plain).train_losses)
    assert (table.parent / ".fmexp").exists()


def test_digests_tell_other_weights_apart(table: Path) -> None:
    plain, by_n = load_csv(table, PARTS), load_csv(table, PARTS, weight="n")
    by_m = load_csv(table, PARTS, weight="m")
    assert len({plain.weight_digest, by_n.weight_digest, by_m.weight_digest}) == 3
    assert plain.weight_digest == ""
    dropped = load_csv(table, PARTS, drop=["n"])
    assert by_n.columns_digest != dropped.columns_digest
    assert by_n.data_digest == plain.data_digest  # the file's bytes


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("-1", "got '-1'"),
        ("", "got ''"),
        ("NA", "got 'NA'"),
        ("x", "got 'x'"),
        ("inf", "got 'inf'"),
    ],
)
def test_what_is_no_weight_is_refused_with_its_place(tmp_path: Path, cell: str, said: str) -> None:
    (tmp_path / "t.csv").write_bytes(lines("a,n,y", "1,2,3", f"2,{cell},4", "3,0,5"))
    place = rf"(?s)t\.csv.*line 3, column 'n': expected a weight.* at least 0.*{said}"
    with pytest.raises(DataError, match=place):
        load_csv(tmp_path / "t.csv", weight="n", missing="mean")


def test_what_is_no_weight_in_parquet_or_a_frame_is_refused_with_its_row(tmp_path: Path) -> None:
    wrong = frame(4).assign(n=[1, 2, -3, 4])
    wrong.to_parquet(tmp_path / "t.parquet", index=False)
    with pytest.raises(DataError, match=r"row 3, column 'n': expected a weight, .*, got -3"):
        load_parquet(tmp_path / "t.parquet", weight="n")
    with pytest.raises(DataError, match=r"'n' must hold weights, .* got -3 in row 3"):
        from_table(wrong, "y", WHOLE, Learning(), weight="n")


def test_a_cache_that_was_read_as_numbers_is_not_taken_for_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cache, "SMALLEST", 0)
    (tmp_path / "t.csv").write_bytes(lines("a,n,y", "1,2.5,3", "2,-1,4", "3,0,5"))
    load_csv(tmp_path / "t.csv")
    with pytest.raises(DataError, match="line 3, column 'n': expected a weight"):
        load_csv(tmp_path / "t.csv", weight="n")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"weight": "N"}, "data.weight names 'N', which is no column; the columns are"),
        ({"weight": "y"}, "'y' is in data.target and in data.weight: one of them"),
        ({"weight": "n", "numeric": ["n"]}, "'n' is in data.weight and in data.numeric"),
        ({"weight": "n", "drop": ["n"]}, "'n' is in data.weight and in data.drop"),
        ({"weight": "z"}, "all weights .column 'z'. of the train part are zero"),
    ],
)
def test_a_column_that_cannot_be_the_weight_is_refused(
    tmp_path: Path, keys: dict[str, Any], said: str
) -> None:
    (tmp_path / "t.csv").write_bytes(lines("a,n,y,z", "1,2,3,0", "2,1,4,0", "3,0,5,0"))
    with pytest.raises(DataError, match=said):
        load_csv(tmp_path / "t.csv", **keys)


def test_a_text_without_columns_has_no_weight(refused: Any, tmp_path: Path) -> None:
    (tmp_path / "t.svm").write_bytes(lines("1 1:2", "2 1:3"))
    said = refused("run", "data=libsvm", "data.path=t.svm", "data.weight=n", "tracking=none")
    assert "data.weight is not a key of this choice of data" in said
    with pytest.raises(DataError, match="without columns of weights or keys"):
        inspect(str(tmp_path / "t.svm"), Options(weight="n"))


def test_the_best_epoch_is_that_of_the_weighted_losses(table: Path) -> None:
    data = load_csv(table, PARTS, weight="m")
    found = fit(make_config(epochs=30, learning_rate=0.01, patience=3), data)
    assert found.best_validation == min(found.validation_losses)
    assert data.validation is not None
    w, y = data.validation.row_weights, data.validation.target * data.encoder.target_scale
    mean = np.average(data.train.target, weights=data.train.row_weights) * data.encoder.target_scale
    assert found.baseline == pytest.approx(np.average((y - mean) ** 2, weights=w))


def test_fmexp_data_shows_the_weight_and_puts_it_into_the_command(table: Path) -> None:
    said = inspect(str(table), Options(weight="n"))
    line = next(line for line in said.splitlines() if line.split()[:2] == ["weight", "n"])
    assert "0 to 4, 1.98 on average" in line
    assert said.splitlines()[-1].endswith(" data.weight=n")


def test_weights_that_a_backend_cannot_take_are_refused_before_anything_is_written(
    refused: Any, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_bytes(lines("a,n,y", *(f"{i},{i / 2},{i % 2}" for i in range(30))))
    said = refused("run", "data=csv", "data.path=t.csv", "data.weight=n", "task=classification",
                   "backend=gibbs")  # fmt: skip
    assert "needs weights that are whole numbers" in said
    assert [file.name for file in tmp_path.iterdir()] == ["t.csv"]


def test_weights_that_cannot_be_added_up_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(lines("a,n,y", *(f"{i},1e308,{i}" for i in range(9))))
    with pytest.raises(DataError, match=r"'n'. of the train part add up to more than .* holds"):
        load_csv(tmp_path / "t.csv", weight="n")


@pytest.mark.parametrize("weight", ["n", "None"])
def test_a_report_names_the_weight(weight: str) -> None:
    parent = SimpleNamespace(params={"data.weight": weight}, n_rows=3)
    sweep: Any = SimpleNamespace(parent=parent, best=[], curve="val/mse")
    assert _facts(sweep, None)["weighted by"] == ("n" if weight == "n" else "")


def test_predict_needs_no_weight_and_every_reader_of_records_heeds_it(
    tmp_path: Path, empty_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_store(empty_store, tmp_path)
    frame().to_csv(folder / "t.csv", index=False)
    frame()[["b", "m", "a"]].to_csv(folder / "new.csv", index=False)
    run = ["data=csv", f"data.path={folder / 't.csv'}", "training.epochs=4"]
    by_n = [*run, "data.weight=n"]
    ids = record(
        folder, a=by_n, b=[*by_n, "model.k=2"], plain=run, other=[*run, "data.weight=m"],
        of_b=[*run, "data.target=b"],
    )  # fmt: skip
    with StoredRuns(uri_of(folder)) as records:
        a, b, plain, other = (records.find(ids[name]) for name in ("a", "b", "plain", "other"))
        compared = gather(records, ["a", "b"], None, None, folder, None)
        errors, held = compared.candidates[0].errors[0], compared.candidates[0].row_weights
        assert np.average(errors, weights=held) == pytest.approx(a.metrics["best/val_mse"])
        assert a.metrics["best/val_rmse"] ** 2 == pytest.approx(a.metrics["best/val_mse"])
        for unlike in (plain, other):
            with pytest.raises(UserError, match=r"weight digest differ .*data\.weight: n and"):
                refuse_unlike([a, unlike])
        with pytest.raises(UserError, match=r"target differ .*data\.target: None and b"):
            refuse_unlike([plain, records.find(ids["of_b"])])
        assert {each.name for each in records.on_same_data(b)} == {"a", "b"}
        assert {each.name for each in records.on_same_data(plain)} == {"plain"}
        assert judge(records, a, folder).kind == "identical"
        assert "Rows are weighted by n." in a.tags["mlflow.note.content"]
    assert score("a", uri_of(folder), folder) == 0
    with StoredRuns(uri_of(folder)) as records:
        tested = records.find(ids["a"]).metrics["test/mse"]
    assert f"test/mse {tested:.2g}"[:12] in capsys.readouterr().out
    predict_file("a", uri_of(folder), Request(str(folder / "new.csv"), folder / "out.csv"))
    assert len(pd.read_csv(folder / "out.csv")) == 300
