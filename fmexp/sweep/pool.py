"""The workers of one command: threads, processes, or the jobs of another launcher."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fmexp.errors import FmexpError
from fmexp.sweep import worker_process

if TYPE_CHECKING:
    from collections.abc import Callable

    from hydra.plugins.launcher import Launcher
    from omegaconf import DictConfig
    from optuna.storages import BaseStorage

    from fmexp.record.tracker import Tracker
    from fmexp.sweep.task import Task
    from fmexp.sweep.worker_process import Job


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
        reasons: why each worker ended.
    """

    job: Job
    storage: BaseStorage
    tracker: Tracker
    task: Task
    look: Callable[[], None]
    asked: Callable[[], str]
    reasons: list[str] = field(default_factory=list)
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

        One that is killed is no failure: its trial is given up and re-run by a surviving worker.
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
            for process in processes:
                self._await(process)
        failed = [process.returncode for process in processes if process.returncode > 0]
        if failed:
            raise FmexpError(f"a worker process ended with exit code {failed[0]}; see above")

    def launcher(self, launcher: Launcher, n_jobs: int, overrides: list[str]) -> None:
        """Work wherever another launcher of Hydra's starts jobs: each of its jobs is a worker.

        Args:
            launcher: set up with a `LaunchedWorker` of this pool's job as its task function.
            n_jobs: how many jobs.
            overrides: of each job, none of them swept.
        """
        with _Watch(self):
            for done in launcher.launch([list(overrides)] * n_jobs, initial_job_idx=0):
                self.reasons.append(str(done.return_value))

    def _work(self, stop: Callable[[], str]) -> None:
        try:
            self.reasons.append(
                worker_process.work(self.job, self.storage, self.tracker, self.task, stop)
            )
        except BaseException as error:  # noqa: BLE001 -- raised again by who started the thread
            self._errors.append(error)

    def _await(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin, process.stdout:
            self.reasons += process.stdout.read().split("\n")[:1]
            process.wait()


@dataclass(frozen=True)
class LaunchedWorker:
    """The task function that another launcher's jobs run: each is a worker."""

    job: Job

    def __call__(self, _: DictConfig) -> str:
        """Work; returns why no more trials were asked for."""
        return worker_process.work_alone(self.job)


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
                    Path(self._pool.job.stop_file).touch()
            except Exception as error:  # noqa: BLE001 -- a storage that is away may come back
                print(f"fmexp: the study cannot be read just now: {error}", file=sys.stderr)
                self._over.wait(5)
