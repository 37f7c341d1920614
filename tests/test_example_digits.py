"""examples/digits as a user has it: a sweep with pruning, killed, gone on with."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.record_support import stored
from tests.sweep_support import SOAK, assert_in_agreement, has_begun, kill_all, left_in, until

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "digits"
TRIALS = 8
LEAST = 0.9
"""Accuracy that any network of the example reaches in its first epochs; guessing gives 0.1."""


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "FMEXP_"))}
    return subprocess.Popen(
        [sys.executable, "digits.py", *words],
        cwd=folder, env=kept | {"FMEXP_LEASE_SECONDS": "5"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.fixture
def folder(store_folder):
    return shutil.copytree(EXAMPLE, store_folder, dirs_exist_ok=True)


@pytest.mark.parametrize("moment", range(10 if SOAK else 1))
def test_it_is_killed_by_9_and_the_same_command_goes_on_exactly(folder, moment):
    sweep = ("-m", f"hydra.sweeper.n_trials={TRIALS}", "hydra.sweeper.n_jobs=2", "epochs=4")
    killed = start(folder, *sweep)
    dice = random.Random(moment)
    until(lambda: has_begun(folder, dice.randint(1, 6)) or killed.poll() is not None)
    time.sleep(dice.uniform(0, 0.5))
    kill_all(folder)
    killed.communicate()
    again = start(folder, *sweep)
    printed, _ = again.communicate(timeout=240)
    assert again.returncode == 0, printed
    left = left_in(folder)
    assert len(left.counted) == len(set(left.points)) == TRIALS
    assert_in_agreement(left)
    winner = max((t for t in left.counted if t.value is not None), key=lambda t: t.value)
    assert winner.value > LEAST
    run = left.children[winner.number]
    assert (run.artifacts / "network.pt").exists()
    assert run.params["width"] == str(winner.params["width"])
    assert [step for step, _ in run.metrics["val/accuracy"]] == [1, 2, 3, 4]


def test_a_run_without_a_sweep_is_recorded_by_the_callback(folder):
    done = start(folder, "epochs=2", "optimizer=sgd")
    printed, _ = done.communicate(timeout=120)
    assert done.returncode == 0, printed
    (run,) = stored(folder / "mlflow.db")
    assert run.status == "FINISHED"
    assert run.params["optimizer.momentum"] == "0.9"
    assert len(run.metrics["train/loss"]) == 2
    assert run.metrics["objective"][0][1] > LEAST
