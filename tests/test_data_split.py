"""Which row is in which part, and that training sees nothing of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from fmexp.config import CsvConfig, SplitConfig
from fmexp.data.loading import load
from fmexp.data.split import split_rows
from fmexp.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


def config(validation: float = 0.2, test: float = 0.2, seed: int = 0) -> SplitConfig:
    return SplitConfig(validation, test, None, seed)


@pytest.mark.parametrize(("validation", "test"), [(0.2, 0.2), (0.5, 0), (0, 0.3), (0, 0)])
def test_each_row_is_in_one_part_of_the_size_asked_for(validation: float, test: float) -> None:
    parts = split_rows(1000, config(validation, test))
    sizes = [len(parts.train), len(parts.validation), len(parts.test)]
    assert sizes == [round(1000 * (1 - validation - test)), 1000 * validation, 1000 * test]
    together = np.concatenate([parts.train, parts.validation, parts.test])
    assert sorted(together) == list(range(1000))
    assert (np.diff(parts.train) > 0).all()


def test_the_split_follows_its_seed() -> None:
    digests = [split_rows(50, config(seed=seed)).digest() for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_the_test_part_stays_when_the_validation_part_changes() -> None:
    one, two = split_rows(100, config(0.1)), split_rows(100, config(0.4))
    assert (one.test == two.test).all()


def test_a_part_that_is_asked_for_has_a_row() -> None:
    parts = split_rows(4, config(0.01, 0.01))
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (2, 1, 1)


@pytest.mark.parametrize("n_rows", [1, 2])
def test_too_few_rows_are_refused(n_rows: int) -> None:
    with pytest.raises(DataError, match=f"{n_rows} rows leave none to train on"):
        split_rows(n_rows, config())


def test_corrupted_held_out_rows_change_nothing_in_training(tmp_path: Path) -> None:
    stream = np.random.default_rng(2)
    rows = [[f"{stream.normal():.3f}", f"c{stream.integers(9)}", f"{i}.5"] for i in range(200)]

    def train(name: str) -> tuple[np.ndarray, ...]:
        text = "\n".join(",".join(row) for row in [["a", "b", "y"], *rows])
        (tmp_path / name).write_text(text, encoding="utf-8")
        data = CsvConfig("csv", True, str(tmp_path / name), "y", None, None, [])
        loaded = load(data, config(), "regression")
        encoder = loaded.encoder.to_json()
        part = loaded.train
        return part.features.indices, part.features.values, part.target, encoder, loaded.data_digest

    before = train("before.csv")
    parts = split_rows(200, config())
    for row in [*parts.validation, *parts.test]:
        rows[row] = ["1e9", "strange", "-1e9"]
    after = train("after.csv")
    assert all((x == y).all() for x, y in zip(before[:3], after[:3], strict=True))
    assert before[3] == after[3]
    assert before[4] != after[4]
