"""What a command does about workers that died, its own and those of others; all of it in one place.

Nothing here is on the way of a trial that goes well.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from fmexp.record import spool
from fmexp.record.query_status import ended_in_store
from fmexp.record.tracker import Outcome
from fmexp.sweep.failover import leases, recovery
from fmexp.sweep.trial_record import OBJECTIVE, trial_start
from fmexp.sweep.trial_status import DISCARD, MARK, REASON, REPEAT, WORKER, counts, outcome_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from optuna.trial import FrozenTrial

    from fmexp.record.tracker import RunStart, Tracker
    from fmexp.sweep.study import SweepStudy
    from fmexp.sweep.worker_process import Job

LOST_WORDS = "its worker was lost; the same point is tried again by another trial"


class Failover:
    """Keeps a study and its record right while workers die.

    Attributes:
        job: of this command's workers.
    """

    def __init__(self, study: SweepStudy, job: Job) -> None:
        """Look at the study as it is before this command works on it."""
        self._study, self.job = study, job
        self._folder, self._spool = Path(job.folder), job.spool
        self._before = {trial.number for trial in study.trials()}
        self._lost: set[int] = set()
        self._watch = leases.LeaseWatch()
        self._next = 0.0

    def settle(self) -> int:
        """Tell the study what dead workers had found but not told; how many results were saved."""
        return recovery.settle_spool(self._study, self._folder)

    def recover(self, tracker: Tracker) -> None:
        """Settle; give up the other trials of dead workers, which are run again; close their runs.

        Safe at any time, and when several do it.
        """
        self._next = time.monotonic() + leases.lease_seconds() / 6
        self.settle()
        for trial in recovery.give_up_dead(self._study, self._watch, self._ended_in_store):
            self._lost.add(trial.number)
            if self._is_unsent(trial):
                start = replace(self._start(trial), may_exist=True)
                tracker.start_run(start).finish(Outcome.INTERRUPTED, LOST_WORDS)

    def recover_if_due(self, tracker: Tracker) -> None:
        """The same, six times in the length of a lease; called often."""
        if time.monotonic() >= self._next:
            self.recover(tracker)

    def children(self, makes_missing: bool) -> dict[str, dict[str, Any]]:
        """How trials ended that were not begun and ended by this command, for MLflow to be mended.

        By run key; see `fmexp.record.tracker.Run.finish`. Those of a worker that lives are its own
        affair.

        Args:
            makes_missing: whether runs that never arrived are to be made; by one command at a
                time, where a store would take a run twice.
        """
        known = leases.leases(self._study)
        held = self._watch.look(known)
        return {
            self._study.plan.trial_key(t.number): self._child(t, known, makes_missing)
            for t in self._study.trials()
            if (t.number in self._before or t.number in self._lost)
            and t.state.is_finished()
            and t.user_attrs.get(MARK) not in (DISCARD, REPEAT)
            and t.user_attrs.get(WORKER, "") not in held
        }

    def is_ours(self, trial: FrozenTrial) -> bool:
        """Whether its record goes through the spool of this folder: else it may wait elsewhere."""
        return self._is_ours(trial, leases.leases(self._study))

    def _is_ours(self, trial: FrozenTrial, known: Mapping[str, Any]) -> bool:
        return leases.is_of(known.get(trial.user_attrs.get(WORKER, "")), self._spool)

    def _child(
        self, trial: FrozenTrial, known: Mapping[str, Any], makes_missing: bool
    ) -> dict[str, Any]:
        """What the study knows of a trial."""
        start, tags = self._start(trial), {}
        reason = trial.user_attrs.get(REASON, "")
        value = trial.value if trial.state is TrialState.COMPLETE else None
        ended = outcome_of(trial)
        outcome = Outcome(ended) if ended in {*Outcome} else Outcome.INTERRUPTED
        if not counts(trial):
            outcome, reason = Outcome.INTERRUPTED, reason or LOST_WORDS
        elif value is not None:
            tags[OBJECTIVE] = repr(value)
        return {
            "name": start.name,
            "params": start.params,
            "tags": start.tags | tags,
            "outcome": str(outcome),
            "reason": reason,
            "metrics": {} if value is None else {self._study.plan.objective: value},
            "started": _milliseconds(trial.datetime_start),
            "ended": _milliseconds(trial.datetime_complete),
            "is_wanted": makes_missing and counts(trial) and self._is_ours(trial, known),
        }

    def _start(self, trial: FrozenTrial) -> RunStart:
        """A trial's run, as far as the study knows it."""
        start = trial_start(self._study, trial.number, self._study.space.point(trial))
        return replace(start, study=None)

    def _ended_in_store(self, numbers: list[int]) -> dict[int, dict[str, str]]:
        """What MLflow knows of trials that no spool knows."""
        keys = {self._study.plan.trial_key(number): number for number in numbers}
        lost = keys.keys() - {run.key for run in spool.spooled_runs(self._folder)}
        if not lost or not self.job.uri:
            return {}
        found = ended_in_store(self.job.uri, self.job.experiment, self._folder, sorted(lost))
        return {keys[key]: tags for key, tags in found.items()}

    def _is_unsent(self, trial: FrozenTrial) -> bool:
        """Whether nobody else closes its run: a dead worker's spool is closed by any recorder."""
        key = self._study.plan.trial_key(trial.number)
        states = [run.state for run in spool.spooled_runs(self._folder) if run.key == key]
        return all(state == "open" for state in states)


def _milliseconds(moment: datetime | None) -> int:
    return int((moment.timestamp() if moment else time.time()) * 1000)
