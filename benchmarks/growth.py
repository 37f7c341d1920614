"""How the cost of an epoch of numpy_sgd grows with rows, entries per row and k.

    python benchmarks/growth.py

Processor time of an epoch over one-hot rows (and dense ones), and the exponent: the slope
of log(time) over log(size). 1 is proportional; more would be a cost that runs away. Then the same
problem by fit(): 50,000 epochs of the notebook's, which is mostly Python.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import Any

import numpy as np
from machine import describe_machine

from fmexp import fm
from fmexp.backends.base import load_backend
from fmexp.config.compose import compose, parse_arguments
from fmexp.data.dataset import Part
from fmexp.data.features import CSR
from fmexp.data.loading import load
from fmexp.training.fitting import fit


def seconds_of_epoch(
    part: Part, k: int, n_features: int, *overrides: str, shuffled: bool = True
) -> float:
    """The shortest of five epochs."""
    config = compose(parse_arguments([f"model.k={k}", *overrides])).config
    parameters = fm.initial_parameters(n_features, k, 0.01, 0)
    trainer = load_backend(config.backend.name)(config, part, parameters)
    order = np.random.default_rng(0).permutation(len(part.target)) if shuffled else None
    best = float("inf")
    for _ in range(6):
        began = time.process_time()
        trainer.train_epoch(1e-3, order)
        best = min(best, time.process_time() - began)
    return best


def one_hot(n_rows: int, n_fields: int, n_features: int = 10_000) -> Part:
    """Rows with one entry per field."""
    g, size = np.random.default_rng(0), n_features // n_fields
    ids = g.integers(0, size, (n_rows, n_fields)) + np.arange(n_fields) * size
    indptr = np.arange(0, ids.size + 1, n_fields)
    rows = CSR(indptr, ids.astype(np.int32).ravel(), None, n_features)
    return Part(rows, g.normal(size=n_rows), np.arange(n_rows))


def dense(n_rows: int, n_features: int) -> Part:
    """Normal rows."""
    g = np.random.default_rng(0)
    X = g.normal(size=(n_rows, n_features))
    return Part(X, g.normal(size=n_rows), np.arange(n_rows))


def table(name: str, sizes: list[int], seconds: list[float], amounts: list[int]) -> None:
    """Sizes, time per entry of a row, and the exponent."""
    exponent = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
    each = ", ".join(
        f"{size:,}: {1e9 * s / amount:.1f} ns"
        for size, s, amount in zip(sizes, seconds, amounts, strict=True)
    )
    print(f"{name:40} exponent {exponent:.2f}   per row {each}")


def notebook() -> None:
    """fit() on the notebook's problem."""
    words = ["+experiment=notebook_numpy", "tracking=none", "training.epochs=50000"]
    config = compose(parse_arguments(words)).config
    data: Any = load(config.data, config.split, config.task)
    warm = replace(config, training=replace(config.training, epochs=10))
    fit(warm, data)
    began = time.process_time()
    fit(config, data)
    print(
        f"fit() on the notebook's problem: {50_000 / (time.process_time() - began):,.0f} epochs/s"
    )


def main() -> int:
    print(describe_machine("numba", "numpy"))
    rows = [10_000, 100_000, 1_000_000]
    for shuffled in (False, True):
        way = "shuffled" if shuffled else "in order"
        seconds = [seconds_of_epoch(one_hot(n, 5), 8, 10_000, shuffled=shuffled) for n in rows]
        table(f"rows {way}, one-hot, 5 entries, k=8", rows, seconds, rows)
        seconds = [seconds_of_epoch(dense(n, 20), 8, 20, shuffled=shuffled) for n in rows]
        table(f"rows {way}, dense, 20 features, k=8", rows, seconds, rows)
    entries = [2, 5, 10, 20, 50, 100, 200]
    seconds = [seconds_of_epoch(one_hot(20_000, m), 8, 10_000) for m in entries]
    table("entries per row, 20,000 rows, k=8", entries, seconds, [20_000] * len(entries))
    factors = [4, 8, 16, 32, 64, 128, 256]
    seconds = [seconds_of_epoch(one_hot(20_000, 5), k, 10_000) for k in factors]
    table("k, 20,000 one-hot rows of 5", factors, seconds, [20_000] * len(factors))
    notebook()
    return 0


if __name__ == "__main__":
    sys.exit(main())
