"""torch_adam beside what people write in PyTorch: autograd and torch.optim.Adam.

    python benchmarks/torch_backend.py

One thread, the same rows, k, batches and epochs for both; on CUDA too where there is a device. Time
is that of the processor, so that other work on the machine counts little.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from machine import describe_machine

from fmexp import fm
from fmexp.backends.base import load_backend
from fmexp.config.compose import compose, parse_arguments
from fmexp.data.dataset import Part
from fmexp.data.features import CSR

if TYPE_CHECKING:
    from collections.abc import Callable

    from fmexp.backends.base import Trainer


def eager_dense(X: np.ndarray, y: np.ndarray, k: int, rate: float) -> Callable[[], None]:
    """An epoch of the notebook's kind of loop: a Module, a criterion, an optimizer, full batch."""
    import torch

    class FM(torch.nn.Module):
        def __init__(self, n_features: int) -> None:
            super().__init__()
            self.w0 = torch.nn.Parameter(torch.zeros(1))
            self.w = torch.nn.Parameter(torch.zeros(n_features))
            self.V = torch.nn.Parameter(torch.randn(n_features, k) * 0.01)

        def forward(self, X: torch.Tensor) -> torch.Tensor:
            linear = self.w0 + torch.matmul(X, self.w)
            square_of_sum = torch.pow(torch.matmul(X, self.V), 2)
            sum_of_squares = torch.matmul(torch.pow(X, 2), torch.pow(self.V, 2))
            return linear + 0.5 * torch.sum(square_of_sum - sum_of_squares, dim=1)

    model, rows, target = FM(X.shape[1]), torch.tensor(X).float(), torch.tensor(y).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    criterion = torch.nn.MSELoss()

    def epoch() -> None:
        optimizer.zero_grad()
        loss = criterion(model(rows), target)
        loss.backward()
        optimizer.step()
        loss.item()

    return epoch


def eager_sparse(
    indices: np.ndarray, y: np.ndarray, n_features: int, k: int, rate: float, batch_size: int,
    device: str = "cpu",
) -> Callable[[], None]:  # fmt: skip
    """An epoch of a plain embedding model: one-hot rows (n_rows, n_fields), shuffled batches."""
    import torch

    class FM(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w0 = torch.nn.Parameter(torch.zeros(1))
            self.w = torch.nn.Embedding(n_features, 1)
            self.V = torch.nn.Embedding(n_features, k)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            v = self.V(ids)
            pairs = v.sum(1).square() - v.square().sum(1)
            return self.w0 + self.w(ids).sum(1)[:, 0] + 0.5 * pairs.sum(1)

    model = FM().to(device)
    ids, target = torch.tensor(indices).long().to(device), torch.tensor(y).float().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    criterion = torch.nn.MSELoss()

    def epoch() -> None:
        for rows in torch.randperm(len(target), device=device).split(batch_size):
            optimizer.zero_grad()
            loss = criterion(model(ids[rows]), target[rows])
            loss.backward()
            optimizer.step()
        loss.item()

    return epoch


def ours(features: np.ndarray | CSR, y: np.ndarray, k: int, overrides: str) -> Trainer:
    """The backend on these rows."""
    no_L2 = ["training.reg_w=0", "training.reg_V=0"]  # as in the other
    words = ["backend=torch_adam", *no_L2, *overrides.split()]
    config = compose(parse_arguments(words)).config
    config = replace(config, model=replace(config.model, k=k))
    parameters = fm.initial_parameters(features.shape[1], k, 0.01, 0)
    part = Part(features, y, np.arange(len(y)))
    return load_backend("torch_adam")(config, part, parameters)


def epochs_per_second(*epochs: Callable[[], object], seconds: float = 0.4) -> list[float]:
    """The best of seven stretches of each, in turns, so that a busy machine is busy for both."""
    passes = []
    for epoch in epochs:
        epoch()
        began = time.process_time()
        epoch()
        passes.append(max(1, int(seconds / (time.process_time() - began))))
    best = [0.0] * len(epochs)
    for _ in range(7):
        for i, epoch in enumerate(epochs):
            began = time.process_time()
            for _ in range(passes[i]):
                epoch()
            best[i] = max(best[i], passes[i] / (time.process_time() - began))
    return best


def line(name: str, unit: str, theirs: float, mine: float) -> None:
    print(f"{name:52} {unit:12} {theirs:12,.0f} {mine:12,.0f} {mine / theirs:6.1f} x")


def main() -> int:
    print(describe_machine("torch", "numpy"))
    try:
        import torch
    except ModuleNotFoundError:
        print("skipped: PyTorch is not installed")
        return 0
    torch.set_num_threads(1)
    g = np.random.default_rng(0)
    print(f"\n{'':65} {'eager':>12} {'fmexp':>12}")
    X, y = g.normal(size=(100, 10)), g.normal(size=100)
    trainer = ours(X, y, 5, "backend.device=cpu")
    rates = epochs_per_second(eager_dense(X, y, 5, 0.01), lambda: trainer.train_epoch(0.01, None))
    line("the notebook's 100x10, k=5, full batch", "epochs/s", *rates)
    X, y = g.normal(size=(20_000, 64)), g.normal(size=20_000)
    trainer = ours(X, y, 16, "backend.device=cpu")
    rates = epochs_per_second(eager_dense(X, y, 16, 0.01), lambda: trainer.train_epoch(0.01, None))
    line("dense 20,000x64, k=16, full batch", "rows/s", *(20_000 * rate for rate in rates))
    n_rows, n_features = 100_000, 9_827
    indices = g.integers(0, n_features // 5, (n_rows, 5)) + np.arange(5) * (n_features // 5)
    y, indptr = g.normal(size=n_rows), np.arange(0, 5 * n_rows + 1, 5)
    rows = CSR(indptr, indices.astype(np.int32).ravel(), None, n_features)
    for device in ("cpu", "cuda"):
        if device == "cuda" and not torch.cuda.is_available():
            print("cuda: skipped, no device on this machine")
            continue
        for k, batch_size in ((8, 1024), (32, 1024), (8, 8192)):
            trainer = ours(rows, y, k, f"backend.device={device} backend.batch_size={batch_size}")
            theirs = eager_sparse(indices, y, n_features, k, 0.01, batch_size, device)
            mine = lambda: trainer.train_epoch(0.01, g.permutation(n_rows))  # noqa: B023, E731
            rates = [n_rows * rate for rate in epochs_per_second(theirs, mine)]
            line(f"sparse 5 of 9,827, k={k}, batches of {batch_size:,}, {device}", "rows/s", *rates)
    return 0


if __name__ == "__main__":
    sys.exit(main())
