"""A sweep with every outcome, and headless Chromium to look at what is made of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

SWEEP = """
import sys
from fmexp.cli.parser import main
from fmexp.experiment import trial
from fmexp.record.tracker import Outcome
fit = trial.fit
def spoiled(config, data, watch=None, parameters=None):
    if config.model.k == 5 or config.training.epochs == 7:
        raise RuntimeError("k = 5 does <b>not</b> work")
    def prune(epoch, *losses):
        return Outcome.PRUNED if epoch >= 3 else watch(epoch, *losses)
    return fit(config, data, prune if config.model.k == 6 else watch, parameters)
trial.fit = spoiled
sys.exit(main())
"""


TRIED = {5: 0.01, 6: 0.01, 4: 5.0, 1: 0.02, 2: 0.005, 8: 0.002, 3: 0.003, 7: 0.001}
"""The learning rate that each k is tried with first."""


def a_sweep(folder: Path, *overrides: str, tried: dict[int, float] = TRIED, code: int = 0) -> None:
    """Twelve trials over k and learning rate: completed, pruned (6), diverged, failed (5) ones."""
    points = [f"{{model.k: {k}, training.learning_rate: {rate}}}" for k, rate in tried.items()]
    ks = ",".join(map(str, tried))
    arguments = [
        "run", "-m", "data=planted", "training.epochs=20", "training.cap_steps=false",
        f"model.k=choice({ks})",
        "training.learning_rate=tag(log,interval(0.001,5.0))", "hydra/sweeper/sampler=random",
        "hydra.sweeper.n_trials=12",
        f"hydra.sweeper.enqueue=[{','.join(points)}]", "hydra.sweeper.max_failure_rate=1",
        "hydra.sweeper.study_name=demo", *overrides,
    ]  # fmt: skip
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "FMEXP_"))}
    command = [sys.executable, "-c", SWEEP, *arguments]
    assert subprocess.run(command, cwd=folder, env=kept, timeout=240).returncode == code


@pytest.fixture(scope="session")
def chromium() -> str:
    """Its path; a machine without it skips, unless FMEXP_CHROMIUM=required."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None and os.environ.get("FMEXP_CHROMIUM") == "required":
        pytest.fail("Chromium is required here: apt-get install -y chromium")
    if found is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    return found


def look(
    chromium: str, address: str, profile: Path, *flags: str, seconds: int = 20
) -> tuple[str, list[str]]:
    """The page as it stands after so many (virtual) seconds, and all that its console says.

    The browser reaches nothing but this machine.
    """
    done = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--enable-logging=stderr", f"--user-data-dir={profile}", "--window-size=1400,3000",
            f"--virtual-time-budget={1000 * seconds}", *(flags or ("--dump-dom",)), address,
        ],
        capture_output=True, text=True, check=True, timeout=180,
    )  # fmt: skip
    said = re.findall(r':CONSOLE[:(]\d+\)?\] "(.*)", source', done.stderr)
    return done.stdout, said


def look_until(chromium: str, address: str, profile: Path, *wanted: str) -> str:
    """The page once it shows all that is wanted; a slow machine gets more time."""
    until = time.monotonic() + 150
    for seconds in (20, 40, 80, 160):
        page, _ = look(chromium, address, profile, seconds=seconds)
        missing = [text for text in wanted if text not in page]
        if not missing or time.monotonic() > until:
            break
    assert not missing, f"{address} does not show {missing}"
    return page
