"""Weights of rows under sampling: a row of weight 2 is two rows, to the sampler as to all else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fmexp import fm
from fmexp.backends import gibbs_plain
from fmexp.backends.gibbs import GibbsTrainer
from fmexp.backends.gibbs_chain import Chain
from fmexp.backends.gibbs_columns import columns_of
from fmexp.data.dataset import Part
from fmexp.data.related import FeatureRows, expanded, parted
from fmexp.errors import DataError
from tests.gibbs_support import SCALES
from tests.test_data_related import related_rows
from tests.test_gibbs_kernels import rows_of
from tests.test_weights import assert_same_curve, curve
from tests.training_fakes import make_config, random_parameters

COUNTS = np.random.default_rng(5).integers(1, 4, 60).astype(float)


def chain(
    features: FeatureRows, y: np.ndarray, weights: np.ndarray | None, task: fm.Task = "regression",
    k: int = 3, threads: int = 1,
) -> Chain:  # fmt: skip
    own, blocks = parted(features)
    n = features.shape[1]
    p, groups = random_parameters(n, k), np.arange(n) // 4
    columns = columns_of(own, n)
    return Chain(columns, y, task, p, groups, SCALES, 0, threads, blocks, weights)


def target(task: str, n_rows: int = 60) -> np.ndarray:
    y = np.random.default_rng(1).normal(size=n_rows)
    return y if task == "regression" else (y > 0) * 1.0


def assert_alike(a: Chain, b: Chain, atol: float = 1e-10) -> None:
    for found, expected in ((a.w0, b.w0), (a.alpha, b.alpha)):
        assert found == pytest.approx(expected, abs=atol)
    np.testing.assert_allclose(a.parameters().V, b.parameters().V, rtol=0, atol=atol)
    np.testing.assert_allclose(a.parameters().w, b.parameters().w, rtol=0, atol=atol)


@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize(("kind", "k"), [("dense", 3), ("csr", 3), ("one-hot", 8)])
def test_a_chain_over_weighted_rows_goes_where_it_goes_over_repeated_rows(kind, k, task):
    features, y, often = rows_of(kind), target(task), np.repeat(np.arange(60), COUNTS.astype(int))
    repeated = features[often] if kind == "dense" else features.take(often)
    weighted, plain = chain(features, y, COUNTS, task, k), chain(repeated, y[often], None, task, k)
    for _ in range(8):  # with the same random numbers, since each row's copies follow each other
        assert weighted.sweep() == pytest.approx(plain.sweep(), abs=1e-10)
        assert_alike(weighted, plain)
    expected = fm.scores(weighted.parameters(), features) - weighted.latent
    np.testing.assert_allclose(weighted.errors, expected, rtol=0, atol=1e-11)
    weighted.rebuild()
    np.testing.assert_allclose(weighted.errors, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", ["dense", "csr"])
def test_a_draw_of_weighted_features_does_what_the_twin_does(kind):
    features, y, weights = rows_of(kind), target("regression"), np.linspace(0.1, 3, 60)
    sampled, n = chain(features, y, weights), features.shape[1]
    p = sampled.parameters()
    error, sums = gibbs_plain.rebuild(features, y, p)
    g = np.random.default_rng(3)
    mean, precision = g.normal(size=(3, 4)), 1 + g.random((3, 4))
    noise: list[np.ndarray] = []
    original = sampled._draw

    def spied(*arguments: Any) -> None:
        noise.append(arguments[-3][:, [0, 1, 2, 4]].copy())  # lanes beyond k are padding
        original(*arguments)

    sampled._draw = spied
    sampled.alpha = 1.7
    sampled._draw_block(0, mean, precision)
    groups = np.arange(n) // 4
    gibbs_plain.draw_features(
        features, error, sums, p.V, p.w, mean[groups], precision[groups], noise[0], 1.7 * weights
    )
    np.testing.assert_allclose(sampled.parameters().V, p.V, rtol=0, atol=1e-11)
    np.testing.assert_allclose(sampled.errors, error, rtol=0, atol=1e-11)


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_weighted_rows_are_drawn_on_keys_as_written_out(task):
    rows, weights = related_rows(300), np.random.default_rng(2).integers(1, 5, 300).astype(float)
    y = target(task, 300)
    on_keys, on_rows = (chain(each, y, weights, task) for each in (rows, expanded(rows)))
    for _ in range(4):
        on_keys.sweep()
        on_rows.sweep()
    assert_alike(on_keys, on_rows)


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_threads_change_no_bit_of_weighted_chains(task, monkeypatch):
    for module in ("side_by_side", "gibbs_chain"):
        monkeypatch.setattr(f"fmexp.backends.{module}.SMALL_CHUNK_ROWS", 64)
    monkeypatch.setattr("fmexp.backends.gibbs_columns.CHUNK_ENTRIES", 50)
    rows, weights = related_rows(300), np.random.default_rng(2).integers(1, 5, 300).astype(float)
    chains = [chain(rows, target(task, 300), weights, task, threads=n) for n in (1, 3)]
    for each in chains:
        for _ in range(3):
            each.sweep()
    assert chains[0].errors.tobytes() == chains[1].errors.tobytes()


@pytest.mark.parametrize("kind", ["dense", "csr"])
def test_a_training_on_weighted_rows_has_the_curve_of_repeated_rows(kind):
    keys = {"epochs": 20, "kept": 8, "burn_in": 4}
    weighted, repeated = (curve(kind, "regression", "gibbs", r, **keys) for r in (False, True))
    # what is kept is rounded to float32, where numbers may differ in their last bit
    assert_same_curve(weighted, repeated, atol=1e-6)
    np.testing.assert_allclose(weighted.train_losses, repeated.train_losses, rtol=0, atol=1e-10)


def test_the_loss_of_probabilities_is_weighted():
    found = curve("csr", "classification", "gibbs", False, epochs=6, kept=3)
    assert found.validation_losses[-1] == found.best_validation
    X = rows_of("dense")
    y, weights = target("classification"), COUNTS
    trainer = GibbsTrainer(
        make_config("gibbs", task="classification"),
        Part(X, y, np.arange(60), None, weights),
        random_parameters(11, 3),
    )
    plain = Part(X, y, np.arange(60))
    losses = [trainer.loss(Part(X[[i]], y[[i]], np.arange(1))) for i in range(60)]
    assert trainer.loss(plain) == pytest.approx(np.mean(losses))
    weighted = trainer.loss(Part(X, y, np.arange(60), None, weights))
    assert weighted == pytest.approx(np.average(losses, weights=weights))


def test_a_row_of_weight_zero_is_no_row_whatever_is_in_it():
    X, y = rows_of("dense"), target("regression")
    weights = (np.arange(60) % 3 > 0) * 1.0
    wild = np.where(weights[:, None] > 0, X, 1e300)
    some = weights > 0
    config, p = make_config("gibbs"), random_parameters(11, 3)
    with_zero = GibbsTrainer(config, Part(wild, y, np.arange(60), None, weights), p)
    without = GibbsTrainer(config, Part(X[some], y[some], np.arange(40), None, weights[some]), p)
    assert with_zero.train_epoch(0.0, None) == without.train_epoch(0.0, None)


def test_a_trainer_on_keys_leaves_out_rows_of_weight_zero_as_one_on_rows_does():
    rows, weights = related_rows(300), np.arange(300) % 4 / 2
    p, y = random_parameters(rows.shape[1], 3), target("regression", 300)
    on_keys, on_rows = (
        GibbsTrainer(make_config("gibbs"), Part(each, y, np.arange(300), None, weights), p)
        for each in (rows, expanded(rows))
    )
    for _ in range(3):
        assert on_keys.train_epoch(0.0, None) == pytest.approx(on_rows.train_epoch(0.0, None))
    assert_alike(on_keys._chain, on_rows._chain)


def test_labels_with_weights_that_are_no_counts_are_refused():
    weights = np.where(np.arange(60) == 7, 2.5, 1.0)
    held = Part(rows_of("dense"), target("classification"), np.arange(60), None, weights)
    with pytest.raises(DataError, match=r"needs weights that are whole numbers .* got 2\.5; use"):
        GibbsTrainer(make_config("gibbs", task="classification"), held, random_parameters(11, 3))
