"""A sweep from its search to its summary."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import optuna

from fmexp.errors import UserError
from fmexp.record.locate import is_below, sqlite_path
from fmexp.record.passwords import without_password
from fmexp.record.spool import new_key
from fmexp.record.tracker import Outcome, close, nothing
from fmexp.sweep import interrupt, progress
from fmexp.sweep.election import Election
from fmexp.sweep.failover.failover import Failover
from fmexp.sweep.failover.leases import lease_seconds
from fmexp.sweep.open_study import open_study
from fmexp.sweep.patient_storage import stop_waiting_when
from fmexp.sweep.pool import WorkerPool
from fmexp.sweep.storage import answering, locate_storage, open_storage
from fmexp.sweep.sweep_run import SweepRun
from fmexp.sweep.total import work_to_the_end
from fmexp.sweep.worker import DONE, EXHAUSTED, TIMEOUT
from fmexp.sweep.worker_process import Job

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.storages import BaseStorage

    from fmexp.errors import StoreError
    from fmexp.record.tracker import Delivery, RunStart
    from fmexp.sweep.search import Search
    from fmexp.sweep.study import SweepStudy

    Work = Callable[[WorkerPool], None]
    """Starts the workers of a pool and waits until they have ended."""


PROGRESS_SECONDS = 1.0
"""Between two looks at how far the study is, at least."""

OPENING_SECONDS = 10.0
"""How long a command waits for a database that it has not reached yet: its address may be wrong."""


@dataclass(frozen=True)
class _Ended:
    """How a sweep ended: why, what that makes of it, what became of its record and workers."""

    reason: str
    outcome: Outcome
    delivery: Delivery
    lost: StoreError | None
    losses: str


def run(search: Search, folder: Path, launch: Work | None = None) -> int:
    """Run a sweep in `folder`; returns the exit code.

    Args:
        search: what is to be done.
        folder: where the command runs.
        launch: starts the workers where another launcher of Hydra's starts jobs; None: here.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    options, application = search.options, search.application
    if options.shared:
        _refuse_what_hosts_cannot_reach(search)
    job = _job(search, folder)
    for note in application.notes:
        print(note)
    print(progress.opening(search))
    if options.dry_run:
        print(progress.estimate(search, application.seconds_per_trial()))
        return 0
    with answering(job.storage):
        opening = min(options.patience, OPENING_SECONDS)
        storage = open_storage(job.storage, folder, options.patience, opening)
        name, election = open_study(search, storage)
        job = replace(job, study=name)
        study = job.open_study(storage)
        with contextlib.closing(election):
            ended = _run(search, job, storage, study, election, launch or _workers_here(search))
        print(progress.summary(search, study, ended.reason, ended.delivery, ended.losses))
        if application.when_ended:
            application.when_ended(study, ended.delivery)
    if ended.lost:
        raise ended.lost
    return {Outcome.COMPLETED: 0, Outcome.INTERRUPTED: 130}.get(ended.outcome, 1)


def _refuse_what_hosts_cannot_reach(search: Search) -> None:
    """Where the same command runs on several hosts, they share servers and no files.

    Raises:
        UserError: the study, or the record with its artifacts, would be of one host alone.
    """
    storage, uri, missing = search.options.storage or "null", search.application.uri, []
    store, none = "tracking.uri", "tracking=none"
    if search.application.program:  # another application: see hydra/sweeper/tracking
        store, none = "hydra.sweeper.tracking.uri", "hydra/sweeper/tracking=none"
    if not storage.startswith(("postgres", "grpc:")):
        missing.append(
            f"hydra.sweeper.storage={without_password(storage)} is of this host: all hosts must "
            "reach the study, so give hydra.sweeper.storage=postgresql://user@host/database"
        )
    if uri and not uri.startswith(("http://", "https://", "databricks")):
        missing.append(
            f"{store}={without_password(uri)} leaves runs or their files on this host: all "
            f"hosts must reach the record, so give {store}=http://host:5000 (fmexp's "
            f"docs/scale.md starts such a server), or {none}"
        )
    if missing:
        raise UserError("\n".join(missing))


def _job(search: Search, folder: Path) -> Job:
    """Where everything goes. The journal lies beside a sqlite store, else in the folder."""
    options, application = search.options, search.application
    database = sqlite_path(application.uri) if application.uri else None
    beside = database.parent if database and not options.storage else folder
    return Job(
        storage=locate_storage(options.storage, beside, options.n_jobs),
        study=search.name,
        task=application.opener,
        folder=str(folder.resolve()),
        uri=application.uri,
        experiment=application.experiment,
        options=search.raw_options,
        local=application.local,
        deadline=None,
        stop_file=str(folder.resolve() / ".fmexp" / f"stop-{new_key()}"),
        payload=application.payload,
    )


