"""After a crash: trials of dead workers are told what they found, or given up and run again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from fmexp.sweep import leases
from fmexp.sweep.evaluate import OBJECTIVE
from fmexp.sweep.study import OUTCOME, WORKER, reclaim, tell, trials
from fmexp.tracking import spool

if TYPE_CHECKING:
    from pathlib import Path

    import optuna
    from optuna.trial import FrozenTrial

    from fmexp.sweep.space import Space


def settle_spool(study: optuna.Study, folder: Path) -> int:
    """Tell the study what dead workers had found but not told; how many results were saved.

    The study is the truth: a trial that it has given up stays given up.
    """
    saved = 0
    by_number = {trial.number: trial for trial in trials(study)}
    for run in spool.spooled_runs(folder):
        start, end = run.record.start, run.record.end
        if run.state != "unsettled" or not start.study or start.study["name"] != study.study_name:
            continue
        assert end is not None
        trial = by_number.get(int(start.study["trial"]))
        accepted = trial is not None and _take(study, trial, end)
        spool.settle_for_dead(run, accepted)
        saved += accepted
    return saved


def _take(study: optuna.Study, trial: FrozenTrial, end: spool.End) -> bool:
    """Whether the study has this result: it is told it, or it had been told before the crash."""
    text = end.tags.get(OBJECTIVE)
    value = None if text is None else float(text)
    if trial.state is TrialState.RUNNING:
        return tell(study, trial.number, end.outcome, value, end.reason)
    if trial.state is TrialState.COMPLETE:
        return trial.value == value
    return trial.user_attrs.get(OUTCOME) == end.outcome


def reclaim_dead(study: optuna.Study, space: Space) -> list[FrozenTrial]:
    """Give up every running trial whose worker is dead, and enqueue its point again.

    Safe at any time and from several processes at once. Returns the trials that we gave up.
    """
    now = time.time()
    known = leases.leases(study)
    dead = []
    for trial in trials(study):
        if trial.state is not TrialState.RUNNING:
            continue
        worker = trial.user_attrs.get(WORKER)
        began = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
        if worker is None and now < began + leases.lease_seconds():
            continue  # it was asked for just now
        if leases.is_alive(known.get(worker or ""), now):
            continue
        if reclaim(study, space, trial):
            dead.append(trial)
    return dead
