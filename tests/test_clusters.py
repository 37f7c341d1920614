"""Workers that a launcher starts elsewhere: what it takes, and what their loss costs."""

from __future__ import annotations

import os
import signal
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from fmexp.cli.parser import main
from fmexp.sweep.launch import run
from fmexp.sweep.pool import WorkerPool
from fmexp.sweep.scheduled_jobs import _Slurm
from fmexp.sweep.worker_process import FAILED, STOPPED
from tests.parabola import search
from tests.sweep_support import (
    SLOW,
    SOAK,
    assert_in_agreement,
    has_begun,
    left_in,
    processes_in,
    until,
)

KILLED = {"joblib": "loky", **({"submitit_local": "submitit.core._submit"} if SOAK else {})}


@pytest.mark.parametrize(("launcher", "marked"), KILLED.items())
def test_a_killed_worker_of_a_launcher_costs_no_trial_and_shows_no_traceback(
    fmexp, launcher, marked
):
    fmexp.env["PYTHONWARNINGS"] = "ignore"
    fmexp.use_made_store()
    command = fmexp.start(
        "run", "-m", "data=planted", "data.rows=40000", "training.epochs=400",
        f"hydra/launcher={launcher}", "hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=5",
    )  # fmt: skip
    until(lambda: has_begun(fmexp.folder, trials=3))
    workers = [
        process
        for process in processes_in(fmexp.folder)
        if marked in Path(f"/proc/{process}/cmdline").read_text()
        and "/recorder" not in Path(f"/proc/{process}/cmdline").read_text()
    ]
    os.kill(max(workers), signal.SIGKILL)
    out, err = command.communicate(timeout=120)
    assert command.returncode == 0, out + err
    assert "Traceback" not in err
    assert "1 worker was lost" in out
    left = left_in(fmexp.folder)
    assert len(left.counted) == len(set(left.points)) == 5
    assert_in_agreement(left)


@pytest.mark.skipif(not SOAK, reason="for each launcher: make soak")
@pytest.mark.parametrize("launcher", KILLED)
def test_ctrl_c_in_a_terminal_ends_the_workers_of_a_launcher_and_shows_no_traceback(
    fmexp, launcher
):
    """A terminal sends the signal to all processes of the command."""
    fmexp.env["PYTHONWARNINGS"] = "ignore"
    command = fmexp.start(
        "run", "-m", *SLOW, "tracking=none", f"hydra/launcher={launcher}",
        "hydra.sweeper.n_jobs=2", start_new_session=True,
    )  # fmt: skip
    until(lambda: has_begun(fmexp.folder, trials=2))
    os.killpg(command.pid, signal.SIGINT)
    out, err = command.communicate(timeout=60)
    assert command.returncode == 130, out + err
    assert "Traceback" not in err
    left = left_in(fmexp.folder)
    assert left.running == []
    ended = [t for t in left.trials if t.state.is_finished()]
    assert [t.user_attrs["mark"] for t in ended] == ["interrupted"] * 2


@pytest.fixture
def clock(monkeypatch):
    """The monotonic clock of what watches over jobs, which sleeping moves."""
    now = SimpleNamespace(seconds=1000.0)
    fake = SimpleNamespace(
        monotonic=lambda: now.seconds,
        sleep=lambda seconds: setattr(now, "seconds", now.seconds + seconds),
    )
    monkeypatch.setattr("fmexp.sweep.scheduled_jobs.time", fake)
    monkeypatch.setattr("fmexp.sweep.pool.time", fake)
    return now


def test_once_they_are_cancelled_a_slow_slurm_is_asked_for_jobs_each_second(clock, monkeypatch):
    asked, slurm, jobs = [], _Slurm(), [SimpleNamespace(job_id="7")]

    def squeue(_):
        asked.append(clock.seconds)
        clock.seconds += 0.5
        return {"7": "COMPLETING"}

    monkeypatch.setattr(slurm, "_states", squeue)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: None)
    slurm.ended(jobs)
    slurm.cancel(jobs, waiting_only=False)
    for _ in range(20):
        slurm.ended(jobs)
        clock.seconds += 0.25
    assert {after - before for before, after in pairwise(asked[1:])} == {1.0}


