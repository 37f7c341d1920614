"""Whether a worker lives is known from its lease: by process here, by time elsewhere."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import optuna
import pytest
from optuna.study import StudyDirection

from fmexp.record.spool import folder_id
from fmexp.record.tracker import Outcome
from fmexp.sweep import interrupt, launch
from fmexp.sweep.election import Election
from fmexp.sweep.failover.failover import Failover
from fmexp.sweep.failover.leases import (
    Lease,
    LeaseWatch,
    is_of,
    leases,
    process_start,
    this_process,
)
from fmexp.sweep.failover.recovery import give_up_dead, of_dead_workers
from fmexp.sweep.space import Dimension, Space
from fmexp.sweep.task import Evaluation
from tests.sweep_support import make_study

SPACE = Space([Dimension("x", "float", 0.0, 1.0)])
WORKER = """
import sys
from pathlib import Path
from fmexp.sweep.failover.leases import Lease
from fmexp.sweep.storage import open_storage
from fmexp.sweep.study import SweepStudy
with Lease(SweepStudy(open_storage(None, Path()), "s")) as lease:
    print(lease.id, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def study(tmp_path):
    return make_study(SPACE, tmp_path)


@pytest.fixture
def start_worker(tmp_path, study, monkeypatch):
    """Starts a process with a lease of so many seconds; returns it and its id."""
    started = []

    def start(seconds):
        monkeypatch.setenv("FMEXP_LEASE_SECONDS", str(seconds))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        child = subprocess.Popen([sys.executable, "-c", WORKER], cwd=tmp_path, **pipes)
        started.append(child)
        return child, child.stdout.readline().strip()

    yield start
    for child in started:
        child.kill()
        child.communicate()


def until(condition, seconds=30):
    """Wait for what another process will do."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def holders(study, watch=None):
    """The workers that hold a lease, as a process sees it that looks for the first time."""
    return (watch or LeaseWatch()).look(leases(study))


def test_worker_lives_until_it_says_that_it_ends(study):
    with Lease(study) as lease:
        assert holders(study) == {lease.id}
    assert holders(study) == set()


def test_killed_worker_is_dead_at_once_though_its_lease_runs(study, start_worker):
    child, worker = start_worker(600)
    assert holders(study) == {worker}
    child.send_signal(signal.SIGKILL)
    until(lambda: not holders(study))  # still a zombie
    assert child.wait() == -signal.SIGKILL
    assert holders(study) == set()
    assert not leases(study)[worker]["has_ended"]


def test_stopped_worker_loses_its_lease_and_has_it_again_when_it_goes_on(study, start_worker):
    child, _ = start_worker(1.5)
    watch = LeaseWatch()
    child.send_signal(signal.SIGSTOP)
    until(lambda: not holders(study, watch))
    child.send_signal(signal.SIGCONT)
    until(lambda: holders(study, watch))


def test_lease_is_renewed_before_it_runs_out(study, start_worker):
    _, worker = start_worker(3)
    watch = LeaseWatch()

    def is_renewed():
        assert holders(study, watch) == {worker}
        return leases(study)[worker]["renewals"] == 4

    until(is_renewed)


def test_process_number_that_is_somebody_elses_now_is_no_life():
    mine = {**this_process(), "started": process_start(this_process()["pid"])}
    assert LeaseWatch().look({"a": mine})
    assert not LeaseWatch().look({"a": {**mine, "started": "12345"}})
    assert not LeaseWatch().look({"a": {**mine, "pid": 2**22 + 1, "started": ""}})


@pytest.fixture
def clock(monkeypatch):
    """The observer's monotonic clock, to be set; a lease lasts 30 s."""
    now = SimpleNamespace(seconds=1000.0)
    fake = SimpleNamespace(monotonic=lambda: now.seconds)
    monkeypatch.setattr("fmexp.sweep.failover.leases.time", fake)
    return now


FOREIGN = {"host": "other", "boot": "b", "pid": 1, "started": "1"}


def looks(watch, clock, seconds, leases):
    """Who holds a lease at each of these moments."""
    held = []
    for clock.seconds in seconds:
        held.append(watch.look({"a": leases}))
    return held


def test_worker_of_another_machine_is_judged_by_whether_its_lease_moves(clock):
    watch, lease = LeaseWatch(), {**FOREIGN, "renewals": 1}
    assert looks(watch, clock, (1000, 1010, 1020, 1029), lease) == [{"a"}] * 4
    assert looks(watch, clock, (1030,), lease) == [set()]
    assert looks(watch, clock, (1040, 1050, 1060, 1069), {**lease, "renewals": 2}) == [{"a"}] * 4
    assert looks(watch, clock, (1070,), {**lease, "renewals": 2}) == [set()]


def test_no_lease_is_over_because_nobody_could_look(clock):
    """The storage was away for an hour: its workers could not renew, we could not look."""
    watch, lease = LeaseWatch(), {**FOREIGN, "renewals": 1}
    assert looks(watch, clock, (1000, 4600, 4610, 4620), lease) == [{"a"}] * 4
    assert looks(watch, clock, (4630,), lease) == [set()]


def test_clocks_an_hour_apart_lose_no_trial_and_keep_none(study, monkeypatch):
    """The worker's clock is an hour ahead: a dead one's trial would have been kept that long."""
    with monkeypatch.context() as ahead:
        ahead.setattr("time.time", lambda now=time.time: now() + 3600)
        study.ask("a")
        study.set_attribute("worker:a", {**FOREIGN, "renewals": 1})
    monkeypatch.setenv("FMEXP_LEASE_SECONDS", "0.4")
    watch, lives = LeaseWatch(), lambda: not of_dead_workers(study, watch)
    for renewals in range(2, 8):
        study.set_attribute("worker:a", {**FOREIGN, "renewals": renewals})
        assert lives()
        time.sleep(0.1)
    until(lambda: not lives())
    assert [t.number for t in give_up_dead(study, watch, lambda _: {})] == [0]


def test_start_of_a_process_is_read_past_any_name(tmp_path):
    odd = tmp_path / "a) S 1 (b"
    odd.symlink_to("/bin/cat")
    child = subprocess.Popen([odd], stdin=subprocess.PIPE)
    before, after = process_start(child.pid), process_start(this_process()["pid"])
    child.communicate()
    assert int(before) >= int(after)
    assert process_start(child.pid) == ""


def test_renewal_goes_on_after_the_store_was_away(monkeypatch):
    monkeypatch.setenv("FMEXP_LEASE_SECONDS", "0.03")
    written = []

    def write(_, value):
        written.append(value)
        if len(written) == 2:
            raise OSError("away")

    with Lease(SimpleNamespace(set_attribute=write)):
        until(lambda: len(written) >= 4)
    assert written[-1]["has_ended"]


def test_threads_that_share_a_storage_each_have_their_lease(study, monkeypatch):
    monkeypatch.setenv("FMEXP_LEASE_SECONDS", "0.06")
    held = []
    threads = [
        threading.Thread(target=lambda: held.append(Lease(study).__enter__())) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert leases(study).keys() == {lease.id for lease in held}
    for lease in held:
        lease.__exit__()
    assert all(lease["has_ended"] for lease in leases(study).values())


def test_trial_that_nobody_signed_is_reclaimed_at_once_where_nobody_lives(study):
    study.optuna.ask()  # by a worker that died before it could sign it
    (lost,) = give_up_dead(study, LeaseWatch(), lambda _: {})
    assert lost.number == 0


def test_trial_that_nobody_signed_is_reclaimed_after_a_lease_where_somebody_lives(study, clock):
    study.optuna.ask()
    watch = LeaseWatch()
    with Lease(study) as lease:
        study.ask(lease.id)
        for clock.seconds in (1000, 1010, 1020, 1029):
            assert give_up_dead(study, watch, lambda _: {}) == []
        clock.seconds = 1030
        study.set_attribute(f"worker:{lease.id}", {**FOREIGN, "renewals": 2})
        (lost,) = give_up_dead(study, watch, lambda _: {})
        assert lost.number == 0


def test_a_run_is_of_the_folder_that_its_worker_spooled_in_whatever_that_is_called(tmp_path):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    (tmp_path / "mounted").symlink_to(here)
    lease = {**FOREIGN, "spool": folder_id(here)}
    assert is_of(lease, folder_id(tmp_path / "mounted"))
    assert not is_of(lease, folder_id(elsewhere))
    assert is_of(FOREIGN, folder_id(here))  # of a worker that recorded nothing


def test_a_leader_of_another_host_that_has_died_is_waited_out(study, monkeypatch):
    monkeypatch.setenv("FMEXP_LEASE_SECONDS", "1")
    storage, stop = study._storage, interrupt.Stop()
    dead = storage.create_new_study([StudyDirection.MINIMIZE], "s/records/leader/1")
    storage.set_study_system_attr(dead, "a", FOREIGN)
    election = Election(storage, "s/records")
    assert not election.is_won()
    assert launch._wins(election, stop)
    election.tidy()


def test_runs_that_never_arrived_are_made_by_one_command_at_a_time(study, tmp_path):
    """Of a sweep begun with tracking=none, which several hosts end at the same moment."""
    study.ask("dead")
    study.drawing(study.trial(0), prunes=False).suggest_float("x", 0.0, 1.0)
    study.tell(0, Evaluation(Outcome.COMPLETED, 0.5))
    job = SimpleNamespace(folder=str(tmp_path), spool="here", uri="http://host", experiment="e")
    storage, failover = study._storage, Failover(study, job)
    first, second = (Election(storage, "s/records") for _ in range(2))
    made = [failover.children(each.is_won()) for each in (first, second)]
    assert [[child["is_wanted"] for child in each.values()] for each in made] == [[True], [False]]
    first.tidy()
    assert second.is_won()  # and finds in the store what the first one made
    second.tidy()
    assert optuna.get_all_study_names(storage) == ["s"]
