"""What a worker knows of its study's trials: those that have ended are read once."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from fmexp.record.tracker import Outcome
from fmexp.sweep.trial_status import WORKER, counts, outcome_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from fmexp.sweep.study import SweepStudy


class View:
    """The trials of a study as they were at the last look; a look costs what has changed.

    Attributes:
        open: those that wait or run, by number.
        best: the best value.
        failed: how many have failed.
    """

    def __init__(self, study: SweepStudy) -> None:
        """A view that has seen nothing yet."""
        self._study, self._space = study, study.space
        self._next = 0
        self._ended: list[int] = []
        self._by_point: dict[str, FrozenTrial] = {}
        self.open: dict[int, FrozenTrial] = {}
        self.best: float | None = None
        self.failed = 0

    def look(self) -> None:
        """See what has changed."""
        for trial in self._study.newest(list(self.open), self._next):
            self._next = max(self._next, trial.number + 1)
            if trial.state.is_finished():
                self.open.pop(trial.number, None)
                self._take_ended(trial)
            else:
                self.open[trial.number] = trial

    def _take_ended(self, trial: FrozenTrial) -> None:
        if not counts(trial):
            return
        insort(self._ended, trial.number)
        self._by_point.setdefault(self._space.key(self._space.point(trial)), trial)
        self.failed += outcome_of(trial) == Outcome.FAILED
        if trial.state is TrialState.COMPLETE:
            self.best = self._study.better(self.best, trial.value)

    def begun(self) -> int:
        """How many trials that count have begun."""
        return len(self._ended) + sum(counts(t) for t in self._running())

    def waiting(self) -> list[FrozenTrial]:
        """Those that were enqueued and that nobody has taken."""
        return [t for t in self.open.values() if t.state is TrialState.WAITING]

    def is_far_from(self, n_trials: int) -> bool:
        """Whether it needs no look to know that another trial is to be asked for.

        Since the last look each worker may have begun another trial.
        """
        begun = self.begun()
        return 0 < begun < n_trials - sum(1 for _ in self._running()) and not self.waiting()

    def of(self, worker: str) -> list[FrozenTrial]:
        """A worker's running trials, oldest first."""
        mine = [t for t in self._running() if t.user_attrs.get(WORKER) == worker]
        return sorted(mine, key=lambda t: t.number)

    def rank(self, number: int) -> int:
        """How many trials with a lower number count.

        Exact however many workers race, as no two trials have the same number: the n_trials-th that
        counts knows that it is the last. A count of all trials is not: two that ask together would
        each see the other.
        """
        running = sum(n < number and counts(t) for n, t in self.open.items())
        return bisect_left(self._ended, number) + running

    def is_best(self, value: float) -> bool:
        """Whether a value is at least as good as all that were seen."""
        return self._study.better(self.best, value) == value

    def earlier_chooses(self, number: int) -> bool:
        """Whether a running trial with a lower number has no whole point yet."""
        return any(
            t.number < number and not self._space.is_whole(self._space.point(t))
            for t in self._running()
        )

    def with_point(self, number: int, key: str) -> FrozenTrial | None:
        """Another trial that counts and has this point: ended, or running since before `number`."""
        if key in self._by_point:
            return self._by_point[key]
        for t in self._running():
            if t.number < number and counts(t) and self._space.key(self._space.point(t)) == key:
                return t
        return None

    def taken(self) -> set[str]:
        """The keys of all points that a trial has, had or waits to have."""
        planned = (self._space.planned(t) for t in self.open.values() if counts(t))
        return {*self._by_point, *map(self._space.key, planned)}

    def _running(self) -> list[FrozenTrial]:
        return [t for t in self.open.values() if t.state is TrialState.RUNNING]
