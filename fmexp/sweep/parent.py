"""The sweep's own run in MLflow: its progress, its winner, and what dead workers left."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from fmexp.sweep import recovery
from fmexp.sweep.evaluate import in_words
from fmexp.sweep.marks import counts
from fmexp.sweep.study import OUTCOME, trials
from fmexp.tracking import spool
from fmexp.tracking.base import Outcome, Run, RunStart, Tracker

if TYPE_CHECKING:
    from pathlib import Path

    import optuna
    from optuna.trial import FrozenTrial

    from fmexp.sweep.evaluate import Plan
    from fmexp.sweep.space import Space

WINNER = "fmexp.winner"


class Parent:
    """The parent run while a command works on its sweep.

    Attributes:
        study: what the children's trials belong to.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        plan: Plan,
        tracker: Tracker,
        start: RunStart,
        folder: Path,
    ) -> None:
        self.study = study
        self._space, self._plan, self._tracker, self._folder = space, plan, tracker, folder
        self._run: Run = tracker.start_run(start)
        self._points = 0

    @property
    def artifacts(self) -> Path | None:
        """Where the run's files go."""
        return self._run.folder

    def show_progress(self) -> None:
        """Continue the curve of the best value so far over the trials that ended, in order."""
        ended = sorted(
            (t for t in trials(self.study) if t.state.is_finished() and counts(t)),
            key=lambda t: t.datetime_complete or 0,
        )
        best: float | None = None
        for number, trial in enumerate(ended, start=1):
            best = better(self.study, best, trial)
            if number > self._points and trial.datetime_complete is not None:
                metrics = {"trials/done": float(number)}
                if best is not None:
                    metrics[self._plan.objective] = best
                self._run.log(number, metrics, trial.datetime_complete.timestamp())
        self._points = max(self._points, len(ended))

    def reclaim(self) -> None:
        """Give up trials whose worker is dead, enqueue them again, close their runs."""
        spooled = {run.key: run for run in spool.spooled_runs(self._folder)}
        for trial in recovery.reclaim_dead(self.study, self._space):
            left = spooled.get(self._plan.child_key(trial.number))
            if left is None or left.state == "open":  # else the next recorder closes it
                self._close_lost(trial)

    def finish(self, outcome: Outcome, reason: str, words: str) -> None:
        """Close the run: what the sweep came to, and which child won."""
        self.show_progress()
        ended = Counter(outcome_of(t) for t in trials(self.study) if counts(t))
        metrics = {f"trials/{name}": float(number) for name, number in ended.items()}
        links, winner = {}, winner_of(self.study)
        if winner is not None:
            links[WINNER] = self._plan.child_key(winner.number)
            words += f"\n\nWinner: [trial {winner.number}, {in_words(self._space.point(winner))}]"
            words += f"({{{WINNER}}})"
        self._run.finish(outcome, reason, metrics, {"mlflow.note.content": words}, links)

    def _close_lost(self, trial: FrozenTrial) -> None:
        """End the run of a trial that was given up, wherever it came from."""
        point = self._space.point(trial)
        start = RunStart(
            name=f"{trial.number}: {in_words(point)}",
            params={key: str(value) for key, value in point.items()},
            tags={"fmexp.trial": str(trial.number), "fmexp.sweep": self.study.study_name},
            parent=self._plan.sweep_key,
            key=self._plan.child_key(trial.number),
            may_exist=True,
        )
        lost = "its worker was lost; the same point is tried again by another trial"
        self._tracker.start_run(start).finish(Outcome.INTERRUPTED, lost)


def better(study: optuna.Study, best: float | None, trial: FrozenTrial) -> float | None:
    """The better of the best value so far and this trial's."""
    if trial.state is not TrialState.COMPLETE or trial.value is None:
        return best
    if best is None:
        return trial.value
    return min(best, trial.value) if study.direction.name == "MINIMIZE" else max(best, trial.value)


def ranking(study: optuna.Study) -> list[FrozenTrial]:
    """The completed trials that count, best first; equal ones in the order of their numbers."""
    sign = 1 if study.direction.name == "MINIMIZE" else -1
    done = [t for t in trials(study) if t.state is TrialState.COMPLETE and counts(t)]
    return sorted(done, key=lambda t: (sign * (t.value or 0.0), t.number))


def winner_of(study: optuna.Study) -> FrozenTrial | None:
    """The best trial; None while none is complete."""
    return next(iter(ranking(study)), None)


def outcome_of(trial: FrozenTrial) -> str:
    """How a trial ended, or running or waiting."""
    ended = trial.user_attrs.get(OUTCOME)
    return str(ended) if trial.state.is_finished() and ended else trial.state.name.lower()
