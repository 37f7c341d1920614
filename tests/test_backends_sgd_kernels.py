"""The compiled kernels do what their plain twin does, and the twin what the definition says."""

import numpy as np
import pytest

from fmexp import fm
from fmexp.backends import numpy_sgd, sgd_plain
from fmexp.data.dataset import CSR, Features, Part
from tests.training_fakes import make_config, random_parameters, random_rows, to_csr

L2 = {"reg_w0": 0.3, "reg_w": 0.2, "reg_V": 0.1}
ATOL = {"float64": 1e-12, "float32": 2e-5}


def trained(
    p: fm.Parameters, features: Features, y: np.ndarray, order: np.ndarray | None, **keys: object
) -> tuple[fm.Parameters, float]:
    """One epoch of the compiled backend."""
    config = make_config(k=p.k, **L2, **keys)
    trainer = numpy_sgd.start(config, Part(features, y, np.arange(len(y))), p)
    loss = trainer.train_epoch(0.05, order)
    return trainer.parameters(), loss


def assert_like_the_twin(
    p: fm.Parameters, features: Features, y: np.ndarray, *, dtype: str = "float64",
    task: fm.Task = "regression", order: np.ndarray | None = None,
) -> None:  # fmt: skip
    found, loss = trained(p, features, y, order, dtype=dtype, task=task)
    visits = range(len(y)) if order is None else order
    twin, total = sgd_plain.train_pass(p, features, y, visits, 0.05, task, **L2)
    atol = ATOL[dtype]
    np.testing.assert_allclose(found.w0, twin.w0, rtol=0, atol=atol)
    np.testing.assert_allclose(found.w, twin.w, rtol=0, atol=atol)
    np.testing.assert_allclose(found.V, twin.V, rtol=0, atol=atol)
    assert loss == pytest.approx(total / len(y), rel=10 * atol)


def problem(task: str, k: int, density: float) -> tuple[fm.Parameters, np.ndarray, np.ndarray]:
    X = random_rows(40, 19, density=density)
    X[7] = 0
    y = np.random.default_rng(1).normal(size=40)
    return (
        random_parameters(19, k, scale=0.5 / k**0.5),
        X,
        y if task == "regression" else (y > 0) * 1.0,
    )


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_a_pass_of_the_twin_is_a_step_along_the_gradient_of_each_row(task):
    p, X, y = problem(task, 3, 0.5)
    twin, total = sgd_plain.train_pass(p, X, y, range(40), 0.05, task, **L2)
    loss = 0.0
    for i in range(40):
        loss += fm.losses(task, fm.scores(p, X[i : i + 1]), y[i : i + 1])[0]
        g = fm.gradients(p, X[i : i + 1], y[i : i + 1], task, **L2)
        p = fm.Parameters(p.w0 - 0.05 * g.w0, p.w - 0.05 * g.w, p.V - 0.05 * g.V)
    np.testing.assert_allclose(twin.V, p.V, rtol=0, atol=1e-13)
    np.testing.assert_allclose(twin.w, p.w, rtol=0, atol=1e-13)
    assert twin.w0 == pytest.approx(p.w0)
    assert total == pytest.approx(loss)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("kind", ["dense", "csr", "one-hot"])
def test_every_kernel_does_what_the_twin_does(kind, task, dtype):
    p, X, y = problem(task, 5, 0.4)
    if kind == "one-hot":
        X = (X != 0).astype(float)
    features = X if kind == "dense" else to_csr(X, one_hot=kind == "one-hot")
    order = np.random.default_rng(2).permutation(40)
    assert_like_the_twin(p, features, y, dtype=dtype, task=task)
    assert_like_the_twin(p, features, y, dtype=dtype, task=task, order=order)


def test_dense_and_sparse_rows_give_the_same_model():
    p, X, y = problem("regression", 5, 0.4)
    (dense, _), (sparse, _) = (trained(p, rows, y, None) for rows in (X, to_csr(X)))
    np.testing.assert_allclose(dense.V, sparse.V, rtol=0, atol=1e-13)
    np.testing.assert_allclose(dense.w, sparse.w, rtol=0, atol=1e-13)


def test_a_stored_zero_counts_as_absent():
    p, X, y = problem("regression", 5, 0.4)
    everything = to_csr(np.ones_like(X))
    stored = CSR(everything.indptr, everything.indices, X.ravel(), 19)
    assert_like_the_twin(p, stored, y)


@pytest.mark.parametrize("k", [65, 100, 128, 129])
@pytest.mark.parametrize("kind", ["dense", "csr"])
def test_more_factors_than_lanes_go_in_blocks(kind, k):
    p, X, y = problem("regression", k, 0.4)
    assert_like_the_twin(p, X if kind == "dense" else to_csr(X), y)


@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("kind", ["dense", "csr", "wide"])
def test_scores_and_losses_are_those_of_the_definition(kind, task):
    p, X, y = problem(task, 70 if kind == "wide" else 6, 0.4)
    features = X if kind == "dense" else to_csr(X)
    part = Part(features, y, np.arange(40))
    trainer = numpy_sgd.start(make_config(k=p.k, task=task), part, p)
    expected = fm.scores(p, X)
    np.testing.assert_allclose(trainer.scores(features), expected, rtol=0, atol=1e-12)
    mean = fm.losses(task, expected, y).mean()
    assert trainer.loss(part) == pytest.approx(mean, rel=1e-13)


def test_the_log_loss_is_exact_for_scores_of_every_size():
    scores = np.concatenate([-np.logspace(-20, 4, 400), np.logspace(-20, 4, 400), [0.0]])
    p = fm.Parameters(0.0, np.ones(1), np.zeros((1, 1)))
    for label in (0.0, 1.0):
        for score in scores:
            part = Part(np.array([[score]]), np.array([label]), np.arange(1))
            trainer = numpy_sgd.start(make_config(k=1, task="classification"), part, p)
            expected = fm.losses("classification", np.array([score]), np.array([label]))[0]
            assert trainer.loss(part) == pytest.approx(expected, rel=1e-14, abs=1e-307)
