"""`fmexp doctor`: versions, which store and why, is it reachable, what waits, how to mend it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fmexp import __version__
from fmexp.cli.options import add_store
from fmexp.errors import StoreError
from fmexp.record import spool
from fmexp.record.environment import cpu_name, installed
from fmexp.record.locate import StoreChoice, locate_store, sqlite_path
from fmexp.record.passwords import without_password
from fmexp.record.query_status import summary
from fmexp.record.spool_tracker import drain

if TYPE_CHECKING:
    import argparse

PACKAGES = ("numpy", "numba", "torch", "hydra-core", "optuna", "mlflow", "pyarrow")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The store, and whether to mend."""
    add_store(parser)
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="the studies' hydra.sweeper.storage (default: ./optuna.journal)",
    )
    parser.add_argument("--fix", action="store_true", help=(
        "mend what is safe: trials and runs of dead workers, a journal's half line"))  # fmt: skip


def main(arguments: argparse.Namespace) -> int:
    """Look, mend, say; returns the exit code."""
    return doctor(arguments.uri, Path.cwd(), arguments.fix, arguments.storage)


def doctor(uri: str | None, folder: Path, fix: bool = False, storage: str | None = None) -> int:
    """Look, send what waits, and say what is wrong; 0 when nothing is, else 1."""
    store = locate_store(uri, None, os.environ)
    versions = [f"{name} {installed(name) or 'not installed'}" for name in PACKAGES]
    print(f"fmexp    {__version__}, Python {sys.version.split()[0]}, {cpu_name()}")
    print(f"with     {', '.join(versions)}")
    print(f"store    {store.shown}\n         because of {store.why}")
    stuck = _mend_spool(folder, store)
    from fmexp.sweep.failover.repair import look_at_studies

    studies = look_at_studies(folder, store.uri, fix, storage)
    for line in studies:
        print(f"studies  {line}")
    stuck = stuck or (bool(studies) and not fix)
    reached, words = _reach(store)
    print(f"answer   {words}")
    return 0 if reached and not stuck else 1


def _mend_spool(folder: Path, store: StoreChoice) -> bool:
    """Send what dead commands left for this store; whether something is still stuck."""
    spooled = spool.survey(folder)
    if not spooled.runs and not spooled.unreadable:
        print("spool    empty: every run has reached its store")
        return False
    ours = [run for run in spooled.runs if run.destination.is_of(store.uri)]
    for run in ours:
        print(f"spool    {run.state}: {run.name} ({run.key})")
    unsettled = _settle(folder) if any(run.state == "unsettled" for run in ours) else []
    done = drain(folder, store.uri)
    if done.run_ids:
        print(f"         sent now: {', '.join(done.run_ids)}")
    for trouble in (*unsettled, *done.troubles, *done.notes):
        print(f"         {trouble}")
    others = [run for run in spooled.runs if not run.destination.is_of(store.uri)]
    for run in others:
        print(f"spool    {run.state}: {run.name} ({run.key}), for another store, {_target(run)}")
    for target in dict.fromkeys(map(_target, others)):
        print(f"         if you trust that store: fmexp doctor --uri {target}")
    for entry in spooled.unreadable:
        print(f"spool    {entry}; remove it, or read it with the fmexp that wrote it")
    return bool(unsettled or done.troubles or others)


def _target(run: spool.SpooledRun) -> str:
    return without_password(run.destination.uri)


def _settle(folder: Path) -> list[str]:
    """Ask the studies about results that dead workers had not told; what went wrong."""
    from fmexp.sweep.failover.recovery import settle_abandoned

    return settle_abandoned(folder)


def _reach(store: StoreChoice) -> tuple[bool, str]:
    """Whether the store answers, and what it says."""
    database = sqlite_path(store.uri)
    if database is not None and not database.exists():
        return True, "there is no such file yet: the first run makes it"
    try:
        return True, summary(store.uri)
    except StoreError as error:
        return False, f"none: {error}; is the address right, the server up?"
