"""Sweeps as processes, and a look into what they leave in Optuna's journal and in MLflow."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from fmexp.cli.parser import main
from fmexp.record.tracker import MemoryTracker
from fmexp.sweep.election import is_auxiliary
from fmexp.sweep.space import Space
from fmexp.sweep.storage import open_storage
from fmexp.sweep.study import SweepPlan, SweepStudy
from fmexp.sweep.trial_status import counts, outcome_of
from fmexp.sweep.worker_process import Job
from tests.record_support import StoredRun, stored

SOAK = os.environ.get("FMEXP_SOAK") == "1"
FAST = ("data=planted", "training.epochs=20")
SLOW = ("data=planted", "training.epochs=10000000")
"""A trial that lasts for minutes, to be stopped."""


def thrice(test):
    """Run it three times: which process is first, and when it is hit, is chance."""
    return times(3)(test)


def repeated(test):
    """Run it three times; once where the slow tests run too, of which CI has ten minutes."""
    return times(1 if os.environ.get("FMEXP_SLOW") else 3)(test)


def times(n):
    """As often as that."""

    def marked(test):
        return pytest.mark.usefixtures("repetition")(
            pytest.mark.parametrize("repetition", range(n))(test)
        )

    return marked


@dataclass
class Left:
    """What a sweep left in a folder."""

    trials: list[FrozenTrial]
    space: Space
    runs: list[StoredRun] = field(default_factory=list)

    @property
    def counted(self) -> list[FrozenTrial]:
        """The trials that are among n_trials and have ended."""
        return [t for t in self.trials if counts(t) and t.state.is_finished()]

    @property
    def points(self) -> list[str]:
        """Where those were."""
        return [self.space.key(self.space.point(t)) for t in self.counted]

    @property
    def outcomes(self) -> Counter[str]:
        """How those ended."""
        return Counter(outcome_of(t) for t in self.counted)

    @property
    def running(self) -> list[FrozenTrial]:
        """Trials without an end."""
        return [t for t in self.trials if t.state is TrialState.RUNNING]

    @property
    def parent(self) -> StoredRun:
        """The only run that is no trial."""
        (parent,) = [run for run in self.runs if "mlflow.parentRunId" not in run.tags]
        return parent

    @property
    def children(self) -> dict[int, StoredRun]:
        """The trials' runs by number; each once, all under the parent."""
        runs = [run for run in self.runs if "mlflow.parentRunId" in run.tags]
        assert all(run.tags["mlflow.parentRunId"] == self.parent.run_id for run in runs)
        by_number = {int(run.tags["fmexp.trial"]): run for run in runs}
        assert len(by_number) == len(runs), "a trial has two runs"
        return by_number


def sweep_here(folder: Path, monkeypatch, capsys, *overrides: str, code: int = 0) -> str:
    """A sweep of FAST in this process that records nothing; what it prints."""
    monkeypatch.chdir(folder)
    assert main(["run", "-m", *FAST, "tracking=none", *overrides]) == code
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return printed.out


def recorded_here(folder: Path, monkeypatch, capsys, *overrides: str, code: int = 0):
    """As `sweep_here`, recorded in memory: what it prints, its own run, its trials' by number."""
    tracker = MemoryTracker(folder / "records")
    monkeypatch.setattr(Job, "open_tracker", lambda _: tracker)
    printed = sweep_here(folder, monkeypatch, capsys, *overrides, code=code)
    (parent,) = [run for run in tracker.runs if run.start.parent is None]
    children = {int(r.tags["fmexp.trial"]): r for r in tracker.runs if r is not parent}
    assert len(children) == len(tracker.runs) - 1, "a trial has two runs"
    assert {run.start.parent for run in children.values()} <= {parent.key}
    return printed, parent, children


def sweep_in(folder: Path) -> SweepStudy:
    """The only study of a folder's journal."""
    storage = open_storage(None, folder)
    (name,) = [n for n in optuna.get_all_study_names(storage) if not is_auxiliary(n)]
    return SweepStudy(storage, name)


def study_in(folder: Path) -> optuna.Study:
    """The same as Optuna has it."""
    return sweep_in(folder).optuna


def make_study(space: Space, folder: Path | None = None, direction="minimize") -> SweepStudy:
    """A study that no command made: in a folder's journal, or in memory."""
    storage = open_storage(None, folder) if folder else optuna.storages.InMemoryStorage()
    plan = SweepPlan("loss", direction, "key", 10, {})
    return SweepStudy.make(storage, "s", space, plan, [], {})


def left_in(folder: Path) -> Left:
    """Read it all."""
    study = sweep_in(folder)
    database = folder / "mlflow.db"
    return Left(study.optuna.trials, study.space, stored(database) if database.exists() else [])


def assert_in_agreement(left: Left) -> None:
    """Nothing is RUNNING, and MLflow says of each trial what the study says."""
    assert left.running == []
    assert [run.name for run in left.runs if run.status == "RUNNING"] == []
    for trial in left.counted:
        run = left.children[trial.number]
        assert run.tags["fmexp.outcome"] == outcome_of(trial)
        if trial.state is TrialState.COMPLETE:
            assert float(run.tags["fmexp.objective"]) == trial.value
    numbers = {t.number for t in left.counted}
    others = [run for number, run in left.children.items() if number not in numbers]
    assert {run.status for run in others} <= {"KILLED"}


def until(condition, seconds=120):
    """Wait for what another process will do."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def has_begun(folder: Path, trials: int = 1) -> bool:
    """Whether so many trials have a worker."""
    journal = folder / "optuna.journal"
    return journal.exists() and journal.read_text().count('"worker":"') >= trials


def processes_in(folder: Path) -> list[int]:
    """Every process that works in a folder or below: command, workers, recorders."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (entry / "cwd").readlink().is_relative_to(folder.resolve()):
                found.append(int(entry.name))
    return found


def kill_all(folder: Path, number: int = signal.SIGKILL) -> None:
    """Signal every process that works in a folder; new ones too, where they are to die."""
    while found := processes_in(folder):
        for process in found:
            with suppress(ProcessLookupError):
                os.kill(process, number)
        if number != signal.SIGKILL:
            return
        time.sleep(0.01)
