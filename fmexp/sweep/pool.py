"""The workers of one command: threads, processes, or the jobs of another launcher."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fmexp.errors import FmexpError
from fmexp.sweep import worker
from fmexp.sweep.failover.leases import lease_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from hydra.plugins.launcher import Launcher
    from optuna.storages import BaseStorage

    from fmexp.experiment.trial_plan import DataCache
    from fmexp.record.tracker import Tracker
    from fmexp.sweep.sweep_run import Parent
    from fmexp.sweep.worker import Job


@dataclass
class Crew:
    """The workers of one command, and the thread that watches over the study for them.

    Attributes:
        job: what each worker does.
        storage: the study's, open.
        tracker: the launching process's own; its recorder owns the parent run.
        data: loaded already.
        parent: the parent run.
        look: called a few times a second.
        asked: the reason for which the user wants to stop, "" while there is none.
        reasons: why each worker ended.
    """

    job: Job
    storage: BaseStorage
    tracker: Tracker
    data: DataCache
    parent: Parent
    look: Callable[[], None]
    asked: Callable[[], str]
    reasons: list[str] = field(default_factory=list)
    _errors: list[BaseException] = field(default_factory=list)

    def threads(self, n_jobs: int) -> None:
        """Work in threads of this process: NumPy's loops run beside each other."""
        stop = lambda: self.asked() or ("failed" if self._errors else "")  # noqa: E731
        crew = [
            threading.Thread(target=self._work, args=(stop,), name=f"fmexp-worker-{i}")
            for i in range(n_jobs)
        ]
        with self._watched():
            for thread in crew:
                thread.start()
            for thread in crew:
                thread.join()
        if self._errors:
            raise self._errors[0]

    def processes(self, n_jobs: int) -> None:
        """Work in processes of one torch thread each, which gain where threads would lose.

        One that is killed is no failure: its trial is given up and run again by who is left.
        """
        crew = [
            subprocess.Popen(  # noqa: S603 (our own module)
                worker.COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(n_jobs)
        ]
        with self._watched():
            for process in crew:
                assert process.stdin is not None
                process.stdin.write(worker.to_json(self.job))
                process.stdin.flush()  # and it stays open: its end would mean that we are gone
            for process in crew:
                self._await(process)
        failed = [process.returncode for process in crew if process.returncode > 0]
        if failed:
            raise FmexpError(f"a worker process ended with exit code {failed[0]}; see above")

    def launcher(self, launcher: Launcher, n_jobs: int, overrides: list[str]) -> None:
        """Work wherever another launcher of Hydra's starts jobs: each of its jobs is a worker."""
        with self._watched():
            for done in launcher.launch([list(overrides)] * n_jobs, initial_job_idx=0):
                self.reasons.append(str(done.return_value))

    def _work(self, stop: Callable[[], str]) -> None:
        try:
            self.reasons.append(worker.work(self.job, self.storage, self.tracker, self.data, stop))
        except BaseException as error:  # noqa: BLE001 -- raised again by who started the thread
            self._errors.append(error)

    def _await(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin, process.stdout:
            self.reasons += process.stdout.read().split("\n")[:1]
            process.wait()

    def _watched(self) -> _Watch:
        return _Watch(self)


class _Watch:
    """Keeps the parent run and the screen up to date, and takes over from workers that die."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fmexp-watch", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        reclaim_at = time.monotonic()
        while not self._over.wait(worker.LOOK_SECONDS):
            try:
                if time.monotonic() >= reclaim_at:
                    reclaim_at = time.monotonic() + lease_seconds() / 3
                    self._crew.parent.reclaim()
                self._crew.look()
                if self._crew.asked():
                    Path(self._crew.job.stop_file).touch()
            except Exception as error:  # noqa: BLE001 -- a storage that is away may come back
                print(f"fmexp: the study cannot be read just now: {error}", file=sys.stderr)
                self._over.wait(5)
