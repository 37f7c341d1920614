"""predictions.csv: the source's own columns under their own names, and how many rows there are."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import pytest

from fmexp import fm
from fmexp.cli.parser import main
from fmexp.experiment.artifacts import write_predictions
from fmexp.model import Model
from tests.data_support import PARTS, lines, load_csv
from tests.record_support import copy_store

if TYPE_CHECKING:
    from pathlib import Path


def written(
    folder: Path, table: bytes, target: str, task: str = "regression", most: int = 1000
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the predictions of a model that was not trained."""
    (folder / "t.csv").write_bytes(table)
    data = load_csv(folder / "t.csv", PARTS, task, target=target)
    parameters = fm.initial_parameters(data.encoder.n_features, 2, 0.5, 0)
    write_predictions(folder / "p.csv", data, Model(parameters, data.encoder, task), most)
    with (folder / "p.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    return header, rows


def test_the_target_keeps_its_name_beside_a_column_that_is_called_y(tmp_path: Path) -> None:
    table = lines("y,price,c", *(f"{i}.5,{i % 4}.1,{'uvw'[i % 3]}" for i in range(50)))
    header, rows = written(tmp_path, table, "price")
    assert header == ["y", "c", "price", "y_pred", "part"]
    assert rows[0][:3] == ["0.5", "u", "0.1"]


def test_columns_of_the_source_keep_their_names_and_ours_give_way(tmp_path: Path) -> None:
    table = lines("part,y_pred,y", *(f"{'uvw'[i % 3]},{i}.5,{i % 4}" for i in range(50)))
    assert written(tmp_path, table, "y")[0] == ["part", "y_pred", "y", "y_pred_", "part_"]


def test_labels_are_written_as_the_source_has_them(tmp_path: Path) -> None:
    table = lines("a,bought", *(f"{i % 7}.5,{'yes' if i % 3 else 'no'}" for i in range(50)))
    header, rows = written(tmp_path, table, "bought", "classification")
    assert {row[header.index("bought")] for row in rows} == {"yes", "no"}


def test_as_many_rows_are_written_as_asked_for(tmp_path: Path) -> None:
    table = lines("a,y", *(f"{i % 7}.5,{i}" for i in range(50)))
    assert len(written(tmp_path, table, "y", most=9)[1]) == 9
    assert len(written(tmp_path, table, "y", most=40)[1]) == 40


def test_the_screen_says_when_some_rows_are_left_out(
    tmp_path: Path,
    empty_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy_store(empty_store, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["run", "training.epochs=2", "tracking.prediction_rows=100"]) == 0
    assert "predictions.csv holds 100 of 354 (tracking.prediction_rows)" in capsys.readouterr().out
    assert main(["run", "training.epochs=2"]) == 0
    assert "predictions.csv" not in capsys.readouterr().out
