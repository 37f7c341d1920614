"""The compiled kernels of numpy_sgd beside a C program with explicit vectors, the known limit.

    python benchmarks/kernels.py

Every line is one problem; both sides train on the same arrays, in turns, and the shortest pass of
each counts (processor time: other work on the machine counts little). The C program may reorder
sums and contract products; ours may not, since its bits have to be the same on every CPU. It has no
cap on its steps either: "capped" is the worst case of ours, a cap below every row's step, and
"nearly" a cap just above the largest, so that many rows ask for G and none is capped.
"""

from __future__ import annotations

import ctypes
import itertools
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from machine import describe_machine

from fmexp.backends import sgd_kernels as kernels
from fmexp.backends.compiled import aligned_zeros
from fmexp.data.features import CSR
from fmexp.fm import Parameters, squared_slopes

if TYPE_CHECKING:
    from collections.abc import Callable

    from fmexp.data.features import Features

    Caps = dict[str, tuple[float, float]]

ROUNDS = 15
TINY = 1e-9
"""A rate at which nothing moves."""

AS_THEY_COME = np.zeros(0, np.int64)
REAL: dict[str, Any] = {"float32": ctypes.c_float, "float64": ctypes.c_double}


def compile_limit(folder: Path, dtype: str, lanes: int) -> ctypes.CDLL:
    """The C program for one number type and one k."""
    library = folder / f"{dtype}-{lanes}.so"
    real = "float" if dtype == "float32" else "double"
    options = ["-O3", "-march=native", "-mprefer-vector-width=512", "-ffast-math"]
    options += [f"-DREAL={real}", f"-DK={lanes}", "-shared", "-fPIC"]
    source = Path(__file__).with_name("limit.c")
    subprocess.run(["gcc", *options, str(source), "-o", str(library)], check=True)
    loaded = ctypes.CDLL(str(library))
    for name in ("train_csr", "train_one_hot", "train_dense"):
        getattr(loaded, name).restype = ctypes.c_double
    return loaded


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    """To the first number; null for none."""
    return ctypes.c_void_p(array.ctypes.data if array.size else None)


def seconds(ours: Callable[[], object], theirs: Callable[[], object]) -> tuple[float, float]:
    """Of the shortest pass of each, taken in turns."""
    best = [float("inf")] * 2
    for _ in range(ROUNDS):
        for side, one_pass in enumerate((ours, theirs)):
            began = time.process_time()
            one_pass()
            best[side] = min(best[side], time.process_time() - began)
    return best[0], best[1]


def limits(rate: float, parameters: Parameters, rows: Features) -> Caps:
    """Rate and limit of rate times G, by name."""
    nearly = 1.001 * float(squared_slopes(parameters, rows).max())
    return {"": (rate, 1.0), ", nearly": (TINY, TINY * nearly), ", capped": (rate, 1e-9)}


def line(name: str, amount: float, ours: float, theirs: float) -> None:
    """One line of the table; `amount` per pass."""
    print(f"{name:54} {amount / ours:9.2f} {amount / theirs:9.2f} {ours / theirs:8.2f}")


