"""A sweep from its options to its summary."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from hydra.core.plugins import Plugins
from optuna.trial import TrialState

from fmexp import __version__
from fmexp.config import compose
from fmexp.config.schema import MlflowConfig
from fmexp.errors import ConfigError
from fmexp.experiment import one_run
from fmexp.experiment.trial_plan import DataCache, Plan
from fmexp.record import safe_files
from fmexp.record.locate import locate_store, sqlite_path
from fmexp.record.passwords import no_password
from fmexp.record.spool import new_key
from fmexp.record.tracker import Outcome, close
from fmexp.sweep import interrupt, progress
from fmexp.sweep.attributes import IDENTITY, PLAN, SPACE, keep, kept
from fmexp.sweep.failover.recovery import settle_spool
from fmexp.sweep.plan import Command, Sweep, fixed_texts, prepare
from fmexp.sweep.pool import Crew
from fmexp.sweep.storage import answering, locate_storage, open_storage, refuse_several_workers
from fmexp.sweep.study import trials
from fmexp.sweep.sweep_run import Parent, winner_of
from fmexp.sweep.trial_status import counts
from fmexp.sweep.worker import LOOK_SECONDS, Job, load_study, work_alone

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from hydra.types import HydraContext
    from omegaconf import DictConfig
    from optuna.storages import BaseStorage

    from fmexp.errors import StoreError
    from fmexp.record.tracker import Delivery

VERSION = "fmexp_version"
BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


def sweep(command: Command, arguments: list[str], config: DictConfig, context: HydraContext) -> int:
    """Run a sweep; returns the exit code.

    Args:
        command: the configuration as composed, and where the command runs.
        arguments: the overrides, swept ones among them.
        config: Hydra's, for another launcher.
        context: likewise.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    prepared = prepare(command, arguments, compose.sweeper_options(config))
    options = prepared.options
    refuse_several_workers(options.storage, options.n_jobs)
    for note in prepared.data.notes:
        print(note)
    print(progress.opening(prepared.space, prepared.left, options))
    if options.dry_run:
        print(progress.estimate(prepared.space, options, _seconds_per_trial(prepared)))
        return 0
    job = _job(command, prepared)
    with answering(job.storage):
        with _one_at_a_time(command.folder):
            storage = open_storage(job.storage, command.folder)
            job = replace(job, study=_make_study(prepared, storage))
        work = partial(_work, prepared, config, context, fixed_texts(arguments))
        reason, outcome, (delivery, lost), study = _run(prepared, job, storage, work)
        again = command_line(command.arguments)
        print(
            progress.summary(study, prepared.space, prepared.plan, options, reason, delivery, again)
        )
    if lost:
        raise lost
    return {Outcome.COMPLETED: 0, Outcome.INTERRUPTED: 130}.get(outcome, 1)


def _run(
    prepared: Sweep, job: Job, storage: BaseStorage, work: Callable[[Crew], None]
) -> tuple[str, Outcome, tuple[Delivery, StoreError | None], optuna.Study]:
    """Work on the study until its total is complete, or there is a reason to stop."""
    study, space, plan = load_study(job, storage)
    saved = settle_spool(study, space, Path(job.folder))
    if saved:
        print(f"{saved} results of workers that died were saved")
    tracker = job.open_tracker()
    try:
        parent = Parent(study, space, plan, tracker, _start(prepared, job, plan), job)
        if parent.artifacts is not None:
            _write_artifacts(parent.artifacts, prepared)
        screen = progress.Board(study, space, plan, prepared.options)

        def look() -> None:
            parent.show_progress()
            screen.show()

        data = DataCache.of(prepared.config, prepared.data)
        try:
            with interrupt.stop_on_signals() as stop:
                asked = lambda: "interrupted" if stop else ""  # noqa: E731
                crew = Crew(job, storage, tracker, data, parent, look, asked)
                reason = _work_to_the_end(crew, study, prepared.options.n_trials, work)
        except BaseException as error:
            screen.clear()
            parent.fail(f"{type(error).__name__}: {error}")
            raise
        screen.clear()
        outcome = _outcome(study, reason)
        parent.finish(outcome, reason, progress.in_words(study, space, plan, prepared.options))
    finally:
        delivery = close(tracker)
        Path(job.stop_file).unlink(missing_ok=True)
    _analyze(job.uri)
    return reason, outcome, delivery, study


