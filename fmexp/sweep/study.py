"""A worker's loop: ask for a point, evaluate it, tell; and when to stop.

The study is the only thing that workers share. They never wait for each other: who is free asks.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from fmexp.sweep.marks import DISCARD, INTERRUPTED, LOST, MARK, REPEAT, counts
from fmexp.sweep.samplers import SpaceExhaustedError
from fmexp.tracking.base import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    import optuna
    from optuna.trial import FrozenTrial

    from fmexp.sweep.space import Point, Space

WORKER, OUTCOME, REASON, RETRY_OF = "worker", "outcome", "reason", "retry_of"
"""Trial attributes: the worker that runs it, how it ended, why, and the trial it runs again."""

MOST_REPEATS = 50
REPORT_SHARE = 0.05
REPORT_GROWTH = 1.5


class Evaluated(Protocol):
    """What an evaluation came to. Its record is on disk, but provisional."""

    outcome: Outcome
    value: float | None
    reason: str

    def settle(self, accepted: bool) -> None:
        """Say whether the study took the result; only then the record is final."""
        ...


class Evaluate(Protocol):
    """Trains at a point."""

    def __call__(self, number: int, point: Point, report: Reporter) -> Evaluated:
        """Evaluate trial `number`; never raises but for what must end the whole worker."""
        ...


class Ended(Exception):  # noqa: N818 (no error: why a worker stops asking)
    """A worker's reason to stop."""


class Reporter:
    """Tells the pruner how a trial does, at epochs 1, 2, 3, 5, 8, 12, ...

    A report costs up to milliseconds, so one is left out where reports would take more than 5 % of
    the trial's time. All trials report at the same epochs, as the median pruner compares them.
    """

    def __init__(self, trial: optuna.Trial | None) -> None:
        self._trial = trial
        self._next = 1.0
        self._spent, self._last = 0.0, 0.001
        self._began = time.perf_counter()

    def should_stop(self, epoch: int, value: float) -> bool:
        """Report `value` after `epoch`; whether the trial is to be pruned."""
        if self._trial is None or epoch < self._next:
            return False
        while self._next <= epoch:
            self._next = math.ceil(self._next * REPORT_GROWTH)
        now = time.perf_counter()
        if self._spent + self._last > REPORT_SHARE * (now - self._began):
            return False
        self._trial.report(value, epoch)
        pruned = self._trial.should_prune()
        self._last = time.perf_counter() - now
        self._spent += self._last
        return pruned


@dataclass
class Worker:
    """One thread that evaluates trials of a study until there are enough.

    Attributes:
        study: an object of this worker's own, on storage that may be shared.
        space: what is searched.
        evaluate: trains at a point.
        id: of the lease that says that this worker lives.
        n_trials: the study's total.
        max_failure_rate: stop when more than this share of the finished trials failed.
        prunes: whether the study has a pruner that asks for reports.
        should_stop: asked before each trial; a reason in words, or "".
    """

    study: optuna.Study
    space: Space
    evaluate: Evaluate
    id: str
    n_trials: int
    max_failure_rate: float
    prunes: bool
    should_stop: Callable[[], str]
    _repeats: int = field(default=0, init=False)

    def work(self) -> str:
        """Evaluate trials; returns why no more are asked for."""
        try:
            while not (reason := self.should_stop()):
                self._check_total()
                self._one()
        except Ended as end:
            return str(end)
        return reason

    def _one(self) -> None:
        trial = self.study.ask()
        trial.set_user_attr(WORKER, self.id)
        if rank(self.study, trial.number) >= self.n_trials:
            drop(self.study, trial.number, DISCARD)
            raise Ended("done")
        try:
            point = self.space.suggest(trial)
        except SpaceExhaustedError:
            drop(self.study, trial.number, DISCARD)
            raise Ended("exhausted") from None
        twin = find_twin(self.study, self.space, trial.number, point)
        if twin is not None:
            self._repeat(trial, twin)
            return
        self._repeats = 0
        reporter = Reporter(trial if self.prunes else None)
        evaluated = self.evaluate(trial.number, point, reporter)
        accepted = tell(
            self.study, trial.number, evaluated.outcome, evaluated.value, evaluated.reason
        )
        evaluated.settle(accepted)
        if accepted and evaluated.outcome is Outcome.INTERRUPTED:
            try_again(self.study, self.space, trial.number, point)

    def _repeat(self, trial: optuna.Trial, twin: FrozenTrial) -> None:
        """Tell what is known of the same point; nothing is trained, nothing recorded."""
        value = twin.value if twin.state is TrialState.COMPLETE else None
        drop(self.study, trial.number, REPEAT, value)
        self._repeats += 1
        if self._repeats >= MOST_REPEATS:
            raise Ended("exhausted")

    def _check_total(self) -> None:
        """Stop where there is clearly nothing to ask for; `rank` decides the close cases."""
        counted = [t for t in trials(self.study) if counts(t)]
        if sum(t.state is not TrialState.WAITING for t in counted) >= self.n_trials:
            raise Ended("done")
        finished = [t for t in counted if t.state.is_finished()]
        failed = sum(t.user_attrs.get(OUTCOME) == Outcome.FAILED for t in finished)
        if failed and failed > self.max_failure_rate * len(finished):
            raise Ended(f"failures: {failed} of {len(finished)} finished trials failed")


