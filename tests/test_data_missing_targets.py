"""Rows without a target: refused with the key to set, or left out and counted."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fmexp.analysis.preview import Options, inspect
from fmexp.data import cache
from fmexp.errors import DataError
from tests.data_support import PARTS, lines, load_csv, load_parquet

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [f"{i % 7}.5,{'' if i % 10 == 3 else i}" for i in range(100)]
NAMES = [f"{i % 7}.5,{'NA' if i % 10 == 3 else 'fm'[i % 2]}" for i in range(100)]


def table(folder: Path, rows: list[str]) -> Path:
    (folder / "t.csv").write_bytes(lines("a,y", *rows))
    return folder / "t.csv"


@pytest.mark.parametrize("cached", [False, True])
def test_rows_without_a_target_are_left_out_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cache, "SMALLEST", 0 if cached else 1 << 40)
    for _ in range(2):
        data = load_csv(table(tmp_path, ROWS), PARTS, missing_target="drop")
        assert data.notes == ("10 rows have no target (y) and are left out",)
    without = table(tmp_path, [row for row in ROWS if not row.endswith(",")])
    expected = load_csv(without, PARTS)
    assert data.split_digest == expected.split_digest
    assert data.columns_digest == expected.columns_digest
    assert (data.train.target == expected.train.target).all()


def test_the_message_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 5, column 'y': .*data.missing_target=drop"):
        load_csv(table(tmp_path, ROWS))
    with pytest.raises(DataError, match=r"target 'y' is missing .*'NA'.*data.missing_target=drop"):
        load_csv(table(tmp_path, NAMES), task="classification")


def test_names_as_target_are_said_to_be_names_though_some_are_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"target 'y' holds text such as 'f'.*task=classification"):
        load_csv(table(tmp_path, NAMES))


def test_rows_without_a_label_are_left_out(tmp_path: Path) -> None:
    data = load_csv(table(tmp_path, NAMES), PARTS, "classification", missing_target="drop")
    assert data.encoder.labels == ("f", "m")
    assert len(data.table) == 90


def test_two_labels_of_which_one_reads_as_missing_are_both_labels(tmp_path: Path) -> None:
    rows = [f"{i % 7}.5,{('none', 'some', '')[i % 3]}" for i in range(99)]
    data = load_csv(table(tmp_path, rows), PARTS, "classification", missing_target="drop")
    assert data.encoder.labels == ("none", "some")
    assert data.table.left_out == 33


def test_parquet_leaves_them_out_too(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    cells = {"a": np.arange(9) / 7, "y": [None, *map(float, range(8))]}
    parquet.write_table(pa.table(cells), tmp_path / "t.parquet")
    assert len(load_parquet(tmp_path / "t.parquet", missing_target="drop").table) == 8
    with pytest.raises(DataError, match=r"row 1, column 'y': .*data.missing_target=drop"):
        load_parquet(tmp_path / "t.parquet")


def test_a_table_without_any_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t.csv holds no rows with a target"):
        load_csv(table(tmp_path, ["1.5,", "2.5,"]), missing_target="drop")


@pytest.mark.parametrize(("rows", "task"), [(ROWS, ""), (NAMES, "task=classification")])
def test_fmexp_data_counts_them_and_its_command_leaves_them_out(
    tmp_path: Path, rows: list[str], task: str
) -> None:
    said = inspect(str(table(tmp_path, rows)), Options())
    assert "10 rows have no 'y', the target" in said
    words: Any = shlex.split(said.splitlines()[-1])
    assert "data.missing_target=drop" in words
    assert not task or task in words
