"""Small CSV tables that break other tools: each works, or says what is wrong with it."""

from __future__ import annotations

import gzip
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fmexp.data import files
from fmexp.errors import DataError
from tests.data_support import lines, load_csv

if TYPE_CHECKING:
    from collections.abc import Callable


REFUSED: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "empty file": (b"", {}, "is empty"),
    "blank lines only": (b"\n\n  \n", {}, "is empty"),
    "byte order mark only": (b"\xef\xbb\xbf", {}, "is empty"),
    "header only": (b"a,y\n", {}, "has a header but no rows"),
    "row too long": (
        lines("a,y", "1,2", "1,2,3"),
        {},
        r"line 3: expected 2 cells, got 3: '1', '2'",
    ),
    "row too short": (lines("a,b,y", "1,2,3", "1"), {}, "line 3: expected 3 cells, got 1"),
    "all rows ragged": (lines("a,b,y", "1,2", "1"), {}, "line 2: expected 3 cells, got 2"),
    "wrong delimiter given": (
        lines("a;y", "1;2"),
        {"delimiter": ","},
        "data.target names 'y', which is no column; the columns are 'a;y'",
    ),
    "one column": (lines("y", "1", "2"), {}, "no column is left to predict 'y' from"),
    "latin-1 taken for UTF-8": (
        "stadt,y\nKöln,1\nBonn,2\n".encode("latin-1"),
        {},
        r"line 2, column 'stadt': b'K\\xf6ln' is not UTF-8.*data.encoding=latin-1",
    ),
    "unknown encoding": (b"a,y\n1,2\n", {"encoding": "utf-99"}, "data.encoding=utf-99 is no enc"),
    "open quote": (b'a,y\n1,2\n"3,4\n5,6\n', {}, "line 3: a quote is opened here that is never"),
    "text after a quote": (b'a,y\n"1"x,2\n"3",4\n', {}, "line 2"),
    "a separator lost before a quoted cell": (
        b'a,b,y\np0,"q0, x",1\np1 "q2, x",3\n',
        {},
        "line 3, column 'a': the quote within 'p1 \"q2' seems to close in column 'b'",
    ),
    "a quoted cell after a space": (
        b'a,b,c,y\nx,b,c,3\ny, "c,d",4\n',
        {},
        "line 3, column 'b': the quote within ' \"c' seems to close in column 'c'",
    ),
    "a quote that closes at a delimiter": (
        b'a,b,y\nx,b,3\np1 ",x",4\n',
        {},
        "line 3, column 'a': the quote within 'p1 \"' seems to close in column 'b'.*quoting=false",
    ),
    "quotes that pair in a column that is not used": (
        b'a,b,y\n1.5,c,3\n2.5,p1 "q2, x"\n',
        {"drop": ["b"]},
        "line 3, column 'b': the quote within",
    ),
    "equal column names": (b"a,b,a,y\n1,2,3,4\n", {}, "line 1: column names must differ, got 'a'"),
    "numbers as header": (b"1,2,3\n4,5,6\n", {}, "expected column names, got numbers"),
    "target misspelt": (
        b"size,Price\n1,2\n",
        {"target": "price"},
        r"names 'price', which is no column \(did you mean 'Price'\?\); the columns are 'size'",
    ),
    "target not there": (b"a,b\n1,2\n", {}, "data.target names 'y', which is no column"),
    "no target named": (b"a,b\n1,2\n", {"target": None}, "which column is to be predicted"),
    "unknown categorical": (b"a,y\n1,2\n", {"categorical": ["z"]}, "data.categorical names 'z'"),
    "column named twice": (
        b"a,y\n1,2\n",
        {"categorical": ["a"], "numeric": ["a"]},
        "'a' is in data.numeric and in data.categorical",
    ),
    "target missing in a row": (b"a,y\n1,2\n3,\n", {}, "line 3, column 'y': .* a missing value ''"),
    "target is text": (b"a,y\n1,red\n3,blue\n", {}, "target 'y' holds text such as 'red'"),
    "target infinite": (b"a,y\n1,inf\n3,1\n", {}, "line 2, column 'y': expected a finite number"),
    "target too large": (b"a,y\n1,1e400\n3,1\n", {}, "line 2, column 'y': .* got '1e400'"),
    "text in a number": (
        lines("a,y", *(f"{i}.5,{i}" for i in range(30)), "x1,7"),
        {},
        "line 32, column 'a': expected a finite number, got 'x1'",
    ),
    "text in a number that was named": (
        b"a,y\n1,2\nx,3\n",
        {"numeric": ["a"]},
        "line 3, column 'a': expected a finite number, got 'x'",
    ),
    "1e400": (b"a,y\n1e400,2\n3.5,1\n", {}, "line 2, column 'a': .* got '1e400'"),
    "infinite": (b"a,y\n2.5,2\n-inf,1\n", {}, "line 3, column 'a': .* got '-inf'"),
    "nan": (b"a,y\nnan,2\n3.5,1\n", {}, "line 2, column 'a': expected a number, got a missing"),
    "empty cell": (
        b"a,y\n,2\n3.5,1\n",
        {},
        "line 2, column 'a': .* value ''.*missing=mean",
    ),
    "hexadecimal": (
        b"a,y\n0x10,2\n3.5,1\n",
        {"numeric": ["a"]},
        "line 2, column 'a': expected a finite number, got '0x10'",
    ),
    "1_000": (b"a,y\n1_000,2\n3,1\n", {"numeric": ["a"]}, "line 2, column 'a': .* got '1_000'"),
    "header repeated": (
        lines("a,y", *(f"{i}.5,{i}" for i in range(30)), "a,y", "2.5,3"),
        {},
        "line 32: the header is repeated here",
    ),
    "zeros": (b"\0" * 500, {}, "this file is binary"),
    "random bytes": (bytes(range(256)) * 4, {}, "this file is binary"),
    "html": (b"<!DOCTYPE html><html><body>404</body></html>", {}, "this file is an HTML page"),
    "json": (b'{"a": [1, 2], "y": [3, 4]}', {}, "this file is JSON"),
    "json rows": (b'[{"a": 1, "y": 2}]', {}, "this file is JSON"),
    "spreadsheet": (b"PK\x03\x04abc", {}, "a zip archive and no workbook"),
    "parquet named csv": (b"PAR1abc", {}, "this file is Parquet .use data=parquet"),
    "gzip cut short": (gzip.compress(b"a,y\n" + b"1,2\n3,4\n" * 9000)[:-20], {}, "cut short"),
    "gzip of nothing": (gzip.compress(b""), {}, "is empty"),
    "gzip damaged": (b"\x1f\x8b" + b"rubbish" * 9, {}, "gzipped file is damaged"),
    "all empty column": (
        b"a,b,y\n1,,2\n2,,3\n",
        {"numeric": ["b"]},
        "line 2, column 'b': expected a number",
    ),
    "names too few": (b"1,2,3\n4,5,6\n", {"names": ["a", "y"]}, r"expected 2 cells \(data.names\)"),
    "squares overflow": (b"a,y\n1e200,1\n-1e200,2\n", {}, "'a' has numbers from -1e\\+200 to 1e"),
    "delimiter of two characters": (b"a,y\n1,2\n", {"delimiter": "::"}, "one ASCII character"),
    "delimiter beyond ASCII": (b"a,y\n1,2\n", {"delimiter": "§"}, "one ASCII character"),
    "a row without end": (b"c,y\nx,1\n" + b"x" * 9_000_000 + b",1\n", {}, "longer than 2,097,152"),
    "utf-16 cut short": ("a,y\n1,2\n".encode("utf-16")[:-1], {}, "not utf-16"),
}


