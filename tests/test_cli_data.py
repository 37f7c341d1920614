"""`fmexp data FILE`: what it says of a table, and that the command which it prints works."""

from __future__ import annotations

import random
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from fmexp.analysis.preview import Options, inspect
from fmexp.errors import DataError
from tests.data_support import lines

if TYPE_CHECKING:
    from pathlib import Path


def table(folder: Path, *rows: str, name: str = "t.csv") -> str:
    (folder / name).write_bytes(lines(*rows))
    return str(folder / name)


def ratings(folder: Path) -> str:
    draw = random.Random(0)
    rows = [
        f"{i},{draw.randrange(30)},i{draw.randrange(9)},{draw.random():.3f},{draw.randrange(1, 6)}"
        for i in range(500)
    ]
    return table(folder, "row,user,item,price,rating", *rows)


def test_the_contract_is_shown_with_its_reasons(tmp_path: Path) -> None:
    said = inspect(ratings(tmp_path), Options())
    assert "500 rows" in said
    for words in (
        ["numeric", "price", "0"],
        ["categorical", "user", "30 categories", "integers that repeat", "data.numeric=[user]"],
        ["categorical", "item", "9 categories: i0, i1, i2"],
        ["target", "rating", "1 to 5", "by its name"],
        ["dropped", "row", "it numbers the rows"],
        ["40 features; rows are kept sparse, 3.0 entries a row"],
    ):
        assert any(all(word in line for word in words) for line in said.splitlines()), words


def test_users_and_items_make_it_propose_their_history(tmp_path: Path) -> None:
    pairs = [(u, i) for u in range(40) for i in range(60) if (u * i + u) % 3]
    path = table(tmp_path, "user,film,rating", *(f"u{u},f{i},{(u + i) % 5}" for u, i in pairs))
    said = "user, film: users and items? 'data.history={user: film}' gives each row the items of"
    assert said in inspect(path, Options())
    assert "data.history" not in inspect(ratings(tmp_path), Options())


def test_a_second_table_is_looked_into(tmp_path: Path) -> None:
    genres = ["Drama|War", "War", "War|Crime", "Crime|Drama", "Drama", "Crime"]
    films = [f"f{i},{i % 9 + 1}.0{i % 8 + 1}.2020,{genres[i % 5]}" for i in range(30)]
    table(tmp_path, "film,released,genres", *films, name="films.csv")
    path = table(tmp_path, "film,rating", *(f"f{i % 31},{i % 5}" for i in range(200)))
    said = inspect(path, Options(joins={"film": "films.csv"}))
    assert "film: 6 rows have one that the joined table does not have; data.missing=mean" in said
    assert "genres: several categories in a cell? 'data.lists={genres: \"|\"}'" in said
    assert "released  01.01.2020 to" in said
    keys = "'data.joins={film: films.csv}' 'data.dates={released: \"%d.%m.%Y\"}' data.missing=mean"
    assert said.splitlines()[-1].endswith(keys)


def test_the_command_that_it_prints_trains(fmexp: Any) -> None:
    ratings(fmexp.folder)
    said = fmexp("data", "t.csv")
    words = shlex.split(said.splitlines()[-1])
    assert words[:4] == ["fmexp", "run", "data=csv", "data.path=t.csv"]
    assert words[4:] == []  # the rest is inferred alike
    assert "completed" in fmexp(*words[1:], "training.epochs=2", "tracking=none")


def test_without_a_target_the_columns_are_shown_and_it_is_asked_for(tmp_path: Path) -> None:
    said = inspect(table(tmp_path, "a,b", "1,x", "2,z"), Options())
    assert "  b  x, z" in said
    assert "--target NAME" in said


