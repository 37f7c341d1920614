"""Whether a worker lives is known from its lease: by process here, by time elsewhere."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from fmexp.sweep.failover.leases import Lease, is_alive, leases, process_start, this_process
from fmexp.sweep.failover.recovery import give_up_dead
from fmexp.sweep.space import Dimension, Space
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


def test_worker_lives_until_it_says_that_it_ends(study):
    with Lease(study) as lease:
        assert is_alive(leases(study)[lease.id], time.time())
    assert not is_alive(leases(study)[lease.id], time.time())


def test_killed_worker_is_dead_at_once_though_its_lease_runs(study, start_worker):
    child, worker = start_worker(600)
    assert is_alive(leases(study)[worker], time.time())
    child.send_signal(signal.SIGKILL)
    until(lambda: not is_alive(leases(study)[worker], time.time()))  # still a zombie
    assert child.wait() == -signal.SIGKILL
    assert not is_alive(leases(study)[worker], time.time())
    assert leases(study)[worker]["until"] > time.time() + 300


def test_stopped_worker_loses_its_lease_and_has_it_again_when_it_goes_on(study, start_worker):
    child, worker = start_worker(1.5)
    child.send_signal(signal.SIGSTOP)
    until(lambda: not is_alive(leases(study)[worker], time.time()))
    child.send_signal(signal.SIGCONT)
    until(lambda: is_alive(leases(study)[worker], time.time()))


def test_lease_is_renewed_before_it_runs_out(study, start_worker):
    _, worker = start_worker(3)
    written = set()

    def note():
        lease = leases(study)[worker]
        written.add(lease["until"])
        return len(written) == 4 or not is_alive(lease, time.time())

    until(note)
    assert len(written) == 4


def test_process_number_that_is_somebody_elses_now_is_no_life():
    now = time.time()
    mine = {**this_process(), "started": process_start(this_process()["pid"]), "until": now + 30}
    assert is_alive(mine, now)
    assert not is_alive({**mine, "started": "12345"}, now)
    assert not is_alive({**mine, "pid": 2**22 + 1, "started": ""}, now)
    assert not is_alive(mine, now + 30)


@pytest.mark.parametrize("foreign", [{"host": "other"}, {"boot": "before"}])
def test_worker_of_another_machine_is_judged_by_time_alone(foreign):
    lease = {**this_process(), "pid": 2**22 + 1, "started": "1", "until": 1000.0, **foreign}
    assert is_alive(lease, 999.9)
    assert not is_alive(lease, 1000.0)


def test_nobody_is_dead():
    assert not is_alive(None, 0.0)


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
    assert written[-1]["until"] == 0


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
    assert {lease["until"] for lease in leases(study).values()} == {0}


def test_trial_that_nobody_living_can_have_asked_for_is_reclaimed_at_once(study):
    study.optuna.ask()  # by a worker that died before it could sign it
    with Lease(study) as lease:
        mine = study.ask(lease.id)
        (lost,) = give_up_dead(study, lambda _: {})
        assert (lost.number, mine.number) == (0, 1)
