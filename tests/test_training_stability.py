"""Divergence: what is capped, what is warned of, and how it explains itself."""

import math
from typing import Any

import numpy as np
import pytest

from fmexp.estimators import FMClassifier, FMRegressor
from fmexp.experiment.console import outcome
from fmexp.experiment.one_run import Result
from fmexp.record.tracker import Outcome
from fmexp.training import stability
from fmexp.training.fitting import fit
from fmexp.training.stability import largest_stable_rate
from tests.training_fakes import (
    make_config,
    make_dataset,
    random_parameters,
    random_rows,
    to_csr,
)


def noisy(n_validation: int = 0, target_scale: float = 1.0) -> Any:
    """40 rows with a signal, and noise enough to overfit."""
    X, g = random_rows(40, 6), np.random.default_rng(1)
    y = X[:, 0] * X[:, 1] + X[:, 2] + g.normal(size=40)
    return make_dataset(X, y, n_validation, target_scale)


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_cause():
    X = random_rows(40, 3) * [1, 1e5, 1]
    done = fit(make_config(epochs=50), make_dataset(X, X[:, 0], 10))
    assert done.outcome is Outcome.DIVERGED
    assert done.parameters is None or np.isfinite(done.parameters.V).all()
    assert all(map(math.isfinite, done.train_losses + done.validation_losses))
    assert "training.learning_rate=0.01 is too large" in done.reason
    assert "Largest columns: x1 (up to" in done.reason


def test_the_safe_rate_of_the_message_is_safe_and_the_tenfold_of_twice_it_is_not():
    X = random_rows(40, 3) * [1, 1e3, 1]
    data = make_dataset(X, X[:, 0])
    reason = fit(make_config(epochs=50), data).reason
    safe = float(reason.split("of at most ")[1].split(" ")[0])
    assert fit(make_config(epochs=50, learning_rate=safe), data).outcome is Outcome.COMPLETED
    assert fit(make_config(epochs=50, learning_rate=20 * safe), data).outcome is Outcome.DIVERGED


@pytest.mark.parametrize("sparse", [False, True])
def test_a_rate_above_what_the_rows_allow_is_warned_of(caplog, sparse):
    X = random_rows(100, 4) * [1, 10, 1, 1]
    data = make_dataset(to_csr(X) if sparse else X, X[:, 0])
    G = 1 + (X**2).sum(axis=1)
    limit = 2 * G.mean() / (G**2).mean()
    fit(make_config(learning_rate=0.99 * limit, epochs=1), data)
    assert not caplog.text
    fit(make_config(learning_rate=1.01 * limit, epochs=1), data)
    assert f"is above {limit:.2g}, where errors begin to grow" in caplog.text
    assert "Largest columns: x1 (up to" in caplog.text


def heavy_tails(n_validation: int = 100) -> Any:
    """Log-normal columns, standardised, as a table of prices has them."""
    g = np.random.default_rng(3)
    X = np.exp(1.5 * g.normal(size=(600, 6)))
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    y = X[:, 0] + 0.5 * X[:, 1] * X[:, 2] + g.normal(size=600)
    return make_dataset(X, y / y.std(), n_validation)


def test_capped_steps_train_where_others_diverge():
    keys = {"learning_rate": 0.02, "epochs": 30, "shuffle": True, "k": 8, "init_stdev": 0.05}
    assert fit(make_config(**keys), heavy_tails()).outcome is Outcome.DIVERGED
    done = fit(make_config(**keys, cap_steps=True), heavy_tails())
    assert done.outcome is Outcome.COMPLETED
    assert 0 < done.capped < 1
    assert done.best_validation < done.baseline


def far_out(kind: str, n_columns: int) -> np.ndarray:
    """Columns with tails as tables of prices, counts and clicks have them, and far worse."""
    g, shape = np.random.default_rng(0), (400, n_columns)
    with_spikes = g.normal(size=shape)
    with_spikes[3:6] = 1e6
    return {
        "log-normal": np.exp(1.5 * g.normal(size=shape)),
        "a hundred orders of magnitude": np.exp(60 * g.normal(size=shape)),
        "cauchy": g.standard_cauchy(size=shape),
        "counts": g.negative_binomial(0.1, 0.001, size=shape) * 1.0,
        "spikes": with_spikes,
        "copies of one column": np.repeat(np.exp(2 * g.normal(size=(400, 1))), n_columns, axis=1),
    }[kind]


