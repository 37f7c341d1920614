"""No point twice: whether another trial has a point already, and which points nobody has tried."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from fmexp.sweep.trial_status import REPEAT

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from fmexp.sweep.space import Point
    from fmexp.sweep.study import SweepStudy
    from fmexp.sweep.view import View

MOST_REPEATS = 50
"""Draws in a row of known points that end the search of a continuous space."""

REPEATS_PER_HINT = 10
"""Such draws after which a finite space's next point that nobody has tried is enqueued."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.004, 0.5
"""Seconds between looks at trials that have yet to choose, drawn up to twice as long each time."""


class Duplicates:
    """What one worker knows of the points of a study.

    Args:
        study: whose points.
        view: what the worker knows of its trials.
        patience: seconds to wait at most for an earlier trial to choose its point.
    """

    def __init__(self, study: SweepStudy, view: View, patience: float) -> None:
        self._study, self._space, self._view = study, study.space, view
        self._patience = patience
        self._size = study.space.size()
        self._repeats = 0

    def is_new(self, number: int, point: Point) -> bool:
        """Whether this point is the trial's own; else the trial is told what is known of it.

        Nothing is trained for a repeat, nothing recorded, and it does not count.
        """
        duplicate = self._duplicate(number, point)
        if duplicate is None:
            self._repeats = 0
            return True
        value = duplicate.value if duplicate.state is TrialState.COMPLETE else None
        self._study.drop(number, REPEAT, value)
        self._repeats += 1
        if self._size is not None and self._repeats % REPEATS_PER_HINT == 0:
            untried = self._untried()
            if untried is not None:
                self._space.enqueue(self._study.optuna, untried)
        return False

    def are_all(self) -> bool:
        """Whether there is no new point: all are known, or draws give none any more."""
        if self._size is None:
            return self._repeats >= MOST_REPEATS
        waiting = self._view.waiting()
        return self._size <= self._view.begun() and not waiting and self._untried() is None

    def _duplicate(self, number: int, point: Point) -> FrozenTrial | None:
        """Another trial that counts and has this point: finished, or running since before.

        Of two that draw the same point at the same moment the later one has the duplicate: it waits
        until each earlier one has chosen (Lamport's bakery), be it for as long as a lease.
        """
        key = self._space.key(point)
        if self._is_drawn_from_continuum(number, point):
            return self._view.with_point(number, key)
        until, pause = time.monotonic() + self._patience, _FIRST_PAUSE
        self._view.look()
        while self._view.earlier_chooses(number) and time.monotonic() < until:
            time.sleep(random.uniform(0.5, 1) * pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            self._view.look()
        return self._view.with_point(number, key)

    def _is_drawn_from_continuum(self, number: int, point: Point) -> bool:
        """Whether nobody else can draw the same point at this moment, so that none need be awaited.

        Two draws of a real number differ; what was enqueued, or cut off at a bound, may be equal.
        """
        if "fixed_params" in self._view.open[number].system_attrs:
            return False
        reals = (self._space[key] for key in point if self._space[key].continuous)
        return any(d.low < float(point[d.key] or 0.0) < d.high for d in reals)

    def _untried(self) -> Point | None:
        """The first point of a finite space that no trial has, had or waits to have."""
        taken = self._view.taken()
        return next((p for p in self._space.grid() if self._space.key(p) not in taken), None)
