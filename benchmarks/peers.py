"""fmexp beside what people would use instead: speed and held-out error, never one alone.

    python benchmarks/peers.py             # all problems
    python benchmarks/peers.py seed dense  # some

The problems are planted Factorization Machines with noise 0.8. All contestants get the same rows,
the same k and the same epochs, one thread, and a learning rate of their own out of five (the one
with the lowest held-out error after the last epoch). rows/s is processor time of one epoch,
rmse/noise the held-out root of the mean squared error over that of the true model. "s to" is the
processor time of the shortest training, at that rate, that gets the held-out error down to the goal
of the problem (a multiple of the noise). Each runs in a process of its own, which gives the peak
memory in MB, the rows included; not that of libFM, which is a further process. Samplers have no
rate and no epochs: they get 80 sweeps (the small problem 300), the first fifth thrown away, and
their rows say what a sweep takes; `gibbs.py` has more on them. Peers that are missing are left
out with a line: pip install modern-fm myfm; libFM if a binary of that name is on PATH.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from machine import describe_machine

from fmexp import fm
from fmexp.backends.base import load_backend
from fmexp.config.compose import compose, parse_arguments
from fmexp.data.dataset import Part
from fmexp.data.features import CSR
from fmexp.training.passes import shuffler

if TYPE_CHECKING:
    from collections.abc import Callable

NOISE = 0.8
PEAK = Path("/proc/self/status")
RATES = {"sgd": (0.001, 0.003, 0.01, 0.03, 0.06), "adam": (0.003, 0.01, 0.03, 0.1, 0.3)}


@dataclass(frozen=True)
class Problem:
    """Rows of a planted machine; the last `n_held_out` of them are held out."""

    n_rows: int
    n_held_out: int
    n_features: int
    fields: int  # 0: dense
    k: int
    epochs: int = field(compare=False)
    goal: float = field(compare=False)

    def features(self, X: np.ndarray) -> np.ndarray | CSR:
        """As fmexp takes them."""
        if not self.fields:
            return X
        indptr = np.arange(0, X.size + 1, self.fields)
        return CSR(indptr, X.astype(np.int32).ravel(), None, self.n_features)

    def scipy(self, X: np.ndarray) -> Any:
        """As the peers take them."""
        if not self.fields:
            return X
        from scipy.sparse import csr_matrix

        indptr = np.arange(0, X.size + 1, self.fields)
        return csr_matrix((np.ones(X.size), X.ravel(), indptr), (len(X), self.n_features))


@lru_cache
def rows_of(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Dense rows or feature numbers (n, fields), and targets, the held-out ones last."""
    g, n = np.random.default_rng(0), problem.n_rows + problem.n_held_out
    n_features, fields, k = problem.n_features, problem.fields, problem.k
    width = fields or n_features
    w = g.normal(0, (0.5 / width) ** 0.5, n_features)
    pairs = width * (width - 1) / 2
    V = g.normal(0, (0.5 / pairs / k) ** 0.25, (n_features, k))
    if fields:
        size = n_features // fields
        X = g.integers(0, size, (n, fields)) + np.arange(fields) * size
        s, q = (np.zeros((n, k)) for _ in "sq")
        for column in X.T:
            s += V[column]
            q += V[column] ** 2
        y = w[X].sum(axis=1) + 0.5 * (s**2 - q).sum(axis=1)
    else:
        X = g.normal(size=(n, n_features))
        y = X @ w + 0.5 * ((X @ V) ** 2 - X**2 @ V**2).sum(axis=1)
    return X, y + NOISE * g.normal(size=n)


PROBLEMS = {
    "seed": Problem(100, 1000, 8, 0, 5, 1000, 1.2),
    "dense": Problem(20_000, 5_000, 64, 0, 16, 10, 1.03),
    "sparse8": Problem(1_000_000, 100_000, 9_825, 5, 8, 10, 1.06),
    "sparse32": Problem(1_000_000, 100_000, 9_825, 5, 32, 5, 1.35),
}