@pytest.mark.parametrize("n_columns", [3, 40])
@pytest.mark.parametrize(
    "kind",
    ["log-normal", "a hundred orders of magnitude", "cauchy", "counts", "spikes",
     "copies of one column"],
)  # fmt: skip
def test_no_finite_table_makes_the_shipped_defaults_diverge(kind: str, n_columns: int) -> None:
    X, noise = far_out(kind, n_columns), np.random.default_rng(1).normal(size=400)
    for y in (noise, X[:, 0], X[:, 0] * X[:, 1] + noise, np.exp(3 * noise)):
        assert np.isfinite(FMRegressor().fit(X, y).predict(X)).all()  # divergence raises
        FMClassifier().fit(X, y > np.median(y))


def test_capped_steps_are_those_of_the_last_epoch(monkeypatch):
    monkeypatch.setattr("fmexp.data.features.CHUNK_ROWS", 50)
    keys = {"learning_rate": 1.0, "shuffle": True, "cap_steps": True}
    assert fit(make_config(**keys, epochs=3), heavy_tails()).capped == 1.0
    assert fit(make_config("torch_adam", epochs=1), heavy_tails()).capped == 0.0


def test_a_target_beyond_twenty_standard_deviations_is_warned_of(caplog):
    X, y = random_rows(1000, 3), np.random.default_rng(0).normal(size=1000)
    fit(make_config(epochs=1, cap_steps=True), make_dataset(X, y))
    assert not caplog.text
    y[7] = 1e4
    fit(make_config(epochs=1, cap_steps=True), make_dataset(X, y))
    assert "the target reaches 31.6 standard deviations from its mean" in caplog.text
    caplog.clear()
    fit(make_config("torch_adam", epochs=1), make_dataset(X, y))
    assert not caplog.text


def summary_of(config: Any, data: Any) -> str:
    data.noise_floor = None
    return outcome(config, data, Result("key", "name", fit(config, data), {}))


def test_the_summary_says_when_more_than_a_hundredth_of_the_steps_was_capped():
    keys = {"epochs": 5, "cap_steps": True}
    too_fast = summary_of(make_config(**keys, learning_rate=1.0), heavy_tails())
    assert "capped   100 % of the last epoch's steps, where training.learning_rate=1 " in too_fast
    assert "Largest columns: x" in too_fast
    few = make_dataset(random_rows(1000, 3), np.ones(1000))
    few.train.features[:9] *= 100
    assert fit(make_config(**keys), few).capped == 0.009
    assert "capped" not in summary_of(make_config(**keys), few)


def test_divergence_of_adam_is_told_adams_rates():
    pytest.importorskip("torch")
    done = fit(make_config("torch_adam", learning_rate=1e30, dtype="float32"), noisy())
    assert "Adam moves each parameter by about the rate" in done.reason
    assert "is safe" not in done.reason


def test_divergence_by_l2_names_it():
    done = fit(make_config(reg_w=1e5, epochs=500), noisy())
    assert "times training.reg_w=100000 is above 2" in done.reason


@pytest.mark.parametrize("standardize", [False, True])
def test_standardising_is_advised_only_where_it_is_off(standardize):
    config = make_config(epochs=50)
    config.data.standardize = standardize
    done = fit(config, make_dataset(random_rows(40, 3) * [1, 1e5, 1], np.ones(40)))
    assert ("data.standardize=true" in done.reason) != standardize
    assert "training.cap_steps=true" in done.reason


def test_log_loss_allows_four_times_the_rate():
    X = random_rows(100, 4)
    rates = [largest_stable_rate(task, X) for task in ("regression", "classification")]
    assert rates[1] == pytest.approx(4 * rates[0])


def test_one_hot_rows_of_five_allow_a_third():
    rows = to_csr(np.ones((9, 5)), one_hot=True)
    assert largest_stable_rate("regression", rows) == pytest.approx(1 / 3)


def test_rates_and_columns_do_not_depend_on_how_rows_are_looked_at(monkeypatch):
    X, p = random_rows(50, 6, density=0.5), random_parameters(6, 3)
    found = []
    for chunk in (7, 1000):
        monkeypatch.setattr(stability, "SMALL_CHUNK_ROWS", chunk)
        for rows in (X, to_csr(X)):
            rates = [largest_stable_rate("regression", rows)]
            rates.append(stability.rate_for_every_row("regression", p, rows))
            found.append([*rates, *stability.largest_magnitudes(rows)])
    np.testing.assert_allclose(found, [found[0]] * 4)
    np.testing.assert_allclose(found[0][2:], np.abs(X).max(axis=0))
