"""Dates: what the time split takes, what `data.dates` makes of them, and rows without a time."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fmexp import fm
from fmexp.config.schema import SplitConfig
from fmexp.data import dates
from fmexp.data.learn import Learning
from fmexp.data.memory import from_table
from fmexp.errors import DataError
from fmexp.model import Model, load
from tests.data_support import PARTS, lines, load_csv, load_parquet

if TYPE_CHECKING:
    from pathlib import Path

    from fmexp.data.dataset import Dataset

DAYS = [dt.date(2023, 11, 1) + dt.timedelta(days=(i * 37) % 200) for i in range(100)]
BY_TIME = SplitConfig(0.2, 0.2, "time:when", 0)


def loaded(folder: Path, cells: list[str], split: SplitConfig = BY_TIME, **keys: Any) -> Dataset:
    rows = [f'"{cell}",{i % 7}.5,{i}' for i, cell in enumerate(cells)]
    (folder / "t.csv").write_bytes(lines("when,a,y", *rows))
    return load_csv(folder / "t.csv", split, **keys)


def held_back(data: Dataset) -> set[int]:
    assert data.test is not None
    return set(data.test.rows.tolist())


LATEST = set(np.argsort(np.array(DAYS, "datetime64[D]"))[-20:].tolist())


@pytest.mark.parametrize("form", ["%d.%m.%Y", "%m/%d/%Y", "%d %b %Y", "%Y-%m-%d", "%d.%m.%y %H:%M"])
def test_dates_in_any_format_are_ordered_as_days(tmp_path: Path, form: str) -> None:
    data = loaded(tmp_path, [day.strftime(form) for day in DAYS], dates={"when": form})
    assert held_back(data) == LATEST
    assert data.encoder.column_names == ["a"]


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("%d.%m.%Y", "'data.dates={when: \"%d.%m.%Y\"}'"),
        ("%m/%d/%Y", "'data.dates={when: \"%m/%d/%Y\"}'"),
        ("%A, %d. %B %Y", "such as 'data.dates={when: \"%d.%m.%Y\"}'"),
    ],
)
def test_texts_that_do_not_sort_as_times_are_refused_with_the_key(
    tmp_path: Path, form: str, said: str
) -> None:
    cells = [day.strftime(form) for day in DAYS]
    with pytest.raises(DataError, match=r"expected numbers or ISO 8601.* in row 1: ") as caught:
        loaded(tmp_path, cells)
    assert said in str(caught.value)
    assert cells[0] in str(caught.value)


def test_dates_that_may_be_read_in_two_ways_are_told_both(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'"%m/%d/%Y"}. or .data.dates=.when: "%d/%m/%Y"'):
        loaded(tmp_path, [f"{1 + i % 9:02}/{1 + i % 12:02}/2024" for i in range(30)])


def iso(form: str) -> list[str]:
    return [day.strftime(form) for day in DAYS]


@pytest.mark.parametrize(
    "cells",
    [
        iso("%Y-%m-%d"),
        iso("%Y%m%d"),
        iso("%Y-%m-%dT09:00:00+02:00"),
        iso("%Y-%m-%d 09:00:00.250"),
        iso("%G-W%V-%u"),
        [str((day - dt.date(1970, 1, 1)).days) for day in DAYS],
    ],
)
def test_numbers_and_iso_8601_need_no_key(tmp_path: Path, cells: list[str]) -> None:
    assert held_back(loaded(tmp_path, cells)) == LATEST


def test_times_with_offsets_are_ordered_as_moments(tmp_path: Path) -> None:
    cells = [f"2024-05-{1 + i // 24:02}T{i % 24:02}:00:00+00:00" for i in range(100)]
    cells[50] = "2024-05-03T02:30:00-05:00"  # 07:30 in UTC
    (file_order,) = {tuple(sorted(held_back(loaded(tmp_path, cells))))}
    assert file_order == tuple(range(80, 100))
    assert dates.iso_days("2024-05") == dates.iso_days("2024-05-01")


@pytest.mark.parametrize("missing", ["", "NA"])
@pytest.mark.parametrize("form", ["%Y-%m-%d", "%Y%m%d"])
def test_a_row_without_a_time_is_named(tmp_path: Path, form: str, missing: str) -> None:
    cells = iso(form)
    cells[56] = cells[60] = missing
    with pytest.raises(DataError, match=r"row 57 has no time .* 2 rows in all|line 58, column"):
        loaded(tmp_path, cells)


def test_a_row_without_a_date_is_named_by_its_line(tmp_path: Path) -> None:
    cells = [*iso("%d.%m.%Y")[:30], ""]
    with pytest.raises(DataError, match=r"line 32, column 'when': .* missing value ''"):
        loaded(tmp_path, cells, dates={"when": "%d.%m.%Y"})
    with pytest.raises(DataError, match=r"row 31 has no time"):
        loaded(tmp_path, cells, dates={"when": "%d.%m.%Y"}, numeric=["when"], missing="mean")


def test_a_cell_that_is_written_otherwise_is_named_by_its_line(tmp_path: Path) -> None:
    cells = [*iso("%d.%m.%Y"), "2024-05-17"]
    with pytest.raises(
        DataError, match=r"line 102, column 'when': expected a date as %d.%m.%Y, got"
    ):
        loaded(tmp_path, cells, dates={"when": "%d.%m.%Y"})


def test_dates_are_numeric_features_that_a_model_reads_from_every_format(tmp_path: Path) -> None:
    form = "%d.%m.%Y"
    data = loaded(tmp_path, iso(form), PARTS, dates={"when": form})
    assert [column.name for column in data.encoder.numeric] == ["when", "a"]
    assert data.raw(np.array([3]))["when"] == [DAYS[3].strftime(form)]
    Model(fm.initial_parameters(2, 2, 0.5, 0), data.encoder, "regression").save(tmp_path / "model")
    model = load(tmp_path / "model")
    expected = model.predict(tmp_path / "t.csv")
    a = [i % 7 + 0.5 for i in range(100)]
    for when in (iso(form), DAYS, np.array(DAYS, "datetime64[ns]")):
        assert (model.predict({"when": when, "a": a}) == expected).all()
    with pytest.raises(DataError, match=r"'when': expected a date as %d.%m.%Y, got 'soon'"):
        model.predict({"when": ["soon"], "a": [1.0]})


def test_dates_of_parquet_are_taken_as_they_are_stored(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = {"a": [i % 7 + 0.5 for i in range(100)], "y": [float(i) for i in range(100)]}
    encoders = []
    for when in (DAYS, iso("%d.%m.%Y"), pa.array(DAYS).cast(pa.timestamp("ns"))):
        parquet.write_table(pa.table({"when": when, **table}), tmp_path / "t.parquet")
        keys: dict[str, Any] = {"dates": {"when": "%d.%m.%Y"}}
        assert held_back(load_parquet(tmp_path / "t.parquet", BY_TIME, **keys)) == LATEST
        encoders.append(load_parquet(tmp_path / "t.parquet", PARTS, **keys).encoder)
    assert encoders[0] == encoders[1] == encoders[2]


def test_dates_of_a_frame_are_dates(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"when": pandas.to_datetime(DAYS), "a": 1.0, "y": range(100)})
    frame["a"] = np.arange(100) % 7 + 0.5
    assert held_back(from_table(frame, "y", BY_TIME, Learning())) == LATEST
    learned = from_table(frame, "y", PARTS, Learning(), dates={"when": "%Y"})
    assert "when" in [column.name for column in learned.encoder.numeric]
    frame.loc[7, "when"] = pandas.NaT
    with pytest.raises(DataError, match=r"row 8 has no time"):
        from_table(frame, "y", BY_TIME, Learning())


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"dates": {"when": "%d.%m"}}, r"data.dates.when must hold the year \(%Y or %y\), got"),
        ({"dates": {"when": "%Q"}}, "data.dates.when must be a format of strptime, got '%Q'"),
        ({"dates": {"wehn": "%Y"}}, "data.dates names 'wehn', which is no column .did you mean"),
        ({"dates": {"y": "%Y"}}, "'y' is in data.target and in data.dates"),
        (
            {"dates": {"when": "%Y"}, "categorical": ["when"]},
            "'when' is in data.categorical and in data.dates",
        ),
    ],
)
def test_dates_that_cannot_be_are_refused(
    tmp_path: Path, keys: dict[str, Any], reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        loaded(tmp_path, iso("%d.%m.%Y"), PARTS, **keys)


def test_the_key_goes_through_the_command_line_and_the_params() -> None:
    from fmexp.analysis.stored_run import from_params
    from fmexp.config.compose import compose, parse_arguments
    from fmexp.config.schema import flatten

    words = ["data=csv", "data.path=t.csv", 'data.dates={when: "%d.%m.%Y", name: "%Y"}']
    composed = compose(parse_arguments(words))
    expected = {"when": "%d.%m.%Y", "name": "%Y"}
    assert composed.config.data.dates == expected  # type: ignore[union-attr]
    params = {key: str(value) for key, value in flatten(composed.config_tree).items()}
    assert from_params(params)["data"]["dates"] == expected
