"""The torch backend: its gradients, its steps, its batches."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from fmexp import fm
from fmexp.data.dataset import Part
from fmexp.data.features import CSR, Features
from tests.training_fakes import make_config, random_parameters, random_rows, to_csr

torch = pytest.importorskip("torch")
torch_adam = import_module("fmexp.backends.adam")
adam_step = import_module("fmexp.backends.adam_step")

L2 = {"reg_w0": 0.3, "reg_w": 0.2, "reg_V": 0.1}


def problem(task: str = "regression") -> tuple[fm.Parameters, np.ndarray, np.ndarray]:
    X = random_rows(30, 12, density=0.5)
    X[4] = 0
    y = np.random.default_rng(1).normal(size=30)
    return random_parameters(12, 5, scale=0.2), X, y if task == "regression" else (y > 0) * 1.0


def start(p: fm.Parameters, features: Features, y: np.ndarray, **keys: Any) -> Any:
    config = make_config("torch_adam", k=p.k, **keys)
    return torch_adam.start(config, Part(features, y, np.arange(len(y))), p)


KINDS = ["dense", "csr", "one-hot", "csr of one length", "one-hot of one length", "stored zeros"]


def rows_of(kind: str, X: np.ndarray) -> tuple[np.ndarray, Features]:
    if "of one length" in kind:
        X = np.where(np.argsort(np.argsort(np.abs(X) + 1e-9 * np.arange(12))) > 8, X + 2.0, 0.0)
        assert ((X != 0).sum(axis=1) == 3).all()
    if "one-hot" in kind:
        X = (X != 0).astype(float)
    if kind == "stored zeros":
        every = np.tile(np.arange(12, dtype=np.int32), len(X))
        return X, CSR(np.arange(0, X.size + 1, 12), every, X.ravel(), 12)
    return X, X if kind == "dense" else to_csr(X, one_hot="one-hot" in kind)


@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_rows", [30, 3])  # more entries than features, and fewer
def test_its_gradients_are_those_of_the_definition(n_rows, kind, task):
    p, X, y = problem(task)
    X, features = rows_of(kind, X[:n_rows])
    y = y[:n_rows]
    trainer = start(p, features, y, task=task, **L2)
    trainer.train_epoch(0.01, None)
    found, expected = trainer.gradients(), fm.gradients(p, X, y, task, **L2)
    assert abs(found.w0 - expected.w0) < 1e-10
    np.testing.assert_allclose(found.w, expected.w, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.V, expected.V, rtol=0, atol=1e-10)


@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_rows", [30, 3])
def test_scores_and_losses_are_those_of_the_definition(n_rows, kind, task):
    p, X, y = problem(task)
    X, features = rows_of(kind, X[:n_rows])
    y = y[:n_rows]
    trainer = start(p, features, y, task=task)
    np.testing.assert_allclose(trainer.scores(features), fm.scores(p, X), rtol=0, atol=1e-12)
    expected = fm.losses(task, fm.scores(p, X), y).mean()
    assert trainer.loss(Part(features, y, np.arange(n_rows))) == pytest.approx(expected, rel=1e-12)
    assert trainer.train_epoch(0.01, None) == pytest.approx(expected, rel=1e-12)


@pytest.fixture(params=["as it is", "gone", "another meaning"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Torch's private kernel of Adam's step in three states; in two the public optimizer steps."""
    if request.param == "gone":
        monkeypatch.delattr(torch, "_fused_adam_")
    elif request.param == "another meaning":
        monkeypatch.setattr(torch, "_fused_adam_", lambda *_, **__: None)
    adam_step.fused_kernel.cache_clear()
    assert (adam_step.fused_kernel() is not None) == (request.param == "as it is")
    yield
    adam_step.fused_kernel.cache_clear()


@pytest.mark.usefixtures("kernel")
def test_its_steps_are_those_of_torch_optim_adam_on_half_the_mean_squared_error():
    p, X, y = problem()
    trainer = start(p, X, y)
    w0, w, V = (torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (p.w0, p.w, p.V))
    optimizer, Xt = torch.optim.Adam([w0, w, V], lr=0.02), torch.tensor(X)
    for _ in range(50):
        score = w0 + Xt @ w + 0.5 * ((Xt @ V) ** 2 - (Xt**2) @ (V**2)).sum(1)
        optimizer.zero_grad()
        (0.5 * torch.nn.functional.mse_loss(score, torch.tensor(y))).backward()
        optimizer.step()
        trainer.train_epoch(0.02, None)
    found = trainer.parameters()
    np.testing.assert_allclose(found.V, V.detach().numpy(), rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.w, w.detach().numpy(), rtol=0, atol=1e-10)
    assert found.w0 == pytest.approx(w0.item(), abs=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shuffled", [False, True])
def test_an_epoch_of_batches_is_one_step_for_each_batch_of_rows(kind, shuffled):
    p, X, y = problem()
    X, features = rows_of(kind, X)
    order = np.random.default_rng(5).permutation(30) if shuffled else np.arange(30)
    batched = start(p, features, y, batch_size=8, **L2)
    mean_loss = batched.train_epoch(0.01, order if shuffled else None)
    carried: Any = None
    total = 0.0
    for begin in range(0, 30, 8):
        rows = order[begin : begin + 8]
        whole = start(p, X[rows], y[rows], **L2)
        if carried is not None:  # carry on where the batch before it ended
            whole._table.all.copy_(carried.theta)
            carried.theta, whole._adam = whole._table.all, carried
        total += whole.train_epoch(0.01, None) * len(rows)
        carried, found = whole._adam, whole.parameters()
    expected = batched.parameters()
    assert mean_loss == pytest.approx(total / 30, rel=1e-12)
    assert found.w0 == pytest.approx(expected.w0, abs=1e-12)
    np.testing.assert_allclose(found.w, expected.w, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.V, expected.V, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["dense", "csr"])
def test_the_same_order_gives_the_same_bits(kind):
    p, X, y = problem()
    _, features = rows_of(kind, X)

    def bits() -> bytes:
        trainer = start(p, features, y, dtype="float32", batch_size=7)
        order = np.random.default_rng(5)
        losses = [trainer.train_epoch(0.01, order.permutation(30)) for _ in range(5)]
        return np.array(losses).tobytes() + trainer.parameters().V.tobytes()

    assert bits() == bits()


def test_the_initial_parameters_are_left_untouched():
    p, X, y = problem()
    before = p.copy()
    start(p, X, y).train_epoch(0.1, None)
    assert p.V.tobytes() == before.V.tobytes()
