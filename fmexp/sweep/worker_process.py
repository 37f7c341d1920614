"""A worker as a process or thread of its own: what it must be told, and how it is started."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from fmexp.record.plain_output import plain_output
from fmexp.record.spool import folder_id
from fmexp.sweep.failover.leases import Lease
from fmexp.sweep.interrupt import end_on_sigterm
from fmexp.sweep.options import NoPrunerOptions, read_options
from fmexp.sweep.patient_storage import stop_waiting_when
from fmexp.sweep.samplers import make_pruner, make_sampler
from fmexp.sweep.storage import answering, open_storage
from fmexp.sweep.study import SweepStudy
from fmexp.sweep.task import open_task
from fmexp.sweep.worker import Limits, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.storages import BaseStorage

    from fmexp.record.tracker import Tracker
    from fmexp.sweep.task import Task

LOOK_SECONDS = 0.25
STOPPED, FAILED = "stopped", "failed: "
"""What a worker says that a signal has stopped, and how it begins to say that it cannot work."""

CURVE_POINTS = 320
"""Points of a trial's curve: as many as MLflow's UI asks for."""


@dataclass(frozen=True)
class Job:
    """All that a worker must be told; the rest it takes from the study. Can be pickled.

    Attributes:
        storage: located URL of the study's storage.
        study: its name.
        task: what makes the task, see `open_task`; never taken from a study, which others write.
        folder: where the spool lies.
        uri: MLflow store; "" keeps no record.
        experiment: MLflow experiment.
        options: `hydra.sweeper` as plain values.
        local: see `Application.local`.
        deadline: seconds since the epoch after which no trial is begun.
        stop_file: there once the user wants to stop; seen by workers wherever they run.
        payload: see `open_task`.
    """

    storage: str
    study: str
    task: str
    folder: str
    uri: str
    experiment: str
    options: dict[str, Any]
    local: dict[str, Any]
    deadline: float | None
    stop_file: str
    payload: str = ""

    @property
    def spool(self) -> str:
        """What tells the spool that runs go through from others; "" where none is used."""
        return folder_id(Path(self.folder)) if self.uri else ""

    def open_tracker(self) -> Tracker:
        """A tracker with a recorder of its own."""
        from fmexp.record.spool_tracker import open_tracker
        from fmexp.record.tracker import NULL_TRACKER

        if not self.uri:
            return NULL_TRACKER
        return open_tracker(self.uri, self.experiment, Path(self.folder), thin_to=CURVE_POINTS)

    def open_study(self, storage: BaseStorage) -> SweepStudy:
        """The study, with the sampler and pruner of the options."""
        options = read_options(self.options)
        study = SweepStudy(storage, self.study, self.storage)
        study.optuna.sampler = make_sampler(options.sampler, study.space, options.n_trials)
        study.optuna.pruner = make_pruner(options.pruner, study.plan.steps)
        return study


def work(
    job: Job, storage: BaseStorage, tracker: Tracker, task: Task, stop: Callable[[], str]
) -> str:
    """Be a worker in this thread; returns why no more trials were asked for."""
    options = read_options(job.options)
    study = job.open_study(storage)
    limits = Limits(
        options.n_trials,
        options.max_failure_rate,
        prunes=not isinstance(options.pruner, NoPrunerOptions),
        deadline=job.deadline,
        most_losses=max(2, options.relaunch),
    )
    with Lease(study, job.spool) as lease:
        return Worker(study, task, tracker, lease, limits, _Stop(job, stop)).run()


def work_alone(job: Job, threads: int = 1) -> str:
    """Be a worker process of so many threads: storage, task, tracker and signals of its own.

    The signals are also those by which a scheduler announces the end of a job's time, or that the
    job must make room: the trial ends as interrupted, and others run it again.
    """
    from fmexp.sweep.interrupt import stop_on_signals

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if threading.current_thread() is not threading.main_thread():  # only there are signals heard
        return _work_alone(job, threads, lambda: "")
    with stop_on_signals(patient=(signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)) as asked:
        return _work_alone(job, threads, lambda: STOPPED if asked else "")


def work_elsewhere(job: Job, threads: int) -> str:
    """The same in a job of a launcher; what keeps it from working is returned, not raised."""
    from fmexp.errors import FmexpError

    try:
        return work_alone(job, threads)
    except FmexpError as error:
        return f"{FAILED}{error}"


def _work_alone(job: Job, threads: int, stop: Callable[[], str]) -> str:
    if not job.payload:  # another application's task sees to its cores itself
        _take_threads(threads)
    tracker = job.open_tracker()
    try:
        with answering(job.storage):
            patience = read_options(job.options).patience
            storage = open_storage(job.storage, Path(job.folder), patience, patience)
            stop_waiting_when(storage, lambda: bool(stop()))
            settings = SweepStudy(storage, job.study).plan.settings | job.local
            return work(job, storage, tracker, open_task(job.task, settings, job.payload), stop)
    finally:
        tracker.close()


class _Stop:
    """Why to stop, asked after each step; the file is looked for a few times a second only."""

    def __init__(self, job: Job, asked: Callable[[], str]) -> None:
        self._file, self._asked = Path(job.stop_file), asked
        self._look_at, self._told = 0.0, False

    def __call__(self) -> str:
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._told = self._file.exists()
        return "interrupted" if self._told else self._asked()


def _take_threads(number: int) -> None:
    """Several processes with all cores' threads each would stand in each other's way."""
    os.environ.setdefault("OMP_NUM_THREADS", str(number))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(number)


COMMAND = [sys.executable, "-P", "-m", "fmexp.sweep.worker_process"]
"""Starts a worker process, which reads its job from stdin."""


def main() -> None:
    """Read a job from stdin, work, answer on stdout why no more trials were asked for.

    What trials print goes to the stdout of who started us, whose number is the only argument.
    """
    end_on_sigterm()
    answer = os.dup(1)
    os.dup2(int(sys.argv[1]), 1)
    _main(answer)


def _main(answer: int) -> None:
    from fmexp.errors import FmexpError

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal tells all; our parent tells us too
    job = Job(**json.loads(sys.stdin.readline()))
    screen = nullcontext() if job.payload else plain_output()  # another application's is its own
    threading.Thread(target=_stop_without_parent, daemon=True).start()
    with screen:
        try:
            os.write(answer, f"{work_alone(job)}\n".encode())
        except FmexpError as error:
            print(f"fmexp: {error}", file=sys.stderr)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            sys.exit(130)


def _stop_without_parent() -> None:
    """Stop at the next step when the process that started us is gone, as if it had said so."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def to_json(job: Job) -> str:
    """The line that a worker process reads."""
    return json.dumps(asdict(job)) + "\n"


if __name__ == "__main__":
    main()
