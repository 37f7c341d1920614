"""Weights of rows: a row of weight 2 counts as two rows, in training and in every metric."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fmexp import fm
from fmexp.analysis import significance
from fmexp.backends import sgd, sgd_plain
from fmexp.data.dataset import Part
from fmexp.errors import ConfigError, DataError
from fmexp.training import metrics, stability
from fmexp.training.fitting import Fit, fit
from fmexp.training.passes import passes
from tests.training_fakes import (
    FakeDataset,
    FakeEncoder,
    make_config,
    random_parameters,
    random_rows,
    to_csr,
)

STREAM = np.random.default_rng(0)
COUNTS = STREAM.integers(0, 4, 60).astype(float)
L2 = {"reg_w0": 0.3, "reg_w": 0.2, "reg_V": 0.1}


def rows_of(kind: str, task: str) -> tuple[np.ndarray, np.ndarray]:
    X = random_rows(60, 6, density=1.0 if kind == "dense" else 0.5)
    X = (X != 0) * 1.0 if kind == "one-hot" else X
    y = X[:, 0] * X[:, 1] + X[:, 2] + np.random.default_rng(1).normal(size=60)
    return X, y if task == "regression" else (y > 0) * 1.0


def part(kind: str, X: np.ndarray, y: np.ndarray, weights: np.ndarray | None) -> Part:
    features = X if kind == "dense" else to_csr(X, one_hot=kind == "one-hot")
    return Part(features, y, np.arange(len(y)), None, weights)


def curve(kind: str, task: str, backend: str, repeated: bool, **keys: Any) -> Fit:
    """Trained on 40 rows, judged by 20: with weights, or with each row as often as its says."""
    X, y = rows_of(kind, task)
    parts = []
    for some in (slice(0, 40), slice(40, 60)):
        often = np.repeat(np.arange(60)[some], COUNTS[some].astype(int))
        chosen, weights = (often, None) if repeated else (some, COUNTS[some])
        parts.append(part(kind, X[chosen], y[chosen], weights))
    data: Any = FakeDataset(*parts, FakeEncoder([f"x{j}" for j in range(6)]))
    return fit(make_config(backend, task=task, **keys), data)


def assert_same_curve(a: Fit, b: Fit, atol: float = 1e-10) -> None:
    np.testing.assert_allclose(a.train_losses, b.train_losses, rtol=0, atol=atol)
    np.testing.assert_allclose(a.validation_losses, b.validation_losses, rtol=0, atol=atol)
    assert a.parameters is not None
    assert b.parameters is not None
    np.testing.assert_allclose(a.parameters.V, b.parameters.V, rtol=0, atol=atol)
    assert a.best_epoch == b.best_epoch
    assert a.baseline == pytest.approx(b.baseline, abs=1e-12)


@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("kind", ["dense", "csr", "one-hot"])
def test_full_batch_adam_on_weighted_rows_has_the_curve_of_repeated_rows(kind, task):
    pytest.importorskip("torch")
    keys = {"epochs": 40, "learning_rate": 0.05, "patience": 15, **L2}
    weighted, repeated = (curve(kind, task, "torch_adam", r, **keys) for r in (False, True))
    assert len(weighted.train_losses) > 1
    assert_same_curve(weighted, repeated)


def test_a_batch_of_adam_is_a_step_along_its_weighted_gradient():
    pytest.importorskip("torch")
    from fmexp.backends import adam

    X, y = rows_of("csr", "regression")
    weights, p = np.where(np.arange(60) < 8, 0.0, COUNTS + 0.5), random_parameters(6, 3)
    config = make_config("torch_adam", batch_size=8, **L2)
    trainer = adam.start(config, part("csr", X, y, weights), p)
    order = np.arange(60)[::-1].copy()
    before = weights[52:] @ fm.losses("regression", fm.scores(p, X[52:]), y[52:])
    trainer.train_epoch(1e-9, order)  # the last batch that counts has rows 11 to 4
    last = slice(4, 12)
    expected = weighted_gradient(p, X[last], y[last], weights[last])
    np.testing.assert_allclose(trainer.gradients().V, expected.V, rtol=0, atol=1e-7)
    np.testing.assert_allclose(trainer.gradients().w, expected.w, rtol=0, atol=1e-7)
    alone = adam.start(config, part("csr", X[52:], y[52:], weights[52:]), p)
    assert alone.train_epoch(0.01, None) == pytest.approx(before / weights[52:].sum())


def weighted_gradient(
    p: fm.Parameters, X: np.ndarray, y: np.ndarray, weights: np.ndarray
) -> fm.Parameters:
    each = [fm.gradients(p, X[[i]], y[[i]], **L2) for i in range(len(y))]
    w, V = (np.average([getattr(g, a) for g in each], axis=0, weights=weights) for a in "wV")
    return fm.Parameters(float(np.average([g.w0 for g in each], weights=weights)), w, V)


@pytest.mark.parametrize("cap_steps", [False, True])
@pytest.mark.parametrize(
    ("kind", "k", "task", "dtype"),
    [
        ("dense", 3, "regression", "float64"),
        ("csr", 3, "regression", "float64"),
        ("one-hot", 3, "regression", "float64"),
        ("csr", 70, "regression", "float64"),
        ("one-hot", 3, "classification", "float32"),
    ],
)
def test_a_pass_of_sgd_takes_each_row_at_the_rate_times_its_weight(kind, k, task, dtype, cap_steps):
    X, y = rows_of(kind, task)
    p, order = random_parameters(6, k, scale=0.3 / k**0.5), np.random.default_rng(2).permutation(60)
    most = {"regression": 1.0, "classification": 4.0}[task]
    rate = 0.6 * most / np.median(fm.squared_slopes(p, X)) if cap_steps else 0.01
    config = make_config(k=k, task=task, dtype=dtype, cap_steps=cap_steps, **L2)
    trainer = sgd.start(config, part(kind, X, y, COUNTS), p)
    loss = trainer.train_epoch(rate, order)
    twin, total, n_capped = sgd_plain.train_pass(
        p, X, y, order, rate, task, cap_steps=cap_steps, row_weights=COUNTS, **L2
    )
    atol = 1e-12 if dtype == "float64" else 2e-5
    np.testing.assert_allclose(trainer.parameters().V, twin.V, rtol=0, atol=atol)
    np.testing.assert_allclose(trainer.parameters().w, twin.w, rtol=0, atol=atol)
    assert loss == pytest.approx(total / COUNTS.sum(), rel=10 * atol)
    assert trainer.capped_steps == n_capped
    assert (0 < n_capped < 60) == cap_steps


def passed(kind: str, weights: np.ndarray | None, rate: float = 0.01, **keys: Any) -> fm.Parameters:
    """The parameters after one pass of SGD in order, over the rows of weight above 0 or all."""
    X, y = rows_of(kind, "regression")
    trainer = sgd.start(
        make_config(**L2, **keys), part(kind, X, y, weights), random_parameters(6, 3)
    )
    trainer.train_epoch(rate, None)
    return trainer.parameters()


@pytest.mark.parametrize("kind", ["dense", "one-hot"])
def test_weights_of_one_change_no_bit_of_sgd_and_a_row_of_weight_zero_none(kind):
    plain, ones = passed(kind, None), passed(kind, np.ones(60))
    assert plain.V.tobytes() == ones.V.tobytes()
    assert plain.w0 == ones.w0
    X, y = rows_of(kind, "regression")
    gaps = (np.arange(60) % 3 > 0) * 1.0
    some = gaps > 0
    trainer = sgd.start(
        make_config(**L2), part(kind, X[some], y[some], None), random_parameters(6, 3)
    )
    trainer.train_epoch(0.01, None)
    assert trainer.parameters().V.tobytes() == passed(kind, gaps).V.tobytes()


def test_sgd_on_weighted_rows_does_what_repeated_rows_do_to_first_order_in_the_rate():
    X, y = rows_of("dense", "regression")
    often, p = np.repeat(np.arange(60), COUNTS.astype(int)), random_parameters(6, 3)

    def apart(rate: float) -> float:
        moved = passed("dense", COUNTS, rate).V - p.V
        trainer = sgd.start(make_config(**L2), part("dense", X[often], y[often], None), p)
        trainer.train_epoch(rate, None)
        return float(np.abs(moved - (trainer.parameters().V - p.V)).max() / np.abs(moved).max())

    assert apart(1e-4) < 0.01
    assert apart(1e-6) == pytest.approx(apart(1e-4) / 100, rel=0.1)


def test_many_rows_are_weighted_chunk_by_chunk(monkeypatch):
    X, y = rows_of("csr", "regression")
    held, p = part("csr", X, y, COUNTS), random_parameters(6, 3)
    whole, cut = (sgd.start(make_config(**L2), held, p) for _ in range(2))
    expected = whole.train_epoch(0.01, None)
    monkeypatch.setattr("fmexp.training.passes.chunks", lambda n: [slice(0, 25), slice(25, n)])
    assert passes(cut, 60, None)(0.01) == pytest.approx(expected, rel=1e-13)
    assert (cut.parameters().V == whole.parameters().V).all()
    assert cut.loss(held) == whole.loss(held)


def test_a_trainer_that_does_not_know_weights_is_not_asked_to_heed_them(monkeypatch):
    class Ignorant:
        def __init__(self, *_: Any) -> None:
            pass

    monkeypatch.setattr("fmexp.training.fitting.start", Ignorant)
    with pytest.raises(ConfigError, match=r"does not weight rows: set data\.weight=null"):
        curve("dense", "regression", "numpy_sgd", False)


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_metrics_of_weighted_rows_are_those_of_repeated_rows(task):
    y, said = STREAM.normal(size=60), STREAM.integers(1, 9, 60) / 10
    often = np.repeat(np.arange(60), COUNTS.astype(int))

    def measured(rows: np.ndarray, weights: np.ndarray | None) -> dict[str, float]:
        if task == "classification":
            return metrics.classification((y[rows] > 0) * 1.0, said[rows], weights)
        found = metrics.intervals(y[rows], said[rows], 0.5 + said[rows], weights)
        return found | metrics.regression(y[rows], said[rows], weights)

    repeated = measured(often, None)
    assert len(repeated) == (3 if task == "classification" else 6)
    assert measured(np.arange(60), COUNTS) == pytest.approx(repeated, rel=1e-12)


def test_auc_is_not_told_where_only_rows_of_weight_zero_have_a_label():
    said = metrics.classification(np.array([1.0, 0, 0]), np.full(3, 0.5), np.array([0.0, 1, 2]))
    assert set(said) == {"logloss", "accuracy"}


def test_a_difference_of_weighted_errors_is_their_weighted_mean_with_its_spread():
    draws = [STREAM.normal(1.0, 1.0, 60) for _ in range(4000)]
    found = [significance.difference(np.zeros(60), d, weights=COUNTS) for d in draws]
    means = [np.average(d, weights=COUNTS) for d in draws]
    assert [each.mean for each in found] == pytest.approx(means)
    assert np.mean([each.error for each in found]) == pytest.approx(np.std(means), rel=0.05)
    same = significance.difference(np.zeros(60), draws[0], weights=np.full(60, 7.0))
    plain = significance.difference(np.zeros(60), draws[0])
    assert (same.error, same.freedom) == pytest.approx((plain.error, plain.freedom))
    certain = significance.difference(np.zeros(60), np.ones(60), weights=COUNTS)
    assert (certain.mean, certain.error) == pytest.approx((1.0, 0.0))


def test_one_row_that_counts_has_no_spread():
    with pytest.raises(DataError, match="at least 2 held-out rows that count, got 1"):
        significance.difference(np.zeros(3), np.ones(3), weights=np.array([0.0, 0, 1]))


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("numpy_sgd", "set training.learning_rate=1e-05"),
        ("torch_adam", ""),
        ("gibbs", "6e+04 rows; where they are no counts, divide"),
    ],
)
def test_weights_far_from_one_are_pointed_out_where_their_size_matters(backend, said):
    X, y = rows_of("dense", "regression")

    def found(weight: float) -> str:
        train = part("dense", X, y, np.full(60, weight))
        data: Any = FakeDataset(train, None, FakeEncoder(["x"]))
        return "".join(stability.cautions(make_config(backend, cap_steps=True), data))

    assert bool(found(1000.0)) == bool(said)
    assert said in found(1000.0)
    assert not found(1.5)


def test_what_may_go_wrong_is_judged_by_the_rows_that_count_and_as_much_as_they_do():
    X, y = rows_of("dense", "regression")
    many, wild = random_rows(500, 6, density=1.0), np.append(np.zeros(499), 1e6)
    for last in (1.0, 0.0):
        held = part("dense", many, wild, np.append(np.ones(499), last))
        data: Any = FakeDataset(held, None, FakeEncoder(["x"]))
        found = "".join(stability.cautions(make_config(cap_steps=True), data))
        assert ("the target reaches" in found) == bool(last)
    data = FakeDataset(part("dense", X, y, np.full(60, 9.0)), None, FakeEncoder(["x"]))
    config = make_config(learning_rate=0.001, reg_w=300.0)
    why = stability.reason(config, data, random_parameters(6, 3), 0)
    assert "the largest weight of a row (9) times training.reg_w=300 is above 2" in why
    assert "a training.reg_w of at most 1e+02 is safe" in why


@pytest.mark.parametrize("weights", [np.ones(60), np.linspace(0.1, 9, 60)])
def test_a_rate_is_stable_by_what_weights_make_of_the_steps(weights):
    X, _ = rows_of("dense", "regression")
    p, scaled = random_parameters(6, 3), weights / 2
    for rate in (
        lambda w: stability.largest_stable_rate("regression", X, w),
        lambda w: stability.rate_for_every_row("regression", p, X, w),
    ):
        assert rate(scaled) == pytest.approx(2 * rate(weights))
        assert rate(np.ones(60)) == rate(None)
