"""What `fmexp doctor` finds in the studies of a folder, and mends when told to: only what is safe.

Safe is what the next sweep would do by itself: the study is the truth, and whoever holds a lease
that is alive is left alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna

from fmexp.errors import FmexpError, UserError
from fmexp.record import spool
from fmexp.record.locate import sqlite_path
from fmexp.record.passwords import without_password
from fmexp.record.query_status import close_running, ended_in_store
from fmexp.sweep.election import is_auxiliary
from fmexp.sweep.failover import leases, recovery
from fmexp.sweep.storage import (
    answering,
    is_torn,
    locate_storage,
    open_storage,
)
from fmexp.sweep.study import SweepStudy

FIX = "fmexp doctor --fix"


def look_at_studies(folder: Path, uri: str, fix: bool, storage: str | None = None) -> list[str]:
    """What is broken in the studies of a storage, or was mended, in words; [] when nothing is.

    Args:
        folder: holds the spool.
        uri: the MLflow store.
        fix: mend it.
        storage: `hydra.sweeper.storage`; None: optuna.journal in `folder`, where it is there.

    Raises:
        UserError: no study can be kept there, or the file is not there.
    """
    url = locate_storage(storage, folder)
    is_journal = url.startswith("journal://")
    file = Path(url.removeprefix("journal://")) if is_journal else sqlite_path(url)
    if file is not None and not file.exists():
        if storage is None:
            return []
        raise UserError(f"--storage: there is no {file}; a sweep's command makes it")
    said = []
    if is_journal and file and is_torn(file):
        if not fix:
            return [f"{file.name} ends in half a line (a kill?): {FIX} puts it aside"]
        said.append(f"{file.name} ended in half a line: it lies beside it now")
    try:
        with answering(url):
            opened = open_storage(url, folder)
            names = optuna.get_all_study_names(opened)
            for name in (each for each in names if not is_auxiliary(each)):
                try:
                    said += _look_at(SweepStudy(opened, name, url), folder, uri, fix)
                except (UserError, KeyError, TypeError) as error:  # another program's has no plan
                    why = error if isinstance(error, UserError) else "no sweep of fmexp, or damaged"
                    said.append(f"study {name} is left alone: {why}")
    except FmexpError as error:
        shown = file.name if file else without_password(url)
        said.append(f"{shown} cannot be used: {error}; move it away, or name another storage")
    return said


def _look_at(study: SweepStudy, folder: Path, uri: str, fix: bool) -> list[str]:
    watch = leases.LeaseWatch()
    dead = recovery.of_dead_workers(study, watch)
    if dead and not fix:
        words = f"study {study.name}: {len(dead)} trials are running whose workers are dead"
        return [f"{words}: {FIX} gives them up, and so does the sweep's next command"]
    said = []
    if dead:
        recovery.settle_spool(study, folder)
        lost = recovery.give_up_dead(
            study, watch, lambda numbers: _ended(study, folder, uri, numbers)
        )
        said.append(f"study {study.name}: {len(lost)} trials of dead workers were given up")
    if fix and not watch.look(leases.leases(study)):
        waiting = {run.key for run in spool.spooled_runs(folder)}
        keys = {study.plan.trial_key(t.number) for t in study.ended()} | {study.plan.sweep_key}
        ours = sorted(keys - waiting)
        closed = close_running(uri, _experiment(study), folder, study.plan.sweep_key, ours)
        said += [f"study {study.name}: the run {run} was RUNNING without owner" for run in closed]
    return said


def _ended(
    study: SweepStudy, folder: Path, uri: str, numbers: list[int]
) -> dict[int, dict[str, str]]:
    keys = {study.plan.trial_key(number): number for number in numbers}
    found = ended_in_store(uri, _experiment(study), folder, sorted(keys))
    return {keys[key]: tags for key, tags in found.items()}


def _experiment(study: SweepStudy) -> str:
    """The MLflow experiment of the sweep."""
    tree: dict[str, Any] = study.plan.settings.get("config_tree", {})
    return str(tree.get("tracking", {}).get("experiment", "fmexp"))
