"""Tables that somebody else has made, and words about them in an experiment file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from fmexp.cli.parser import main


def workbook(file: Path, cell: str) -> None:
    """Two columns of numbers, and one cell somewhere else."""
    from openpyxl import Workbook

    book = Workbook()
    sheet = book.worksheets[0]
    for row in [("x", "y"), *((i, 2 * i) for i in range(30))]:
        sheet.append(row)
    sheet["C40"] = 1
    book.save(file)
    with zipfile.ZipFile(file) as packed:
        parts = {part.filename: packed.read(part) for part in packed.infolist()}
    with zipfile.ZipFile(file, "w") as packed:
        for name, content in parts.items():
            row = cell.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ").encode()
            content = content.replace(b'r="C40"', f'r="{cell}"'.encode())
            packed.writestr(name, content.replace(b'r="40"', b'r="%s"' % row))


@pytest.mark.parametrize("cell", ["XFD1048576", "ZZZZZZ4294967295"])
def test_a_workbook_with_a_cell_far_away_ends_in_a_sentence(cell, here, refused):
    workbook(here / "far.xlsx", cell)
    assert "the workbook is damaged, or its cells" in refused("data", "far.xlsx")


def test_a_workbook_with_a_last_row_far_down_is_read(here, capsys):
    workbook(here / "far.xlsx", "B20000")
    assert main(["data", "far.xlsx"]) == 0
    assert "31 rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("data.dates={when: '%d.%m.%Y %d'}", "data.dates.when must be a format of strptime"),
        ("data.dates={when: '%Y %f %f'}", "data.dates.when must be a format of strptime"),
        ("data.path='a\0b'", "data.path=a\\x00b cannot be read"),
        ("data.path='~nobody at all/x'", "cannot be read"),
        ("data.joins={c: 'a\0b'}", "data.joins.c=a\\x00b cannot be read"),
        (f"data.joins={{c: {'a' * 5000}}}", "File name too long"),
        ("data.joins={c: /dev/zero}", "data.joins.c: /dev/zero must be a regular file"),
        ("data.joins={c: missing.csv}", "data.joins.c: missing.csv does not exist"),
    ],
)
def test_a_format_or_path_that_cannot_be_is_named(word, says, here, refused):
    (here / "t.csv").write_text("when,c,y\n" + "".join(f"{i}.1.2020,c,{i}\n" for i in range(1, 30)))
    table = ["data=csv", "data.target=y", "tracking=none", "training.epochs=1"]
    if not word.startswith("data.path"):
        table.append("data.path=t.csv")
    assert says in refused("run", *table, word)
