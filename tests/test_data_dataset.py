"""Rows as backends see them: taking, stacking and choosing some."""

from __future__ import annotations

import numpy as np
import pytest

from fmexp.data.dataset import Part, evenly_spaced
from fmexp.data.features import CSR


def part(rows: list[int]) -> Part:
    return Part(np.zeros((len(rows), 1)), np.zeros(len(rows)), np.array(rows, np.int64))


@pytest.mark.parametrize("most", [1, 7, 50, 99, 100, 500])
def test_chosen_rows_are_those_of_sorting_all_of_them(most: int) -> None:
    stream = np.random.default_rng(most)
    rows = np.sort(stream.choice(1000, 100, replace=False))
    in_second = stream.random(100) < 0.3
    parts = [part(rows[~in_second].tolist()), part(rows[in_second].tolist())]
    expected = rows if most >= 100 else rows[np.linspace(0, 99, most).round().astype(int)]
    found = evenly_spaced(parts, most)
    assert [row for row, _, _ in found] == expected.tolist()
    assert all(parts[p].rows[i] == row for row, p, i in found)


def test_rows_are_taken_and_stacked_as_slices_of_the_whole() -> None:
    indptr = np.array([0, 2, 2, 5, 6], np.int64)
    whole = CSR(indptr, np.array([0, 3, 1, 2, 4, 0], np.int32), np.arange(6.0) + 1, 5)
    again = CSR.stack([whole.take(np.array([0, 1])), whole.take(slice(2, 4))])
    for name in ("indptr", "indices", "values"):
        assert (getattr(again, name) == getattr(whole, name)).all()
    assert whole.take(np.array([3, 0])).indices.tolist() == [0, 0, 3]


def test_stacking_one_hot_rows_on_others_writes_their_ones_out() -> None:
    one_hot = CSR(np.array([0, 1]), np.array([2], np.int32), None, 3)
    other = CSR(np.array([0, 1]), np.array([1], np.int32), np.array([7.0]), 3)
    assert CSR.stack([one_hot, other]).values.tolist() == [1.0, 7.0]
    assert CSR.stack([one_hot, one_hot]).values is None
