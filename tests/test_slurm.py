"""Workers as jobs of a real Slurm of two nodes: killed, cancelled, requeued, out of time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.slurm_support import slurm
from tests.sweep_support import SOAK, assert_in_agreement, has_begun, left_in, until

# A trial takes a second, so that nothing comes too late. Slurm signals the end of a job's time
# up to three minutes ahead (signal_delay_s, and a minute), so it must be far.
SWEEP = (
    "run", "-m", "hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=30",
    "data=planted", "data.rows=40000", "training.epochs=400",
)  # fmt: skip
ENDLESS = "training.epochs=10000000"


@pytest.fixture
def on_slurm(fmexp, nodes):
    """The command, with Slurm's environment."""
    fmexp.env |= nodes | {"PYTHONWARNINGS": "ignore"}
    fmexp.use_made_store()
    return fmexp


def jobs(nodes: dict[str, str], *options: str) -> list[str]:
    """The ids of the jobs that wait or run."""
    return slurm(nodes, "squeue", "-h", "-r", "-o", "%i", *options).split()


def worker_of(job: str) -> int:
    """The process of a job's worker; 0 while there is none."""
    array, _, task = job.partition("_")
    wanted = {f"SLURM_ARRAY_JOB_ID={array}", f"SLURM_ARRAY_TASK_ID={task}"}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            words = (entry / "cmdline").read_text().split("\0")
            is_worker = "submitit.core._submit" in words and "python" in words[0]
            if is_worker and wanted <= {*(entry / "environ").read_text().split("\0")}:
                return int(entry.name)
    return 0


def next_job(nodes: dict[str, str], but: set[str]) -> str:
    """A job whose worker runs, other than these."""
    found = []

    def look() -> bool:
        found[:] = [job for job in jobs(nodes, "-t", "R") if job not in but and worker_of(job)]
        return bool(found)

    until(look)
    but.add(found[0])
    return found[0]


def test_jobs_that_are_requeued_stopped_killed_or_cancelled_cost_no_trial(on_slurm, nodes):
    command = on_slurm.start(*SWEEP, "hydra.sweeper.n_jobs=4", "hydra.sweeper.n_trials=6")
    until(lambda: has_begun(on_slurm.folder, trials=2))
    hit: set[str] = set()
    requeued = next_job(nodes, hit)
    slurm(nodes, "scontrol", "requeue", requeued)
    slurm(nodes, "scancel", "--signal=USR2", next_job(nodes, hit))  # as when its time is over
    os.kill(worker_of(next_job(nodes, hit)), signal.SIGKILL)
    slurm(nodes, "scancel", next_job(nodes, hit))
    out, err = command.communicate(timeout=120)
    assert command.returncode == 0, out + err
    assert "Traceback" not in err
    assert "3 workers were lost\n" in out
    (log,) = on_slurm.folder.glob(f".fmexp/hydra/.submitit/*/{requeued}/*_log.out")
    assert log.read_text().count("Starting with") == 2  # it goes on
    left = left_in(on_slurm.folder)
    assert len(left.counted) == len(set(left.points)) == 6
    assert_in_agreement(left)
    until(lambda: jobs(nodes) == [], seconds=30)  # the last one may be completing


def test_ctrl_c_in_the_command_cancels_its_jobs(on_slurm, nodes):
    command = on_slurm.start(*SWEEP, ENDLESS, "hydra.sweeper.n_jobs=3")
    until(lambda: has_begun(on_slurm.folder, trials=2))
    assert len(jobs(nodes)) == 3
    command.send_signal(signal.SIGINT)
    out, err = command.communicate(timeout=60)
    assert command.returncode == 130, out + err
    assert "Traceback" not in err
    until(lambda: jobs(nodes) == [], seconds=30)  # the last one may be completing
    left = left_in(on_slurm.folder)
    assert left.running == []
    assert {run.tags["fmexp.outcome"] for run in left.children.values()} == {"interrupted"}


APP = """
import hydra
@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg):
    return (cfg.x - 0.3) ** 2
main()
"""


