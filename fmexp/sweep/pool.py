"""The workers of one command: threads, processes, or the jobs of another launcher."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from fmexp.errors import FmexpError
from fmexp.sweep import worker_process
from fmexp.sweep.interrupt import LEAVING_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from hydra.plugins.launcher import Launcher
    from optuna.storages import BaseStorage

    from fmexp.record.tracker import Tracker
    from fmexp.sweep.scheduled_jobs import ScheduledJobs
    from fmexp.sweep.task import Task
    from fmexp.sweep.worker_process import Job


SIGNALLED = 128
"""Exit codes above mean that a signal ended the process."""


@dataclass
class WorkerPool:
    """The workers of one command, and the thread that watches over the study for them.

    Attributes:
        job: what each worker does.
        storage: the study's, open.
        tracker: the launching process's own; its recorder owns the sweep's run.
        task: open in this process.
        look: called a few times a second.
        asked: the reason for which the user wants to stop, "" while there is none.
        reasons: why workers of the latest launch ended by themselves.
        lost: what became of each worker that was killed or stopped by others, in words.
        relaunches: how often new ones were started for them.
    """

    job: Job
    storage: BaseStorage
    tracker: Tracker
    task: Task
    look: Callable[[], None]
    asked: Callable[[], str]
    reasons: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    relaunches: int = 0
    _errors: list[BaseException] = field(default_factory=list)

    def threads(self, n_jobs: int) -> None:
        """Work in threads of this process."""
        stop = lambda: self.asked() or ("failed" if self._errors else "")  # noqa: E731
        threads = [
            threading.Thread(target=self._work, args=(stop,), name=f"fmexp-worker-{i}")
            for i in range(n_jobs)
        ]
        with _Watch(self):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        if self._errors:
            raise self._errors[0]

    def here(self) -> None:
        """Work in this thread, the main one, where a debugger works and Ctrl-C is heard."""
        with _Watch(self):
            self._work(self.asked)
        if self._errors:
            raise self._errors[0]

    def processes(self, n_jobs: int) -> None:
        """Work in processes of one torch thread each, which gain where threads would lose.

        One that is killed is no failure: its trial is given up and re-run by another worker.
        """
        shown = os.dup(1)  # what trials print; a worker's own stdout is for its answer
        processes = [
            subprocess.Popen(  # noqa: S603 (our own module)
                [*worker_process.COMMAND, str(shown)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                pass_fds=[shown],
            )
            for _ in range(n_jobs)
        ]
        os.close(shown)
        with _Watch(self):
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(worker_process.to_json(self.job))
                process.stdin.flush()  # and it stays open: its end would mean that we are gone
            codes = [self._await(process) for process in processes]
        if failed := [code for code in codes if 0 < code < SIGNALLED]:
            raise FmexpError(f"a worker process ended with exit code {failed[0]}; see above")

    def launcher(self, launcher: Launcher, n_jobs: int, overrides: list[str]) -> None:
        """Work wherever another launcher of Hydra's starts jobs: each of its jobs is a worker.

        A launcher knows no more of a job that was killed than its exception says, and the other
        jobs may have ended with it (joblib) or go on (ray): the study shows which.

        Args:
            launcher: set up with a `LaunchedWorker` of this pool's job as its task function.
            n_jobs: how many jobs.
            overrides: of each job, none of them swept.

        Raises:
            FmexpError: it starts no worker.
        """
        begun = self._begun()
        with _Watch(self):
            try:
                for done in launcher.launch([list(overrides)] * n_jobs, initial_job_idx=0):
                    self._take(str(done.return_value), "a job of the launcher")
            except FmexpError:
                raise
            except Exception as error:
                words = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
                if self._begun() == begun:
                    raise FmexpError(f"hydra.launcher: no worker was started: {words}") from error
                self._lose(words)

    def jobs(self, jobs: ScheduledJobs, n_jobs: int) -> None:
        """Work in jobs of a scheduler, which may wait, be killed, or be requeued.

        Whatever ends this ends the jobs: those that wait as soon as nothing is left to be done,
        all of them when the user stops; their end is then waited for, but not for long.

        Raises:
            FmexpError: the jobs are not accepted, or their workers cannot work.
        """
        with _Watch(self):
            try:
                jobs.submit(LaunchedWorker(self.job, jobs.threads), n_jobs)
                until = math.inf
                while jobs.open and time.monotonic() < until:
                    for end in jobs.take_ended():
                        if end.began or not self.reasons:  # else we have cancelled it
                            self._take(end.returned, end.words)
                    if self.asked():
                        until = min(until, time.monotonic() + LEAVING_SECONDS)
                    if self.asked() or self.reasons:
                        jobs.cancel(waiting_only=not self.asked())
                    each = max(worker_process.LOOK_SECONDS, n_jobs / 100)
                    time.sleep(min(each, 1.0))  # a signal does not end it
            finally:
                jobs.abandon()

    @property
    def losses(self) -> str:
        """The workers that were lost, counted, in words; "" where none was."""
        if not self.lost:
            return ""
        lost = f"{len(self.lost)} worker{'s were' if len(self.lost) > 1 else ' was'} lost"
        times = f"{self.relaunches} time{'s' if self.relaunches > 1 else ''}"
        return lost + (f", new ones were started {times}" if self.relaunches else "")

    def _begun(self) -> int:
        """How many trials are running or have ended."""
        study_id = self.storage.get_study_id_from_name(self.job.study)
        trials = self.storage.get_all_trials(study_id, deepcopy=False)
        return sum(trial.state is not TrialState.WAITING for trial in trials)

    def _take(self, returned: str, words: str) -> None:
        """Note why a worker ended.

        Args:
            returned: what it says itself; "" where it could not.
            words: what is known of it from outside.

        Raises:
            FmexpError: it cannot work at all.
        """
        if returned.startswith(worker_process.FAILED):
            raise FmexpError(f"{returned.removeprefix(worker_process.FAILED)} ({words})")
        if returned in ("", worker_process.STOPPED):
            self._lose(words)
        else:
            self.reasons.append(returned)

    def _lose(self, words: str) -> None:
        """Note that a worker was killed or stopped, but not by the user, and say so."""
        if not self.asked():
            self.lost.append(words)
            print(f"fmexp: a worker was lost ({words}); its trial is run again", file=sys.stderr)

    def _work(self, stop: Callable[[], str]) -> None:
        try:
            self.reasons.append(
                worker_process.work(self.job, self.storage, self.tracker, self.task, stop)
            )
        except BaseException as error:  # noqa: BLE001 -- raised again by who started the thread
            self._errors.append(error)

    def _await(self, process: subprocess.Popen[str]) -> int:
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin, process.stdout:
            reason = process.stdout.read().partition("\n")[0]
            code = process.wait()
        if not 0 < code < SIGNALLED:
            self._take(reason, f"process {process.pid} was ended by a signal")
        return code


@dataclass(frozen=True)
class LaunchedWorker:
    """The task function that another launcher's jobs run: each is a worker."""

    job: Job
    threads: int = 1

    def __call__(self, _: object) -> str:
        """Work; returns why no more trials were asked for, or why none can be."""
        return worker_process.work_elsewhere(self.job, self.threads)


class _Watch:
    """While it is open, a thread looks at the study a few times a second."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fmexp-watch", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(worker_process.LOOK_SECONDS):
            try:
                self._pool.look()
                if self._pool.asked():
                    stop = Path(self._pool.job.stop_file)
                    stop.parent.mkdir(exist_ok=True)
                    stop.touch()
            except Exception as error:  # noqa: BLE001 -- a storage that is away may come back
                print(f"fmexp: the study cannot be read just now: {error}", file=sys.stderr)
                self._over.wait(5)
