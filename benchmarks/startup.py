"""How soon does training begin, and how long does the whole command take?

    python benchmarks/startup.py [repetitions]

Compares `fmexp run` with the plain script that a user would write: import MLflow, train the same
model with the same code, log params and the curve in one batch. Each in a new process, on a fresh
store and on an existing one; medians. Times count from the start of the process.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import describe_machine

EPOCHS = 50

MARK_FIRST_EPOCH = """
import os, sys, time
def first_epoch(epoch):
    if epoch == 1:
        print("first epoch", time.monotonic() - float(os.environ["BEGAN"]), flush=True)
"""

OURS = f"""
{MARK_FIRST_EPOCH}
from fmexp.experiment import one_run as experiment
original = experiment.logging
def marked(config, tracked, watch):
    def seen(epoch, train_loss, validation_loss):
        first_epoch(epoch)
        return watch(epoch, train_loss, validation_loss)
    return original(config, tracked, seen)
experiment.logging = marked
from fmexp.cli.parser import main
sys.exit(main(["run", "training.epochs={EPOCHS}"]))
"""

PLAIN = f"""
{MARK_FIRST_EPOCH}
import mlflow
from mlflow.entities import Metric, Param
from fmexp.config.compose import compose, parse_arguments
from fmexp.data.loading import load
from fmexp.training.fitting import fit

config = compose(parse_arguments(["training.epochs={EPOCHS}"])).config
data = load(config.data, config.split, config.task)
mlflow.set_tracking_uri("sqlite:///mlflow.db")
mlflow.set_experiment("plain")
with mlflow.start_run() as run:
    fitted = fit(config, data, lambda epoch, train, validation: first_epoch(epoch))
    now = int(time.time() * 1000)
    curves = {{"train/mse": fitted.train_losses, "val/mse": fitted.validation_losses}}
    points = [Metric(name, value, now, step)
              for name, curve in curves.items() for step, value in enumerate(curve, 1)]
    mlflow.MlflowClient().log_batch(run.info.run_id, points, [Param("k", str(config.model.k))])
"""


def measure(script: str, folder: Path) -> tuple[float, float]:
    """Seconds to the first epoch and to the end of the process."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=os.environ | {"BEGAN": str(began), "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    whole = time.monotonic() - began
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("first epoch")]
    return float(line.split()[-1]), whole


def main() -> None:
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print(describe_machine("mlflow", "hydra-core", "numba"))
    times: dict[str, list[tuple[float, float, float]]] = {"plain script": [], "fmexp run": []}
    for _ in range(repetitions):
        for name, script in (("plain script", PLAIN), ("fmexp run", OURS)):
            with tempfile.TemporaryDirectory() as folder:
                _, fresh = measure(script, Path(folder))
                first, existing = measure(script, Path(folder))
                times[name].append((first, fresh, existing))
    print(f"\nmedian seconds of {repetitions}    first epoch   whole, fresh store   existing store")
    rows = {
        name: [statistics.median(column) for column in zip(*measured, strict=True)]
        for name, measured in times.items()
    }
    for name, (first, fresh, existing) in rows.items():
        print(f"{name:<22}{first:>14.2f}{fresh:>21.2f}{existing:>17.2f}")
    ratios = [a / b for a, b in zip(rows["plain script"], rows["fmexp run"], strict=True)]
    print(f"{'plain / fmexp':<22}{ratios[0]:>13.1f}x{ratios[1]:>20.2f}x{ratios[2]:>16.2f}x")


if __name__ == "__main__":
    main()