OF_THE_CONFIG = {"unknown encoding", "squares overflow", "delimiter of two characters"}
OF_THE_CONFIG |= {"delimiter beyond ASCII"}
"""Mistakes that are not of the file."""


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_reason(tmp_path: Path, case: str) -> None:
    content, keys, reason = REFUSED[case]
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(DataError, match=re.compile(reason, re.DOTALL)) as caught:
        load_csv(tmp_path / "table.csv", **keys)
    assert "table.csv" in str(caught.value) or case in OF_THE_CONFIG


SPACED = lines("a,c,y", *(f"{i}.5,c{i % 3},{i}" for i in range(9)))
"""A good table: 9 rows, one number, three categories."""

TAKEN: dict[str, tuple[bytes, dict[str, Any], tuple[int, int]]] = {
    "plain": (SPACED, {}, (9, 4)),
    "byte order mark": (b"\xef\xbb\xbf" + SPACED, {}, (9, 4)),
    "CRLF": (SPACED.replace(b"\n", b"\r\n"), {}, (9, 4)),
    "CR": (SPACED.replace(b"\n", b"\r"), {}, (9, 4)),
    "no newline at the end": (SPACED[:-1], {}, (9, 4)),
    "blank lines within": (SPACED.replace(b"3.5", b"\n\n3.5"), {}, (9, 4)),
    "tabs": (SPACED.replace(b",", b"\t"), {}, (9, 4)),
    "tab by name": (SPACED.replace(b",", b"\t"), {"delimiter": "tab"}, (9, 4)),
    "tab as typed": (SPACED.replace(b",", b"\t"), {"delimiter": "\\t"}, (9, 4)),
    "a delimiter of one's own": (SPACED.replace(b",", b"^"), {"delimiter": "^"}, (9, 4)),
    "semicolons": (SPACED.replace(b",", b";"), {}, (9, 4)),
    "bars": (SPACED.replace(b",", b"|"), {}, (9, 4)),
    "spaces in the header": (SPACED.replace(b"a,c,y", b" a , c , y "), {}, (9, 4)),
    "quoted header": (SPACED.replace(b"a,c,y", b'"a","c","y"'), {}, (9, 4)),
    "gzipped": (gzip.compress(SPACED), {}, (9, 4)),
    "utf-16": (SPACED.decode().encode("utf-16"), {}, (9, 4)),
    "latin-1": ("c,y\nü,1\nß,2\n".encode("latin-1"), {"encoding": "latin-1"}, (2, 2)),
    "delimiter in a quoted cell": (b'c,y\n"a,b",1\n"c,d",2\n', {}, (2, 2)),
    "newline in a quoted cell": (b'c,y\n"a\nb",1\n"c\nd",2\n"a\nb",3\n', {}, (3, 2)),
    "doubled quotes": (b'c,y\n"a ""b""",1\nx,2\n', {}, (2, 2)),
    "quotes as they are": (b'c,y\n5" pipe,1\n6" pipe,2\n', {"quoting": False}, (2, 2)),
    "inches": (b'c,d,y\n19" monitor,"a, b",1\n"19"" x",21" monitor,2\n', {}, (2, 4)),
    "quotes that pair within a cell": (b'c,y\n"a",1\nsay "hi" now,2\n', {}, (2, 2)),
    "quotes that pair, as they are": (b'c,d,y\n1" x,2" x,1\n', {"quoting": False}, (1, 2)),
    "quotes in the middle": (b'c,y\n5" pipe,1\n6 pipe,2\n', {}, (2, 2)),
    "no header": (b"1.5,2\n3.5,4\n", {"names": ["a", "y"]}, (2, 1)),
    "empty column name": (b",y\n1.5,2\n7.5,4\n", {}, (2, 1)),
    "row numbers in the first column": (b",a,y\n0,1.5,2\n1,7.5,4\n2,3.5,1\n", {}, (3, 1)),
    "one row": (b"a,y\n1.5,2\n", {}, (1, 1)),
    "all rows equal": (b"a,c,y\n" + b"1.5,x,2\n" * 8, {}, (8, 2)),
    "constant target": (b"a,y\n1.5,2\n2.5,2\n", {}, (2, 1)),
    "ids with leading zeros": (b"c,y\n007,2\n07,2\n7,3\n", {}, (3, 3)),
    "ids beyond 2^53": (
        b"c,y\n9007199254740993,1\n9007199254740992,2\n",
        {"categorical": ["c"]},
        (2, 2),
    ),
    "numbers beyond 2^53": (b"a,y\n9007199254740993,1\n9007199254740992,2\n", {}, (2, 1)),
    "text that reads null": (b"c,y\nnull,1\nNA,2\nx,3\n", {"categorical": ["c"]}, (3, 3)),
    "missing category": (b"c,y\n,1\nx,2\n", {}, (2, 2)),
    "missing number, filled": (b"a,y\n,1\n2.5,2\n3.5,1\n", {"missing": "mean"}, (3, 2)),
    "spaces around numbers": (b"a,y\n 1.5 , 2\n2.5,3\n", {}, (2, 1)),
    "signs and exponents": (b"a,y\n+1.5E+1,-2e-1\n-.5,3.\n", {}, (2, 1)),
    "an empty column beside": (b"a,b,y\n1.5,,2\n2.5,,3\n", {}, (2, 1)),
    "a name for each row": (
        b"c,a,y\n" + b"".join(b"name%d,%d.5,1\n" % (i, i) for i in range(30)),
        {},
        (30, 1),
    ),
    "a long cell": (b"c,y\n" + b"x" * 300_000 + b",1\nz,2\n", {}, (2, 2)),
    "names in other alphabets": ("名字,y\n张三,1\n李四,2\n".encode(), {}, (2, 2)),
}


