"""Tables as spreadsheets export them: each is read as the clean table, bit for bit."""

from __future__ import annotations

import csv
import datetime as dt
import io
import os
import random
import shlex
import sys
import zipfile
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fmexp import fm
from fmexp.analysis.preview import Options, inspect
from fmexp.config.compose import compose, parse_arguments
from fmexp.data.files import open_bytes
from fmexp.data.loading import load
from fmexp.errors import DataError, MissingPackageError
from fmexp.model import Model
from fmexp.model import load as load_model
from tests.data_support import lines, load_csv

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fmexp.data.dataset import Dataset

Columns = dict[str, list[Any]]


def clean(missing: bool = False, newline: bool = False) -> Columns:
    """Shops with prices, shares and turnovers; None where a cell is missing."""
    draw = random.Random(0)
    columns: Columns = {name: [] for name in ("größe", "ort", "preis", "anteil", "umsatz", "y")}
    for i in range(60):
        ort = draw.choice(["Köln", 'Bad "Ems"', "Ulm", "Aalen; Ost"])
        row: list[Any] = [draw.choice("SML"), ort, round(draw.uniform(0.5, 99), 2)]
        row += [draw.randrange(1, 1000) / 8, round(draw.uniform(800, 3e6), 2)]
        row += [round(draw.gauss(3, 1), 3)]
        if missing and i % 9 == 4:
            row[2] = None
        if newline:
            row[1] = ort.replace(" ", "\n")
        for cells, cell in zip(columns.values(), row, strict=True):
            cells.append(cell)
    return columns


def text(x: Any) -> str:
    return "" if x is None else repr(x) if isinstance(x, float) else str(x)


def comma(x: Any) -> str:
    return text(x).replace(".", ",") if isinstance(x, float) else text(x)


def grouped(x: Any) -> str:
    """As a German spreadsheet shows it: 1.234.567,89."""
    if not isinstance(x, float):
        return text(x)
    whole, _, rest = repr(x).partition(".")
    return f"{int(whole):,}".replace(",", ".") + "," + rest


def written(
    columns: Columns, cell: Callable[[Any], str] = text, delimiter: str = ",", start: str = ""
) -> str:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([map(cell, row) for row in zip(*columns.values(), strict=True)])
    return start + file.getvalue()


def with_sign(columns: Columns, name: str, form: str) -> Columns:
    cells = [form.format(comma(x)) for x in columns[name]]
    return columns | {name: cells}


def thousands() -> bytes:
    return written(clean(), grouped, ";").encode()


def currency() -> bytes:
    return written(with_sign(clean(), "preis", "{} €"), comma, ";").encode()


def percent() -> bytes:
    return written(with_sign(clean(), "anteil", "{}%"), comma, ";").encode()


def two_title_rows() -> bytes:
    return written(clean(), comma, ";", "Umsätze 2025;;;;;\r\nStand: 1. Mai\r\n\r\n").encode()


EXPORTS: dict[str, Callable[[], bytes]] = {
    "semicolon and decimal comma": lambda: written(clean(), comma, ";").encode(),
    "thousands": thousands,
    "currency": currency,
    "percent": percent,
    "BOM": lambda: written(clean(), comma, ";").encode("utf-8-sig"),
    "latin-1 header": lambda: written(clean(), comma, ";").encode("latin-1"),
    "sep= line": lambda: written(clean(), comma, ";", "sep=;\r\n").encode("utf-8-sig"),
    "two title rows": two_title_rows,
    "#N/A": lambda: written(clean(missing=True), lambda x: comma(x) or "#N/A", ";").encode(),
    "quoted newlines": lambda: written(clean(newline=True), comma, ";").encode(),
}


def proposed(path: Path) -> list[str]:
    """The words after `fmexp run` that `fmexp data` proposes."""
    said = inspect(str(path), Options())
    return shlex.split(said.splitlines()[-1])[2:]


def loaded(words: list[str]) -> Dataset:
    config = compose(parse_arguments(words)).config
    return load(config.data, config.split, config.task)


