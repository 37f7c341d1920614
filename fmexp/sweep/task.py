"""What a sweep evaluates: a task, the reporter that a trial has, and what an evaluation came to."""

from __future__ import annotations

import importlib
import math
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import optuna

    from fmexp.record.tracker import Outcome, Run, RunStart, Tracker
    from fmexp.sweep.space import Point

REPORT_SHARE = 0.05
"""Share of a trial's time that reports to the pruner may take."""

REPORT_GROWTH = 1.5


@dataclass(frozen=True)
class Evaluation:
    """What a trial came to.

    Attributes:
        value: the objective; None unless the outcome is COMPLETED.
        reason: why it ended so, in words.
        metrics: last values by name, finite.
        tags: further tags of the trial's run.
        memo: of a trial that may win: what `Task.complete` needs at the end of the sweep, as JSON.
    """

    outcome: Outcome
    value: float | None = None
    reason: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    memo: dict[str, Any] | None = None


class Task(Protocol):
    """Evaluates points. One object may be used by several threads at once."""

    def evaluate(self, point: Point, reporter: Reporter) -> Evaluation:
        """Evaluate one point; what it raises makes a failed trial, not the end of the sweep."""
        ...

    def complete(self, memo: dict[str, Any], folder: Path) -> None:
        """Write what only the winner's record has, from the memo of its evaluation."""
        ...


def open_task(path: str, settings: dict[str, Any], payload: str = "") -> Task:
    """The task of a study, in a worker's own process.

    Args:
        path: `package.module:function`; the function makes a task from its settings.
        settings: the task's own, as JSON, stored with the study.
        payload: what the function takes besides, from who started the worker; "" for nothing.
    """
    module, _, name = path.partition(":")
    more = [payload] if payload else []
    task: Task = getattr(importlib.import_module(module), name)(settings, *more)
    return task


class Reporter:
    """What an evaluation tells while it lasts: curves, files, how it does beside the others.

    The trial's run begins with its first use, or when the evaluation has ended.

    Attributes:
        number: the trial's.
        is_best: whether a value is at least as good as all that the study has.
        should_stop: whether the user wants to stop; to be asked often.
        prunes: whether a pruner asks for reports.
    """

    def __init__(
        self,
        start: RunStart,
        tracker: Tracker,
        trial: optuna.Trial | None,
        is_best: Callable[[float], bool],
        should_stop: Callable[[], bool],
    ) -> None:
        """Args: `trial` is None where no pruner asks; the others are as above."""
        self.is_best, self.should_stop, self.prunes = is_best, should_stop, trial is not None
        self.number = int(start.tags["fmexp.trial"])
        self._start, self._tracker, self._trial = start, tracker, trial
        self._run: Run | None = None
        self._next = 1.0
        self._spent, self._last = 0.0, 0.001
        self._began = time.perf_counter()

    def describe(
        self, params: dict[str, str], tags: dict[str, str], dataset: dict[str, str] | None = None
    ) -> None:
        """Say more of the run than the point does; before anything is logged."""
        assert self._run is None, "the run has begun"
        tags = {**tags, **self._start.tags}
        self._start = replace(self._start, params=params, tags=tags, dataset=dataset)

    @property
    def run(self) -> Run:
        """The trial's run."""
        if self._run is None:
            self._run = self._tracker.start_run(self._start)
        return self._run

    @property
    def folder(self) -> Path | None:
        """Where files of the trial go; None when nothing is kept."""
        return self.run.folder

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Add a point to each named curve; all values finite."""
        self.run.log(step, metrics)

    def should_prune(self, step: int, value: float) -> bool:
        """Report a value, better where the objective would be; whether the trial is to be pruned.

        The pruner hears of steps 1, 2, 3, 5, 8, 12, ..., the same for all trials, as the median
        pruner compares them. A report costs up to milliseconds, so one is left out where reports
        would take more than 5 % of the trial's time.
        """
        if self._trial is None or step < self._next:
            return False
        while self._next <= step:
            self._next = math.ceil(self._next * REPORT_GROWTH)
        now = time.perf_counter()
        if self._spent + self._last > REPORT_SHARE * (now - self._began):
            return False
        self._trial.report(value, step)
        pruned = self._trial.should_prune()
        self._last = time.perf_counter() - now
        self._spent += self._last
        return pruned
