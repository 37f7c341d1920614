"""One sweep by commands in folders of their own, as on several machines, on real servers."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from fmexp.sweep.storage import open_storage
from fmexp.sweep.study import SweepStudy
from fmexp.sweep.trial_status import counts
from tests.conftest import Command
from tests.record_support import stored
from tests.servers_support import MlflowServer, Postgres
from tests.sweep_support import SOAK

psycopg = pytest.importorskip("psycopg")
TINY = ("data=planted", "training.epochs=5", "hydra/sweeper/sampler=random")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A server that stays."""
    server = Postgres()
    server.start()
    yield server
    server.close()


@pytest.fixture
def hosts(tmp_path: Path) -> list[Command]:
    """Commands in four folders with a home of their own."""
    return [host(tmp_path / f"host{i}") for i in range(4)]


@pytest.fixture
def opened():
    """Opens storages, and closes their connections at the end."""
    storages = []

    def open_it(url, **options):
        storages.append(open_storage(url, Path(), **options))
        return storages[-1]

    yield open_it
    for storage in storages:
        getattr(storage, "_inner", storage)._backend.engine.dispose()


def host(folder: Path) -> Command:
    (folder / "home").mkdir(parents=True)
    return Command(folder, {"HOME": str(folder / "home"), "FMEXP_LEASE_SECONDS": "5"})


def all_at_once(hosts: list[Command], *overrides: str) -> list[str]:
    """The same sweep by all of them, from the same moment; what each prints."""
    commands = [host.start("run", "-m", *TINY, *overrides) for host in hosts]
    printed = ["\n".join(command.communicate(timeout=300)) for command in commands]
    assert [command.returncode for command in commands] == [0] * len(hosts), "\n\n".join(printed)
    return printed


def assert_each_once(database: Path, trials: int) -> None:
    """One parent, and under it each trial that counts, once; what was deleted is empty."""
    with closing(sqlite3.connect(database)) as db:
        found = db.execute("select run_uuid from runs where lifecycle_stage = 'deleted'")
        deleted = {run_id for (run_id,) in found}
    runs = [run for run in stored(database) if run.run_id not in deleted]
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.tags]
    children = [run for run in runs if run is not parent]
    print(f"{len(deleted)} surplus parents were deleted")
    assert {run.status for run in runs} <= {"FINISHED", "KILLED"}
    assert {run.tags["mlflow.parentRunId"] for run in children} == {parent.run_id}
    numbers = [int(run.tags["fmexp.trial"]) for run in children]
    assert len(numbers) == len(set(numbers))
    assert parent.status == "FINISHED"
    assert [run.status for run in children].count("FINISHED") == trials


def assert_exact(storage, n_trials: int) -> None:
    """As many trials as asked for, no point twice, nothing that runs."""
    (name,) = optuna.get_all_study_names(storage)
    study = SweepStudy(storage, name)
    trials = study.trials()
    counted = [t for t in trials if counts(t)]
    assert {t.state for t in counted} == {TrialState.COMPLETE}
    assert TrialState.RUNNING not in {t.state for t in trials}
    assert len(counted) == len({study.space.key(study.space.point(t)) for t in counted}) == n_trials


def test_four_machines_that_start_at_once_do_one_sweep_exactly(hosts, postgres, opened, tmp_path):
    server = MlflowServer(tmp_path)
    server.start()
    try:
        url = postgres.database("study")
        restart = threading.Thread(target=restart_after, args=(postgres, url, 8))
        restart.start()
        storage = f"hydra.sweeper.storage={url}"
        trials = "hydra.sweeper.n_trials=24"
        printed = all_at_once(hosts, storage, f"tracking.uri={server.uri}", trials)
        restart.join()
    finally:
        server.kill()
    assert all("24 of 24 trials: 24 completed" in each for each in printed), printed
    assert_exact(opened(url), 24)
    assert_each_once(tmp_path / "mlflow.db", 24)


