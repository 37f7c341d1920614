"""A Hydra application's function as the task of a sweep."""

from __future__ import annotations

import base64
import logging
import os
import pickle
import sys
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import cloudpickle
from hydra.core.singleton import Singleton
from hydra.core.utils import configure_log, setup_globals
from optuna import TrialPruned

from fmexp.application.description import params, tags
from fmexp.application.outcome import evaluation
from fmexp.application.trial import Trial, running
from fmexp.errors import UserError
from fmexp.record.tracker import Outcome
from fmexp.sweep.task import Evaluation

if TYPE_CHECKING:
    from collections import deque
    from pathlib import Path

    from hydra.core.utils import JobReturn

    from fmexp.application.jobs import HydraJobs
    from fmexp.sweep.space import Point
    from fmexp.sweep.task import Reporter

_log = logging.getLogger(__name__)


@dataclass
class HydraTask:
    """Runs the function at points; see `fmexp.sweep.task.Task`.

    Attributes:
        jobs: the application.
        objective: name of the metric that trials are ranked by; None where the function returns it.
        returned: Hydra's record of the newest jobs, for who called Hydra from Python; None: none.
    """

    jobs: HydraJobs
    objective: str | None
    returned: deque[JobReturn] | None = None

    def evaluate(self, point: Point, reporter: Reporter) -> Evaluation:
        """Run the job at `point`."""
        config = self.jobs.compose(point, reporter.number)
        reporter.describe(params(config), self._tags)
        trial = Trial(reporter, self.objective)
        _log.info("\t#%d : %s", reporter.number, " ".join(config.hydra.overrides.task))
        try:
            with running(trial):
                job = self.jobs.run(config)
        except SystemExit as error:
            raise RuntimeError(f"the function called sys.exit({error.code})") from error
        finally:
            hydra = self.jobs.config.hydra
            configure_log(hydra.hydra_logging, hydra.verbose)  # until now the job's own
        if self.returned is not None:
            self.returned.append(job)
        try:
            value = job.return_value
        except TrialPruned as error:
            return Evaluation(Outcome.PRUNED, reason=str(error))
        if trial.ended is not None:
            return Evaluation(trial.ended, reason=trial.reason)
        ended = evaluation(value, self.objective)
        rest = {k: x for k, x in ended.metrics.items() if k not in trial.curves}
        return replace(ended, metrics=rest)  # a curve keeps its own last point

    def complete(self, memo: dict[str, Any], folder: Path) -> None:
        """The winner's record has nothing that others have not."""

    @cached_property
    def _tags(self) -> dict[str, str]:
        return tags(self.jobs.config)


def payload(task: HydraTask, n_jobs: int) -> str:
    """All that a worker process needs to be given of a task.

    Args:
        task: to be run there.
        n_jobs: how many workers share the machine's cores; 0 where nobody knows.

    Raises:
        UserError: the function refers to something that cannot be sent to another process.
    """
    try:
        state = cloudpickle.dumps((Singleton.get_state(), sys.argv, task))
    except Exception as error:
        raise UserError(
            "the application's function cannot be sent to worker processes: "
            f"{type(error).__name__}: {error}; make what it names within the function, or in a "
            "module of its own, or use hydra.sweeper.n_jobs=1"
        ) from error
    return base64.b64encode(pickle.dumps((sys.path, n_jobs, state))).decode()


def open_task(_: dict[str, Any], given: str) -> HydraTask:
    """The task in a worker process.

    Args:
        given: what `payload` made, from the process that started this one; never from a file.
    """
    places, n_jobs, state = pickle.loads(base64.b64decode(given))  # noqa: S301 (see above)
    sys.path[:] = places
    if n_jobs:
        _share_cores(n_jobs)
    setup_globals()
    singletons, sys.argv, task = pickle.loads(state)  # noqa: S301 (see above)
    Singleton.set_state(singletons)
    hydra = task.jobs.config.hydra
    configure_log(hydra.hydra_logging, hydra.verbose)
    assert isinstance(task, HydraTask)
    return task


def _share_cores(n_jobs: int) -> None:
    """Have libraries that are loaded from now on use this worker's share of the cores."""
    cores = os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // n_jobs)))