def trials(study: optuna.Study) -> list[FrozenTrial]:
    """All trials as the storage has them now, not to be changed."""
    return study._storage.get_all_trials(study._study_id, deepcopy=False)


def rank(study: optuna.Study, number: int) -> int:
    """How many trials with a lower number count.

    Exact however many workers race, as no two trials have the same number: the n_trials-th that
    counts knows that it is the last. A count of all trials is not: two that ask together would
    each see the other.
    """
    return sum(counts(t) for t in trials(study) if t.number < number)


def find_twin(study: optuna.Study, space: Space, number: int, point: Point) -> FrozenTrial | None:
    """Another trial that counts and has this point: finished, or running since before."""
    key = space.key(point)
    for other in trials(study):
        is_known = other.state.is_finished() or (
            other.state is TrialState.RUNNING and other.number < number
        )
        is_other = other.number != number and counts(other)
        if is_other and is_known and space.key(space.point(other)) == key:
            return other
    return None


def drop(study: optuna.Study, number: int, mark: str, value: float | None = None) -> bool:
    """Mark a trial as one that does not count and finish it; whether it was still running."""
    try:
        _set_attributes(study, number, {MARK: mark})
        if value is None:
            study.tell(number, state=TrialState.FAIL)
        else:
            study.tell(number, value)
    except (ValueError, UpdateFinishedTrialError):  # Optuna's words for "it is finished already"
        return False
    return True


def tell(
    study: optuna.Study, number: int, outcome: Outcome, value: float | None, reason: str
) -> bool:
    """Tell the study how a trial ended; False if it had been given up (its lease ran out)."""
    attributes = {OUTCOME: str(outcome)} | ({REASON: reason[:2000]} if reason else {})
    if outcome is Outcome.INTERRUPTED:
        attributes[MARK] = INTERRUPTED
    try:
        _set_attributes(study, number, attributes)
        if outcome is Outcome.COMPLETED:
            study.tell(number, value)
        else:
            pruned = outcome is Outcome.PRUNED
            study.tell(number, state=TrialState.PRUNED if pruned else TrialState.FAIL)
    except (ValueError, UpdateFinishedTrialError):
        return False
    return True


def _set_attributes(study: optuna.Study, number: int, attributes: dict[str, str]) -> None:
    storage = study._storage
    trial_id = storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    for name, value in attributes.items():
        storage.set_trial_user_attr(trial_id, name, value)


def try_again(study: optuna.Study, space: Space, number: int, point: Point) -> None:
    """Have the point of a trial that was lost or interrupted evaluated by the next who asks."""
    if point:
        space.enqueue(study, point, {RETRY_OF: number})


def reclaim(study: optuna.Study, space: Space, trial: FrozenTrial) -> bool:
    """Give up a trial whose worker is dead, and enqueue its point again; whether we did it.

    The order survives two that reclaim at once: mark, then tell (one of them is refused), and only
    who was not refused enqueues.
    """
    if not drop(study, trial.number, LOST):
        return False
    try_again(study, space, trial.number, space.point(trial))
    return True
