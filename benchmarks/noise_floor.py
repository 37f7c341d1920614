"""How near to the noise of a planted table: with nothing set, and after a sweep of 30 trials.

    python benchmarks/noise_floor.py

Two tables of 1,000,000 rows to train on and 400,000 to validate, each row with five one-hot fields,
drawn from a Factorization Machine with k=8 whose scores have a variance of 1, and noise of 0.8. In
one the fields are equally large and all categories equally frequent; the other has as many users
and movies as MovieLens 1M, three small fields, and categories by Zipf's law. The commands are those
that a user would type; printed is the validation part's RMSE over 0.8, which these rows tell to
0.1 %, with the seconds of training until then. Our Gibbs sampler has nothing to set: 75 and 100
sweeps on one thread, beside 100 of myfm's of which 50 are kept (two minutes, if it is installed).

    python benchmarks/noise_floor.py gibbs    # the samplers alone
"""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import optuna
from machine import describe_machine

from fmexp.config.compose import compose, parse_arguments
from fmexp.data.loading import load

NOISE, K, N_TRAIN, N_HELD_OUT = 0.8, 8, 1_000_000, 400_000
TABLES = {
    "equal fields, uniform": ((1965,) * 5, 0.0),
    "sizes as MovieLens 1M, Zipf": ((6040, 3706, 50, 21, 10), 1.0),
}
SPLIT = ["split.test=0", f"split.validation={N_HELD_OUT / (N_TRAIN + N_HELD_OUT)}"]
SWEEP = [
    "training.epochs=80",
    "model.k=8",
    "training.average_from=tag(log,int(interval(1,40)))",
    "training.learning_rate=tag(log,interval(0.003,0.03))",
    "training.learning_rate_decay=tag(log,interval(0.003,0.3))",
    "training.reg_w=tag(log,interval(0.003,0.03))",
    "training.reg_V=tag(log,interval(0.001,0.03))",
    "model.init_stdev=tag(log,interval(0.005,0.1))",
    "hydra.sweeper.n_trials=30",
    "hydra.sweeper.n_jobs=2",
]


def write_table(path: Path, sizes: tuple[int, ...], skew: float) -> tuple[np.ndarray, np.ndarray]:
    """As LIBSVM text; returns the feature numbers of each row, from 1, and the targets."""
    g, n = np.random.default_rng(0), N_TRAIN + N_HELD_OUT
    n_pairs = len(sizes) * (len(sizes) - 1) / 2
    score, sums, squares = np.zeros(n), np.zeros((n, K)), np.zeros((n, K))
    columns, first = [], 1
    for size in sizes:
        popularity = np.arange(1, size + 1) ** -skew
        drawn = g.choice(size, n, p=popularity / popularity.sum())
        score += g.normal(0, (0.5 / len(sizes)) ** 0.5, size)[drawn]
        V = g.normal(0, (0.5 / n_pairs / K) ** 0.25, (size, K))[drawn]
        sums += V
        squares += V**2
        columns.append(drawn + first)
        first += size
    score += 0.5 * (sums**2 - squares).sum(axis=1) + NOISE * g.normal(size=n)
    row = "%.6f" + " %d:1" * len(sizes)
    np.savetxt(path, np.column_stack([score, *columns]), fmt=row)
    return np.stack(columns, axis=1), score


def my_fm(X: np.ndarray, y: np.ndarray, folder: Path) -> tuple[float, float]:
    """The same of myfm's Gibbs sampler on the same rows, and its seconds."""
    from myfm import MyFMRegressor
    from scipy.sparse import csr_matrix

    rows = csr_matrix((np.ones(X.size), X.ravel(), np.arange(0, X.size + 1, X.shape[1])))
    words = ["data=libsvm", f"data.path={folder / 'table.svm'}", *SPLIT]
    config = compose(parse_arguments(words)).config
    split = load(config.data, config.split, config.task)
    assert split.validation is not None
    train, held_out = split.train.rows, split.validation.rows
    sampler = MyFMRegressor(rank=K, random_seed=0)
    began = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar
        sampler.fit(rows[train], y[train], n_iter=100, n_kept_samples=50)
    seconds = time.perf_counter() - began
    errors = sampler.predict(rows[held_out]) - y[held_out]
    return float(np.sqrt(np.mean(errors**2))) / NOISE, seconds


def command(folder: Path, *arguments: str) -> str:
    """What `fmexp run` prints about the table in this folder."""
    words = ["run", "data=libsvm", "data.path=table.svm", *SPLIT, *arguments]
    done = subprocess.run(
        [sys.executable, "-m", "fmexp", *words], cwd=folder, stdout=subprocess.PIPE, text=True,
        check=True,
    )  # fmt: skip
    return done.stdout


def curve_of(folder: Path, *arguments: str) -> tuple[np.ndarray, np.ndarray]:
    """A run's error over the noise after each epoch, and the seconds of training until then."""
    before = set(folder.glob("mlruns/**/curve.csv"))
    said = re.search(r"([\d.]+) s of training", command(folder, *arguments))
    assert said
    (file,) = set(folder.glob("mlruns/**/curve.csv")) - before
    curve = np.genfromtxt(file, delimiter=",", names=True)
    seconds = float(said[1]) * curve["epoch"] / len(curve)
    return np.sqrt(curve["valmse"]) / NOISE, seconds


def defaults(folder: Path) -> None:
    """What is shipped."""
    errors, seconds = curve_of(folder)
    within = np.flatnonzero(errors <= 1.05)
    first = f"{seconds[within[0]]:.2f} s" if within.size else "never"
    best = errors.argmin()
    print(f"  shipped defaults      1.05: {first}; {errors[best]:.4f}: {seconds[best]:.2f} s")


def sweep(folder: Path) -> None:
    """The best of 30 trials."""
    command(folder, "-m", *SWEEP)
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(folder / "optuna.journal"))
    )
    (study_name,) = optuna.get_all_study_names(storage)
    study = optuna.load_study(study_name=study_name, storage=storage)
    print(f"  a sweep of 30 trials  {study.best_value**0.5 / NOISE:.4f}, at")
    for key, value in study.best_params.items():
        print(f"    {key}={value:.3g}")


def samplers(folder: Path, X: np.ndarray, y: np.ndarray) -> None:
    """Ours, then myfm's."""
    for sweeps in (75, 100):
        words = ["backend=gibbs", "backend.threads=1", f"training.epochs={sweeps}"]
        errors, seconds = curve_of(folder, *words)
        print(f"  gibbs, {sweeps:3} sweeps     {errors[-1]:.4f}: {seconds[-1]:.1f} s", flush=True)
    if find_spec("myfm"):
        error, taken = my_fm(X, y, folder)
        print(f"  myfm, 100 iterations  {error:.4f}: {taken:.1f} s", flush=True)


def main() -> int:
    print(describe_machine("numba", "numpy", "optuna"))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for name, (sizes, skew) in TABLES.items():
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            X, y = write_table(folder / "table.svm", sizes, skew)
            print(f"\n{name}: {sum(sizes):,} features")
            if sys.argv[1:] != ["gibbs"]:
                defaults(folder)
                sweep(folder)
            samplers(folder, X, y)
    return 0


if __name__ == "__main__":
    sys.exit(main())
