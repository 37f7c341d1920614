"""fit(): one loop for all backends."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest

from fmexp import fm
from fmexp.errors import ConfigError
from fmexp.record.tracker import Outcome
from fmexp.training import fitting
from fmexp.training.fitting import fit
from tests.training_fakes import (
    make_config,
    make_dataset,
    random_rows,
    to_csr,
)

BACKENDS = ["numpy_sgd", "torch_adam"]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "torch_adam":
        pytest.importorskip("torch")
    return str(request.param)


def noisy(n_validation: int = 0, target_scale: float = 1.0) -> Any:
    """40 rows with a signal, and noise enough to overfit."""
    X, g = random_rows(40, 6), np.random.default_rng(1)
    y = X[:, 0] * X[:, 1] + X[:, 2] + g.normal(size=40)
    return make_dataset(X, y, n_validation, target_scale)


def test_the_same_seed_gives_the_same_bits_twice(backend):
    def bits(seed: int) -> bytes:
        config = make_config(backend, seed=seed, shuffle=True, batch_size=None)
        done = fit(config, noisy(10))
        return (
            np.array(done.train_losses + done.validation_losses).tobytes()
            + done.parameters.V.tobytes()
        )

    assert bits(1) == bits(1) != bits(2)


def test_every_epoch_has_a_finite_loss_and_is_watched(backend):
    seen: list[tuple[int, float, float | None]] = []
    done = fit(make_config(backend, epochs=7), noisy(10), lambda *point: seen.append(point))
    assert seen == list(zip(range(1, 8), done.train_losses, done.validation_losses, strict=True))
    assert done.outcome is Outcome.COMPLETED
    assert done.epochs == 7


def test_without_a_validation_part_the_last_epoch_is_kept(backend):
    done = fit(make_config(backend, epochs=4), noisy())
    longer = fit(make_config(backend, epochs=5), noisy())
    assert (done.best_epoch, done.best_validation, done.validation_losses) == (None, None, [])
    part = noisy().train
    loss_after_4 = fm.losses("regression", fm.scores(done.parameters, part.features), part.target)
    if backend == "torch_adam":  # a full batch's loss is that of the parameters before it
        assert longer.train_losses[4] == pytest.approx(loss_after_4.mean())
    assert longer.train_losses[:4] == done.train_losses


def test_the_epoch_of_the_lowest_validation_loss_is_kept(backend):
    data = noisy(10)
    done = fit(make_config(backend, epochs=300, learning_rate=0.03, k=8), data)
    assert done.best_epoch == 1 + int(np.argmin(done.validation_losses)) < 300
    part = data.validation
    loss = fm.losses("regression", fm.scores(done.parameters, part.features), part.target).mean()
    assert loss == pytest.approx(done.best_validation) == min(done.validation_losses)


@pytest.mark.parametrize("k", [3, 8, 65])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_from_an_epoch_on_the_model_is_the_mean_of_its_states(backend, k, sparse, dtype):
    X, g = random_rows(50, 6, density=0.7), np.random.default_rng(1)
    y = X[:, 0] * X[:, 1] + X[:, 2] + g.normal(size=50)
    keys = {"backend": backend, "k": k, "dtype": dtype, "learning_rate": 0.02, "reg_V": 0.1}
    rows = to_csr(X) if sparse else X
    data, judged = make_dataset(rows, y), make_dataset(rows, y, 10)
    states = [fit(make_config(**keys, epochs=e), data).parameters for e in (1, 2, 3, 4, 5)]
    done = fit(make_config(**keys, epochs=5, average_from=3), data)
    close = pytest.approx if dtype == "float64" else partial(pytest.approx, rel=1e-4, abs=1e-6)
    for name in ("w0", "w", "V"):
        mean = np.mean([getattr(state, name) for state in states[2:]], axis=0)
        assert getattr(done.parameters, name) == close(mean)
    plain = fit(make_config(**keys, epochs=5), data)
    assert done.train_losses == plain.train_losses  # training goes on from the last state
    averaged = fit(make_config(**keys, epochs=5, average_from=3), judged)
    plain = fit(make_config(**keys, epochs=5), judged)
    assert averaged.validation_losses[:3] == plain.validation_losses[:3]
    part, kept = judged.validation, averaged.parameters
    loss = fm.losses("regression", fm.scores(kept, part.features), part.target).mean()
    assert loss == close(averaged.best_validation)
    assert averaged.validation_losses[4] != plain.validation_losses[4]


def test_a_backend_that_keeps_no_mean_is_named(monkeypatch):
    from fmexp.backends.sgd import SgdTrainer

    class WithoutMean(SgdTrainer):
        average = None

    monkeypatch.setattr(fitting, "start", WithoutMean)
    with pytest.raises(ConfigError, match=r"numpy_sgd keeps no mean.*average_from=null"):
        fit(make_config(average_from=3), noisy())


def test_early_stopping_stops_after_patience_and_keeps_the_best(backend):
    keys = {"learning_rate": 0.03, "k": 8, "epochs": 300}
    whole = fit(make_config(backend, **keys), noisy(10))
    done = fit(make_config(backend, **keys, patience=5), noisy(10))
    assert done.epochs == done.best_epoch + 5 < 300
    assert done.outcome is Outcome.COMPLETED
    assert f"no gain since epoch {done.best_epoch}" in done.reason
    assert done.validation_losses == whole.validation_losses[: done.epochs]


def test_min_delta_is_relative(backend):
    keys = {"learning_rate": 0.001, "epochs": 50, "patience": 3}
    losses = fit(make_config(backend, **keys), noisy(10)).validation_losses
    assert len(losses) > 4
    assert losses[3] > 0.5 * losses[0]
    assert fit(make_config(backend, **keys, min_delta=0.5), noisy(10)).epochs == 4


def test_early_stopping_without_a_validation_part_is_refused():
    with pytest.raises(ConfigError, match=r"split\.validation"):
        fit(make_config(patience=5), noisy())


def test_decay_divides_the_rate_of_epoch_e_by_one_plus_decay_times_e(monkeypatch):
    from fmexp.backends.sgd import SgdTrainer

    rates: list[float] = []
    train_epoch = SgdTrainer.train_epoch

    def noted(self: Any, rate: float, order: Any) -> float:
        rates.append(rate)
        return train_epoch(self, rate, order)

    monkeypatch.setattr(SgdTrainer, "train_epoch", noted)
    fit(make_config(epochs=4, learning_rate=0.06, learning_rate_decay=0.5), noisy())
    assert rates == pytest.approx([0.06, 0.04, 0.03, 0.024])


def test_shuffling_visits_all_rows_in_an_order_of_the_seed(monkeypatch):
    from fmexp.backends.sgd import SgdTrainer

    orders: list[Any] = []

    def noted(_: Any, __: float, order: Any) -> float:
        orders.append(None if order is None else order.tolist())
        return 1.0

    monkeypatch.setattr(SgdTrainer, "train_epoch", noted)
    fit(make_config(epochs=3, shuffle=True, seed=5), noisy())
    fit(make_config(epochs=3, shuffle=True, seed=5), noisy())
    fit(make_config(epochs=1, shuffle=False), noisy())
    assert all(sorted(order) == list(range(40)) for order in orders[:3])
    assert orders[:3] == orders[3:6]
    assert orders[0] != orders[1] != orders[2] != orders[0] != list(range(40))
    assert orders[6] is None


def test_losses_are_in_the_units_of_the_target(backend):
    plain, scaled = (fit(make_config(backend), noisy(10, scale)) for scale in (1.0, 3.0))
    np.testing.assert_allclose(scaled.train_losses, 9 * np.array(plain.train_losses))
    np.testing.assert_allclose(scaled.validation_losses, 9 * np.array(plain.validation_losses))
    assert scaled.baseline == pytest.approx(9 * plain.baseline)


def test_the_baseline_predicts_the_training_mean():
    data = noisy(10)
    mean = data.train.target.mean()
    assert fit(make_config(), data).baseline == pytest.approx(
        ((data.validation.target - mean) ** 2).mean()
    )
    assert fit(make_config(), noisy()).baseline == pytest.approx(noisy().train.target.var())


def test_the_baseline_of_classification_predicts_the_share():
    X = random_rows(8, 2)
    y = np.array([1.0, 0, 0, 0, 1, 0, 0, 0])
    done = fit(make_config(task="classification"), make_dataset(X, y))
    assert done.baseline == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_both_backends_learn_both_tasks(backend, task):
    X = random_rows(200, 5)
    y = X[:, 0] * X[:, 1] * 2 + X[:, 2]
    y = y if task == "regression" else (y > 0).astype(float)
    config = make_config(backend, task=task, epochs=200, learning_rate=0.02, shuffle=True, k=4)
    done = fit(config, make_dataset(X, y, 50))
    assert done.best_validation < 0.5 * done.baseline


def test_watch_ends_the_training_with_its_outcome(backend):
    stop = {3: Outcome.PRUNED}
    done = fit(make_config(backend, epochs=9), noisy(10), lambda epoch, *_: stop.get(epoch))
    assert (done.outcome, done.epochs) == (Outcome.PRUNED, 3)
    assert done.parameters is not None


def test_parameters_that_overflow_in_the_last_row_do_not_leave():
    X, y = np.array([[1.0], [1e200]]), np.array([0.0, 1.0])
    done = fit(make_config(epochs=1, k=1), make_dataset(X, y))
    assert done.outcome is Outcome.DIVERGED
    assert done.parameters is None


def test_a_start_of_v_at_zero_is_allowed_and_warned_of(caplog):
    done = fit(make_config(init_stdev=0.0), noisy())
    assert "model.init_stdev=0: V starts at zero, where its gradient is zero" in caplog.text
    assert not done.parameters.V.any()


def test_training_can_start_from_given_parameters(backend):
    first = fit(make_config(backend, epochs=3), noisy()).parameters
    done = fit(make_config(backend, epochs=1), noisy(), parameters=first)
    assert done.train_losses[0] < fit(make_config(backend, epochs=1), noisy()).train_losses[0]


def test_the_notebooks_numpy_figures():
    X = np.random.RandomState(42).randint(0, 6, (100, 8)).astype(float)
    y = np.random.RandomState(42).rand(100)
    keys = {"start": "notebook", "seed": 42, "k": 5, "learning_rate": 0.001, "epochs": 1000}
    done = fit(make_config(**keys), make_dataset(X, y))
    assert done.train_losses[-1] * 100 == pytest.approx(7.250213, abs=1e-6)
    first = [209.92221069, 35.0864830, 25.7811909]
    assert [100 * x for x in done.train_losses[:3]] == pytest.approx(first, abs=1e-4)
    rows = [0, 1, 2, 3, 4, 95, 96, 97, 98]
    expected = [0.605124, 0.527338, 0.815019, 0.584716, 0.523286]
    expected += [0.555199, 0.420619, 0.478358, 0.125237]
    assert fm.scores(done.parameters, X)[rows] == pytest.approx(expected, abs=2e-6)


def test_the_notebooks_torch_figures():
    torch = pytest.importorskip("torch")
    torch.manual_seed(42)
    X, y = torch.randn(100, 10).double().numpy(), torch.randn(100).double().numpy()
    keys = {"init_stdev": 0.0, "k": 5, "epochs": 100, "dtype": "float32"}
    done = fit(make_config("torch_adam", **keys), make_dataset(X, y))
    assert done.train_losses[-1] == pytest.approx(
        0.98362356, abs=3e-7
    )  # float32, a mean of 100 squares
    rows = [0, 1, 2, 3, 4, 95, 96, 97, 98]
    expected = [0.237655, -0.170638, 0.360829, -0.080337, -0.057512]
    expected += [-0.286557, -0.001467, -0.337158, -0.181565]
    assert fm.scores(done.parameters, X)[rows] == pytest.approx(expected, abs=2e-6)
