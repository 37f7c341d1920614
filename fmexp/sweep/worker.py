"""A worker's loop: ask for a point, evaluate it, tell; and when to stop.

Workers never wait for each other: who is free asks.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from fmexp.record.passwords import without_password
from fmexp.record.tracker import Outcome
from fmexp.sweep.duplicates import Duplicates
from fmexp.sweep.samplers import SpaceExhaustedError
from fmexp.sweep.task import Evaluation, Reporter
from fmexp.sweep.trial_record import trial_start, with_objective
from fmexp.sweep.trial_status import DISCARD, OUTCOME

if TYPE_CHECKING:
    from collections.abc import Callable

    import optuna

    from fmexp.record.tracker import Tracker
    from fmexp.sweep.failover.leases import Lease
    from fmexp.sweep.space import Point
    from fmexp.sweep.study import SweepStudy
    from fmexp.sweep.task import Task

DONE, EXHAUSTED, FAILURES, TIMEOUT = "done", "exhausted", "failures", "timeout"
"""Why a worker stops asking: the total is complete, no point is new, too many failed, too late."""


class Ended(Exception):  # noqa: N818 (no error: why a worker stops asking)
    """A worker's reason to stop."""


@dataclass(frozen=True)
class Limits:
    """When there are enough trials.

    Attributes:
        n_trials: the study's total.
        max_failure_rate: stop when more than this share of `n_trials` failed.
        prunes: whether the study has a pruner that asks for reports.
        deadline: seconds since the epoch after which no trial is begun.
    """

    n_trials: int
    max_failure_rate: float = 1.0
    prunes: bool = False
    deadline: float | None = None

    def is_past(self) -> bool:
        """Whether the deadline is."""
        return self.deadline is not None and time.time() >= self.deadline


class Worker:
    """One thread that evaluates trials of a study until there are enough."""

    def __init__(
        self,
        study: SweepStudy,
        task: Task,
        tracker: Tracker,
        lease: Lease,
        limits: Limits,
        should_stop: Callable[[], str],
    ) -> None:
        """See `Worker`.

        Args:
            study: an object of this worker's own, on storage that may be shared.
            task: evaluates a point.
            tracker: where the trials' runs go.
            lease: says that this worker lives.
            limits: when to stop.
            should_stop: asked before and within each trial; a reason in words, or "".
        """
        self._study, self._task, self._tracker = study, task, tracker
        self._lease, self._limits, self._should_stop = lease, limits, should_stop
        self._duplicates = Duplicates(study, lease.seconds)

    def run(self) -> str:
        """Evaluate trials; returns why no more are asked for."""
        try:
            while not (reason := self._should_stop() or TIMEOUT * self._limits.is_past()):
                self._look_at_total()
                with contextlib.suppress(UpdateFinishedTrialError):  # given up while we slept
                    self._one_trial()
        except Ended as end:
            return str(end)
        return reason

    def _one_trial(self) -> None:
        """The end is on disk before the study hears of it, and final once the study has it."""
        trial = self._study.ask(self._lease.id)
        point = self._point(trial)
        if not self._duplicates.is_new(trial, point):
            return
        reporter = Reporter(
            trial_start(self._study, trial.number, point, self._lease.id),
            self._tracker,
            trial if self._limits.prunes else None,
            self._study.is_best,
            lambda: bool(self._should_stop()),
        )
        ended = with_objective(self._evaluate(point, reporter))
        run = reporter.run
        run.finish(ended.outcome, ended.reason, ended.metrics, ended.tags, provisional=True)
        run.settle(self._study.tell(trial.number, ended))

    def _point(self, trial: optuna.Trial) -> Point:
        """The point of a trial that was asked for; none where there are enough."""
        if self._study.rank(trial.number) >= self._limits.n_trials:
            self._study.drop(trial.number, DISCARD)
            raise Ended(DONE)
        try:
            return self._study.space.suggest(trial)
        except SpaceExhaustedError:
            self._study.drop(trial.number, DISCARD)
            raise Ended(EXHAUSTED) from None

    def _evaluate(self, point: Point, reporter: Reporter) -> Evaluation:
        """What the task makes of a point; a trial that fails is a result."""
        try:
            return self._task.evaluate(point, reporter)
        except KeyboardInterrupt:
            return Evaluation(Outcome.INTERRUPTED, reason="interrupted")
        except Exception as error:  # noqa: BLE001 -- no trial ends the sweep
            if reporter.folder is not None:
                words = without_password("".join(traceback.format_exception(error)))
                (reporter.folder / "traceback.txt").write_text(words, encoding="utf-8")
            return Evaluation(Outcome.FAILED, reason=f"{type(error).__name__}: {error}")

    def _look_at_total(self) -> None:
        """Stop where there is clearly nothing to ask for; `rank` decides the close cases."""
        counted, limits = self._study.counted(), self._limits
        if sum(t.state is not TrialState.WAITING for t in counted) >= limits.n_trials:
            raise Ended(DONE)
        if self._duplicates.are_all(counted):
            raise Ended(EXHAUSTED)
        ended = [t for t in counted if t.state.is_finished()]
        failed = sum(t.user_attrs.get(OUTCOME) == Outcome.FAILED for t in ended)
        if failed > limits.max_failure_rate * limits.n_trials:
            raise Ended(FAILURES)
