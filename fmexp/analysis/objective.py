"""By what a sweep ranks its trials: the objective and its direction, as its record tells them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fmexp.sweep.trial_record import OBJECTIVE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fmexp.record.queries import StoredRun


@dataclass(frozen=True)
class Objective:
    """What a sweep searched for.

    Attributes:
        name: the metric's.
        maximized: whether larger values are better.
    """

    name: str
    maximized: bool

    @classmethod
    def of(cls, sweep: StoredRun) -> Objective:
        """The objective of a sweep, from the tags of its own run."""
        name = sweep.tags.get("fmexp.objective_name", "best/val_mse")
        return cls(name, sweep.tags.get("fmexp.direction") == "maximize")

    @staticmethod
    def value(trial: StoredRun) -> float | None:
        """What the study was told of a trial; None unless it completed."""
        text = trial.tags.get(OBJECTIVE) if trial.outcome == "completed" else None
        return None if text is None else float(text)

    def ranked(self, trials: Iterable[StoredRun]) -> list[StoredRun]:
        """The completed trials, best first; equal ones in the order in which they are given."""
        valued = [(value, t) for t in trials if (value := self.value(t)) is not None]
        sign = -1 if self.maximized else 1
        return [trial for _, trial in sorted(valued, key=lambda pair: sign * pair[0])]
