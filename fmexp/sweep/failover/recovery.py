"""After a crash: trials of dead workers are told what they found, or given up and run again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.trial import TrialState

from fmexp.errors import FmexpError, StoreError
from fmexp.record import spool
from fmexp.record.passwords import without_password
from fmexp.record.tracker import Outcome
from fmexp.sweep.failover import leases
from fmexp.sweep.storage import answering, open_storage
from fmexp.sweep.study import SweepStudy
from fmexp.sweep.task import Evaluation
from fmexp.sweep.trial_record import OBJECTIVE
from fmexp.sweep.trial_status import WORKER, has_taken

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from optuna.trial import FrozenTrial

    EndedInStore = Callable[[list[int]], Mapping[int, dict[str, str]]]
    """From trial numbers to the tags of those whose run has ended in MLflow."""


def settle_spool(study: SweepStudy, folder: Path) -> int:
    """Tell the study what dead workers had found but not told; how many results were saved.

    The study is the truth: a trial that it has given up stays given up.
    """
    saved = 0
    by_number = {trial.number: trial for trial in study.trials()}
    for run in spool.spooled_runs(folder):
        start, end = run.record.start, run.record.end
        if not start.study or start.study["name"] != study.name:
            continue
        if run.state not in ("unsettled", "unsent") or end is None:
            continue
        trial = by_number.get(int(start.study["trial"]))
        ended = _evaluation(end.outcome, end.reason, end.tags)
        accepted = trial is not None and _take(study, trial, ended)
        saved += accepted
        if run.state == "unsettled":
            spool.settle_for_dead(run, accepted)
    return saved


def settle_abandoned(folder: Path) -> list[str]:
    """Settle what dead workers left under a folder, of whatever study; what went wrong, in words.

    Where the study itself is gone, the result stands: nothing contradicts it.
    """
    left = [run for run in spool.spooled_runs(folder) if run.state == "unsettled"]
    troubles = []
    for storage, name in {_home(run) for run in left}:
        try:
            study = _study(storage, name, folder)
        except FmexpError as error:
            troubles.append(str(error))
            continue
        if study is not None:
            settle_spool(study, folder)
            continue
        for run in left:
            if _home(run) == (storage, name):
                spool.settle_for_dead(run, accepted=True)
    return troubles


def _home(run: spool.SpooledRun) -> tuple[str, str]:
    """Storage and name of the study that a run's trial belongs to."""
    study = run.record.start.study or {}
    return study["storage"], study["name"]


def _study(storage: str, name: str, folder: Path) -> SweepStudy | None:
    """The study; None where it is gone. Makes no file.

    Raises:
        StoreError: it does not answer, or lies outside `folder`: whoever can write to the spool
            could name any file or server.
    """
    path = storage.removeprefix("sqlite:///").removeprefix("journal://")
    if path == storage or not Path(path).is_relative_to(folder.resolve()):
        raise StoreError(
            f"whether the study {name} has this result is known to {without_password(storage)} "
            "alone: run the sweep's command again, which opens it"
        )
    if path != storage and not Path(path).exists():
        return None
    with answering(storage):
        opened = open_storage(storage, folder)
        known = optuna.get_all_study_names(opened)
        return SweepStudy(opened, name, storage) if name in known else None


def give_up_dead(
    study: SweepStudy, watch: leases.LeaseWatch, ended_in_store: EndedInStore
) -> list[FrozenTrial]:
    """Give up every running trial whose worker is dead, and enqueue its point again.

    Safe at any time and from several processes at once. Returns the trials that we gave up.
    """
    dead = of_dead_workers(study, watch)
    # a run begins when its point is whole: only then may MLflow know more than the study
    begun = [t.number for t in dead if study.space.is_whole(study.space.point(t))]
    known = ended_in_store(begun) if begun else {}
    lost = []
    for trial in dead:
        tags = known.get(trial.number, {})
        outcome = tags.get("fmexp.outcome")
        if outcome:
            ended = _evaluation(Outcome(outcome), tags.get("fmexp.reason", ""), tags)
            if _take(study, trial, ended):
                continue
        if study.give_up(trial.number):
            lost.append(trial)
    return lost


def _evaluation(outcome: Outcome, reason: str, tags: Mapping[str, str]) -> Evaluation:
    """What a trial came to, from its record."""
    text = tags.get(OBJECTIVE)
    return Evaluation(outcome, None if text is None else float(text), reason)


def _take(study: SweepStudy, trial: FrozenTrial, ended: Evaluation) -> bool:
    """Whether the study has this result: it is told it, or it had been told before the crash."""
    if ended.outcome is Outcome.COMPLETED and ended.value is None:
        return False
    if trial.state is TrialState.RUNNING:
        return study.tell(trial.number, ended)
    return has_taken(trial, ended.outcome, ended.value)


def of_dead_workers(study: SweepStudy, watch: leases.LeaseWatch) -> list[FrozenTrial]:
    """Running trials that nobody will finish."""
    running = [t for t in study.trials() if t.state is TrialState.RUNNING]
    if not running:
        return []
    known = leases.leases(study)
    unsigned = {f"trial {t.number}": None for t in running if WORKER not in t.user_attrs}
    held = watch.look(known | unsigned)
    # who asks for a trial has a lease, and signs at once: an unsigned one has as long as a lease
    lives = bool(held & known.keys())
    return [
        t
        for t in running
        if t.user_attrs.get(WORKER, f"trial {t.number}" if lives else None) not in held
    ]
