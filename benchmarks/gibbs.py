"""The Gibbs sampler beside myFM and libFM's MCMC: speed, error at equal seconds, cores, memory.

    python benchmarks/gibbs.py          # all, about half an hour
    python benchmarks/gibbs.py speed    # or equal, cores, memory, growth

The problems are those of peers.py, planted machines with noise 0.8. Times are processor time of one
thread, in turns within one process, so that a busy machine is busy for all; libFM says its own. A
peer that is missing is left out: pip install myfm; a binary libFM on PATH.
"""

from __future__ import annotations

import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from data import anonymous_megabytes
from growth import dense, one_hot, table
from machine import describe_machine
from peers import (
    NOISE,
    PROBLEMS,
    Problem,
    fmexp_gibbs,
    gibbs_trainer,
    is_there,
    lib_fm_mcmc,
    my_fm,
    rows_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from fmexp.data.dataset import Part

Scores = tuple[float, Any]
"""Processor seconds of the training, and what scores rows."""


PEERS: dict[str, tuple[str, Callable[..., Scores]]] = {
    "fmexp": ("", fmexp_gibbs),
    "myfm": ("myfm", my_fm),
    "libFM": ("libFM", lib_fm_mcmc),
}


def there() -> dict[str, Callable[..., Scores]]:
    return {name: run for name, (package, run) in PEERS.items() if is_there(package)}


def seconds_per_sweep(run: Callable[..., Scores], problem: Problem) -> float:
    """Of four sweeps beyond the first two."""
    return (run(replace(problem, epochs=6))[0] - run(replace(problem, epochs=2))[0]) / 4


def speed() -> None:
    """Seconds of a sweep, in turns; the median of three rounds, and of the rounds' ratios."""
    for name in ("sparse8", "sparse32", "dense"):
        problem = replace(PROBLEMS[name], n_held_out=1000)
        fmexp_gibbs(replace(problem, epochs=1))  # compiled, or loaded
        rounds: dict[str, list[float]] = {}
        for _ in range(3):
            for peer, run in there().items():
                rounds.setdefault(peer, []).append(seconds_per_sweep(run, problem))
        for peer, found in rounds.items():
            shares = [us / them for us, them in zip(rounds["fmexp"], found, strict=True)]
            print(
                f"{name:10} {peer:6} {statistics.median(found):7.4f} s a sweep; ours takes "
                f"{statistics.median(shares):.3f} of it ({min(shares):.3f} to {max(shares):.3f})",
                flush=True,
            )


def equal() -> None:
    """Held-out error over the noise after as many sweeps as fit into some seconds."""
    for name, budgets in (("sparse8", (2.5, 5, 10, 20)), ("sparse32", (10, 20, 40))):
        problem = PROBLEMS[name]
        X, y = rows_of(problem)
        held_out, target = X[problem.n_rows :], y[problem.n_rows :]
        for peer, run in there().items():
            each = seconds_per_sweep(run, problem)
            said = []
            for budget in budgets:
                sweeps = max(2, int(budget / each))
                seconds, score = run(replace(problem, epochs=sweeps))
                rmse = float(np.sqrt(np.mean((score(held_out) - target) ** 2)))
                said.append(f"{rmse / NOISE:.4f} ({sweeps} sweeps, {seconds:.1f} s)")
            print(f"{name:10} {peer:6} {'  '.join(said)}", flush=True)


def _wall(threads: int) -> float:
    """Wall seconds of ten sweeps."""
    trainer = gibbs_trainer(one_hot(1_000_000, 5), 8, 20, f"backend.threads={threads}")
    for _ in range(2):
        trainer.train_epoch(0.0, None)
    began = time.perf_counter()
    for _ in range(10):
        trainer.train_epoch(0.0, None)
    return (time.perf_counter() - began) / 10


def cores() -> None:
    """What two threads gain, beside what two processes gain, in turns."""
    shares, rounds = [], []
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(_wall, [1, 1]))
        for _ in range(5):
            one = pool.submit(_wall, 1).result()
            two = pool.submit(_wall, 2).result()
            both = max(pool.map(_wall, [1, 1]))
            rounds.append((one / two, 2 * one / both))
            shares.append(rounds[-1][0] / rounds[-1][1])
    threads, processes = (statistics.median(x) for x in zip(*rounds, strict=True))
    print(
        f"two threads: {threads:.2f} times the speed of one; two processes: {processes:.2f} times; "
        f"share {statistics.median(shares):.2f} (of each round {[round(x, 2) for x in shares]})"
    )


def _resident(n_rows: int, k: int) -> float:
    """Bytes more than with the rows alone, once two sweeps are done."""
    part = one_hot(n_rows, 5)
    before = anonymous_megabytes()
    trainer = gibbs_trainer(part, k, 4, "backend.threads=1")
    for _ in range(2):
        trainer.train_epoch(0.0, None)
    return (anonymous_megabytes() - before) * 1e6


def memory() -> None:
    """Bytes a row, from two sizes, each in a process of its own, beside (k + 2) 8 and the data."""
    for k in (8, 32):
        with ProcessPoolExecutor(1, max_tasks_per_child=1) as pool:
            small, large = (pool.submit(_resident, n, k).result() for n in (500_000, 2_000_000))
        print(
            f"k={k}: {(large - small) / 1_500_000:.0f} bytes a row of five entries; "
            f"(k + 2) x 8 = {8 * (k + 2)}, and 20 of columns"
        )


def _shortest(part: Part, k: int) -> float:
    """Processor seconds of a sweep, the shortest of four."""
    trainer, best = gibbs_trainer(part, k, 10, "backend.threads=1"), float("inf")
    for _ in range(5):
        began = time.process_time()
        trainer.train_epoch(0.0, None)
        best = min(best, time.process_time() - began)
    return best


def growth() -> None:
    """Exponents of a sweep's time, over sizes that no cache holds; see growth.py."""
    rows = [1_000_000, 2_000_000, 4_000_000]
    table("rows, one-hot, 5 entries, k=8", rows, [_shortest(one_hot(n, 5), 8) for n in rows], rows)
    few = [50_000, 200_000, 800_000]
    table("rows, dense, 20 features, k=8", few, [_shortest(dense(n, 20), 8) for n in few], few)
    entries = [2, 5, 10, 20]
    seconds = [_shortest(one_hot(1_000_000, m), 8) for m in entries]
    table("entries per row, 1,000,000 rows, k=8", entries, seconds, [1_000_000] * 4)
    factors = [8, 16, 32, 64]
    seconds = [_shortest(one_hot(500_000, 5), k) for k in factors]
    table("k, 500,000 one-hot rows of 5", factors, seconds, [500_000] * 4)


def main() -> int:
    print(describe_machine("numba", "numpy", "myfm"))
    parts = {"speed": speed, "equal": equal, "cores": cores, "memory": memory, "growth": growth}
    for name in sys.argv[1:] or parts:
        print(f"\n{name}: {parts[name].__doc__}")
        parts[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
