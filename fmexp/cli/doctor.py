"""`fmexp doctor`: versions, which store and why, is it reachable, what waits, how to mend it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from fmexp import __version__
from fmexp.record import spool
from fmexp.record.environment import cpu_name, installed
from fmexp.record.locate import StoreChoice, locate_store, sqlite_path, without_password
from fmexp.record.spool_tracker import drain

if TYPE_CHECKING:
    from pathlib import Path

PACKAGES = ("numpy", "numba", "torch", "hydra-core", "optuna", "mlflow", "pyarrow")
_PING = """
import sys
from fmexp.record.recorder import load_mlflow
load_mlflow()
from fmexp.record.mlflow_store import summary
print(summary(sys.argv[1]))
"""


def doctor(uri: str | None, folder: Path) -> int:
    """Look, send what waits, and say what is wrong; 0 when nothing is, else 1."""
    store = locate_store(uri, None, os.environ)
    versions = [f"{name} {installed(name) or 'not installed'}" for name in PACKAGES]
    print(f"fmexp    {__version__}, Python {sys.version.split()[0]}, {cpu_name()}")
    print(f"with     {', '.join(versions)}")
    print(f"store    {store.shown}\n         because of {store.why}")
    stuck = _mend_spool(folder)
    reached, words = _reach(store)
    print(f"answer   {words}")
    return 0 if reached and not stuck else 1


def _mend_spool(folder: Path) -> bool:
    """Send what dead commands left; whether something is still stuck."""
    waiting = spool.spooled_runs(folder)
    if not waiting:
        print("spool    empty: every run has reached its store")
        return False
    for run in waiting:
        target = without_password(run.destination.uri)
        print(f"spool    {run.state}: {run.name} ({run.key}), for {target}")
    unsettled = _settle(folder) if any(run.state == "unsettled" for run in waiting) else []
    done = drain(folder)
    if done.run_ids:
        print(f"         sent now: {', '.join(done.run_ids)}")
    for trouble in (*unsettled, *done.troubles):
        print(f"         {trouble}")
    return bool(unsettled or done.troubles)


def _settle(folder: Path) -> list[str]:
    """Ask the studies about results that dead workers had not told; what went wrong."""
    from fmexp.sweep.failover.recovery import settle_abandoned

    return settle_abandoned(folder)


def _reach(store: StoreChoice) -> tuple[bool, str]:
    """Whether the store answers, and what it says; MLflow is loaded in a process of its own."""
    database = sqlite_path(store.uri)
    if database is not None and not database.exists():
        return True, "there is no such file yet: the first run makes it"
    done = subprocess.run(  # noqa: S603 (our own words)
        [sys.executable, "-P", "-c", _PING, store.uri], capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return False, f"none: {reason}; is the address right, the server up?"
    return True, done.stdout.strip()