def _work_to_the_end(
    crew: Crew, study: optuna.Study, n_trials: int, work: Callable[[Crew], None]
) -> str:
    """Work again for the trials of workers that died; wait for those of other commands."""
    crew.parent.reclaim()
    work(crew)
    while {"done", "exhausted"} & {*crew.reasons} and not crew.asked():
        crew.parent.reclaim()
        states = Counter(t.state for t in trials(study) if counts(t))
        waiting, running = states[TrialState.WAITING], states[TrialState.RUNNING]
        ended = states.total() - waiting - running
        if ended >= n_trials:
            return "done"
        if waiting or ("exhausted" not in crew.reasons and ended + running < n_trials):
            crew.reasons.clear()
            work(crew)
        elif running:
            time.sleep(LOOK_SECONDS)
        else:
            return "exhausted"
    others = [reason for reason in crew.reasons if reason and reason != "done"]
    return crew.asked() or next(iter(others), "done" if crew.reasons else "failed")


def command_line(arguments: argparse.Namespace) -> list[str]:
    """The command as it could be typed again, in words, without the program and passwords."""
    flags = [
        part
        for name in ("config_name", "config_dir")
        if (value := getattr(arguments, name))
        for part in (f"--{name.replace('_', '-')}", value)
    ]
    return ["run", "-m", *flags, *map(no_password, arguments.overrides)]


def _job(command: Command, prepared: Sweep) -> Job:
    """Where everything goes. The journal lies beside a sqlite store, else in the folder."""
    tracking = prepared.config.tracking
    uri, experiment_name, beside = "", "", command.folder
    if isinstance(tracking, MlflowConfig):
        given = tracking.uri if "tracking.uri" in command.composed.given else None
        uri = locate_store(given, tracking.uri, os.environ).uri
        experiment_name = tracking.experiment
        database = sqlite_path(uri)
        beside = database.parent if database else command.folder
    options = prepared.options
    storage = options.storage
    return Job(
        storage=locate_storage(storage, command.folder if storage else beside),
        study=prepared.name,
        folder=str(command.folder.resolve()),
        uri=uri,
        experiment=experiment_name,
        options=prepared.raw_options,
        deadline=None if options.timeout is None else time.time() + options.timeout,
        stop_file=str(command.folder.resolve() / ".fmexp" / f"stop-{new_key()}"),
    )


def _make_study(prepared: Sweep, storage: BaseStorage) -> str:
    """Make or find the study, with all that workers need in it; returns its name."""
    options, name = prepared.options, prepared.name
    known = {each.study_name: each for each in storage.get_all_studies()}
    if not options.resume:
        base, number = name, 2
        while name in known:
            name, number = f"{base}-{number}", number + 1
    study = optuna.create_study(
        storage=storage, study_name=name, direction=prepared.plan.direction, load_if_exists=True
    )
    if PLAN in kept(study):
        _continue(study, prepared)
        return name
    identities = {each: s.system_attrs.get(IDENTITY) for each, s in known.items()}
    if any(identities.values()):
        print(progress.newness({k: v for k, v in identities.items() if v}, prepared.identity))
    for point in prepared.points:
        prepared.space.enqueue(study, point)
    study.set_user_attr(VERSION, __version__)
    keep(study, IDENTITY, prepared.identity)
    keep(study, SPACE, prepared.space.to_json())
    keep(study, PLAN, replace(prepared.plan, sweep_key=new_key()).to_json())
    return name


