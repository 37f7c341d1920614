"""No point twice: whether another trial has a point already, and which points nobody has tried."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from fmexp.sweep.trial_status import REPEAT, counts

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from fmexp.sweep.space import Point
    from fmexp.sweep.study import SweepStudy

MOST_REPEATS = 50
"""Draws in a row of known points that end the search of a continuous space."""

REPEATS_PER_HINT = 10
"""Such draws after which a finite space's next point that nobody has tried is enqueued."""


class Duplicates:
    """What one worker knows of the points of a study.

    Args:
        study: whose points.
        patience: seconds to wait at most for an earlier trial to choose its point.
    """

    def __init__(self, study: SweepStudy, patience: float) -> None:
        self._study, self._space, self._patience = study, study.space, patience
        self._size = study.space.size()
        self._repeats = 0
        self._keys: dict[int, str] = {}

    def is_new(self, trial: optuna.Trial, point: Point) -> bool:
        """Whether this point is the trial's own; else the trial is told what is known of it.

        Nothing is trained for a repeat, nothing recorded, and it does not count.
        """
        duplicate = self._duplicate(trial.number, point)
        if duplicate is None:
            self._repeats = 0
            return True
        value = duplicate.value if duplicate.state is TrialState.COMPLETE else None
        self._study.drop(trial.number, REPEAT, value)
        self._repeats += 1
        if self._size is not None and self._repeats % REPEATS_PER_HINT == 0:
            untried = self._untried()
            if untried is not None:
                self._space.enqueue(self._study.optuna, untried)
        return False

    def are_all(self, counted: list[FrozenTrial]) -> bool:
        """Whether there is no new point: all are known, or draws give none any more."""
        if self._size is None:
            return self._repeats >= MOST_REPEATS
        waiting = any(t.state is TrialState.WAITING for t in counted)
        return self._size <= len(counted) and not waiting and self._untried() is None

    def _duplicate(self, number: int, point: Point) -> FrozenTrial | None:
        """Another trial that counts and has this point: finished, or running since before.

        Of two that draw the same point at the same moment the later one has the duplicate: it waits
        until each earlier one has chosen (Lamport's bakery), be it for as long as a lease.
        """
        until = time.monotonic() + self._patience
        while self._earlier_chooses(number) and time.monotonic() < until:
            time.sleep(0.002)
        key = self._space.key(point)
        for other in self._study.trials():
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
            and not self._space.is_whole(self._space.point(t))
            for t in self._study.trials()
        )

    def _untried(self) -> Point | None:
        """The first point of a finite space that no trial has, had or waits to have."""
        taken = {
            self._key(t) if t.state.is_finished() else self._space.key(self._space.planned(t))
            for t in self._study.counted()
        }
        return next((p for p in self._space.grid() if self._space.key(p) not in taken), None)

    def _key(self, trial: FrozenTrial) -> str:
        """The key of a trial's point; those of finished trials are kept, as they do not change."""
        key = self._keys.get(trial.number)
        if key is None:
            key = self._space.key(self._space.point(trial))
            if trial.state.is_finished():
                self._keys[trial.number] = key
        return key
