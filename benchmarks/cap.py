"""What training.cap_steps costs: the kernels of numpy_sgd beside those of before it.

    python benchmarks/cap.py [COMMIT]

In a clone, whose history has the kernels without a cap (COMMIT, if not given, is the last such).
Both train on the same arrays in one process, in turns; shown is the median of the ratios of
processor time, one pass each, and the quartiles. "Nearly" has the limit just above the largest rate
times G: many rows ask for G, none is capped, and the bits are checked to be those of before.
"""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from kernels import AS_THEY_COME, limits
from machine import describe_machine

from fmexp.backends import sgd_kernels as now
from fmexp.backends.compiled import aligned_zeros
from fmexp.data.features import CSR
from fmexp.fm import Parameters

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from fmexp.data.features import Features

BEFORE = "ebde44e"
ROUNDS = 201
NO_L2 = (0.0, 0.0, 0.0)


def kernels_of(commit: str) -> ModuleType:
    """The kernels as a commit has them."""
    shown = subprocess.run(
        ["git", "show", f"{commit}:fmexp/backends/sgd_kernels.py"],
        cwd=Path(__file__).parent, check=True, capture_output=True, text=True,
    )  # fmt: skip
    file = Path(tempfile.mkdtemp()) / "before.py"
    file.write_text(shown.stdout)
    spec = importlib.util.spec_from_file_location("before", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["before"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Pair:
    """One problem for both: parameters of each, which every pass begins anew."""

    def __init__(self, name: str, V: np.ndarray, lanes: int, rows: Features, rate: float) -> None:
        """Args: `V` of shape (n_features, width), its first `lanes` columns the factors."""
        n = len(V)
        self.name, self.rate, self.lanes, self.start = name, rate, lanes, V.copy()
        self.V = [aligned_zeros(n, V.shape[1], V.dtype) for _ in "ab"]
        apart = V.shape[1] == lanes
        self.w = [aligned_zeros(1, n, V.dtype)[0] if apart else v[:, lanes] for v in self.V]
        self.w0 = [np.zeros(1, V.dtype) for _ in "ab"]
        self.rows = rows

    def measure(self, before: Callable[[float], Any], after: Callable[..., Any]) -> None:
        """A line for each limit; `before` takes the rate, `after` the limit too."""
        start = Parameters(
            0.0, np.zeros(len(self.start)), self.start[:, : self.lanes].astype(float)
        )
        for capped, (rate, limit) in limits(self.rate, start, self.rows).items():
            if capped and "shuffled" in self.name:
                continue
            ratios = []
            for turn in range(ROUNDS + 1):
                taken = [0, 0]
                for side in (0, 1) if turn % 2 else (1, 0):
                    self.V[side][:], self.w[side][:], self.w0[side][:] = self.start, 0.0, 0.0
                    began = time.process_time_ns()
                    after(rate, limit) if side else before(rate)
                    taken[side] = time.process_time_ns() - began
                ratios.append(taken[1] / taken[0])
            if capped != ", capped" and self.V[0].tobytes() != self.V[1].tobytes():
                raise AssertionError(f"{self.name}{capped}: other bits than before")
            low, middle, high = np.percentile(ratios[1:], [25, 50, 75])  # the first one compiles
            print(f"{self.name + capped:48} {middle:6.3f}  {low:6.3f} to {high:.3f}", flush=True)


def sparse(old: ModuleType, lanes: int, dtype: str, kind: str, way: str) -> None:
    """100,000 rows of 5 entries among 9,827 features."""
    number, g, n_rows, n = np.dtype(dtype), np.random.default_rng(0), 100_000, 9_827
    bounds = np.linspace(0, n, 6).astype(int)
    fields = [g.integers(begin, end, n_rows) for begin, end in itertools.pairwise(bounds)]
    indices, indptr = np.stack(fields, 1).astype(np.int32).ravel(), np.arange(0, 5 * n_rows + 1, 5)
    one_hot, y = kind == "one-hot", g.normal(size=n_rows).astype(number)
    values = np.abs(g.normal(0.8, 0.3, len(indices) * (not one_hot)))
    if way == "of one length":
        values /= np.repeat(np.sqrt(np.add.reduceat(np.square(values), indptr[:-1])), 5)
    values = values.astype(number)
    order = g.permutation(n_rows) if way == "shuffled" else AS_THEY_COME
    V = np.zeros((n, now.table_width(lanes, number)), number)
    V[:, :lanes] = g.normal(0, 0.01, (n, lanes))
    rows = CSR(indptr, indices, None if one_hot else values, n)
    pair = Pair(f"sparse k={lanes} {dtype} {kind} {way}", V, lanes, rows, 0.01)
    largest = 5.0 if one_hot else float(np.add.reduceat(np.square(values), indptr[:-1]).max())
    a, b = (make.train_sparse(lanes, dtype, one_hot, False) for make in (old, now))
    given, unweighted = (indptr, indices, values, y), (1.0, 1.0)

    def after(*step: float) -> None:
        of_model = order, pair.V[1], pair.w[1], largest, pair.w0[1]
        b(*given, *unweighted, *of_model, *step, *NO_L2)

    pair.measure(
        lambda rate: a(*given, order, pair.V[0], pair.w[0], pair.w0[0], rate, *NO_L2), after
    )


def dense(old: ModuleType, lanes: int, dtype: str, n_rows: int, n: int) -> None:
    """Normal rows; a pass of few rows is repeated within the time that is taken."""
    number, g = np.dtype(dtype), np.random.default_rng(0)
    X, y = g.normal(size=(n_rows, n)).astype(number), g.normal(size=n_rows).astype(number)
    V, scales = g.normal(0, 0.01, (n, lanes)).astype(number), np.empty(n, number)
    pair = Pair(f"dense {n_rows:,}x{n} k={lanes} {dtype}", V, lanes, X.astype(float), 1e-4)
    largest = float(np.square(X).sum(axis=1).max())
    a, b = (make.train_dense(lanes, dtype, False) for make in (old, now))
    passes = range(max(1, 10_000 // n_rows))

    def before(rate: float) -> None:
        for _ in passes:
            a(X, y, AS_THEY_COME, pair.w[0], pair.V[0], scales, pair.w0[0], rate, *NO_L2)

    def after(rate: float, limit: float) -> None:
        of_model = pair.w[1], pair.V[1], scales, largest, pair.w0[1]
        for _ in passes:
            b(X, y, 1.0, 1.0, AS_THEY_COME, *of_model, rate, limit, *NO_L2)

    pair.measure(before, after)


def main() -> None:
    """Every case."""
    commit = sys.argv[1] if len(sys.argv) > 1 else BEFORE
    print(describe_machine("numba", "numpy"))
    print(f"processor time with the cap over that of {commit}: median and quartiles of {ROUNDS}")
    old, numbers = kernels_of(commit), ("float32", "float64")
    for lanes, dtype, kind, way in itertools.product(
        (8, 32), numbers, ("values", "one-hot"), ("in order", "shuffled")
    ):
        sparse(old, lanes, dtype, kind, way)
    for lanes, dtype in itertools.product((8, 32), numbers):
        sparse(old, lanes, dtype, "values", "of one length")
    for (lanes, n_rows, n), dtype in itertools.product(
        ((16, 5_000, 64), (8, 8_000, 25), (8, 100, 8)), numbers
    ):
        dense(old, lanes, dtype, n_rows, n)


if __name__ == "__main__":
    main()