@pytest.mark.parametrize("case", TAKEN)
def test_taken_as_it_is_meant(tmp_path: Path, case: str) -> None:
    content, keys, shape = TAKEN[case]
    (tmp_path / "table.csv").write_bytes(content)
    data = load_csv(tmp_path / "table.csv", **keys)
    assert data.train.features.shape == shape
    assert np.isfinite(data.train.target).all()


def test_quoted_cells_arrive_as_they_were_meant(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b'c,y\n"a, ""b""\nc",1\n" x ",2\n')
    data = load_csv(tmp_path / "t.csv")
    assert data.raw(np.array([0, 1])) == {"c": ['a, "b"\nc', " x "]}


def test_leading_zeros_tell_ids_apart(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"c,y\n007,2\n07,2\n7,3\n")
    data = load_csv(tmp_path / "t.csv")
    assert data.encoder.feature_names == ["c=007", "c=07", "c=7"]
    assert data.notes == ("categorical: c (numbers with leading zeros are names)",)


def test_repeated_integers_are_proposed_as_names_and_the_proposal_is_told(tmp_path: Path) -> None:
    rows = [f"{i % 4},{i % 7}.5,{i}" for i in range(40)]
    (tmp_path / "t.csv").write_bytes(lines("user,a,y", *rows))
    data = load_csv(tmp_path / "t.csv")
    assert [field.name for field in data.encoder.categorical] == ["user"]
    assert "user" in data.notes[0]
    assert "data.numeric=[user]" in data.notes[0]