def assert_equal(found: Dataset, expected: Dataset) -> None:
    assert found.encoder.feature_names == expected.encoder.feature_names
    assert found.split_digest == expected.split_digest
    for part in ("train", "validation", "test"):
        a, b = getattr(found, part), getattr(expected, part)
        assert (a.target == b.target).all()
        assert (a.features.to_dense() == b.features.to_dense()).all()


def clean_one(folder: Path, **oddities: bool) -> Dataset:
    path = folder / "clean.csv"
    path.write_text(written(clean(**oddities)), encoding="utf-8", newline="")
    words = ["data=csv", f"data.path={path}", "data.target=y"]
    return loaded(words + ["data.missing=mean"] * ("missing" in oddities))


ODDITIES = {"#N/A": {"missing": True}, "quoted newlines": {"newline": True}}


@pytest.mark.parametrize("name", EXPORTS)
def test_each_export_is_read_as_the_clean_table(tmp_path: Path, name: str) -> None:
    path = tmp_path / "export.csv"
    path.write_bytes(EXPORTS[name]())
    found = loaded(proposed(path))
    assert_equal(found, clean_one(tmp_path, **ODDITIES.get(name, {})))
    features = found.encoder.n_features
    parameters = fm.initial_parameters(features, 2, 0.5, 0)
    Model(parameters, found.encoder, "regression").save(tmp_path / "model")
    predicted = load_model(tmp_path / "model").predict(path)  # the export, read the same way
    of_rows = Model(parameters, found.encoder, "regression").predict(found.table)
    assert (predicted == of_rows).all()