def _run(
    search: Search,
    job: Job,
    storage: BaseStorage,
    study: SweepStudy,
    election: Election,
    work: Work,
) -> _Ended:
    """Work on the study until its total is complete, or there is a reason to stop."""
    failover = Failover(study, job)
    if saved := failover.settle():
        print(f"{saved} results of workers that died were saved")
    tracker, meanwhile = job.open_tracker(), nothing
    stop: interrupt.Stop | None = None
    try:
        task = search.application.open_here(study.plan.settings)
        files = {**search.application.files, "space.json": study.space.to_json()}
        start = _start(search, study, Path(job.folder))
        sweep_run = SweepRun(study, task, tracker, start, files, election, failover)
        line = (search.application.line or progress.Progress)(search, study)
        look_again = [0.0]

        def look() -> None:
            failover.recover_if_due(tracker)
            sweep_run.take_part()
            if time.monotonic() < look_again[0]:
                return
            began = time.monotonic()
            sweep_run.show_progress()
            line.show()
            took = time.monotonic() - began  # it reads all trials: a large study is read seldom
            look_again[0] = began + max(PROGRESS_SECONDS, 50 * took)

        try:
            with interrupt.stop_on_signals(in_time=True) as stop:
                asked = lambda: "interrupted" if stop else ""  # noqa: E731
                stop_waiting_when(storage, lambda: bool(stop))
                if (seconds := search.options.timeout) is not None:  # from when workers start
                    job = replace(job, deadline=time.time() + seconds)
                pool = WorkerPool(job, storage, tracker, task, look, asked)
                reason = work_to_the_end(pool, failover, study, work, search.options.relaunch)
        except BaseException as error:
            line.clear()
            sweep_run.fail(f"{type(error).__name__}: {error}")
            raise
        line.clear()
        outcome = _outcome(study, reason)
        words = progress.in_words(search, study)
        records = Election(storage, f"{study.name}/records")
        is_contested = bool(job.uri) and sqlite_path(job.uri) is None
        makes_missing = not is_contested or _wins(records, stop)
        sweep_run.finish(outcome, reason, words, failover.children(makes_missing))
        meanwhile = sweep_run.take_part
    finally:
        delivery, lost = close(tracker, meanwhile, interrupt.LEAVING_SECONDS if stop else math.inf)
        Path(job.stop_file).unlink(missing_ok=True)
    if is_contested and makes_missing:
        records.tidy()
    _analyze(job.uri)
    return _Ended(reason, outcome, delivery, lost, pool.losses)


def _wins(election: Election, stop: interrupt.Stop) -> bool:
    """Whether this command leads, after as long as it takes to see that another leader is dead."""
    until = time.monotonic() + lease_seconds() + 1
    while not (won := election.is_won()) and not stop and time.monotonic() < until:
        time.sleep(0.25)
    return won


def _workers_here(search: Search) -> Work:
    """What starts workers on this machine: threads, or processes where those would lose."""
    n_jobs = search.options.n_jobs
    if n_jobs == 1 and search.application.foreground:
        return WorkerPool.here
    if n_jobs == 1 or search.application.in_threads:
        return lambda pool: pool.threads(n_jobs)
    return lambda pool: pool.processes(n_jobs)


def _start(search: Search, study: SweepStudy, folder: Path) -> RunStart:
    """The sweep's run as it begins, or goes on."""
    start, space = search.application.run, study.space
    params = {k: v for k, v in start.params.items() if k not in space}
    tags = {
        "fmexp.kind": "sweep",
        "fmexp.sweep": study.name,
        "fmexp.sampler": search.options.sampler.name,
        "fmexp.pruner": search.options.pruner.name,
        "fmexp.objective_name": study.plan.objective,
        "fmexp.direction": study.plan.direction,
    }
    return replace(
        start,
        name=f"sweep {study.name}",
        params=params | {f"space/{d.key}": str(d) for d in space.dimensions},
        tags=start.tags | tags,
        key=study.plan.sweep_key,
        may_exist=True,
        reopens=True,
        elected=not is_below(study.url, folder),
    )


def _outcome(study: SweepStudy, reason: str) -> Outcome:
    if reason == "interrupted":
        return Outcome.INTERRUPTED
    good = reason in (DONE, EXHAUSTED, TIMEOUT) and study.winner() is not None
    return Outcome.COMPLETED if good else Outcome.FAILED


def _analyze(uri: str) -> None:
    """Let sqlite look at its tables: MLflow's UI then reads curves ten times faster."""
    import sqlite3

    database = sqlite_path(uri) if uri else None
    if database is None:
        return
    with (
        contextlib.suppress(sqlite3.OperationalError),  # somebody writes just now
        sqlite3.connect(database, timeout=5) as connection,
    ):
        connection.execute("ANALYZE")