def fmexp_run(problem: Problem, rate: float, *overrides: str) -> tuple[float, Callable[..., Any]]:
    """Seconds of the epochs, and the scoring function."""
    arguments = [f"model.k={problem.k}", *overrides]
    config = compose(parse_arguments(arguments)).config
    X, y = rows_of(problem)
    train = slice(0, problem.n_rows)
    part = Part(problem.features(X[train]), y[train], np.arange(problem.n_rows))
    parameters = fm.initial_parameters(problem.n_features, problem.k, 0.05, 0)
    training = replace(config.training, reg_w=0.02, reg_V=0.02)
    trainer = load_backend(config.backend.name)(
        replace(config, training=training), part, parameters
    )
    shuffle = shuffler(trainer, np.random.default_rng(0))
    order, seconds = np.arange(problem.n_rows), 0.0
    trainer.train_epoch(0.0, None)  # compiled, or loaded, before the clock starts
    for epoch in range(problem.epochs):
        began = time.process_time()
        decay = 1 + 0.7 * epoch if problem.epochs < 100 else 1
        if config.training.shuffle:
            shuffle(order)
        trainer.train_epoch(rate / decay, order if config.training.shuffle else None)
        seconds += time.process_time() - began
    return seconds, lambda rows: trainer.scores(problem.features(rows))


def notebook_loop(problem: Problem, rate: float) -> tuple[float, Callable[..., Any]]:
    """One update per row in NumPy calls, as in the notebook; 20,000 rows at most are timed."""
    X, y = rows_of(problem)
    parameters = fm.initial_parameters(problem.n_features, problem.k, 0.05, 0)
    w0, w, V = 0.0, parameters.w, parameters.V
    n_timed = min(problem.n_rows, 20_000)
    began = time.process_time()
    for _ in range(problem.epochs if problem.n_rows <= 100 else 1):
        for i in range(n_timed):
            if problem.fields:
                j = X[i]
                s = V[j].sum(axis=0)
                error = w0 + w[j].sum() + 0.5 * (s @ s - np.square(V[j]).sum()) - y[i]
                w0 -= rate * error
                w[j] -= rate * error
                V[j] -= rate * error * (s - V[j])
            else:
                x = X[i]
                s = np.dot(x, V)
                error = w0 + np.dot(w, x) + 0.5 * np.sum(s**2 - np.dot(x**2, V**2)) - y[i]
                w0 -= rate * error
                w -= rate * error * x
                V -= rate * error * (np.outer(x, s) - V * (x**2)[:, None])
    seconds = (time.process_time() - began) * problem.n_rows / n_timed
    if problem.n_rows > 100:  # only begun: no error to show
        return seconds * problem.epochs, lambda rows: np.full(len(rows), np.nan)
    return seconds, lambda rows: fm.scores(fm.Parameters(w0, w, V), problem.features(rows))


def modern_fm(problem: Problem, rate: float) -> tuple[float, Callable[..., Any]]:
    """modern-fm, AdaGrad, one row at a time, one thread."""
    from modern_fm import FMRegressor

    X, y = rows_of(problem)
    rows = problem.scipy(X[: problem.n_rows])
    model = FMRegressor(
        problem.k, learning_rate=rate, max_iter=problem.epochs, n_jobs=1, random_state=0,
        l2_linear=1e-4, l2_factors=1e-4,
    )  # fmt: skip
    began = time.process_time()
    model.fit(rows, y[: problem.n_rows])
    return time.process_time() - began, lambda rows: model.predict(problem.scipy(rows))


def fmexp_gibbs(problem: Problem, _rate: float = 0.0) -> tuple[float, Callable[..., Any]]:
    """`backend=gibbs`, one thread; all features in one group of priors, as the peers have them."""
    X, y = rows_of(problem)
    n, sweeps = problem.n_rows, problem.epochs
    part = Part(problem.features(X[:n]), y[:n], np.arange(n))
    trainer = gibbs_trainer(part, problem.k, sweeps, "backend.threads=1")
    began = time.process_time()
    for _ in range(sweeps):
        trainer.train_epoch(0.0, None)
    seconds = time.process_time() - began
    return seconds, lambda rows: trainer.scores(problem.features(rows))


