"""Relation blocks: drawn on keys, the chain goes where it goes on rows written out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fmexp import fm
from fmexp.backends import gibbs_plain
from fmexp.backends.gibbs_chain import Chain
from fmexp.backends.gibbs_prior import prior_scales
from fmexp.backends.gibbs_relations import Relation
from fmexp.backends.scoring import Scorer
from fmexp.backends.side_by_side import SideBySide
from fmexp.data.features import CSR
from fmexp.data.related import Block, Related
from fmexp.errors import DataError
from fmexp.training.fitting import fit
from tests.gibbs_support import make_chain
from tests.test_data_related import related_rows
from tests.training_fakes import make_config, make_dataset, random_parameters


def both_chains(rows: Related, k: int, task: fm.Task = "regression") -> tuple[Chain, Chain]:
    """A chain over keys, and one over the same rows written out; with the same random numbers."""
    y = np.random.default_rng(1).normal(size=len(rows))
    y = y if task == "regression" else (y > 0) * 1.0
    groups = np.arange(rows.shape[1]) // 3
    return tuple(
        make_chain(each, y, random_parameters(rows.shape[1], k), task=task, groups=groups)
        for each in (rows, rows.expand())
    )


@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize(("k", "one_hot"), [(3, False), (8, True), (12, False)])
def test_a_sweep_on_keys_draws_what_a_sweep_on_rows_draws(k, one_hot, task):
    on_keys, on_rows = both_chains(related_rows(300, one_hot=one_hot), k, task)
    for _ in range(3):
        on_keys.sweep()
        on_rows.sweep()
    for name in ("errors", "latent", "w0", "alpha"):
        found, expected = (getattr(chain, name) for chain in (on_keys, on_rows))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)
    found, expected = on_keys.parameters(), on_rows.parameters()
    np.testing.assert_allclose(found.V, expected.V, rtol=0, atol=1e-11)
    np.testing.assert_allclose(found.w, expected.w, rtol=0, atol=1e-11)


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("number", [0, 1])
def test_drawing_a_block_does_what_the_twin_does(number, one_hot):
    rows, g, k = related_rows(60, one_hot=one_hot), np.random.default_rng(2), 8
    p, y, block = random_parameters(12, k), g.normal(size=60), rows.blocks[number]
    error, sums = gibbs_plain.rebuild(rows.expand(), y, p)
    n = block.last - block.first
    mean, precision = g.normal(size=(2, k + 1)), 1 + g.random((2, k + 1))
    noise, groups = g.normal(size=(n, k + 1)).astype(np.float32), np.arange(n) % 2
    V, w = p.V[block.first : block.last].copy(), p.w[block.first : block.last].copy()
    found = [error.copy(), sums.copy(), V.copy(), w.copy()]
    relation = Relation(block, k, SideBySide(1))
    relation.draw(relation.ranges, *found, groups, mean, precision, noise, 2.5)
    gibbs_plain.draw_relation(block, error, sums, V, w, mean[groups], precision[groups], noise, 2.5)
    for mine, twin in zip(found, (error, sums, V, w), strict=True):
        np.testing.assert_allclose(mine, twin, rtol=0, atol=1e-11)


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_errors_and_row_sums_stay_those_of_the_parameters(task):
    rows = related_rows(200)
    chain = both_chains(rows, 12, task)[0]
    for _ in range(7):
        chain.sweep()
    kept = chain.errors.copy()
    expected = fm.scores(chain.parameters(), rows.expand()) - chain.latent
    np.testing.assert_allclose(kept, expected, rtol=0, atol=1e-12)
    chain.rebuild()
    np.testing.assert_allclose(kept, chain.errors, rtol=0, atol=1e-12)


def test_any_number_of_threads_gives_the_same_bits(monkeypatch):
    monkeypatch.setattr("fmexp.backends.gibbs_columns.CHUNK_ENTRIES", 50)
    monkeypatch.setattr("fmexp.backends.side_by_side.SMALL_CHUNK_ROWS", 64)
    monkeypatch.setattr("fmexp.backends.gibbs_chain.SMALL_CHUNK_ROWS", 64)
    rows, g = related_rows(700), np.random.default_rng(0)
    of_keys = CSR(np.arange(401), g.integers(5, size=400).astype(np.int32), None, 5)
    field = Block(6, of_keys, g.integers(400, size=700).astype(np.int32))  # shares no key
    rows, label = replace(rows, blocks=(rows.blocks[0], field)), g.integers(0, 2, 700) * 1.0

    def bits(threads: int, task: fm.Task) -> bytes:
        chain = make_chain(rows, label, random_parameters(12, 9), task=task, threads=threads)
        for _ in range(5):
            chain.sweep()
        return chain.errors.tobytes() + chain.parameters().V.tobytes()

    for task in ("regression", "classification"):
        assert bits(1, task) == bits(2, task) == bits(5, task)


def test_the_priors_scales_are_those_of_the_rows_written_out():
    rows = related_rows(500)
    assert prior_scales(rows, 4) == pytest.approx(prior_scales(rows.expand(), 4), rel=1e-6)


def test_a_run_on_keys_ends_where_a_run_on_rows_does():
    rows, y = related_rows(300), np.random.default_rng(3).normal(size=300)
    config = make_config("gibbs", epochs=12)
    found, expected = (fit(config, make_dataset(each, y, 60)) for each in (rows, rows.expand()))
    np.testing.assert_allclose(found.validation_losses, expected.validation_losses, rtol=1e-9)
    np.testing.assert_allclose(found.parameters.V, expected.parameters.V, atol=1e-6)


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("k", [3, 12, 80])
def test_rows_are_scored_by_their_keys_as_written_out(k, one_hot):
    rows, p = related_rows(200, one_hot=one_hot), random_parameters(12, k)
    for some in (rows, rows.take(slice(50, 53))):
        found = Scorer(some, p)(p)
        np.testing.assert_allclose(found, fm.scores(p, some.expand()), rtol=0, atol=1e-12)
    assert (found == Scorer(rows, p)(p)[50:53]).all()  # rows of fewer keys: the same bits


def test_keys_that_a_block_does_not_have_are_refused():
    for key, said in ((-1, "-1 to 0"), (3, "0 to 3")):
        with pytest.raises(DataError, match=f"expected keys below 3, got {said}"):
            Block(0, np.eye(3), np.array([0, key], np.int32))
