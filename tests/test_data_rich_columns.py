"""Columns that are more than one number or name: dates with their parts, lists of categories."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from fmexp import fm
from fmexp.data import dates
from fmexp.data.learn import Learning
from fmexp.data.memory import from_table
from fmexp.errors import DataError
from fmexp.model import Model, load
from tests.data_support import PARTS, WHOLE, lines, load_csv, load_parquet

if TYPE_CHECKING:
    from pathlib import Path

    from fmexp.data.dataset import Dataset

MOMENTS = [dt.datetime(2024, 1, 30, 5) + dt.timedelta(hours=31 * i) for i in range(80)]  # noqa: DTZ001
GENRES = ["Drama|Crime", "Drama", "", " Crime | Drama|Crime", "War"]


def loaded(folder: Path, names: str, rows: list[str], **keys: Any) -> Dataset:
    (folder / "t.csv").write_bytes(
        lines(f"{names},y", *(f"{r},{i % 7}" for i, r in enumerate(rows)))
    )
    return load_csv(folder / "t.csv", **keys)


def isos() -> list[str]:
    return [moment.isoformat() for moment in MOMENTS]


def test_iso_dates_are_found_and_count_days_from_the_first_training_row(tmp_path: Path) -> None:
    data = loaded(tmp_path, "when", isos(), split=PARTS, standardize=False)
    assert data.encoder.numeric[0].date == dates.ISO
    assert any("numeric: when (dates, ISO 8601" in note for note in data.notes)
    days = np.array([31 * i / 24 for i in data.train.rows])
    np.testing.assert_allclose(np.asarray(data.train.features)[:, 0], days - days[0], atol=1e-9)
    assert data.raw(np.array([0, 3]))["when"] == [isos()[0], isos()[3]]


def test_iso_dates_that_are_said_to_be_names_stay_names(tmp_path: Path) -> None:
    data = loaded(tmp_path, "when", isos(), categorical=["when"])
    assert not data.encoder.numeric


@pytest.mark.parametrize(("part", "form"), [("weekday", "%A"), ("month", "%-m"), ("hour", "%-H")])
def test_the_parts_of_a_date_are_what_the_calendar_says(part: str, form: str) -> None:
    text = dates.part_of(dates.days(isos(), dates.ISO), part)
    assert text.texts() == [moment.strftime(form) for moment in MOMENTS]
    before_1970 = dates.part_of(dates.days(["1969-12-31T23:59:59", ""], dates.ISO), part)
    expected = {"weekday": "Wednesday", "month": "12", "hour": "23"}[part]
    assert before_1970.texts() == [expected, ""]


def test_parts_of_dates_are_categories_that_a_stored_model_makes_again(tmp_path: Path) -> None:
    parts = ["weekday", "month", "hour"]
    data = loaded(tmp_path, "when", isos(), split=PARTS, date_parts=parts)
    assert [c.name for c in data.encoder.categorical] == [f"when ({part})" for part in parts]
    assert data.encoder.column_names == ["when"]
    n = data.encoder.n_features
    Model(fm.initial_parameters(n, 2, 0.5, 0), data.encoder, "regression").save(tmp_path / "model")
    model = load(tmp_path / "model")
    assert (model.predict(tmp_path / "t.csv") == model.predict({"when": MOMENTS})).all()


def genres(folder: Path, **keys: Any) -> Dataset:
    return loaded(folder, "g", GENRES * 8, lists={"g": "|"}, **keys)


@pytest.mark.parametrize(("weight", "two"), [("sqrt", 0.5**0.5), ("mean", 0.5), ("one", 1.0)])
def test_each_category_of_a_cell_is_a_feature(tmp_path: Path, weight: str, two: float) -> None:
    data = genres(tmp_path, list_weight=weight)
    assert data.encoder.feature_names == ["g=Crime", "g=Drama", "g=War"]
    expected = [[two, two, 0], [0, 1, 0], [0, 0, 0], [two, two, 0], [0, 0, 1]]
    assert data.train.features.to_dense()[:5].tolist() == expected  # type: ignore[union-attr]


def test_unknown_categories_of_a_cell_add_nothing_but_count(tmp_path: Path) -> None:
    encoder = genres(tmp_path).encoder
    Model(fm.initial_parameters(3, 2, 0.5, 0), encoder, "regression").save(tmp_path / "model")
    features = load(tmp_path / "model").encoder.features
    (tmp_path / "new.csv").write_bytes(lines("g", "Drama|Noir|Sport|Jazz", "Noir"))
    from fmexp.data.new_rows import batches

    (table,) = batches(tmp_path / "new.csv", encoder)
    assert features(table).to_dense().tolist() == [[0, 0.5, 0], [0, 0, 0]]  # type: ignore[union-attr]


def test_rare_categories_of_a_cell_share_a_feature(tmp_path: Path) -> None:
    data = loaded(
        tmp_path, "g", ["a|b|c", "a", "a|b", "d"] * 5 + ["e|f"], lists={"g": "|"}, min_count=2
    )
    assert data.encoder.feature_names[-1] == "g=(rare)"
    assert data.train.features.to_dense()[-1, -1] == pytest.approx(2**0.5)  # type: ignore[union-attr]


def test_lists_beside_numbers_and_names_keep_ascending_features(tmp_path: Path) -> None:
    rows = [f"{i % 5}.5,{g},c{i % 3}" for i, g in enumerate(GENRES * 8)]
    data = loaded(tmp_path, "x,g,c", rows, lists={"g": "|"}, split=PARTS)
    features = data.train.features
    assert not isinstance(features, np.ndarray)
    for row in range(len(features)):
        indices = features.take(slice(row, row + 1)).indices
        assert (np.diff(indices) > 0).all()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"lists": {"h": "|"}}, "data.lists names 'h', which is no column"),
        ({"lists": {"g": ""}}, "data.lists.g must be what separates"),
        ({"lists": {"g": "|"}, "numeric": ["g"]}, "'g' is in data.numeric and in data.lists"),
    ],
)
def test_lists_that_cannot_be_are_refused(tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        loaded(tmp_path, "g", GENRES * 8, **keys)


def test_parquet_has_dates_and_lists_too(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {"when": MOMENTS[:40], "g": GENRES * 8, "y": [float(i % 7) for i in range(40)]}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    keys: dict[str, Any] = {"lists": {"g": "|"}, "date_parts": ["hour"]}
    found = load_parquet(tmp_path / "t.parquet", **keys)
    rows = [f"{m.isoformat()},{g}" for m, g in zip(MOMENTS, GENRES * 8, strict=False)]
    expected = loaded(tmp_path, "when,g", rows, **keys)
    assert found.encoder.feature_names == expected.encoder.feature_names
    assert (found.train.features.to_dense() == expected.train.features.to_dense()).all()  # type: ignore[union-attr]


def parquet_of(path: Path, genres: list[list[str | None] | None]) -> Path:
    y = [i % 7 for i in range(len(genres))]
    parquet.write_table(pa.table({"g": pa.array(genres, pa.list_(pa.string())), "y": y}), path)
    return path


LISTS = [["Drama", "Crime"], ["Drama"], None, [None, "Crime", "Drama", "Crime"], ["War"]]


def test_lists_in_parquet_and_in_frames_are_lists_without_being_named(tmp_path: Path) -> None:
    expected = genres(tmp_path)
    data = load_parquet(parquet_of(tmp_path / "t.parquet", LISTS * 8))
    y = [i % 7 for i in range(40)]
    of_frame = from_table({"g": LISTS * 8, "y": y}, "y", WHOLE, Learning())
    for found in (data, of_frame):
        assert found.encoder.feature_names == expected.encoder.feature_names
        assert (found.train.features.to_dense() == expected.train.features.to_dense()).all()  # type: ignore[union-attr]


def test_a_model_of_texts_takes_lists_and_one_of_lists_takes_lists(tmp_path: Path) -> None:
    new, rows = parquet_of(tmp_path / "new.parquet", LISTS), genres(tmp_path)
    of_lists = load_parquet(parquet_of(tmp_path / "t.parquet", LISTS * 8))
    for data in (rows, of_lists):
        model = Model(fm.initial_parameters(3, 2, 0.5, 0), data.encoder, "regression")
        expected = model.predict_features(data.train.features)[:5]
        assert (model.predict(new) == expected).all()
        assert (model.predict({"g": LISTS}) == expected).all()


def test_lists_that_cannot_be_taken_are_refused(tmp_path: Path) -> None:
    path = parquet_of(tmp_path / "t.parquet", LISTS * 8)
    with pytest.raises(DataError, match="'g' holds lists already: nothing separates them"):
        load_parquet(path, lists={"g": "|"})
    parquet_of(path, [["a\tb"], ["c"]] * 20)
    with pytest.raises(DataError, match=r"categories of a list without '\\t', got 'a\\tb'"):
        load_parquet(path)