def test_many_ids_are_told_from_quantities_by_how_often_they_must_come_back(tmp_path: Path) -> None:
    stream = np.random.default_rng(0)
    ids, amounts = stream.integers(4_000, size=60_000), stream.integers(10**6, size=60_000)
    rows = [f"{i},{a},1.5" for i, a in zip(ids, amounts, strict=True)]
    (tmp_path / "t.csv").write_bytes(lines("id2,amount,y", *rows))
    encoder = load_csv(tmp_path / "t.csv").encoder
    assert [c.name for c in encoder.categorical] == ["id2"]
    assert [c.name for c in encoder.numeric] == ["amount"]


def test_ten_mistakes_at_most_come_in_one_message(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(lines("a,y", "1.5,2", *(f"x,{i}" for i in range(30))))
    with pytest.raises(DataError) as caught:
        load_csv(tmp_path / "t.csv", numeric=["a"])
    assert re.findall(r"line (\d+)", str(caught.value)) == [str(n) for n in range(3, 13)]


def test_a_mistake_after_a_cell_of_many_lines_has_its_own_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b'c,a,y\n"1\n2\n3",1.5,1\nz,2.5,oops\nz,1,2\n')
    with pytest.raises(DataError, match="line 5, column 'y'"):
        load_csv(tmp_path / "t.csv")


