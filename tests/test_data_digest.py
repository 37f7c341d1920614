"""What counts as the same data: the file, the columns that are used, the rows that are tested."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import pytest

from fmexp.analysis.compare.command import compare
from fmexp.analysis.score import score
from fmexp.config.schema import SplitConfig
from tests.data_support import PARTS, lines, load_csv
from tests.record_support import copy_store, uri_of
from tests.recorded_support import record

if TYPE_CHECKING:
    from pathlib import Path

    from fmexp.data.dataset import Dataset

ROWS = [f"{i % 7}.5,c{i % 5},{i % 11}" for i in range(100)]


def digests(data: Dataset) -> tuple[str, str, str]:
    return data.data_digest, data.columns_digest, data.test_digest


def loaded(folder: Path, rows: list[str] = ROWS, **keys: Any) -> tuple[str, str, str]:
    (folder / "t.csv").write_bytes(lines("a,b,y", *rows))
    return digests(load_csv(folder / "t.csv", PARTS, **keys))


def test_a_column_that_is_dropped_is_still_of_the_same_data(tmp_path: Path) -> None:
    all_data, all_columns, all_tested = loaded(tmp_path)
    data, columns, tested = loaded(tmp_path, drop=["b"])
    assert (data, tested) == (all_data, all_tested)
    assert columns != all_columns
    assert loaded(tmp_path, categorical=["a"])[0] == all_data


def test_a_cell_of_a_dropped_column_is_of_the_data_but_not_of_the_columns(tmp_path: Path) -> None:
    before = loaded(tmp_path, drop=["b"])
    after = loaded(tmp_path, [*ROWS[:-1], "1.5,other,0"], drop=["b"])
    assert before[0] != after[0]
    assert before[1:] == after[1:]


def test_packing_a_file_leaves_its_digest(tmp_path: Path) -> None:
    plain = loaded(tmp_path)
    (tmp_path / "t.csv").write_bytes(gzip.compress((tmp_path / "t.csv").read_bytes()))
    assert digests(load_csv(tmp_path / "t.csv", PARTS)) == plain


def test_the_test_rows_are_known_by_their_numbers_and_targets(tmp_path: Path) -> None:
    numbers = [f"{i % 7}.5,c{i % 5},{i % 2}" for i in range(100)]
    tested = loaded(tmp_path, numbers)[2]

    def tested_with(*split: Any, task: str = "regression") -> str:
        return load_csv(tmp_path / "t.csv", SplitConfig(*split), task).test_digest

    assert tested_with(0.3, 0.2, None, 0) == tested
    assert tested_with(0.2, 0.2, None, 0, task="classification") == tested
    assert tested_with(0.2, 0.2, None, 1) != tested
    assert tested_with(0.2, 0.0, None, 0) == ""
    assert loaded(tmp_path, [row[:-1] + "7" for row in numbers])[2] != tested


@pytest.fixture
def two_runs(tmp_path: Path, empty_store: Path) -> Path:
    """A run on all columns and one on some."""
    (tmp_path / "t.csv").write_bytes(lines("a,b,y", *ROWS))
    copy_store(empty_store, tmp_path)
    keys = ["data=csv", f"data.path={tmp_path / 't.csv'}", "training.epochs=3"]
    record(tmp_path, all=keys, some=[*keys, "data.drop=[b]", "split.validation=0.2"])
    return tmp_path


def test_a_look_at_the_test_part_counts_for_every_choice_of_columns(
    two_runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score("all", uri_of(two_runs), two_runs) == 0
    assert "looked at for the first time" in capsys.readouterr().out
    assert score("some", uri_of(two_runs), two_runs) == 0
    assert "looked at once before" in capsys.readouterr().out


def test_models_of_other_columns_of_a_file_are_compared_row_by_row(
    two_runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(["all", "some"], None, None, uri_of(two_runs), two_runs, None, None) == 0
    said = capsys.readouterr().out
    assert "data.drop" in said
    assert "on 20 " in said, said