def test_ctrl_c_does_not_wait_for_ever_for_jobs_that_do_not_end(clock, tmp_path):
    done = []
    jobs = SimpleNamespace(
        threads=1, open=True, submit=lambda *_: None, take_ended=list,
        cancel=lambda **_: None, abandon=lambda: done.append(clock.seconds),
    )  # fmt: skip
    job = SimpleNamespace(stop_file=str(tmp_path / "stop"))
    pool = WorkerPool(job, None, None, None, lambda: None, lambda: "interrupted")
    pool.jobs(jobs, 2)
    assert 1000 < done[0] < 1010


def test_new_workers_are_started_for_those_that_were_lost(tmp_path, capsys):
    said = iter(["", STOPPED])

    def launch(pool):
        if (word := next(said, None)) is None:
            pool.threads(1)
        else:
            pool._take(word, "job 7, out of memory")

    assert run(search(3), tmp_path, launch) == 0
    printed = capsys.readouterr()
    assert "done; 3 of 3 trials" in printed.out
    assert "2 workers were lost, new ones were started 2 times" in printed.out
    assert printed.err.count("a worker was lost (job 7, out of memory); its trial is run") == 2


def test_where_all_workers_are_lost_again_and_again_the_sweep_ends_and_says_so(tmp_path, capsys):
    launches = []

    def launch(pool):
        launches.append(pool)
        pool._take("", "job 7, out of memory")

    assert run(search(3), tmp_path, launch) == 1
    assert len(launches) == 1 + 3
    assert "no worker is left (hydra.sweeper.relaunch=3); 0 of 3 trials" in capsys.readouterr().out


def test_what_keeps_a_worker_from_working_ends_the_sweep_with_its_words(tmp_path):
    def launch(pool):
        pool._take(f"{FAILED}t.csv: no such file", "job 7, completed")

    with pytest.raises(Exception, match=r"^t.csv: no such file \(job 7, completed\)$"):
        run(search(3), tmp_path, launch)


def test_several_hosts_need_a_study_and_a_record_that_all_reach(refused, tmp_path):
    printed = refused("run", "-m", "+cluster=hosts", "hydra.sweeper.storage=journal:///tmp/j")
    assert "hydra.sweeper.storage=journal:///tmp/j is of this host" in printed
    assert "tracking.uri=http://host:5000" in printed
    assert list(tmp_path.iterdir()) == []


def test_the_options_of_a_cluster_can_be_looked_at(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [])
    options = ["+cluster=slurm", "hydra.launcher.qos=long"]
    assert main(["run", "-m", *options, "--cfg", "hydra", "-p", "hydra.launcher"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert {"timeout_min: 60", "qos: long", "signal_delay_s: 60"} <= {*printed}


def test_a_cluster_is_for_sweeps(refused):
    assert "sweeps need -m: fmexp run -m +cluster=slurm" in refused("run", "+cluster=slurm")


def test_a_cluster_whose_launcher_is_not_installed_names_what_installs_it(refused):
    assert "pip install hydra-ray-launcher" in refused("run", "-m", "cluster=ray", "tracking=none")


def test_a_job_that_would_be_told_to_end_as_it_begins_is_refused(refused):
    pytest.importorskip("submitit")
    said = refused("run", "-m", "+cluster=slurm", "hydra.launcher.timeout_min=1", "tracking=none")
    assert "hydra.launcher.signal_delay_s=60 must be less than the time of a job" in said


def test_slurm_is_for_machines_that_have_it(refused, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    printed = refused("run", "-m", "+cluster=slurm", "hydra.launcher.partition=gpu")
    assert "no sbatch on this machine; run the command on a login node" in printed