def test_a_mistake_far_down_is_found_at_its_line(tmp_path: Path) -> None:
    rows = [f"{i}.25,{i}" for i in range(400_000)]
    rows[350_000] = "?,1"
    (tmp_path / "t.csv").write_bytes(lines("a,y", *rows))
    with pytest.raises(DataError, match=r"line 350002, column 'a'.*missing value '\?'"):
        load_csv(tmp_path / "t.csv")


def test_wrong_bytes_far_down_are_found_at_their_line(tmp_path: Path) -> None:
    content = lines("c,y", *(f"n{i % 9},{i}" for i in range(300_000)), "x,1")
    (tmp_path / "t.csv").write_bytes(content.replace(b"\nx,1", b"\n\xff,1"))
    with pytest.raises(DataError, match=r"line 300002, column 'c': .* is not UTF-8"):
        load_csv(tmp_path / "t.csv")


def test_100_000_categories_are_one_feature_each(tmp_path: Path) -> None:
    rows = [f"{i % 100_000:x}_,{i % 7}" for i in range(200_000)]
    (tmp_path / "t.csv").write_bytes(lines("c,y", *rows))
    data = load_csv(tmp_path / "t.csv", categorical=["c"])
    assert data.train.features.shape == (200_000, 100_000)
    assert data.train.features.values is None


def test_a_folder_and_a_glob_are_one_data_set(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_bytes(b"a,y\n3.5,3\n")
    (tmp_path / "a.csv").write_bytes(b"a,y\n1.5,1\n2.5,2\n")
    (tmp_path / ".hidden").write_bytes(b"rubbish")
    for path in (tmp_path, tmp_path / "*.csv"):
        data = load_csv(path)
        assert data.encoder.decode_target(data.train.target).tolist() == [1, 2, 3]


def test_files_with_other_columns_are_refused(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_bytes(b"a,y\n1.5,1\n")
    (tmp_path / "2.csv").write_bytes(b"b,y\n1.5,1\n")
    with pytest.raises(DataError, match=r"2.csv: expected the columns of 1.csv \(a, y\), got b, y"):
        load_csv(tmp_path)


@pytest.mark.parametrize(
    ("name", "make", "reason"),
    [
        ("nowhere.csv", Path.absolute, "nowhere.csv does not exist"),
        ("empty", lambda path: path.mkdir(), "holds no file"),
        ("pipe", os.mkfifo, "must be a regular file"),
        ("*.tsv", Path.absolute, "holds no file"),
        ("a/b.csv", lambda path: path.parent.write_text("x"), "cannot be read: Not a directory"),
    ],
)
def test_what_is_no_file_is_refused(
    tmp_path: Path, name: str, make: Callable[[Path], object], reason: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(DataError, match=reason):
        load_csv(tmp_path / name)


def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"a,y\n1,2\n")
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(DataError, match="cannot be read: Permission denied"):
            files.find(str(path))
    finally:
        os.seteuid(user)


def test_a_device_is_refused() -> None:
    with pytest.raises(DataError, match="must be a regular file"):
        load_csv(Path("/dev/zero"))


@pytest.mark.skipif(sys.platform == "darwin", reason="the same code")
@pytest.mark.parametrize("case", ["html", "row too long", "gzip cut short", "empty file"])
def test_the_command_refuses_without_a_trace(tmp_path: Path, refused: Any, case: str) -> None:
    (tmp_path / "table.csv").write_bytes(REFUSED[case][0])
    assert "table.csv" in refused("run", "data=csv", "data.path=table.csv", "data.target=y")
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
