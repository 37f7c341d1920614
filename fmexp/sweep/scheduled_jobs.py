"""Workers as jobs of Slurm, or of submitit on this machine: submitted, watched, cancelled.

Hydra's submitit launcher waits for its jobs one after another, raises at the first that was killed,
and learns of a job's end from `sacct`, which clusters without accounting lack. So its options are
kept and the jobs submitted through submitit itself; their states come from `squeue`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fmexp.errors import FmexpError, UserError
from fmexp.record.safe_files import is_own_folder
from fmexp.record.spool import new_key
from fmexp.sweep.worker_process import STOPPED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ENDED = {
    "COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "PREEMPTED",
    "DEADLINE", "BOOT_FAIL", "REVOKED",
}  # fmt: skip
"""Slurm's job states of which no other follows; a requeued job is PENDING again."""

_RESULT_SECONDS = 15.0
"""How long a network file system may take to show what a job wrote last."""

_LEAST_PAUSE, _MOST_PAUSE = 1.0, 60.0
_OF_ANSWER = 100
"""Slurm is asked again after this many times the time that it took to answer."""


@dataclass(frozen=True)
class JobEnd:
    """How a worker's job ended.

    Attributes:
        returned: what the worker returned; "" where it was lost.
        began: whether it had begun.
        words: which job, what its scheduler says of it, and where its log is.
    """

    returned: str
    began: bool
    words: str


class _Scheduler(Protocol):
    """What differs between Slurm and processes of this machine."""

    def ended(self, jobs: list[Any]) -> dict[str, str]:
        """The jobs among these that will not run again: what is said of each, by id."""
        ...

    def submit(self, executor: Any, worker: Callable[[object], str], number: int) -> list[Any]:
        """Submit a number of jobs."""
        ...

    def cancel(self, jobs: list[Any], waiting_only: bool) -> None:
        """Cancel these jobs: all of them, or those that have not begun. May be repeated."""
        ...


class ScheduledJobs:
    """The workers of a sweep as jobs.

    Attributes:
        open: whether there are jobs that have not ended.
        threads: how many cores a job has, as far as was asked for.
    """

    def __init__(self, launcher: dict[str, Any], on_slurm: bool) -> None:
        """See `ScheduledJobs`.

        Args:
            launcher: `hydra.launcher` of hydra-submitit-launcher, resolved.
            on_slurm: whether its jobs go to Slurm, else to processes of this machine.

        Raises:
            UserError: there is no Slurm here, or jobs would have no time.
        """
        minutes, seconds = launcher.get("timeout_min"), launcher.get("signal_delay_s") or 0
        if on_slurm and minutes is not None and seconds >= 60 * minutes:
            raise UserError(
                f"hydra.launcher.signal_delay_s={seconds} must be less than the time of a job, "
                f"hydra.launcher.timeout_min={minutes}: it would be told to end as it begins"
            )
        if on_slurm and not (shutil.which("sbatch") and shutil.which("srun")):
            raise UserError(
                "hydra/launcher=submitit_slurm: there is no sbatch on this machine; run the "
                "command on a login node of the cluster"
            )
        self._launcher, self._on_slurm = launcher, on_slurm
        self.threads: int = launcher.get("cpus_per_task") or 1
        self._scheduler: _Scheduler = _Slurm() if on_slurm else _Local()
        self._jobs: list[Any] = []
        self._ended_at: dict[str, float] = {}
        self._are_cancelled = False

    @property
    def open(self) -> bool:  # noqa: D102 -- in the class's docstring
        return bool(self._jobs)

    def submit(self, worker: Callable[[object], str], number: int) -> None:
        """Submit a number of jobs; each calls `worker` with its number.

        Raises:
            FmexpError: the scheduler refuses them.
        """
        try:
            executor = _executor(self._launcher, "slurm" if self._on_slurm else "local")
            jobs = self._scheduler.submit(executor, worker, number)
        except UserError:
            raise
        except Exception as error:  # submitit and Slurm refuse with errors of many kinds
            cause = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise FmexpError(f"hydra.launcher: the jobs were not accepted: {cause}") from error
        self._are_cancelled = False
        self._jobs += [job.task(i) for job in jobs for i in range(job.num_tasks)]

    def take_ended(self) -> Iterator[JobEnd]:
        """The jobs that have ended since this was last asked."""
        for job in list(self._jobs):  # who was stopped may have been requeued, the others were not
            if (returned := _returned(job)) and (returned != STOPPED or self._are_cancelled):
                yield self._take(job, returned, "COMPLETED")
        for job_id, state in self._scheduler.ended(self._jobs).items():
            since = self._ended_at.setdefault(job_id, time.monotonic())
            for job in [job for job in self._jobs if job.job_id == job_id]:
                returned = _returned(job)
                is_late = state == "COMPLETED" and time.monotonic() < since + _RESULT_SECONDS
                if returned or not is_late:
                    yield self._take(job, returned, state)

    def _take(self, job: Any, returned: str, state: str) -> JobEnd:
        self._jobs.remove(job)
        return _end(job, returned, state)

    def cancel(self, waiting_only: bool = False) -> None:
        """Cancel what has not ended: all of it, or what has not begun."""
        self._are_cancelled |= not waiting_only
        if self._jobs:
            self._scheduler.cancel(self._jobs, waiting_only)

    def abandon(self) -> None:
        """Cancel all of it and do not wait for its end."""
        self.cancel()
        self._jobs.clear()