def restart_after(postgres: Postgres, url: str, trials: int) -> None:
    """Restart the database as soon as so many trials are complete."""
    wait_for(url, "COMPLETE", trials)
    postgres.stop()
    postgres.start()


def wait_for(url: str, state: str, trials: int) -> None:
    """Wait until the database has so many such trials."""
    found = 0
    while found < trials:
        time.sleep(0.05)
        with suppress(psycopg.Error), psycopg.connect(url) as study:
            query = f"select count(*) from trials where state = '{state}'"
            ((found,),) = study.execute(query).fetchall()


def test_tables_that_eight_make_at_once_are_made(postgres, opened):
    url, together = postgres.database("tables"), threading.Barrier(8)

    def open_it(_):
        together.wait()
        return optuna.get_all_study_names(opened(url))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(open_it, range(8))) == [[]] * 8


def test_calls_wait_for_a_database_that_is_restarted_and_it_is_told(
    postgres, opened, caplog, monkeypatch
):
    monkeypatch.setattr("fmexp.sweep.patient_storage._TELL_AFTER", 0.0)
    storage = opened(postgres.database("restarted"), patience=60)
    study = optuna.create_study(storage=storage, study_name="s")
    postgres.stop()
    restart = threading.Timer(1.5, postgres.start)
    restart.start()
    try:
        study.set_user_attr("a", 1)
    finally:
        restart.join()
    assert study.user_attrs == {"a": 1}
    told = [each.getMessage() for each in caplog.records if each.name == "fmexp"]
    assert ["does not answer" in told[0], "is back" in told[1]] == [True, True]


def test_patience_ends_and_so_it_does_when_the_user_wants_to_stop(postgres, opened):
    url = postgres.database("gone")
    storage, patient = (opened(url, patience=seconds) for seconds in (0.5, 600))
    postgres.stop()
    try:
        with pytest.raises(StorageInternalError):
            storage.get_all_studies()
        patient.should_stop = lambda: True
        with pytest.raises(StorageInternalError):
            patient.get_all_studies()
    finally:
        postgres.start()


@dataclass
class Supervised:
    """A command on a host that is started again whenever it was killed, as a job array does."""

    host: Command
    words: tuple[str, ...]
    kills: int = 0
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, its output in a file of its own."""
        with (self.host.folder / "printed").open("a") as printed:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fmexp", *self.words], cwd=self.host.folder,
                env=self.host.environment(), stdout=printed, stderr=printed,
            )  # fmt: skip

    def kill(self) -> None:
        """kill -9 of the command, where it still runs; not of its recorder."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            self.kills += 1
            self.start()

    def code(self) -> int:
        """Wait for its end."""
        return self.process.wait(timeout=300)


@pytest.mark.skipif(not SOAK, reason="minutes: make soak")
@pytest.mark.parametrize("run", range(int(os.environ.get("FMEXP_MACHINES", "50"))))
def test_kills_and_restarts_of_all_lose_and_double_nothing(hosts, postgres, opened, tmp_path, run):
    dice, trials, server = random.Random(run), 150, MlflowServer(tmp_path)
    server.start()
    url = postgres.database(f"killed{run}")
    words = ("run", "-m", *TINY, f"hydra.sweeper.n_trials={trials}", f"tracking.uri={server.uri}",
             f"hydra.sweeper.storage={url}", "hydra.sweeper.relaunch=20")  # fmt: skip
    commands = [Supervised(host, words) for host in hosts]
    try:
        for command in commands:
            command.start()
        for second in range(16):
            time.sleep(1)
            dice.choice(commands).kill()
            if second in (5, 10):
                postgres.stop()
                postgres.start()
            if second in (7, 12):
                server.kill()
                server.start()
        assert [command.code() for command in commands] == [0] * 4
        for command in commands:  # what a killed one left is sent by the next
            command.start()
        assert [command.code() for command in commands] == [0] * 4
    finally:
        for command in commands:
            command.process.kill()
        server.kill()
    assert_exact(opened(url), trials)
    assert_each_once(tmp_path / "mlflow.db", trials)
    print(f"run {run}: {sum(command.kills for command in commands)} kills")


