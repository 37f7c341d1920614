"""The sweep's own run in the record: its progress while it lasts, its winner at the end."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

from fmexp.record.passwords import without_password
from fmexp.record.tracker import Outcome
from fmexp.sweep.space import in_words
from fmexp.sweep.trial_record import WINNER
from fmexp.sweep.trial_status import COMPLETED_WINNER, MEMO, PARENT, outcome_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.trial import FrozenTrial

    from fmexp.record.tracker import Run, RunStart, Tracker
    from fmexp.sweep.election import Election
    from fmexp.sweep.failover.failover import Failover
    from fmexp.sweep.study import SweepStudy
    from fmexp.sweep.task import Task


class SweepRun:
    """The parent run while a command works on its sweep.

    Of several commands on one study one begins the run, and tells the others its id through the
    study; they take it up. Which one, is a matter of the study's election.
    """

    def __init__(
        self,
        study: SweepStudy,
        task: Task,
        tracker: Tracker,
        start: RunStart,
        files: dict[str, str],
        election: Election,
        failover: Failover,
    ) -> None:
        """Begin the run if that is up to us, or it is there.

        Args:
            study: the sweep's.
            task: completes the winner's record.
            tracker: where the run goes.
            start: the run as it begins, or goes on.
            files: texts to keep with it, by name.
            election: decides who begins it.
            failover: knows whose spool lies where.
        """
        self._study, self._task, self._tracker = study, task, tracker
        self._start, self._files = start, files
        self._election, self._failover = election, failover
        job = failover.job
        store = hashlib.sha256(f"{without_password(job.uri)} {job.experiment}".encode())
        self._attribute = f"{PARENT}:{store.hexdigest()[:8]}"
        self._run: Run | None = None
        self._is_agreed = False
        self._end: Callable[[Run], None] | None = None
        self._points = 0
        self.take_part()

    def take_part(self) -> None:
        """Begin the run when that is up to us or it is there; to be called until the end."""
        if self._is_agreed:
            return
        if not self._failover.job.uri:
            self._begin()
            self._agree()
            return
        parent = self._study.attributes().get(self._attribute, "")
        if self._run is None and (parent or self._election.is_won()):
            self._begin()
        if self._run is None:
            return
        if not parent and (made := self._tracker.run_id(self._start.key)):
            self._study.set_attribute(self._attribute, made)
            parent = self._study.attributes()[self._attribute]
        if parent:
            if self._start.elected:
                self._run.confirm(parent)
            self._agree()

    def _agree(self) -> None:
        self._is_agreed = True
        self._election.tidy()

    def _begin(self) -> None:
        self._run = self._tracker.start_run(self._start)
        if self._run.folder is not None:
            for name, text in self._files.items():
                (self._run.folder / name).write_text(text, encoding="utf-8")
        if self._end:
            self._end(self._run)

    def show_progress(self) -> None:
        """Continue the curve of the best value so far over the trials that ended, in order."""
        if self._run is None:
            return
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
        self._finish(
            lambda run: run.finish(outcome, reason, metrics, tags, links, children=children)
        )
        if winner is not None and self._run is not None and self._failover.is_ours(winner):
            self._study.set_attribute(COMPLETED_WINNER, winner.number)

    def fail(self, reason: str) -> None:
        """Close the run though the study cannot be read."""
        self._finish(lambda run: run.finish(Outcome.FAILED, reason))

    def _finish(self, end: Callable[[Run], None]) -> None:
        """End the run, now or when it is begun: who leads may not have made it yet."""
        self._end = end
        if self._run is not None:
            end(self._run)

    def _complete(self, winner: FrozenTrial) -> None:
        """Add to the winner's record what only the winner has; on disk with the run's end."""
        memo = winner.system_attrs.get(MEMO)
        completed = self._study.attributes().get(COMPLETED_WINNER)
        if memo is None or self._run is None or completed == winner.number:
            return
        folder = self._run.attach(self._study.plan.trial_key(winner.number))
        if folder is not None:
            self._task.complete(memo, folder)
