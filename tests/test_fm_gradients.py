"""fm.py: gradients, against finite differences and autograd."""

from dataclasses import replace

import numpy as np
import pytest

from fmexp import fm
from tests.training_fakes import random_parameters, random_rows, to_csr

L2 = {"reg_w0": 0.3, "reg_w": 0.2, "reg_V": 0.1}


def objective(p: fm.Parameters, X: np.ndarray, y: np.ndarray, task: fm.Task) -> float:
    """What training minimises, as the design words it: row by row."""
    total = 0.0
    for x, target in zip(X, y, strict=True):
        loss = fm.losses(task, fm.scores(p, x[None]), target)[0]
        total += loss / 2 if task == "regression" else loss
        on = x != 0
        total += 0.5 * L2["reg_w0"] * p.w0**2 + 0.5 * L2["reg_w"] * (p.w[on] ** 2).sum()
        total += 0.5 * L2["reg_V"] * (p.V[on] ** 2).sum()
    return total / len(y)


def problem(task: str) -> tuple[fm.Parameters, np.ndarray, np.ndarray]:
    X = random_rows(6, 5, density=0.6)
    X[2] = 0
    y = np.random.default_rng(3).normal(size=6)
    return random_parameters(5, 3), X, y if task == "regression" else (y > 0).astype(float)


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_gradients_are_the_finite_differences_of_the_objective(task):
    p, X, y = problem(task)
    gradient, step = fm.gradients(p, X, y, task, **L2), 1e-6

    def slope(change: fm.Parameters) -> float:
        ahead = fm.Parameters(p.w0 + change.w0, p.w + change.w, p.V + change.V)
        behind = fm.Parameters(p.w0 - change.w0, p.w - change.w, p.V - change.V)
        return (objective(ahead, X, y, task) - objective(behind, X, y, task)) / (2 * step)

    zero = fm.Parameters(0.0, np.zeros(5), np.zeros((5, 3)))
    assert slope(replace(zero, w0=step)) == pytest.approx(gradient.w0, abs=1e-8)
    for j in range(5):
        assert slope(replace(zero, w=step * np.eye(5)[j])) == pytest.approx(gradient.w[j], abs=1e-8)
        for f in range(3):
            change = np.zeros((5, 3))
            change[j, f] = step
            assert slope(replace(zero, V=change)) == pytest.approx(gradient.V[j, f], abs=1e-8)


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_gradients_are_those_of_autograd(task):
    torch = pytest.importorskip("torch")
    p, X, y = problem(task)
    w0, w, V = (torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (p.w0, p.w, p.V))
    Xt, yt = torch.tensor(X), torch.tensor(y)
    on = (Xt != 0).double()
    score = w0 + Xt @ w + 0.5 * (((Xt @ V) ** 2) - (Xt**2) @ (V**2)).sum(1)
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    loss = 0.5 * ((score - yt) ** 2).mean() if task == "regression" else bce(score, yt)
    l2_w, l2_V = (on @ w**2).mean(), (on @ (V**2).sum(1)).mean()
    loss = loss + 0.5 * (L2["reg_w0"] * w0**2 + L2["reg_w"] * l2_w + L2["reg_V"] * l2_V)
    loss.backward()
    gradient = fm.gradients(p, X, y, task, **L2)
    assert abs(gradient.w0 - float(w0.grad)) < 1e-12
    np.testing.assert_allclose(gradient.w, w.grad.numpy(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(gradient.V, V.grad.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_sparse_rows_have_the_gradients_of_dense_rows(task):
    p, X, y = problem(task)
    dense, sparse = (fm.gradients(p, rows, y, task, **L2) for rows in (X, to_csr(X)))
    assert sparse.w0 == pytest.approx(dense.w0)
    np.testing.assert_allclose(sparse.w, dense.w, rtol=1e-12)
    np.testing.assert_allclose(sparse.V, dense.V, rtol=1e-12)


def test_squared_slopes_are_the_squared_norm_of_the_scores_gradient():
    p, X, _ = problem("regression")
    for x, squared in zip(X, fm.squared_slopes(p, X), strict=True):
        slope = fm.gradients(p, x[None], fm.scores(p, x[None]) - 1.0)  # residual 1: dy_hat itself
        expected = slope.w0**2 + (slope.w**2).sum() + (slope.V**2).sum()
        assert squared == pytest.approx(expected)