def test_sample_cells_are_shown_whole(tmp_path: Path) -> None:
    cells = [f"{i}.123456789,{'x' * 70}" for i in range(9)]
    said = inspect(table(tmp_path, "a,b", *cells), Options()).splitlines()
    assert said[1] == "  a  0.123456789, 1.123456789, 2.123456789, 3.123456789, ..."
    assert said[2] == f"  b  {'x' * 60}..."
    rows = [f"{'k' * 19}{i % 4},{i}" for i in range(40)]
    said_of_target = inspect(table(tmp_path, "c,y", *rows), Options())
    assert f"4 categories: {'k' * 19}0, ..." in said_of_target


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([f"{i}.5,1" for i in range(30)], "target 'y' is the same in all rows"),
        ([f"7.5,{i}" for i in range(30)], "a: the same number in all rows"),
        ([f"{i}.5,{i}" for i in range(30)], "a: gives the target away"),
        ([f"{i % 9}.5,{i % 2}" for i in range(30)], "task=classification may be what you want"),
        ([f"{10**9 if i == 7 else i % 9}.5,{i}" for i in range(2000)], "standard deviations from"),
        ([f"{2**60 + i * 77},{i % 7}" for i in range(30)], "beyond 2^53"),
        ([f"n{i if i < 28 else 1},{i}" for i in range(70)], "27 of 28 categories occur once"),
        (
            [f"'1,{i % 9}',{i}".replace("'", '"') for i in range(30)],
            "data.decimal=,: a: '1,0' is read as 1.0",
        ),
        ([f"{'x' * (i % 3)},{i}" for i in range(30)], "a: 10 empty cells are a category"),
        ([f"{'x' * (i % 3)},{i}" for i in range(30)], "3 categories: (empty), x, xx"),
        ([f"n{i % 25},{i}" for i in range(30)], "a: 25 categories in 30 rows: most are too rare"),
        (
            [f"{('North', 'north ', 'South')[i % 3]},{i}" for i in range(30)],
            "a: 'North', 'north ' differ in case or spaces only",
        ),
        (
            [f"{'yes' if i > 40 else 'no'},{(i > 40) + i / 1e5}" for i in range(90)],
            "a: gives the target away (only 0.00% of its variance is left)",
        ),
        (
            [f"{i % 9 + 1:02}.01.2025,{i}" for i in range(30)],
            "'data.dates={a: \"%d.%m.%Y\"}'",
        ),
        (
            [f"{'rgb'[i % 3]}|{'xyz'[i % 2]}{'|z' * (i % 5 > 2)},{i}" for i in range(90)],
            "a: several categories in a cell? 'data.lists={a: \"|\"}'",
        ),
        (
            [f"2025-01-{i % 9 + 1:02},{i}" for i in range(30)],
            "a  2025-01-01 to 2025-01-09  (dates, ISO 8601",
        ),
    ],
)
def test_what_looks_suspicious_is_said(tmp_path: Path, rows: list[str], words: str) -> None:
    assert words in inspect(table(tmp_path, "a,y", *rows), Options())


def test_a_sound_table_earns_no_warning(tmp_path: Path) -> None:
    assert "Worth a look" not in inspect(ratings(tmp_path), Options())


def test_two_names_as_target_propose_classification(tmp_path: Path) -> None:
    rows = [f"{i % 11}.5,{'yes' if i % 3 else 'no'}" for i in range(40)]
    said = inspect(table(tmp_path, "a,y", *rows), Options())
    assert "no or yes" in said
    assert said.endswith("task=classification")


def test_three_names_as_target_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'y' holds 3 names such as 'a'.*OneVsRestClassifier"):
        inspect(table(tmp_path, "x,y", "1,a", "2,b", "3,c"), Options())


def test_libsvm_text_is_recognised(tmp_path: Path) -> None:
    said = inspect(table(tmp_path, "1 3:1 20:1", "2.5 1:1", name="t.txt"), Options())
    assert "20 without names  features are numbered from 1" in said
    assert "data=libsvm" in said


def test_names_that_hydra_would_misread_are_quoted(fmexp: Any) -> None:
    rows = [f"c{i % 3},{i}.5,{i}" for i in range(30)]
    table(fmexp.folder, "a b,x:{y},y", *rows)
    words = shlex.split(fmexp("data", "t.csv").splitlines()[-1])
    assert "completed" in fmexp(*words[1:], "training.epochs=2", "tracking=none")
