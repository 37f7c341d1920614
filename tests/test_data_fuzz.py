"""Damaged tables: each is refused in words, or read exactly as Python's csv module reads it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fmexp.data import csv, delimited, quotes
from fmexp.data.cells import MISSING, TextFormat
from fmexp.errors import DataError
from tests.data_support import WHOLE, load_csv, load_libsvm

if TYPE_CHECKING:
    from pathlib import Path

    from fmexp.data.dataset import Dataset

TABLES = [
    b"a,c,y\n" + b"".join(b"%d.5,c%d,%d\n" % (i, i % 3, i) for i in range(12)),
    b'"a b",c,y\r\n1.5,"x, y",3\r\n2.5,"q""r",4\r\n9,"",5\r\n',
    b"id;z;y\n001;1;2\n002;3;4\n",
    "ä,y\n1,2\nü,3\n".encode(),
]
SPARSE = [b"1 1:2 3:4\n2 2:5\n-1.5 1:1e-3 # x\n", b"0 0:1 5:2\n1 3:4\n"]
PIECES = [
    b",",
    b"\n",
    b"\r",
    b'"',
    b"\0",
    b"\xff",
    b"1e400",
    b"nan",
    b"inf",
    b"-",
    b";",
    b"\t",
    b" ",
]
PIECES += [
    b":",
    b"#",
    b"9" * 400,
    b"\xe2\x80\xa8",
    b"\xef\xbb\xbf",
    b"a,c,y\n",
    b"{",
    b"\\",
    b"\x1a",
]
PIECES += [b"\x85", b"\x0c", b"\x1c", b"_", b"0x", b"1.2.3", b"\xed\xb3\xbf", b"NA", b"007"]


def damaged(table: bytes, draw: random.Random) -> bytes:
    cells = bytearray(table)
    for _ in range(draw.randrange(1, 4)):
        at, kind = draw.randrange(len(cells) + 1), draw.randrange(5)
        if kind <= 1:
            cells[at:at] = draw.choice(PIECES)
        elif kind == 2:
            del cells[at : at + draw.randrange(1, 5)]
        elif kind == 3:
            cells[at:at] = cells[max(0, at - 9) : at]
        else:
            cells[max(at - 1, 0) : at] = bytes([draw.randrange(256)])
    return bytes(cells)


def check_cells(path: Path, data: Dataset, missing: str) -> None:
    """Every cell of the table is the one that the csv module reads."""
    dialect = delimited.sniff(path, TextFormat())
    (names, _), rows = (
        delimited.header(path, dialect),
        [cells for _, cells, _ in csv._rows(path, dialect)],
    )
    for name, column in data.table.cells(np.arange(len(data.table))).items():
        expected = [row[names.index(name)] for row in rows]
        if isinstance(column, np.ndarray):
            numbers = [float("nan") if x in MISSING else float(x) for x in expected]
            np.testing.assert_array_equal(column, numbers)
            assert missing == "mean" or np.isfinite(column).all()
        else:
            assert column == expected


@pytest.mark.parametrize("seed", range(8))
def test_damaged_text_is_refused_or_read_exactly(tmp_path: Path, seed: int) -> None:
    draw, taken = random.Random(seed), 0
    for _ in range(80):
        (tmp_path / "t.csv").write_bytes(damaged(draw.choice(TABLES), draw))
        missing = draw.choice(["error", "mean"])
        try:
            data = load_csv(tmp_path / "t.csv", missing=missing)
        except DataError:
            continue
        check_cells(tmp_path / "t.csv", data, missing)
        taken += 1
    assert taken > 8


def test_quotes_that_pair_around_a_delimiter_are_never_overlooked(tmp_path: Path) -> None:
    draw, found, path, dialect = random.Random(0), 0, tmp_path / "t.csv", delimited.Dialect()
    cells = ["", "1", '"a,"', '",b"', '"a ""b"""', '"a\nb"', 'c "d', 'd"', 'e "f" g', '""', ' "h"']
    for _ in range(2000):
        rows = [",".join(draw.choices(cells, k=draw.randrange(1, 5))) for _ in range(3)]
        path.write_text("\n".join(rows))
        try:
            records = list(delimited.records(path, dialect, with_text=True))
        except DataError:
            continue
        if any(quotes.paired(record, ",") for record in records):
            assert quotes.count(path, ",", "utf-8")[1], rows
            found += 1
    assert found > 100


@pytest.mark.parametrize("seed", range(3))
def test_damaged_libsvm_text_is_refused_or_finite(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(80):
        (tmp_path / "t.svm").write_bytes(damaged(draw.choice(SPARSE), draw))
        try:
            data = load_libsvm(tmp_path / "t.svm", WHOLE)
        except DataError:
            continue
        assert np.isfinite(data.train.target).all()
        assert data.train.features.shape[0] == len(data.train.target)
