"""hydra/callbacks=fmexp: a job of a Hydra application as one tracked run."""

from __future__ import annotations

import logging
import os
import traceback
from contextlib import ExitStack, redirect_stderr
from io import StringIO
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import OmegaConf

from fmexp.application.description import as_yaml, params, tags
from fmexp.application.outcome import numbers
from fmexp.application.trial import Trial, current_trial, running
from fmexp.record.locate import locate_store
from fmexp.record.passwords import without_password
from fmexp.record.spool_tracker import open_tracker
from fmexp.record.tracker import Outcome, RunStart, close

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn
    from omegaconf import DictConfig

    from fmexp.record.tracker import Run, Tracker

_log = logging.getLogger("fmexp")


class TrackedRun(Callback):
    """Begins a run in MLflow with the job and ends it with the job; within a sweep it does nothing.

    A sweep of fmexp's records its trials itself.
    """

    def __init__(self, uri: str | None = None, experiment: str | None = None) -> None:
        """Args: as `hydra.sweeper.tracking` has them."""
        self._uri, self._experiment = uri, experiment
        self._open: tuple[Tracker, Run, Trial] | None = None
        self._ending = ExitStack()

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: ARG002
        """Begin."""
        if current_trial().number is not None:
            return
        job, folder = config.hydra.job, Path(config.hydra.runtime.cwd)  # not the job's own
        store = locate_store(None, self._uri, os.environ, folder)
        experiment = self._experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or job.name
        tracker = open_tracker(store.uri, str(experiment), folder)
        name = job.override_dirname or job.name
        run = tracker.start_run(RunStart(str(name), params(config), tags(config)))
        if run.folder is not None:
            (run.folder / "config.yaml").write_text(as_yaml(config), encoding="utf-8")
        objective = OmegaConf.select(config, "hydra.sweeper.objective")
        trial = self._ending.enter_context(running(Trial(_OneRun(run), objective)))
        self._open = tracker, run, trial

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:  # noqa: ARG002
        """End, with what the function returned."""
        if self._open is None:
            return
        (tracker, run, trial), self._open = self._open, None
        self._ending.close()
        outcome, reason, metrics = _outcome(trial, job_return, run.folder)
        run.finish(outcome, reason, metrics)
        delivery, lost = close(tracker)
        if lost:
            _log.warning("%s", lost)
        else:
            run_id = delivery.run_ids.get(run.key, "")
            _log.info("recorded in %s as run %s (%s)", delivery.store, run_id, outcome)


class _OneRun:
    """A run without a sweep, as a trial's recording."""

    number, prunes = None, False

    def __init__(self, run: Run) -> None:
        self._run = run
        self.folder, self.log = run.folder, run.log

    def should_prune(self, step: int, value: float) -> bool:  # noqa: ARG002
        return False

    def should_stop(self) -> bool:
        return False


def _outcome(
    trial: Trial, job: JobReturn, folder: Path | None
) -> tuple[Outcome, str, dict[str, float]]:
    """How the job ended, why, and the numbers that it returned."""
    try:
        with redirect_stderr(StringIO()):  # Hydra tells of the error when it raises it again
            returned = job.return_value
    except Exception as error:  # noqa: BLE001 -- Hydra raises it again
        if folder is not None:
            words = without_password("".join(traceback.format_exception(error)))
            (folder / "traceback.txt").write_text(words, encoding="utf-8")
        return Outcome.FAILED, f"{type(error).__name__}: {error}", {}
    if trial.ended is not None:
        return trial.ended, trial.reason, {}
    try:
        metrics = numbers(returned)
    except TypeError:  # without a sweep a function may return what it likes
        return Outcome.COMPLETED, "", {}
    finite = {k: x for k, x in metrics.items() if isfinite(x) and k not in trial.curves}
    odd = [f"{name} is {x}" for name, x in metrics.items() if not isfinite(x)]
    return Outcome.DIVERGED if odd else Outcome.COMPLETED, ", ".join(odd), finite