@pytest.mark.skipif(not SOAK, reason="make soak")
def test_another_hydra_application_goes_to_slurm_with_the_same_words(nodes, tmp_path):
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("x: 1.0")
    done = subprocess.run(
        [
            sys.executable, "app.py", "-m", "hydra/sweeper=fmexp", "+cluster=slurm",
            "hydra.launcher.mem_gb=1", "hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=6",
            "hydra/sweeper/tracking=none", "x=interval(0,1)",
        ],
        cwd=tmp_path, env=os.environ | nodes, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert "done; 6 of 6 trials: 6 completed" in done.stdout, done.stderr


HUNGRY = APP.replace("    return", """    if cfg.x == 3:
        taken = b"x" * 3 * 10**9
        time.sleep(30)
    return""").replace("import hydra", "import time, hydra")  # fmt: skip


@pytest.mark.skipif(not SOAK, reason="make soak")
def test_a_point_that_takes_too_much_memory_fails_and_the_others_are_tried(nodes, tmp_path):
    (tmp_path / "app.py").write_text(HUNGRY)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("x: 1.0")
    done = subprocess.run(
        [
            sys.executable, "app.py", "-m", "hydra/sweeper=fmexp", "+cluster=slurm",
            "hydra.launcher.mem_gb=1", "hydra.sweeper.n_trials=6", "hydra.sweeper.n_jobs=1",
            "hydra/sweeper/tracking=none", "hydra/sweeper/sampler=grid", "x=range(1,7)",
        ],
        cwd=tmp_path, env=os.environ | nodes, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert "6 of 6 trials: 5 completed, 1 failed" in done.stdout, done.stderr
    assert "3 workers were lost, new ones were started 3 times" in done.stdout
    assert "it has cost 3 workers, each of which was killed in this trial" in done.stdout


@pytest.mark.skipif(not SOAK, reason="Slurm looks at time limits twice a minute: make soak waits")
def test_jobs_whose_time_is_over_end_their_trials_and_new_ones_go_on(on_slurm, nodes):
    command = on_slurm.start(
        *SWEEP, ENDLESS, "hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=50",
        "hydra.sweeper.n_trials=1", "hydra.sweeper.relaunch=1",
    )  # fmt: skip
    out, err = command.communicate(timeout=240)
    assert command.returncode == 1, out + err
    assert "no worker is left (hydra.sweeper.relaunch=1)" in out
    assert "2 workers were lost, new ones were started 1 time" in out
    left = left_in(on_slurm.folder)
    assert [t.user_attrs.get("mark") for t in left.trials] == ["interrupted", "interrupted", None]
    assert {run.tags["fmexp.outcome"] for run in left.children.values()} == {"interrupted"}


@pytest.mark.skipif(not SOAK, reason="make soak")
def test_jobs_that_must_make_room_for_others_are_requeued_and_go_on(on_slurm, nodes):
    command = on_slurm.start(
        *SWEEP, "hydra.launcher.partition=low", "hydra.sweeper.n_jobs=2",
        "hydra.sweeper.n_trials=20",
    )  # fmt: skip
    until(lambda: has_begun(on_slurm.folder, trials=3))
    slurm(nodes, "sbatch", "--wait", "--nodes=2", "--output=/dev/null", "--wrap=sleep 3")
    out, err = command.communicate(timeout=240)
    print(out, err, file=sys.stderr)
    assert command.returncode == 0, out + err
    assert "Traceback" not in err
    left = left_in(on_slurm.folder)
    assert len(left.counted) == len(set(left.points)) == 20
    assert_in_agreement(left)
    starts = [
        log.read_text().count("Starting with")
        for log in on_slurm.folder.glob(".fmexp/hydra/.submitit/*/*_*/*_log.out")
    ]
    assert starts == [2, 2]


@pytest.mark.skipif(not SOAK, reason="takes minutes: make soak")
@pytest.mark.parametrize("seed", range(3))
def test_two_hundred_trials_are_exact_while_twenty_jobs_are_killed_or_cancelled(
    on_slurm, nodes, seed
):
    command = on_slurm.start(
        *SWEEP, "training.epochs=800",
        "hydra/sweeper/sampler=random",
        "hydra.sweeper.n_jobs=8", "hydra.sweeper.n_trials=200", "hydra.sweeper.relaunch=20",
    )  # fmt: skip
    chance, hit = random.Random(seed), set()
    while len(hit) < 20:
        victim = next_job(nodes, hit)
        time.sleep(chance.uniform(0, 4))  # into its start, a trial, or the end of one
        if chance.random() < 0.5:
            slurm(nodes, "scancel", victim)
        elif worker := worker_of(victim):
            os.kill(worker, signal.SIGKILL)
    out, err = command.communicate(timeout=600)
    assert command.returncode == 0, out + err
    assert "Traceback" not in err
    print(out, file=sys.stderr)
    left = left_in(on_slurm.folder)
    assert len(left.counted) == len(set(left.points)) == 200
    assert_in_agreement(left)
    until(lambda: jobs(nodes) == [], seconds=30)  # the last one may be completing
