"""A worker's loop: ask for a point, evaluate it, tell; and when to stop.

The study is the only thing that workers share. They never wait for each other: who is free asks.
"""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from fmexp.record.passwords import without_password
from fmexp.record.tracker import Outcome
from fmexp.sweep.attributes import keep_memo
from fmexp.sweep.failover import leases
from fmexp.sweep.samplers import SpaceExhaustedError
from fmexp.sweep.trial_status import DISCARD, INTERRUPTED, LOST, MARK, REPEAT, counts

if TYPE_CHECKING:
    from collections.abc import Callable

    import optuna
    from optuna.trial import FrozenTrial

    from fmexp.sweep.space import Point, Space

WORKER, OUTCOME, REASON, RETRY_OF = "worker", "outcome", "reason", "retry_of"
"""Trial attributes: the worker that runs it, how it ended, why, and the trial it runs again."""

STATES = {
    Outcome.COMPLETED: TrialState.COMPLETE,
    Outcome.PRUNED: TrialState.PRUNED,
    Outcome.DIVERGED: TrialState.FAIL,
    Outcome.FAILED: TrialState.FAIL,
    Outcome.INTERRUPTED: TrialState.FAIL,
}
"""What Optuna calls each outcome."""

MOST_REPEATS = 50
"""Draws in a row of known points that end the search of a continuous space."""

REPEATS_PER_HINT = 10
"""Such draws after which a finite space's next point that nobody has tried is enqueued."""

REPORT_SHARE = 0.05
REPORT_GROWTH = 1.5


class Evaluated(Protocol):
    """What an evaluation came to. Its record is on disk, but provisional."""

    outcome: Outcome
    value: float | None
    reason: str
    memo: dict[str, Any] | None
    """What the winner's last files are made from; None for a trial that was not the best."""

    def settle(self, accepted: bool) -> None:
        """Say whether the study took the result; only then the record is final."""
        ...


class Evaluate(Protocol):
    """Trains at a point."""

    def __call__(self, number: int, point: Point, report: Reporter) -> Evaluated:
        """Evaluate trial `number`; never raises but for what must end the whole worker."""
        ...


FAILURES = "failures"
"""Why a worker stops asking when too many trials failed."""


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
        max_failure_rate: stop when more than this share of `n_trials` failed.
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
    _keys: dict[int, str] = field(default_factory=dict, init=False)

    def work(self) -> str:
        """Evaluate trials; returns why no more are asked for."""
        try:
            while not (reason := self.should_stop()):
                self._check_total()
                with contextlib.suppress(UpdateFinishedTrialError):  # given up while we slept
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
        twin = self._twin(trial.number, point)
        if twin is not None:
            self._repeat(trial, twin)
            return
        self._repeats = 0
        reporter = Reporter(trial if self.prunes else None)
        evaluated = self.evaluate(trial.number, point, reporter)
        if evaluated.memo is not None:
            with contextlib.suppress(UpdateFinishedTrialError):  # given up: `tell` will find out
                keep_memo(trial, evaluated.memo)
        accepted = tell(
            self.study, self.space, trial.number,
            evaluated.outcome, evaluated.value, evaluated.reason,
        )  # fmt: skip
        evaluated.settle(accepted)

    def _twin(self, number: int, point: Point) -> FrozenTrial | None:
        """Another trial that counts and has this point: finished, or running since before.

        Of two that draw the same point at the same moment the later one has the twin: it waits
        until each earlier one has chosen (Lamport's bakery), be it for as long as a lease.
        """
        until = time.monotonic() + leases.lease_seconds()
        while self._earlier_chooses(number) and time.monotonic() < until:
            time.sleep(0.002)
        key = self.space.key(point)
        for other in trials(self.study):
            is_known = other.state.is_finished() or (
                other.state is TrialState.RUNNING and other.number < number
            )
            is_other = other.number != number and counts(other)
            if is_other and is_known and self._key(other) == key:
                return other
        return None

    def _earlier_chooses(self, number: int) -> bool:
        return any(
            t.number < number
            and t.state is TrialState.RUNNING
            and not self.space.is_whole(self.space.point(t))
            for t in trials(self.study)
        )

    def _key(self, trial: FrozenTrial) -> str:
        """The key of a trial's point; those of finished trials are kept, as they do not change."""
        key = self._keys.get(trial.number)
        if key is None:
            key = self.space.key(self.space.point(trial))
            if trial.state.is_finished():
                self._keys[trial.number] = key
        return key

    def _repeat(self, trial: optuna.Trial, twin: FrozenTrial) -> None:
        """Tell what is known of the same point; nothing is trained, nothing recorded."""
        value = twin.value if twin.state is TrialState.COMPLETE else None
        drop(self.study, trial.number, REPEAT, value)
        self._repeats += 1
        if self.space.size() is None:
            if self._repeats >= MOST_REPEATS:
                raise Ended("exhausted")
            return
        untried = self._untried()
        if untried is None:
            raise Ended("exhausted")
        if self._repeats % REPEATS_PER_HINT == 0:
            self.space.enqueue(self.study, untried)

    def _untried(self) -> Point | None:
        """The first point of a finite space that no trial has, had or waits to have."""
        taken = {
            self._key(t) if t.state.is_finished() else self.space.key(self.space.planned(t))
            for t in trials(self.study)
            if counts(t)
        }
        return next((p for p in self.space.grid() if self.space.key(p) not in taken), None)

    def _check_total(self) -> None:
        """Stop where there is clearly nothing to ask for; `rank` decides the close cases."""
        counted = [t for t in trials(self.study) if counts(t)]
        if sum(t.state is not TrialState.WAITING for t in counted) >= self.n_trials:
            raise Ended("done")
        size, waiting = self.space.size(), any(t.state is TrialState.WAITING for t in counted)
        if size is not None and size <= len(counted) and not waiting and self._untried() is None:
            raise Ended("exhausted")
        finished = [t for t in counted if t.state.is_finished()]
        failed = sum(t.user_attrs.get(OUTCOME) == Outcome.FAILED for t in finished)
        if failed > self.max_failure_rate * self.n_trials:
            raise Ended(FAILURES)


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


