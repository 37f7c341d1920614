"""A worker: one thread or process that evaluates trials of a study until there are enough."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from fmexp.backends.base import load_backend
from fmexp.experiment.trial import CURVE_POINTS, Evaluator
from fmexp.experiment.trial_plan import DataCache, Plan, check_data
from fmexp.record.passwords import without_password
from fmexp.record.plain_output import plain_output
from fmexp.sweep.attributes import PLAN, SPACE, kept
from fmexp.sweep.failover import leases
from fmexp.sweep.options import NoPrunerOptions, read_options
from fmexp.sweep.samplers import make_pruner, make_sampler
from fmexp.sweep.space import Space
from fmexp.sweep.storage import answering, open_storage
from fmexp.sweep.study import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.storages import BaseStorage

    from fmexp.record.tracker import Tracker

LOOK_SECONDS = 0.25


@dataclass(frozen=True)
class Job:
    """All that a worker must be told; the rest it takes from the study. Can be pickled.

    Attributes:
        storage: located URL of the study's storage.
        study: its name.
        folder: where the spool lies.
        uri: MLflow store; "" keeps no record.
        experiment: MLflow experiment.
        options: `hydra.sweeper` as plain values.
        deadline: seconds since the epoch after which no trial is begun.
        stop_file: there once the user wants to stop; seen by workers wherever they run.
    """

    storage: str
    study: str
    folder: str
    uri: str
    experiment: str
    options: dict[str, Any]
    deadline: float | None
    stop_file: str

    def open_tracker(self) -> Tracker:
        """A tracker with a recorder of its own."""
        from fmexp.record.spool_tracker import open_tracker
        from fmexp.record.tracker import NULL_TRACKER

        if not self.uri:
            return NULL_TRACKER
        return open_tracker(self.uri, self.experiment, Path(self.folder), thin_to=CURVE_POINTS)


def load_study(job: Job, storage: BaseStorage) -> tuple[optuna.Study, Space, Plan]:
    """The study with the sampler and pruner of the options, and what is stored with it."""
    study = optuna.load_study(study_name=job.study, storage=storage)
    space = Space.from_json(kept(study)[SPACE])
    plan = Plan(**kept(study)[PLAN])
    options = read_options(job.options)
    study.sampler = make_sampler(options.sampler, space, options.n_trials)
    study.pruner = make_pruner(options.pruner, int(plan.record["training"]["epochs"]))
    return study, space, plan


def work(
    job: Job, storage: BaseStorage, tracker: Tracker, data: DataCache, stop: Callable[[], str]
) -> str:
    """Evaluate trials until there are enough; returns why no more were asked for."""
    study, space, plan = load_study(job, storage)
    check_data(plan, data)
    for backend in plan.backends:
        load_backend(backend)  # before a trial's clock runs
    options = read_options(job.options)
    stop = _Stop(job, stop)
    lease = leases.Lease.start(study)
    evaluator = Evaluator(
        plan=plan,
        data=data,
        tracker=tracker,
        worker=lease.id,
        study={"name": job.study, "storage": without_password(job.storage)},
        is_best=lambda value: _is_best(study, value),
        should_stop=stop,
    )
    worker = Worker(
        study=study,
        space=space,
        evaluate=evaluator,
        id=lease.id,
        n_trials=options.n_trials,
        max_failure_rate=options.max_failure_rate,
        prunes=not isinstance(options.pruner, NoPrunerOptions),
        should_stop=lambda: stop() or ("timeout" if _is_past(job.deadline) else ""),
    )
    try:
        return worker.work()
    finally:
        lease.stop()


def work_alone(job: Job) -> str:
    """Be a worker process: storage, data, tracker and signals of its own."""
    from fmexp.sweep.interrupt import stop_on_signals

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if threading.current_thread() is not threading.main_thread():  # only there are signals heard
        return _work_alone(job, lambda: "")
    with stop_on_signals() as asked:
        return _work_alone(job, lambda: "interrupted" if asked else "")


def _work_alone(job: Job, stop: Callable[[], str]) -> str:
    _one_torch_thread()
    tracker = job.open_tracker()
    try:
        with answering(job.storage):
            storage = open_storage(job.storage, Path(job.folder))
            return work(job, storage, tracker, DataCache(), stop)
    finally:
        tracker.close()


class _Stop:
    """Why to stop, asked after each epoch; the file is looked for a few times a second only."""

    def __init__(self, job: Job, asked: Callable[[], str]) -> None:
        self._file, self._asked = Path(job.stop_file), asked
        self._look_at, self._told = 0.0, False

    def __call__(self) -> str:
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._told = self._file.exists()
        return "interrupted" if self._told else self._asked()


def _one_torch_thread() -> None:
    """Several processes with all cores' threads each would stand in each other's way."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _is_best(study: optuna.Study, value: float) -> bool:
    try:
        best = study.best_value
    except ValueError:  # no trial is complete yet
        return True
    return value <= best if study.direction.name == "MINIMIZE" else value >= best


def _is_past(deadline: float | None) -> bool:
    return deadline is not None and time.time() >= deadline


COMMAND = [sys.executable, "-P", "-m", "fmexp.sweep.worker"]
"""Starts a worker process, which reads its job from stdin."""


def main() -> None:
    """Read a job from stdin, work, print why no more trials were asked for."""
    with plain_output():
        _main()


def _main() -> None:
    from fmexp.errors import FmexpError

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal tells all; our parent tells us too
    job = Job(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_stop_without_parent, daemon=True).start()
    try:
        print(work_alone(job))
    except FmexpError as error:
        print(f"fmexp: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _stop_without_parent() -> None:
    """Stop at the next epoch when the process that started us is gone, as if it had said so."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def to_json(job: Job) -> str:
    """The line that a worker process reads."""
    return json.dumps(asdict(job)) + "\n"


if __name__ == "__main__":
    main()
