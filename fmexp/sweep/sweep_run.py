"""The sweep's own run in MLflow: its progress, its winner, and what dead workers left."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from fmexp.experiment.trial import OBJECTIVE, draw_winner, in_words
from fmexp.record import spool
from fmexp.record.query_status import ended_in_store
from fmexp.record.tracker import Outcome, Run, RunStart, Tracker
from fmexp.sweep.attributes import MEMO, PICTURED, keep, kept
from fmexp.sweep.failover import leases, recovery
from fmexp.sweep.study import OUTCOME, REASON, WORKER, trials
from fmexp.sweep.trial_status import DISCARD, MARK, REPEAT, counts

if TYPE_CHECKING:
    from datetime import datetime

    import optuna
    from optuna.trial import FrozenTrial

    from fmexp.experiment.trial_plan import Plan
    from fmexp.sweep.space import Space
    from fmexp.sweep.worker import Job

WINNER = "fmexp.winner"
LOST_WORDS = "its worker was lost; the same point is tried again by another trial"


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
        job: Job,
    ) -> None:
        self.study = study
        self._space, self._plan, self._tracker = space, plan, tracker
        self._job, self._folder = job, Path(job.folder)
        self._before = {trial.number for trial in trials(study)}
        self._lost: set[int] = set()
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
        """Tell the study what dead workers found; give up their other trials, close their runs."""
        recovery.settle_spool(self.study, self._space, self._folder)
        for trial in recovery.reclaim_dead(self.study, self._space, self._ended_in_store):
            self._lost.add(trial.number)
            if self._is_unsent(trial):
                self._close_lost(trial)

    def _ended_in_store(self, numbers: list[int]) -> dict[int, dict[str, str]]:
        """What MLflow knows of trials that no spool knows."""
        keys = {self._plan.child_key(number): number for number in numbers}
        lost = keys.keys() - {run.key for run in spool.spooled_runs(self._folder)}
        if not lost or not self._job.uri:
            return {}
        found = ended_in_store(self._job.uri, self._job.experiment, self._folder, sorted(lost))
        return {keys[key]: tags for key, tags in found.items()}

    def _is_unsent(self, trial: FrozenTrial) -> bool:
        """Whether nobody else closes its run: a dead worker's spool is closed by any recorder."""
        key = self._plan.child_key(trial.number)
        states = [run.state for run in spool.spooled_runs(self._folder) if run.key == key]
        return all(state == "open" for state in states)

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
            self._complete(winner)
        tags = {"mlflow.note.content": words}
        self._run.finish(outcome, reason, metrics, tags, links, children=self._children())
        if winner is not None:
            keep(self.study, PICTURED, winner.number)

    def _complete(self, winner: FrozenTrial) -> None:
        """Add to the winner's record what only the winner has; on disk with the run's end."""
        memo = winner.system_attrs.get(MEMO)
        if memo is None or kept(self.study).get(PICTURED) == winner.number:
            return
        folder = self._run.attach(self._plan.child_key(winner.number))
        if folder is not None:
            draw_winner(folder, memo)

    def fail(self, reason: str) -> None:
        """Close the run though the study cannot be read."""
        self._run.finish(Outcome.FAILED, reason)

    def _children(self) -> dict[str, dict[str, Any]]:
        """How trials ended that were not begun and ended by this command, for MLflow to be mended.

        Those of a worker that lives are its own affair.
        """
        known, now = leases.leases(self.study), time.time()
        return {
            self._plan.child_key(t.number): self._child(t)
            for t in trials(self.study)
            if (t.number in self._before or t.number in self._lost)
            and t.state.is_finished()
            and t.user_attrs.get(MARK) not in (DISCARD, REPEAT)
            and not leases.is_alive(known.get(t.user_attrs.get(WORKER, "")), now)
        }

    def _child(self, trial: FrozenTrial) -> dict[str, Any]:
        """What the study knows of a trial."""
        reason = trial.user_attrs.get(REASON, "")
        value = trial.value if trial.state is TrialState.COMPLETE else None
        outcome = Outcome(trial.user_attrs.get(OUTCOME, Outcome.INTERRUPTED))
        if not counts(trial):
            outcome, reason = Outcome.INTERRUPTED, reason or LOST_WORDS
        return {
            **self._described(trial),
            "outcome": str(outcome),
            "reason": reason,
            "metrics": {} if value is None else {self._plan.objective: value},
            "started": _milliseconds(trial.datetime_start),
            "ended": _milliseconds(trial.datetime_complete),
            "is_wanted": counts(trial),
        }

    def _described(self, trial: FrozenTrial) -> dict[str, Any]:
        """Name, params and tags of a trial's run, as far as the study knows them."""
        point = self._space.point(trial)
        tags = {"fmexp.trial": str(trial.number), "fmexp.sweep": self.study.study_name}
        if trial.state is TrialState.COMPLETE and counts(trial):
            tags[OBJECTIVE] = repr(trial.value)
        return {
            "name": f"{trial.number}: {in_words(point)}",
            "params": {key: str(value) for key, value in point.items()},
            "tags": tags,
        }

    def _close_lost(self, trial: FrozenTrial) -> None:
        """End the run of a trial that was given up, wherever it came from."""
        start = RunStart(
            **self._described(trial),
            parent=self._plan.sweep_key,
            key=self._plan.child_key(trial.number),
            may_exist=True,
        )
        self._tracker.start_run(start).finish(Outcome.INTERRUPTED, LOST_WORDS)


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


def _milliseconds(moment: datetime | None) -> int:
    return int((moment.timestamp() if moment else time.time()) * 1000)