def test_a_workbook_is_read_as_the_clean_table(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book, columns = openpyxl.Workbook(), clean()
    for row in (["Report"], [], list(columns), *zip(*columns.values(), strict=True)):
        book.active.append(row)
    path = tmp_path / "export.xlsx"
    book.save(path)
    assert_equal(loaded(proposed(path)), clean_one(tmp_path))


def loaded_text(folder: Path, *rows: str, **keys: Any) -> Dataset:
    (folder / "t.csv").write_bytes(lines(*rows))
    return load_csv(folder / "t.csv", **keys)


def some_rows(*others: str) -> list[str]:
    return ["a;y", *(f"{i + 0.5};{i}".replace(".", ",") for i in range(20)), *others]


@pytest.mark.parametrize(
    ("rows", "keys", "said"),
    [
        (some_rows("1.5;3"), {"decimal": ","}, "line 22, column 'a': .* with a decimal comma, got"),
        (
            [row.replace(";", " €;", 1) for row in some_rows()[1:]] + ["7,5;3"],
            {"decimal": ",", "names": ["a", "y"], "delimiter": ";"},
            "line 21, column 'a': expected a finite number with a decimal comma and the sign €",
        ),
        (
            some_rows("1.50,5;3"),
            {"decimal": ",", "thousands": "."},
            "line 22, column 'a': .* and '.' between thousands, got '1.50,5'",
        ),
        (["T", "", *some_rows()], {}, "`fmexp data .*t.csv` finds data.skip_rows"),
    ],
)
def test_cells_that_are_written_otherwise_are_named_by_line(
    tmp_path: Path, rows: list[str], keys: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        loaded_text(tmp_path, *rows, **keys)


def test_numbers_with_commas_are_names_without_the_key_and_a_line_says_so(tmp_path: Path) -> None:
    data = loaded_text(tmp_path, *some_rows(), *some_rows()[1:])
    assert [column.name for column in data.encoder.categorical] == ["a"]
    assert any("such as '0,5'; if these are numbers, `fmexp data` finds" in n for n in data.notes)
    with pytest.raises(DataError, match=r"no column is left .*\n.*if these are numbers, `fmexp"):
        loaded_text(tmp_path, *some_rows())


def test_a_header_in_another_encoding_is_refused_with_the_key(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("größe,y\n1.5,1\n".encode("latin-1"))
    with pytest.raises(
        DataError, match=r"line 1: the header holds .* not UTF-8; .* data.encoding="
    ):
        load_csv(tmp_path / "t.csv")


def test_mixed_currencies_are_no_numbers(tmp_path: Path) -> None:
    rows = [f"{'€$'[i % 2]}{i % 7}.5,{i}" for i in range(40)]
    assert not loaded_text(tmp_path, "a,y", *rows).encoder.numeric


def test_words_for_missing_cells_are_found_and_count_as_empty_ones(tmp_path: Path) -> None:
    rows = [f"{'k.A.' if i % 5 else i / 4},{'k.A.' if i % 3 else 'x'},{i}" for i in range(40)]
    rows += [f"{i / 8},z,{i}" for i in range(40)]
    (tmp_path / "t.csv").write_bytes(lines("a,b,y", *rows))
    words = proposed(tmp_path / "t.csv")
    assert words[-2:] == ["data.missing_values=[k.A.]", "data.missing=mean"]
    data = loaded(words)
    assert data.encoder.categorical[0].categories == ("", "x", "z")
    assert np.isnan(np.asarray(data.table.columns["a"])).sum() == 32


def test_three_digits_behind_a_comma_are_thousands_where_commas_delimit(tmp_path: Path) -> None:
    rows = [f'"{1 + i % 7},{100 + i}",{i}' for i in range(40)]
    (tmp_path / "t.csv").write_bytes(lines("a,y", *rows))
    assert loaded(proposed(tmp_path / "t.csv")).encoder.numeric[0].offset > 1000


def test_predict_skips_title_rows_that_only_the_new_file_has(tmp_path: Path) -> None:
    data = loaded_text(tmp_path, *some_rows(), decimal=",")
    model = Model(fm.initial_parameters(1, 2, 0.5, 0), data.encoder, "regression")
    (tmp_path / "new.csv").write_bytes(lines("Report;", "", "n;a", "1;0,5", "2;1,5"))
    expected = model.predict({"a": [0.5, 1.5]})
    assert (model.predict(tmp_path / "new.csv") == expected).all()


def test_a_workbook_has_typed_cells_and_one_sheet(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book, day = openpyxl.Workbook(), dt.datetime.fromisoformat("2024-05-17T12:00")
    for row in (["a", "b", "when"], [1, True, day], [2.5, False, day.date()]):
        book.active.append(row)
    book.save(tmp_path / "t.xlsx")
    text = open_bytes(tmp_path / "t.xlsx").read()
    assert text == b"a,b,when\n1,1,2024-05-17T12:00:00\n2.5,0,2024-05-17\n"
    book.create_sheet("more").append(["x"])
    book.save(tmp_path / "t.xlsx")
    with pytest.raises(DataError, match="rows on one sheet, got 'Sheet', 'more': save"):
        load_csv(tmp_path / "t.xlsx")


def test_a_workbook_without_the_reader_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as parts:
        parts.writestr("xl/workbook.xml", "<workbook/>")
    with pytest.raises(MissingPackageError, match=r"pip install 'fmexp\[excel\]'"):
        load_csv(tmp_path / "t.xlsx")


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_workbook_is_refused_or_read(seed: int, tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book, path, draw = openpyxl.Workbook(), tmp_path / "t.xlsx", random.Random(seed)
    for row in range(30):
        book.active.append([row * 1.5, "xyz"[row % 3]])
    book.save(path)
    whole = path.read_bytes()
    for _ in range(250 if os.environ.get("FMEXP_SOAK") else 20):  # a process each
        damaged = bytearray(whole)
        for at in draw.sample(range(len(whole)), 6):
            damaged[at] = draw.randrange(256)
        path.write_bytes(damaged)
        with suppress(DataError), open_bytes(path) as opened:
            opened.read()


@pytest.mark.parametrize("keys", [[], ["data.target=y"]])
def test_a_run_on_a_file_with_titles_names_the_key(
    tmp_path: Path, refused: Callable[..., str], keys: list[str]
) -> None:
    (tmp_path / "t.csv").write_text("Sales of 2025;;\n\nshop;price;y\na;1;2\nb;2;3\na;2;3\n")
    said = refused("run", "data=csv", "data.path=t.csv", "tracking=none", *keys)
    assert "'Sales of 2025' looks like a title: data.skip_rows=2 skips it" in said