def _continue(study: optuna.Study, prepared: Sweep) -> None:
    """Go on with a study that is there: with its own plan, whatever the files say now."""
    mine = json.loads(json.dumps(prepared.identity, default=str))
    theirs = kept(study)[IDENTITY]
    if theirs != mine:
        unlike = progress.difference(theirs, mine)
        raise ConfigError(
            f"the study {study.study_name} is of another sweep: unlike this one in {unlike}; "
            "give another hydra.sweeper.study_name, or the same configuration"
        )
    so_far = progress.so_far(study, prepared.space, prepared.options)
    print(f"continuing the study {study.study_name}; {so_far}")
    if study.user_attrs[VERSION] != __version__:
        print(f"warning: it was begun by fmexp {study.user_attrs[VERSION]}, this is {__version__}")
    space = prepared.space
    alive = [t for t in trials(study) if counts(t)]
    known = {space.key(space.point(t)) for t in alive}
    known |= {space.key(space.enqueued(t)) for t in alive}
    for point in prepared.points:
        if space.key(point) not in known:
            space.enqueue(study, point)


def _start(prepared: Sweep, job: Job, plan: Plan) -> Any:
    """The parent run as it begins, or goes on."""
    start = one_run.describe(prepared.config, prepared.plan.record, prepared.data)
    params = {k: v for k, v in start.params.items() if k not in prepared.space}
    space = {f"space/{d.key}": str(d) for d in prepared.space.dimensions}
    tags = {
        "fmexp.kind": "sweep",
        "fmexp.sweep": job.study,
        "fmexp.sampler": prepared.options.sampler.name,
        "fmexp.pruner": prepared.options.pruner.name,
        "fmexp.objective_name": plan.objective,
        "fmexp.direction": plan.direction,
    }
    return replace(
        start,
        name=f"sweep {job.study}",
        params=params | space,
        tags=start.tags | tags,
        key=plan.sweep_key,
        may_exist=True,
        reopens=True,
    )


def _write_artifacts(folder: Path, prepared: Sweep) -> None:
    """The frozen configuration and the space."""
    from fmexp.experiment.artifacts import write_config

    write_config(folder / "config.yaml", prepared.plan.record)
    (folder / "space.json").write_text(prepared.space.to_json(), encoding="utf-8")


def _work(
    prepared: Sweep, config: DictConfig, context: HydraContext, fixed: list[str], crew: Crew
) -> None:
    """Choose the kind of workers and let them work."""
    n_jobs = prepared.options.n_jobs
    if config.hydra.launcher._target_ != BASIC_LAUNCHER:
        task = _Task(crew.job)
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=context, task_function=task, config=config
        )
        crew.launcher(launcher, n_jobs, fixed)
    elif n_jobs == 1 or prepared.all_numpy:
        crew.threads(n_jobs)
    else:
        crew.processes(n_jobs)


@dataclass(frozen=True)
class _Task:
    """The task function that another launcher's jobs run: each is a worker."""

    job: Job

    def __call__(self, _: DictConfig) -> str:
        return work_alone(self.job)


def _outcome(study: optuna.Study, reason: str) -> Outcome:
    if reason == "interrupted":
        return Outcome.INTERRUPTED
    good = reason in ("done", "exhausted", "timeout") and winner_of(study) is not None
    return Outcome.COMPLETED if good else Outcome.FAILED


def _seconds_per_trial(prepared: Sweep) -> float:
    """Training time of one trial, extrapolated from a few epochs of the first point."""
    from fmexp.training.fitting import fit

    epochs = prepared.config.training.epochs
    few = min(3, epochs)
    training = replace(prepared.config.training, epochs=few)
    fitted = fit(replace(prepared.config, training=training), prepared.data)
    return fitted.fit_seconds / few * epochs * prepared.plan.seeds


def _analyze(uri: str) -> None:
    """Let sqlite look at its tables: MLflow's UI then reads curves ten times faster."""
    import sqlite3

    database = sqlite_path(uri) if uri else None
    if database is None:
        return
    try:
        with sqlite3.connect(database, timeout=5) as connection:
            connection.execute("ANALYZE")
    except sqlite3.OperationalError:
        return  # somebody writes just now; the next sweep will do it


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Two commands that make the same study at once would each enqueue its first points."""
    (folder / ".fmexp").mkdir(exist_ok=True)
    descriptor = safe_files.open_lock(folder / ".fmexp" / "study.lock")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
