"""Whatever is killed or stopped, no finished trial is lost, doubled or trained again."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import sqlite3
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest
from optuna.trial import TrialState

from fmexp.record.spool import spooled_runs
from fmexp.sweep.failover.leases import PREFIX
from tests.record_support import store_folder, stored  # noqa: F401 -- a fixture
from tests.sweep_support import (
    FAST,
    SOAK,
    assert_in_agreement,
    has_begun,
    kill_all,
    left_in,
    processes_in,
    study_in,
    sweep_in,
    thrice,
    until,
)

ROUNDS, KILLS, TOTAL = (10, 5, 60) if SOAK else (3, 1, 8)
SWEEP = ("run", "-m", "data=planted", "training.epochs=1500", "hydra.sweeper.n_jobs=2",
         f"hydra.sweeper.n_trials={TOTAL}", "hydra.sweeper.relaunch=20")  # fmt: skip

GIBBS = (
    "backend=gibbs",
    "training.epochs=200",
    "model.k=range(1,9)",
    "backend.burn_in=range(10,60)",
)


@pytest.fixture
def folder(fmexp, store_folder):  # noqa: F811
    """A folder with an empty store; whatever still runs there dies at the end."""
    yield fmexp.folder
    kill_all(fmexp.folder)


def finished(folder) -> dict[int, tuple]:
    """How trials have ended: in the study, or in the spool of a process that is dead."""
    trials = [t for t in study_in(folder).trials if t.state.is_finished()]
    told = {t.number: (t.state, t.value) for t in trials}
    for run in spooled_runs(folder):
        number = int(run.record.start.tags.get("fmexp.trial", -1))
        if run.state == "unsettled" and number not in told:
            told[number] = (TrialState.COMPLETE, float(run.record.end.tags["fmexp.objective"]))
    return told


@pytest.mark.parametrize("round_number", range(ROUNDS))
def test_kills_of_everything_lose_and_double_nothing(fmexp, folder, round_number):
    kill_and_go_on(fmexp, folder, random.Random(round_number + 17 * TOTAL), SWEEP)


@pytest.mark.skipif(not SOAK, reason="minutes: make soak")
@pytest.mark.parametrize("round_number", range(3))
def test_kills_of_a_sweep_of_gibbs_lose_and_double_nothing(fmexp, folder, round_number):
    kill_and_go_on(fmexp, folder, random.Random(round_number), (*SWEEP, *GIBBS))


def kill_and_go_on(fmexp, folder, dice, sweep):
    """Kill all processes of a sweep at random moments, end it, and look at what it left."""
    known = {}
    for kill in range(KILLS):
        before = len(study_in(folder).trials) if kill else 0
        command = fmexp.start(*sweep)
        until(lambda n=before, c=command: has_begun(folder, n + 1) or c.poll() is not None)
        time.sleep(dice.uniform(0, 1.5))
        kill_all(folder)
        command.communicate()
        known |= finished(folder)
    fmexp(*sweep)
    left = left_in(folder)
    assert len(left.counted) == len(set(left.points)) == TOTAL
    assert_in_agreement(left)
    now = {t.number: (t.state, t.value) for t in left.trials}
    assert {number: now[number] for number in known} == known
    assert len(left.children) >= TOTAL
    assert spooled_runs(folder) == []
    winner = left.children[min(left.counted, key=lambda t: t.value).number]
    assert {"curve.png", "predictions.csv"} <= {p.name for p in winner.artifacts.iterdir()}
    retried = [t.user_attrs["retry_of"] for t in left.trials if "retry_of" in t.user_attrs]
    assert len(set(retried)) == len(retried)


def test_a_torn_journal_is_cut_and_the_sweep_goes_on(fmexp):
    sweep = ("run", "-m", *FAST, "tracking=none")
    fmexp(*sweep, "hydra.sweeper.n_trials=3")
    for n, torn in enumerate(('{"op_code":6,"worker_id":"torn', '{"op_code":6', "{"), 4):
        with (fmexp.folder / "optuna.journal").open("a") as file:
            file.write(torn)
        fmexp(*sweep, f"hydra.sweeper.n_trials={n}")
        assert len(set(left_in(fmexp.folder).points)) == n
        aside = max(fmexp.folder.glob("optuna.journal.torn-*"), key=lambda p: p.stat().st_mtime_ns)
        assert aside.read_text() == torn


def stands_still(process: int) -> bool:
    """Whether every thread is stopped: one in the middle of a call to the system first ends it."""
    threads = Path(f"/proc/{process}/task").glob("*/stat")
    with suppress(OSError):  # one has just ended
        return all(thread.read_text().rpartition(")")[2].split()[0] == "T" for thread in threads)
    return False


LOCKS = ("optuna.journal", ".fmexp/store.lock", ".fmexp/spool/.lock")
"""Files that processes of a folder lock for a moment each."""


def stop_all(folder):
    """SIGSTOP, but not to one that has a lock: all others would wait for it."""
    while True:
        kill_all(folder, signal.SIGSTOP)
        until(lambda: all(map(stands_still, processes_in(folder))))
        store = sqlite3.connect(folder / "mlflow.db", timeout=0)
        with (
            closing(store),
            ExitStack() as held,
            suppress(BlockingIOError, sqlite3.OperationalError),
        ):
            for name in LOCKS:
                fcntl.flock(
                    held.enter_context((folder / name).open("a")), fcntl.LOCK_EX | fcntl.LOCK_NB
                )
            store.execute("begin exclusive")  # which one that reads prevents too
            return
        kill_all(folder, signal.SIGCONT)
        time.sleep(0.05)


@thrice
def test_a_worker_stopped_past_its_lease_is_refused_on_both_sides(fmexp, folder):
    fmexp.env["FMEXP_LEASE_SECONDS"] = "2"
    sweep = ("run", "-m", "data=planted", "training.epochs=6000", "model.k=4",
             "hydra.sweeper.n_trials=2")  # fmt: skip
    stopped = fmexp.start(*sweep)
    until(lambda: has_begun(folder))
    stop_all(folder)
    assert processes_in(folder)
    fmexp(*sweep)
    before = {t.number: (t.state, t.value) for t in study_in(folder).trials}
    assert before[0] == (TrialState.FAIL, None)
    kill_all(folder, signal.SIGCONT)
    out, err = stopped.communicate(timeout=240)
    assert stopped.returncode == 0, out + err
    left = left_in(folder)
    assert {t.number: (t.state, t.value) for t in left.trials} == before
    assert left.children[0].status == "KILLED"
    assert len(left.counted) == 2
    assert_in_agreement(left)


def busy_workers(folder) -> set[int]:
    """The processes that have a trial."""
    study = sweep_in(folder)
    running = [t for t in study.trials() if t.state is TrialState.RUNNING]
    ids = {t.user_attrs["worker"] for t in running if "worker" in t.user_attrs}
    return {study.attributes()[f"{PREFIX}{each}"]["pid"] for each in ids}


def test_who_is_left_runs_a_killed_workers_trial_again(fmexp, folder):
    sweep = ("run", "-m", "data=planted", "backend=torch_adam", "training.epochs=1500",
             "tracking=none", "hydra.sweeper.n_trials=5", "hydra.sweeper.n_jobs=2")  # fmt: skip
    fmexp.env["FMEXP_LEASE_SECONDS"] = "3"
    command = fmexp.start(*sweep)
    until(lambda: has_begun(folder, 2))
    until(lambda: len(busy_workers(folder)) == 2)
    os.kill(max(busy_workers(folder)), signal.SIGKILL)
    out, err = command.communicate(timeout=240)
    assert command.returncode == 0, err
    assert "5 of 5 trials" in out
    left = left_in(folder)
    assert [t.user_attrs["mark"] for t in left.trials if t.state is TrialState.FAIL] == ["lost"]
    assert len(set(left.points)) == 5


def test_mlflow_is_mended_from_the_study_in_both_directions(fmexp, folder):
    sweep = ("run", "-m", *FAST)
    fmexp(*sweep, "tracking=none", "hydra.sweeper.n_trials=2")
    fmexp(*sweep, "hydra.sweeper.n_trials=3")
    client = fmexp.store
    child = left_in(folder).children[2]
    client.update_run(child.run_id, status="RUNNING")
    fmexp(*sweep, "hydra.sweeper.n_trials=3")
    left = left_in(folder)
    assert sorted(left.children) == [0, 1, 2]
    assert_in_agreement(left)
    for trial in left.counted:
        assert left.children[trial.number].metrics["best/val_mse"][-1][1] == trial.value


@pytest.mark.parametrize("study_is_gone", [False, True])
def test_doctor_settles_what_a_killed_sweep_left(fmexp, folder, study_is_gone):
    """A worker dies between its trial's end and the study's hearing of it."""
    fmexp.env["FMEXP_LEASE_SECONDS"] = "600"  # no renewal while nobody may write
    command = fmexp.start(
        "run", "-m", "data=planted", "training.epochs=8000", "hydra.sweeper.n_trials=2",
        "hydra.sweeper.seeds=2",
    )  # fmt: skip
    trials = lambda: [r for r in spooled_runs(folder) if r.record.start.study]  # noqa: E731
    until(trials)
    with journal_held(folder):
        until(lambda: trials()[0].record.end)
        kill_all(folder)
    command.communicate()
    (left,) = trials()
    assert left.state == "unsettled"
    if study_is_gone:
        (folder / "optuna.journal").unlink()
    fmexp("doctor")
    runs = {run.tags.get("fmexp.trial"): run for run in stored(folder / "mlflow.db")}
    assert {n: run.status for n, run in runs.items()} == {None: "KILLED", "0": "FINISHED"}
    assert spooled_runs(folder) == []
    if not study_is_gone:
        assert repr(study_in(folder).trials[0].value) == runs["0"].tags["fmexp.objective"]


@contextmanager
def journal_held(folder):
    """Nobody else can write to the study."""
    with (folder / "optuna.journal").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