def gibbs_trainer(part: Part, k: int, sweeps: int, *overrides: str) -> Any:
    """A trainer of `backend=gibbs` as `fmexp run` starts it."""
    words = ["backend=gibbs", f"model.k={k}", f"training.epochs={sweeps}", *overrides]
    config = compose(parse_arguments(words)).config
    n_features = part.features.shape[1]
    start = fm.initial_parameters(n_features, k, config.model.init_stdev, 0)
    return load_backend("gibbs")(config, part, start)


def my_fm(problem: Problem, _rate: float = 0.0) -> tuple[float, Callable[..., Any]]:
    """Gibbs sampling by myfm, with the same burn-in; that it makes its columns is in the time."""
    import myfm

    X, y = rows_of(problem)
    rows, n = problem.scipy(X[: problem.n_rows]), problem.epochs
    model = myfm.MyFMRegressor(rank=problem.k, random_seed=0)
    began = time.process_time()
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar
        model.fit(rows, y[: problem.n_rows], n_iter=n, n_kept_samples=n - n // 5)
    return time.process_time() - began, lambda held: model.predict(problem.scipy(held))


def lib_fm(problem: Problem, rate: float) -> tuple[float, Callable[..., Any]]:
    """The libFM binary, SGD, the same L2; its own time of learning, without reading and scoring."""
    return run_lib_fm(
        problem, "-method", "sgd", "-learn_rate", str(rate), "-regular", "0,0.02,0.02"
    )


def lib_fm_mcmc(problem: Problem, _rate: float = 0.0) -> tuple[float, Callable[..., Any]]:
    """The libFM binary, MCMC: the mean over all iterations."""
    return run_lib_fm(problem, "-method", "mcmc")


def run_lib_fm(problem: Problem, *method: str) -> tuple[float, Callable[..., Any]]:
    """The binary's own time of learning, and its predictions for the held-out rows."""
    files = libsvm_files(replace(problem, epochs=0, goal=0.0))
    command = ["libFM", "-task", "r", "-train", f"{files}/train", "-test", f"{files}/test"]
    command += ["-dim", f"1,1,{problem.k}", "-iter", str(problem.epochs), *method]
    command += ["-init_stdev", "0.05", "-out", f"{files}/out", "-rlog", f"{files}/log"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    log = np.genfromtxt(f"{files}/log", names=True)
    found = np.loadtxt(f"{files}/out")
    return float(log["time_learn"].sum()), lambda _rows: found


@lru_cache
def libsvm_files(problem: Problem) -> Path:
    """A folder with the rows as text, removed when the process ends."""
    X, y = rows_of(problem)
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    for name, part in (("train", slice(problem.n_rows)), ("test", slice(problem.n_rows, None))):
        with Path(folder.name, name).open("w") as file:
            for row, target in zip(X[part], y[part], strict=True):
                pairs = [(j, 1) for j in row] if problem.fields else enumerate(row)
                file.write(f"{target} {' '.join(f'{j}:{x}' for j, x in pairs)}\n")
    return Path(folder.name)


CONTESTANTS: dict[str, tuple[str, str, Callable[..., Any]]] = {
    "fmexp numpy_sgd float64": ("", "sgd", fmexp_run),
    "fmexp numpy_sgd float32": ("", "sgd", fmexp_run),
    "fmexp numpy_sgd, rows in order": ("", "sgd", fmexp_run),
    "fmexp gibbs": ("", "none", fmexp_gibbs),
    "fmexp torch_adam": ("torch", "adam", fmexp_run),
    "the notebook's kind of loop": ("", "sgd", notebook_loop),
    "modern-fm (AdaGrad)": ("modern_fm", "adam", modern_fm),
    "myfm (Gibbs sampling)": ("myfm", "none", my_fm),
    "libFM (SGD)": ("libFM", "sgd", lib_fm),
    "libFM (MCMC)": ("libFM", "none", lib_fm_mcmc),
}
OVERRIDES = {
    "fmexp numpy_sgd float32": ["backend.dtype=float32"],
    "fmexp numpy_sgd, rows in order": ["training.shuffle=false"],
    "fmexp torch_adam": ["backend=torch_adam", "backend.device=cpu", "backend.batch_size=1024"],
}


def contest(contestant: str, problem_name: str) -> dict[str, float]:
    """The best of the rates: seconds of an epoch, held-out error, peak memory."""
    problem = PROBLEMS[problem_name]
    _, kind, run = CONTESTANTS[contestant]
    if kind == "none":
        problem = replace(problem, epochs=300 if problem.n_rows <= 100 else 80)
    if "torch" in contestant:
        import torch

        torch.set_num_threads(1)
    X, y = rows_of(problem)
    held_out, target = X[problem.n_rows :], y[problem.n_rows :]
    if PEAK.exists():
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here

    def train(rate: float, epochs: int) -> tuple[float, float]:
        with np.errstate(all="ignore"):
            how = replace(problem, epochs=epochs), rate, *OVERRIDES.get(contestant, [])
            seconds, score = run(*how)
            return seconds, float(np.sqrt(np.mean((score(held_out) - target) ** 2)))

    best = {"rmse": float("inf"), "seconds": float("inf"), "rate": 0.0, "to_goal": float("inf")}
    for rate in RATES.get(kind, (0.0,)):
        seconds, rmse = train(rate, problem.epochs)
        best["seconds"] = min(best["seconds"], seconds / problem.epochs)
        if rmse < best["rmse"]:  # never where it is not a number
            best |= {"rmse": rmse, "rate": rate}
    peak = float("nan") if contestant.startswith("libFM") else peak_megabytes()
    if best["rmse"] <= problem.goal * NOISE:
        step = max(1, problem.epochs // 20)
        for epochs in range(step, problem.epochs + 1, step):
            seconds, rmse = train(best["rate"], epochs)
            if rmse <= problem.goal * NOISE:
                best["to_goal"] = seconds
                break
    return best | {"peak_mb": peak}


def peak_megabytes() -> float:
    """The most memory that this process has held since its peak was reset; NaN but on Linux."""
    if not PEAK.exists():
        return float("nan")
    return float(PEAK.read_text().partition("VmHWM:")[2].split()[0]) / 1024


def is_there(package: str) -> bool:
    """Whether a peer can run."""
    if package == "libFM":
        return shutil.which("libFM") is not None
    return not package or find_spec(package) is not None


def main() -> int:
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(contest(*sys.argv[2:4])))
        return 0
    print(describe_machine("numba", "torch", "modern-fm", "myfm"))
    for name in sys.argv[1:] or PROBLEMS:
        problem, first = PROBLEMS[name], 0.0
        print(f"\n{name}: {problem}")
        heads = f"{'rows/s':>12} {'epochs/s':>10} {'x':>7} {'rmse/noise':>10} {'rate':>6}"
        print(f"{'':30} {heads} {'MB':>6} {f's to {problem.goal}':>9}")
        for contestant, (package, _, _) in CONTESTANTS.items():
            if not is_there(package):
                print(f"{contestant:30} not installed")
                continue
            command = [sys.executable, __file__, "--one", contestant, name]
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
            if ran.returncode:
                print(f"{contestant:30} failed: {ran.stderr.strip().splitlines()[-1][:60]}")
                continue
            got = json.loads(ran.stdout.splitlines()[-1])
            seconds = got["seconds"]
            first = first or seconds
            error = f"{got['rmse'] / NOISE:.3f}" if np.isfinite(got["rmse"]) else "-"
            memory = f"{got['peak_mb']:,.0f}" if np.isfinite(got["peak_mb"]) else "-"
            to_goal = f"{got['to_goal']:.3f}" if np.isfinite(got["to_goal"]) else "-"
            print(
                f"{contestant:30} {problem.n_rows / seconds:12,.0f} {1 / seconds:10,.1f} "
                f"{seconds / first:7.1f} {error:>10} {got['rate']:6g} "
                f"{memory:>6} {to_goal:>9}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
