"""The sweep's own run in the record: its progress while it lasts, its winner at the end."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from fmexp.record.tracker import Outcome
from fmexp.sweep.space import in_words
from fmexp.sweep.trial_record import WINNER
from fmexp.sweep.trial_status import COMPLETED_WINNER, MEMO, outcome_of

if TYPE_CHECKING:
    from pathlib import Path

    from optuna.trial import FrozenTrial

    from fmexp.record.tracker import RunStart, Tracker
    from fmexp.sweep.study import SweepStudy
    from fmexp.sweep.task import Task


class SweepRun:
    """The parent run while a command works on its sweep."""

    def __init__(self, study: SweepStudy, task: Task, tracker: Tracker, start: RunStart) -> None:
        """Begin the run, or go on with it."""
        self._study, self._task = study, task
        self._run = tracker.start_run(start)
        self._points = 0

    @property
    def folder(self) -> Path | None:
        """Where the run's files go."""
        return self._run.folder

    def show_progress(self) -> None:
        """Continue the curve of the best value so far over the trials that ended, in order."""
        ended = self._study.ended()
        best: float | None = None
        for number, trial in enumerate(ended, start=1):
            best = self._study.better(best, trial.value)
            if number > self._points and trial.datetime_complete is not None:
                metrics = {"trials/done": float(number)}
                if best is not None:
                    metrics[self._study.plan.objective] = best
                self._run.log(number, metrics, trial.datetime_complete.timestamp())
        self._points = max(self._points, len(ended))

    def finish(
        self, outcome: Outcome, reason: str, words: str, children: dict[str, dict[str, Any]]
    ) -> None:
        """Close the run: what the sweep came to, and which child won.

        Args:
            outcome: how the sweep ended.
            reason: why.
            words: what it is and how far it has come, for the top of its page.
            children: see `fmexp.record.tracker.Run.finish`.
        """
        self.show_progress()
        counted = Counter(outcome_of(t) for t in self._study.counted())
        metrics = {f"trials/{name}": float(number) for name, number in counted.items()}
        links, winner = {}, self._study.winner()
        if winner is not None:
            links[WINNER] = self._study.plan.trial_key(winner.number)
            point = in_words(self._study.space.point(winner))
            words += f"\n\nWinner: [trial {winner.number}, {point}]({{{WINNER}}})"
            self._complete(winner)
        tags = {"mlflow.note.content": words}
        self._run.finish(outcome, reason, metrics, tags, links, children=children)
        if winner is not None:
            self._study.set_attribute(COMPLETED_WINNER, winner.number)

    def fail(self, reason: str) -> None:
        """Close the run though the study cannot be read."""
        self._run.finish(Outcome.FAILED, reason)

    def _complete(self, winner: FrozenTrial) -> None:
        """Add to the winner's record what only the winner has; on disk with the run's end."""
        memo = winner.system_attrs.get(MEMO)
        if memo is None or self._study.attributes().get(COMPLETED_WINNER) == winner.number:
            return
        folder = self._run.attach(self._study.plan.trial_key(winner.number))
        if folder is not None:
            self._task.complete(memo, folder)