SHIFTED_CLOCK = r"""
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *to) {
  int code = syscall(SYS_clock_gettime, id, to);
  if (!code && id == CLOCK_REALTIME) to->tv_sec += atol(getenv("CLOCK_SHIFT"));
  return code;
}
int gettimeofday(struct timeval *restrict to, void *restrict zone) {
  int code = syscall(SYS_gettimeofday, to, zone);
  if (!code) to->tv_sec += atol(getenv("CLOCK_SHIFT"));
  return code;
}
time_t time(time_t *to) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (to) *to = now.tv_sec;
  return now.tv_sec;
}
"""
"""libfaketime 0.9.10 has time.sleep of Python 3.11 fail (EINVAL), so the clock is shifted here."""


@pytest.fixture
def shifted_clock(tmp_path: Path) -> str:
    """What a process loads to read another time of day."""
    if not shutil.which("cc") or os.geteuid():
        pytest.skip("a host with a clock and processes of its own needs root and a C compiler")
    (tmp_path / "clock.c").write_text(SHIFTED_CLOCK)
    made = tmp_path / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", made, tmp_path / "clock.c"], check=True)
    return str(made)


@dataclass
class Elsewhere(Supervised):
    """The same as on another host: processes of its own, and a clock as `clock` says."""

    clock: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        """All of it dies with `process`, as when a host loses its power."""
        with (self.host.folder / "printed").open("a") as printed:
            self.process = subprocess.Popen(
                ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc",
                 sys.executable, "-m", "fmexp", *self.words],
                cwd=self.host.folder, env=self.host.environment() | self.clock,
                stdout=printed, stderr=printed,
            )  # fmt: skip


@pytest.mark.skipif(not SOAK, reason="minutes: make soak")
@pytest.mark.parametrize("victim", range(3))
def test_hosts_whose_clocks_are_an_hour_apart_lose_no_trial_and_keep_none(
    hosts, postgres, opened, tmp_path, shifted_clock, victim
):
    url, server = postgres.database(f"clocks{victim}"), MlflowServer(tmp_path)
    server.start()
    words = ("run", "-m", *TINY, "training.epochs=400", "data.rows=40000",
             "hydra.sweeper.n_trials=24", f"tracking.uri={server.uri}",
             f"hydra.sweeper.storage={url}")  # fmt: skip
    commands = [
        Elsewhere(host, words, clock={"LD_PRELOAD": shifted_clock, "CLOCK_SHIFT": seconds})
        for host, seconds in zip(hosts, ("-3600", "0", "3600"), strict=False)
    ]
    try:
        for command in commands:
            command.start()
        wait_for(url, "COMPLETE", 6)
        commands[victim].kill()
        codes = [command.code() for command in commands]
        assert codes == [0] * 3, [(each.folder / "printed").read_text() for each in hosts[:3]]
    finally:
        for command in commands:
            command.process.kill()
        server.kill()
    assert_exact(opened(url), 24)
    assert_each_once(tmp_path / "mlflow.db", 24)


@pytest.mark.skipif(not SOAK, reason="half a minute: make soak")
def test_a_database_restarted_ten_times_costs_nothing(hosts, postgres, opened):
    url = postgres.database("ten")
    words = ("hydra.sweeper.n_trials=400", f"hydra.sweeper.storage={url}", "tracking=none")
    command = hosts[0].start("run", "-m", *TINY, *words)
    for trials in range(30, 330, 30):
        restart_after(postgres, url, trials)
    printed = "\n".join(command.communicate(timeout=300))
    assert command.returncode == 0, printed
    assert "400 of 400 trials: 400 completed" in printed
    assert "Traceback" not in printed
    assert_exact(opened(url), 400)