def drop(study: optuna.Study, number: int, mark: str, value: float | None = None) -> None:
    """Mark a trial as one that does not count, and finish it."""
    state = TrialState.FAIL if value is None else TrialState.COMPLETE
    with contextlib.suppress(ValueError, UpdateFinishedTrialError):  # it was given up
        _set_attributes(study, number, {MARK: mark})
        study.tell(number, value, state)


def tell(
    study: optuna.Study,
    space: Space,
    number: int,
    outcome: Outcome,
    value: float | None,
    reason: str,
) -> bool:
    """Tell the study how a trial ended; whether it has taken that.

    It has not where the trial was given up before, as its lease had run out.
    """
    attributes = {OUTCOME: str(outcome)}
    if reason:
        attributes[REASON] = without_password(reason[:2000])
    if outcome not in (Outcome.COMPLETED, Outcome.PRUNED):  # Optuna's FAIL does not say why
        attributes[MARK] = INTERRUPTED if outcome is Outcome.INTERRUPTED else ""
    _finish(study, space, number, attributes, STATES[outcome], value)
    return has_taken(_trial(study, number), outcome, value)


def has_taken(trial: FrozenTrial, outcome: Outcome, value: float | None) -> bool:
    """Whether a finished trial ended so for the study.

    State and attributes of a finished trial cannot change. So when several write at the same
    moment, each reads here afterwards what came of it, and all read the same.
    """
    if trial.state is not STATES[outcome] or trial.user_attrs.get(OUTCOME) != outcome:
        return False
    if outcome is Outcome.INTERRUPTED:
        return True
    return counts(trial) and (outcome is not Outcome.COMPLETED or trial.value == value)


def reclaim(study: optuna.Study, space: Space, number: int) -> bool:
    """Give up a trial whose worker is dead, and enqueue its point again; whether it is lost.

    Safe when several do it at once, and when the worker is not that dead and tells its end just
    now: only one of them finishes the trial, and that one enqueues.
    """
    finished = _finish(study, space, number, {MARK: LOST}, TrialState.FAIL)
    return finished and not counts(_trial(study, number))


def _finish(
    study: optuna.Study,
    space: Space,
    number: int,
    attributes: dict[str, str],
    state: TrialState,
    value: float | None = None,
) -> bool:
    """Finish a running trial; False if it was finished already."""
    try:
        _set_attributes(study, number, attributes)
        study.tell(number, value if state is TrialState.COMPLETE else None, state)
    except (ValueError, UpdateFinishedTrialError):  # Optuna's words for "it is finished already"
        return False
    trial = _trial(study, number)
    if not counts(trial) and trial.user_attrs[MARK] in (LOST, INTERRUPTED):
        point = space.planned(trial)
        if point:
            space.enqueue(study, point, {RETRY_OF: number})
    return True


def _trial(study: optuna.Study, number: int) -> FrozenTrial:
    storage = study._storage
    return storage.get_trial(
        storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    )


def _set_attributes(study: optuna.Study, number: int, attributes: dict[str, str]) -> None:
    storage = study._storage
    trial_id = storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    for name, value in attributes.items():
        storage.set_trial_user_attr(trial_id, name, value)
