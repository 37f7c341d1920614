"""Trials per second: the glue that a user writes today, and fmexp, on the same 100 x 8 rows.

    .venv/bin/python benchmarks/sweep.py [--scaling]

100 epochs a trial, 50 trials with process start, an empty folder for each, the same CSV (80 rows to
train, 20 to validate) and the same space. The glue: a Factorization Machine as a loop over the
rows, Optuna's `optimize`, one `mlflow.log_metric` per epoch. Sustained: what a further trial costs
once everything is loaded (of ours the slope between 50 and 250 trials, of the glue the time per
trial without imports). --scaling: only n_jobs=2 against 1 on longer trials. Every time is the
shortest of three, taken in turns, since whatever else a machine does can only add to it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import describe_machine

TRIALS, MORE, EPOCHS = 50, 250, 100
ROUNDS = 3
TABLE = "table.csv"
OURS = ("-m", "fmexp", "run", "-m")
SMALL = ("data=csv", f"data.path={TABLE}", "data.target=y", "split.test=0",
         f"training.epochs={EPOCHS}")  # fmt: skip


def glue(trials: int) -> None:
    """What people write; run as a process of its own."""
    import mlflow
    import numpy as np
    import optuna

    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    mlflow.set_experiment("glue")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    table = np.loadtxt(TABLE, delimiter=",", skiprows=1)
    X, y, X_val, y_val = table[:80, :8], table[:80, 8], table[80:, :8], table[80:, 8]

    def predict(w0, w, V, x):
        return w0 + w @ x + 0.5 * (((V.T @ x) ** 2) - ((V**2).T @ (x**2))).sum()

    def objective(trial: optuna.Trial) -> float:
        k = trial.suggest_int("k", 2, 64, log=True)
        rate = trial.suggest_float("learning_rate", 3e-4, 3e-2, log=True)
        w0, w, V = 0.0, np.zeros(8), 0.01 * np.random.default_rng(0).normal(size=(8, k))
        with mlflow.start_run(nested=True):
            mlflow.log_params({"k": k, "learning_rate": rate})
            for epoch in range(EPOCHS):
                for x, target in zip(X, y, strict=True):
                    error = predict(w0, w, V, x) - target
                    w0 -= rate * error
                    w -= rate * error * x
                    V -= rate * error * (np.outer(x, V.T @ x) - V * (x**2)[:, None])
                errors = [predict(w0, w, V, x) - t for x, t in zip(X_val, y_val, strict=True)]
                val = np.mean(np.square(errors))
                mlflow.log_metric("val_mse", float(val), step=epoch)
        return float(val)

    began = time.perf_counter()
    with mlflow.start_run():
        optuna.create_study().optimize(objective, n_trials=trials)
    print((time.perf_counter() - began) / trials)


def write_table(path: Path) -> None:
    """100 rows, 8 features, a product among them."""
    import numpy as np

    dice = np.random.default_rng(0)
    X = dice.normal(size=(100, 8))
    y = X @ dice.normal(size=8) + X[:, 0] * X[:, 1] + 0.1 * dice.normal(size=100)
    header = ",".join([*(f"x{j}" for j in range(8)), "y"])
    np.savetxt(path, np.column_stack([X, y]), delimiter=",", header=header, comments="")


def timed(*command: str, folder: str) -> tuple[float, str]:
    """Seconds of a command from start to end, and what it printed."""
    write_table(Path(folder) / TABLE)
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - began, done.stdout


def glue_seconds(trials: int) -> tuple[float, float]:
    """The whole command, and one trial within it."""
    with tempfile.TemporaryDirectory() as folder:
        seconds, printed = timed(
            str(Path(__file__).resolve()), "--glue", str(trials), folder=folder
        )
    return seconds, float(printed.split()[-1])


def our_seconds(trials: int, *more: str, data: tuple[str, ...] = SMALL) -> float:
    """The whole command."""
    with tempfile.TemporaryDirectory() as folder:
        return timed(*OURS, *data, f"hydra.sweeper.n_trials={trials}", *more, folder=folder)[0]


def compare() -> None:
    """Print the table."""
    n_glue = 10  # its time per trial does not depend on their number; 50 would take minutes
    rounds = [
        (
            *glue_seconds(n_glue),
            our_seconds(TRIALS),
            our_seconds(MORE),
            our_seconds(TRIALS, "tracking=none"),
            our_seconds(MORE, "tracking=none"),
        )
        for _ in range(ROUNDS)
    ]
    whole, each, ours, longer, untracked, longer_untracked = map(min, zip(*rounds, strict=True))
    glue_all = whole + (TRIALS - n_glue) * each
    slope = (longer - ours) / (MORE - TRIALS)
    trained = (longer_untracked - untracked) / (MORE - TRIALS)
    print(f"{'':28}{'glue':>10}{'fmexp':>10}{'ratio':>8}")
    print(f"{f'{TRIALS} trials, trials/s':28}{TRIALS / glue_all:10.2f}{TRIALS / ours:10.2f}"
          f"{glue_all / ours:7.1f}x   (at least 12)")  # fmt: skip
    print(f"{'sustained, trials/s':28}{1 / each:10.2f}{1 / slope:10.2f}"
          f"{each / slope:7.1f}x   (at least 30)")  # fmt: skip
    bound = "MLflow, in the recorder" if slope > 2 * trained else "the search itself"
    print(
        f"of {ours:.1f} s for {TRIALS} trials {ours - TRIALS * slope:.1f} s are start and end; a "
        f"further one takes {1000 * slope:.0f} ms, without a record {1000 * trained:.0f} ms; "
        f"what bounds ours: {bound}"
    )


def scaling() -> None:
    """Print what a second worker gives."""
    longer = ("data=planted", "data.rows=20000", "training.epochs=600", "tracking=none",
              "model.k=16", "hydra/sweeper/sampler=random")  # fmt: skip
    rounds = [
        [our_seconds(1, data=longer)]
        + [our_seconds(13, f"hydra.sweeper.n_jobs={n}", data=longer) for n in (1, 2)]
        for _ in range(ROUNDS)
    ]
    start, one, two = map(min, zip(*rounds, strict=True))
    alone, both = one - start, two - start
    print(f"12 trials of {alone / 12:.1f} s: n_jobs=2 gives {alone / both:.2f}x   (at least 1.7)")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--glue"]:
        glue(int(sys.argv[2]))
    else:
        print(describe_machine("mlflow", "optuna", "numpy"))
        print(f"load before: {os.getloadavg()[0]:.1f}")
        if "--scaling" not in sys.argv:
            compare()
        scaling()