class Sparse:
    """1,000,000 rows of 5 entries among 9,827 features, every value 1, and a random target."""

    def __init__(self, n_rows: int = 1_000_000, n_features: int = 9_827) -> None:
        g = np.random.default_rng(0)
        bounds = np.linspace(0, n_features, 6).astype(int)
        fields = [g.integers(begin, end, n_rows) for begin, end in itertools.pairwise(bounds)]
        self.indices = np.stack(fields, axis=1).astype(np.int32).ravel()
        self.indptr = np.arange(0, len(self.indices) + 1, 5)
        self.target, self.n_features = g.normal(size=n_rows), n_features
        self.shuffled = g.permutation(n_rows)

    def compare(self, library: ctypes.CDLL, dtype: str, lanes: int, kind: str, way: str) -> None:
        """One line."""
        number, one_hot, n_rows = np.dtype(dtype), kind == "one-hot", len(self.target)
        width, y = kernels.table_width(lanes, number), self.target.astype(number)
        values = np.ones(0 if one_hot else len(self.indices), number)
        order = self.shuffled if way == "shuffled" else AS_THEY_COME
        a, b = (aligned_zeros(self.n_features, width, number) for _ in "ab")
        a[:, :lanes] = b[:, :lanes] = np.random.default_rng(2).normal(0, 0.01, a[:, :lanes].shape)
        apart = width == lanes
        w_a, w_b = (np.zeros(len(v), number) if apart else v[:, lanes] for v in (a, b))
        w0_a, w0_b = np.zeros(1, number), np.zeros(1, number)
        train = kernels.train_sparse(lanes, dtype, one_hot, logistic=False)
        rows = [pointer(array) for array in (self.indptr, self.indices, values)]
        rest = [pointer(y), pointer(order), ctypes.c_int64(n_rows), pointer(b)]
        rest += [ctypes.c_int64(width), pointer(w_b), ctypes.c_int64(1 if apart else width)]
        rest += [pointer(w0_b), *map(REAL[dtype], (0.01, 0, 0))]
        theirs = library.train_one_hot if one_hot else library.train_csr

        given = self.indptr, self.indices, values, y, 1.0, 1.0, order, a, w_a, 5.0, w0_a
        few = CSR(self.indptr[:10_001], self.indices[:50_000], None, self.n_features)
        start = Parameters(0.0, np.zeros(self.n_features), a[:, :lanes].astype(float))
        for capped, step in limits(0.01, start, few).items():
            a[:, :lanes], w_a[:] = start.V, 0.0
            times = seconds(
                partial(train, *given, *step, 0.0, 0.0, 0.0),
                lambda: theirs(*rows[: 2 if one_hot else 3], *rest),
            )
            name = f"sparse k={lanes} {dtype} {kind} {way}{capped}, M rows/s"
            line(name, n_rows / 1e6, *times)


def compare_dense(library: ctypes.CDLL, dtype: str, lanes: int, n_rows: int, n: int) -> None:
    """One line; the notebook's problem in epochs, 200 of them a pass."""
    number, g = np.dtype(dtype), np.random.default_rng(0)
    X = np.ascontiguousarray(g.normal(size=(n_rows, n)), number)
    y, scales = g.normal(size=n_rows).astype(number), np.empty(n, number)
    V_a, V_b = (aligned_zeros(n, lanes, number) for _ in "ab")
    V_a[:] = V_b[:] = g.normal(0, 0.01, V_a.shape)
    w_a, w_b = (aligned_zeros(1, n, number)[0] for _ in "ab")
    w0_a, w0_b = np.zeros(1, number), np.zeros(1, number)
    train, passes = kernels.train_dense(lanes, dtype, logistic=False), 200 if n_rows == 100 else 1
    given = [pointer(X), pointer(y), ctypes.c_int64(n_rows), ctypes.c_int64(n)]
    given += [pointer(w_b), pointer(V_b), pointer(w0_b), *map(REAL[dtype], (1e-4, 0, 0))]

    ours_only = w_a, V_a, scales, float(np.square(X).sum(axis=1).max())

    start = Parameters(0.0, w_a.astype(float), V_a.astype(float))

    def ours(step: tuple[float, float]) -> None:
        for _ in range(passes):
            train(X, y, 1.0, 1.0, AS_THEY_COME, *ours_only, w0_a, *step, 0.0, 0.0, 0.0)

    def theirs() -> None:
        for _ in range(passes):
            library.train_dense(*given)

    for capped, step in limits(1e-4, start, X.astype(float)).items():
        V_a[:], w_a[:] = start.V, 0.0
        times = seconds(partial(ours, step), theirs)
        if n_rows == 100:
            name, amount = f"the notebook's 100x8 k=5 {dtype}{capped}, k epochs/s", passes / 1e3
        else:
            name, amount = f"dense {n_rows:,}x{n} k={lanes} {dtype}{capped}, M rows/s", n_rows / 1e6
        line(name, amount, *times)


def main() -> int:
    print(describe_machine("numba", "numpy"))
    if shutil.which("gcc") is None:
        print("skipped: the C program needs gcc")
        return 0
    print(f"\n{'':54} {'numba':>9} {'C':>9} {'time / C':>8}")
    sparse = Sparse()
    with tempfile.TemporaryDirectory() as folder:
        for lanes, dtype in itertools.product((8, 32), REAL):
            library = compile_limit(Path(folder), dtype, lanes)
            for kind in ("csr", "one-hot"):
                for way in ("sequential", "shuffled"):
                    sparse.compare(library, dtype, lanes, kind, way)
        for (lanes, n_rows, n), dtype in itertools.product(((16, 20_000, 64), (8, 100, 8)), REAL):
            compare_dense(compile_limit(Path(folder), dtype, lanes), dtype, lanes, n_rows, n)
    return 0


if __name__ == "__main__":
    sys.exit(main())
