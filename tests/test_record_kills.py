"""A kill -9 of trainer, recorder or both, at random moments, loses no finished run."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from fmexp.record.spool import spooled_runs
from tests.record_support import assert_whole, next_start, start_worker, stored, told

KILLS = int(os.environ.get("FMEXP_KILLS", "3"))


def kill_at_random(worker: subprocess.Popen[str], who: str, moment: float) -> list[str]:
    """Kill after `moment` seconds; the keys of the runs whose end the worker saw on disk."""
    assert worker.stdout is not None
    first = worker.stdout.readline()
    recorder = int(told(first)["recorder"][0])
    try:
        worker.wait(moment)
    except subprocess.TimeoutExpired:
        if who in ("trainer", "both"):
            worker.kill()
        if who in ("recorder", "both"):
            with contextlib.suppress(ProcessLookupError):  # it has just sent the last run
                os.kill(recorder, signal.SIGKILL)
    with worker.stdout:
        lines = told(worker.stdout.read())
    assert worker.wait() == (0 if who == "recorder" else -signal.SIGKILL)
    assert bool(lines["closed"]) == (who == "recorder")
    return lines["finished"]


@pytest.mark.parametrize("who", ["trainer", "recorder", "both"])
def test_a_kill_loses_no_finished_run_and_doubles_none(store_folder: Path, who: str) -> None:
    dice, finished = random.Random(f"{who}{KILLS}"), []
    for _ in range(KILLS):
        n_runs = 12 if who == "recorder" else 1000
        worker = start_worker(store_folder, n_runs, pause=0.15)
        finished += kill_at_random(worker, who, moment=dice.uniform(0, 4))
    next_start(store_folder)
    runs = stored(store_folder / "mlflow.db")
    assert_whole(runs, finished)
    assert len(finished) > KILLS
    assert all(run.status != "RUNNING" for run in runs)
    assert spooled_runs(store_folder) == []
    if who == "recorder":
        assert [run.status for run in runs] == ["FINISHED"] * 12 * KILLS
