"""A Hydra application's function as the task of a sweep."""

from __future__ import annotations

import base64
import logging
import os
import pickle
import re
import sys
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from typing import TYPE_CHECKING, Any

import cloudpickle
from hydra.core.singleton import Singleton
from hydra.core.utils import configure_log, setup_globals
from omegaconf import OmegaConf
from optuna import TrialPruned

from fmexp.application.trees import leaves
from fmexp.application.trial import Trial, as_number, running
from fmexp.errors import UserError
from fmexp.record.environment import environment_tags, user
from fmexp.record.tracker import Outcome
from fmexp.sweep.task import Evaluation

if TYPE_CHECKING:
    from collections import deque
    from pathlib import Path

    from hydra.core.utils import JobReturn
    from omegaconf import DictConfig

    from fmexp.application.jobs import HydraJobs
    from fmexp.sweep.space import Point
    from fmexp.sweep.task import Reporter

OBJECTIVE = "objective"
"""What the objective is called where neither option nor function names it."""

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
        return evaluation(value, self.objective)

    def complete(self, memo: dict[str, Any], folder: Path) -> None:
        """The winner's record has nothing that others have not."""

    @cached_property
    def _tags(self) -> dict[str, str]:
        return tags(self.jobs.config)


def evaluation(returned: Any, objective: str | None) -> Evaluation:
    """What a function's value makes of its trial.

    Args:
        returned: a number, or numbers by name.
        objective: the name of the one that counts; None where there is one only.

    Raises:
        TypeError: it is neither, or does not hold the objective.
    """
    if isinstance(returned, dict):
        metrics = {str(name): as_number(str(name), x) for name, x in returned.items()}
        name = objective or (next(iter(metrics)) if len(metrics) == 1 else None)
        if name not in metrics:
            raise TypeError(
                f"the function returned {', '.join(metrics) or 'no metrics'}; set "
                f"hydra.sweeper.objective to one of its names"
                + (f" (it is {objective})" if objective else "")
            )
    elif returned is None:
        raise TypeError(
            "the function returned None; a sweep needs a number, or a dictionary of numbers"
        )
    else:
        name = objective or OBJECTIVE
        metrics = {name: as_number(name, returned)}
    value = metrics[name]
    finite = {each: x for each, x in metrics.items() if isfinite(x)}
    if not isfinite(value):
        return Evaluation(Outcome.DIVERGED, reason=f"{name} is {value}", metrics=finite)
    return Evaluation(Outcome.COMPLETED, value, metrics=finite | {objective or OBJECTIVE: value})


def params(config: DictConfig) -> dict[str, str]:
    """A run's params: every leaf of the job's configuration, without Hydra's own."""
    return {re.sub(r"[^\w\-. /:]", "_", key)[:250]: str(x) for key, x in leaves(config).items()}


def tags(config: DictConfig) -> dict[str, str]:
    """Where a run comes from."""
    return environment_tags() | {
        "mlflow.source.name": sys.argv[0] or config.hydra.job.name,
        "mlflow.source.type": "LOCAL",
        "mlflow.user": user(),
    }


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


def as_yaml(config: DictConfig) -> str:
    """A configuration as text, without Hydra's own and with its references."""
    return OmegaConf.to_yaml(
        OmegaConf.masked_copy(config, [str(k) for k in config if k != "hydra"])
    )
