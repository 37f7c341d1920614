"""Rows that share runs of features are the rows that these runs are written out for."""

from __future__ import annotations

import numpy as np
import pytest

from fmexp.data.features import CSR
from fmexp.data.related import Block, Related, expanded
from tests.training_fakes import random_rows, to_csr


def related_rows(n_rows: int = 60, *, one_hot: bool = False, seed: int = 0) -> Related:
    """Own features 0, 1, 5, 11; blocks of features 2 to 4 (dense, or one-hot) and 6 to 10 (CSR)."""
    g = np.random.default_rng(seed)
    own = np.zeros((n_rows, 12))
    own[:, [0, 1, 5, 11]] = random_rows(n_rows, 4, density=0.6)
    first, second = random_rows(7, 3, density=0.8), random_rows(9, 5, density=0.5)
    second[4] = 0  # a key without features
    if one_hot:
        own, first, second = (np.where(X != 0, 1.0, 0.0) for X in (own, first, second))
    keys = [g.integers(n, size=n_rows).astype(np.int32) for n in (6, 9)]  # nobody has key 6
    blocks = (Block(2, to_csr(first, one_hot) if one_hot else first, keys[0]),
              Block(6, to_csr(second, one_hot), keys[1]))  # fmt: skip
    return Related(to_csr(own, one_hot), blocks)


@pytest.mark.parametrize("one_hot", [False, True])
def test_expanded_rows_hold_own_entries_and_those_of_their_keys(one_hot):
    rows = related_rows(one_hot=one_hot)
    X = rows.own.to_dense()
    for block in rows.blocks:
        shared = block.rows.to_dense() if isinstance(block.rows, CSR) else block.rows
        X[:, block.first : block.last] = shared[block.keys]
    found = expanded(rows)
    np.testing.assert_array_equal(found.to_dense(), X)
    assert rows.shape == found.shape == (len(rows), 12) == (60, 12)
    assert (found.values is None) == one_hot
    for i in range(60):
        assert (np.diff(found.indices[found.indptr[i] : found.indptr[i + 1]]) > 0).all()


def test_a_block_that_hardly_any_rows_share_is_written_out():
    rows = related_rows()  # of 60 rows 10 a key of the first block, 6 or 7 of the second
    assert [len(rows.shared_by(n).blocks) for n in (5, 8)] == [2, 1]
    for n in (5, 8, 20):
        found = expanded(rows.shared_by(n))
        np.testing.assert_array_equal(found.to_dense(), rows.expand().to_dense())
    assert isinstance(rows.shared_by(20), CSR)


def test_rows_are_taken_with_their_keys():
    rows = related_rows()
    for some in (slice(10, 30), np.array([5, 3, 59])):
        taken = rows.take(some)
        np.testing.assert_array_equal(taken.expand().to_dense(), rows.expand().to_dense()[some])
    assert rows.take(slice(10, 30)).blocks[0].rows is rows.blocks[0].rows