def _executor(launcher: dict[str, Any], cluster: str) -> Any:
    """Submitit's executor with the launcher's options, as the launcher sets it up itself."""
    import submitit

    common = {"timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb",
              "nodes", "name", "stderr_to_stdout"}  # fmt: skip
    options = {k: v for k, v in launcher.items() if k not in ("_target_", "submitit_folder")}
    retries = options.pop("max_num_timeout", 0)
    folder = _own_folder(launcher["submitit_folder"])
    executor = submitit.AutoExecutor(folder, cluster=cluster, slurm_max_num_timeout=retries)
    named = {k if k in common else f"{cluster}_{k}": v for k, v in options.items()}
    if cluster == "slurm" and options.get("cpus_per_task"):  # since 22.05 srun must be told too
        named["slurm_srun_args"] = [f"--cpus-per-task={options['cpus_per_task']}"]
    executor.update_parameters(**{k: v for k, v in named.items() if v is not None})
    return executor


def _own_folder(folder: str) -> Path:
    """A new place below the launcher's folder: what jobs return are pickles, and are read from it.

    Raises:
        UserError: the folder is a link, or of another user, who could put pickles there.
    """
    from submitit.core.utils import JobPaths

    home = JobPaths.get_first_id_independent_folder(folder)
    here = Path.cwd()
    for place in (*(above for above in reversed(home.parents) if here in above.parents), home):
        with contextlib.suppress(FileExistsError):
            place.mkdir(parents=True)
        if not is_own_folder(place):
            raise UserError(
                f"hydra.launcher.submitit_folder: {place} must be a folder of your own, and no "
                "link: what jobs return is read from there, and could be code; move it away"
            )
    made = home / new_key()
    made.mkdir(mode=0o700)
    return made / Path(folder).expanduser().absolute().relative_to(home)


def _returned(job: Any) -> str:
    """What a job's worker returned; "" while there is no such file, or where it raised."""
    import submitit

    if not job.paths.result_pickle.exists():
        return ""
    try:
        return str(job.result())
    except (submitit.core.utils.FailedJobError, submitit.core.utils.UncompletedJobError):
        return ""


def _end(job: Any, returned: str, state: str) -> JobEnd:
    """How a job ended; its log lies in the working folder, unless the user wants it elsewhere."""
    log = next((path for path in (job.paths.stderr, job.paths.stdout) if path.exists()), None)
    how = "stopped by its scheduler" if returned == STOPPED else state.lower().replace("_", " ")
    words = [f"job {job.job_id}", how]
    if log:
        here = log.relative_to(Path.cwd()) if log.is_relative_to(Path.cwd()) else log
        words.append(f"its log is {here}")
    return JobEnd(returned, log is not None, ", ".join(words))


class _Slurm:
    """Asks `squeue`, with `scancel` the only command that every cluster has."""

    def __init__(self) -> None:
        self._ask_at = 0.0
        self._known: dict[str, str] = {}
        self._cancelled: set[str] = set()

    def submit(self, executor: Any, worker: Callable[[object], str], number: int) -> list[Any]:
        return list(executor.map_array(worker, range(number)))

    def ended(self, jobs: list[Any]) -> dict[str, str]:
        began = time.monotonic()
        if not jobs or began < self._ask_at:
            return {}
        known = self._states({job.job_id.partition("_")[0] for job in jobs})
        pause = min(max(_LEAST_PAUSE, _OF_ANSWER * (time.monotonic() - began)), _MOST_PAUSE)
        is_leaving = {job.job_id for job in jobs} <= self._cancelled  # soon over, a user waits
        self._ask_at = began + (_LEAST_PAUSE if is_leaving else pause)
        if known is None:
            return {}
        self._known = known
        states = {job.job_id: known.get(job.job_id, "no longer known to Slurm") for job in jobs}
        return {k: state for k, state in states.items() if state in _ENDED or k not in known}

    def cancel(self, jobs: list[Any], waiting_only: bool) -> None:
        ids = {job.job_id for job in jobs} - self._cancelled
        if waiting_only:
            ids = {job_id for job_id in ids if self._known.pop(job_id, "") == "PENDING"}
        if ids:
            only = ["--state=PENDING"] if waiting_only else []
            subprocess.run(["scancel", *only, *sorted(ids)], check=False, capture_output=True)  # noqa: S603, S607
        if not waiting_only and ids:
            self._cancelled |= ids
            self._ask_at = time.monotonic() + _LEAST_PAUSE

    def _states(self, ids: set[str]) -> dict[str, str] | None:
        """The states of jobs and of an array's tasks by id; None where Slurm does not answer."""
        command = ["squeue", "-h", "-r", "-t", "all", "-o", "%i %T", "-j", ",".join(sorted(ids))]
        done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
        if done.returncode and "Invalid job id" not in done.stderr:
            return None
        said = (line.split() for line in done.stdout.splitlines())
        return {words[0]: words[1] for words in said if len(words) == 2}


class _Local:
    """Processes that submitit starts on this machine: one for each job, which starts the worker.

    They do not hear Ctrl-C, of which they would die before their workers have ended.
    """

    def submit(self, executor: Any, worker: Callable[[object], str], number: int) -> list[Any]:
        heard = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a new process inherits that
        try:
            return list(executor.map_array(worker, range(number)))
        finally:
            signal.signal(signal.SIGINT, heard)

    def ended(self, jobs: list[Any]) -> dict[str, str]:
        return {job.job_id: "failed" for job in jobs if job.done()}  # where it returned nothing

    def cancel(self, jobs: list[Any], waiting_only: bool) -> None:
        for job in jobs if not waiting_only else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(job.job_id), signal.SIGTERM)  # which it hands on to its worker
