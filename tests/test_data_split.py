"""Which row is in which part, and that training sees nothing of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from fmexp.config.schema import SplitConfig
from fmexp.data.split import TEST, TRAIN, VALIDATION, split_rows
from fmexp.data.table import Table
from fmexp.errors import DataError
from tests.data_support import load_csv

if TYPE_CHECKING:
    from pathlib import Path


def numbered(n_rows: int) -> Table:
    return Table({"a": np.arange(n_rows, dtype=float)})


def config(validation: float = 0.2, test: float = 0.2, seed: int = 0) -> SplitConfig:
    return SplitConfig(validation, test, None, seed)


@pytest.mark.parametrize(("validation", "test"), [(0.2, 0.2), (0.5, 0), (0, 0.3), (0, 0)])
def test_each_row_is_in_one_part_of_the_size_asked_for(validation: float, test: float) -> None:
    parts = split_rows(numbered(1000), config(validation, test))
    rows = [parts.rows(part) for part in (TRAIN, VALIDATION, TEST)]
    sizes = [len(r) for r in rows]
    assert sizes == [round(1000 * (1 - validation - test)), 1000 * validation, 1000 * test]
    assert sorted(np.concatenate(rows)) == list(range(1000))
    assert (np.diff(rows[TRAIN]) > 0).all()


def test_the_split_follows_its_seed() -> None:
    digests = [split_rows(numbered(50), config(seed=seed)).digest() for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_the_test_part_stays_when_the_validation_part_changes() -> None:
    one, two = split_rows(numbered(100), config(0.1)), split_rows(numbered(100), config(0.4))
    assert (one.rows(TEST) == two.rows(TEST)).all()


def test_a_part_that_is_asked_for_has_a_row() -> None:
    parts = split_rows(numbered(4), config(0.01, 0.01))
    assert np.bincount(parts.part_of_row).tolist() == [2, 1, 1]


@pytest.mark.parametrize("n_rows", [1, 2])
def test_too_few_rows_are_refused(n_rows: int) -> None:
    with pytest.raises(DataError, match=f"{n_rows} rows leave none to train on"):
        split_rows(numbered(n_rows), config())


def test_corrupted_held_out_rows_change_nothing_in_training(tmp_path: Path) -> None:
    stream = np.random.default_rng(2)
    rows = [[f"{stream.normal():.3f}", f"c{stream.integers(9)}", f"{i}.5"] for i in range(200)]

    def train(name: str) -> tuple[np.ndarray, ...]:
        text = "\n".join(",".join(row) for row in [["a", "b", "y"], *rows])
        (tmp_path / name).write_text(text, encoding="utf-8")
        loaded = load_csv(tmp_path / name, config())
        encoder = loaded.encoder.to_json()
        part = loaded.train
        return part.features.indices, part.features.values, part.target, encoder, loaded.data_digest

    before = train("before.csv")
    parts = split_rows(numbered(200), config())
    for row in np.flatnonzero(parts.part_of_row):
        rows[row] = ["1e9", "strange", "-1e9"]
    after = train("after.csv")
    assert all((x == y).all() for x, y in zip(before[:3], after[:3], strict=True))
    assert before[3] == after[3]
    assert before[4] != after[4]
