"""A worker's loop: ask for a point, evaluate it, tell; and when to stop.

Workers never wait for each other: who is free asks.
"""

from __future__ import annotations

import contextlib
import logging
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING

import optuna
from optuna.exceptions import UpdateFinishedTrialError

from fmexp.errors import UserError
from fmexp.record.passwords import without_password
from fmexp.record.tracker import Outcome
from fmexp.sweep.duplicates import Duplicates
from fmexp.sweep.samplers import SpaceExhaustedError
from fmexp.sweep.task import Evaluation, Reporter
from fmexp.sweep.trial_record import trial_start, with_objective
from fmexp.sweep.trial_status import DISCARD, LOSSES
from fmexp.sweep.view import View

if TYPE_CHECKING:
    from collections.abc import Callable

    from fmexp.record.tracker import Tracker
    from fmexp.sweep.draw import Drawing
    from fmexp.sweep.failover.leases import Lease
    from fmexp.sweep.space import Point
    from fmexp.sweep.study import SweepStudy
    from fmexp.sweep.task import Task

DONE, EXHAUSTED, FAILURES, TIMEOUT = "done", "exhausted", "failures", "timeout"
"""Why a worker stops asking: the total is complete, no point is new, too many failed, too late."""


TOO_COSTLY = (
    "it has cost {} workers, each of which was killed in this trial (out of memory?): it is not "
    "tried again (hydra.sweeper.relaunch)"
)
"""Why a point fails that kills who evaluates it."""

_log = logging.getLogger(__name__)


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
        most_losses: how many workers a point may cost before it fails.
    """

    n_trials: int
    max_failure_rate: float = 1.0
    prunes: bool = False
    deadline: float | None = None
    most_losses: int = 3

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
        self._view = View(study)
        self._duplicates = Duplicates(study, self._view, lease.seconds)

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
        trial = self._ask()
        point = self._point(trial)
        if not self._duplicates.is_new(trial.number, point):
            return
        reporter = Reporter(
            trial_start(self._study, trial.number, point, self._lease.id),
            self._tracker,
            trial if isinstance(trial, optuna.Trial) else None,
            self._view.is_best,
            lambda: bool(self._should_stop()),
        )
        losses = trial.user_attrs.get(LOSSES, 0)
        if losses >= self._limits.most_losses:
            ended = Evaluation(Outcome.FAILED, reason=TOO_COSTLY.format(losses))
        else:
            ended = with_objective(self._evaluate(point, reporter))
        run = reporter.run
        run.finish(ended.outcome, ended.reason, ended.metrics, ended.tags, provisional=True)
        run.settle(self._study.tell(trial.number, ended))
        if ended.outcome is Outcome.FAILED:
            self._view.look()

    def _ask(self) -> Drawing | optuna.Trial:
        """A trial of our own, where there are not enough without it."""
        self._study.ask(self._lease.id, self._view.waiting())
        self._view.look()
        mine = self._view.of(self._lease.id)
        if not mine:
            raise UpdateFinishedTrialError
        *twins, trial = mine
        for twin in twins:  # made by a call whose answer was lost
            self._study.drop(twin.number, DISCARD)
        if self._view.rank(trial.number) - len(twins) >= self._limits.n_trials:
            self._study.drop(trial.number, DISCARD)
            raise Ended(DONE)
        return self._study.drawing(trial, self._limits.prunes)

    def _point(self, trial: Drawing | optuna.Trial) -> Point:
        """The point of a trial; none where all of the space are taken."""
        try:
            return self._study.space.suggest(trial)
        except SpaceExhaustedError:
            self._study.drop(trial.number, DISCARD)
            raise Ended(EXHAUSTED) from None
        except ValueError as error:  # a choice that is none, which another program enqueued
            _log.warning("trial %d is dropped: %s", trial.number, error)
            self._study.drop(trial.number, DISCARD)
            raise UpdateFinishedTrialError from error

    def _evaluate(self, point: Point, reporter: Reporter) -> Evaluation:
        """What the task makes of a point; a trial that fails is a result."""
        try:
            _refuse_resolvers(self._study.space.outside(point))
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
        limits, view = self._limits, self._view
        if not view.is_far_from(limits.n_trials):
            view.look()
        if view.begun() >= limits.n_trials:
            raise Ended(DONE)
        if self._duplicates.are_all():
            raise Ended(EXHAUSTED)
        if view.failed > limits.max_failure_rate * limits.n_trials:
            raise Ended(FAILURES)


def _refuse_resolvers(outside: Point) -> None:
    """Values that are not of the space may be another's: they call no resolver, such as oc.env.

    Raises:
        UserError: one would.
    """
    for key, value in outside.items():
        if isinstance(value, str) and "${" in value and ":" in value:
            raise UserError(f"{key}={value}: a value that was enqueued cannot call a resolver")
