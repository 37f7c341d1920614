"""A sweep of another task than ours, through the same code: pruned, resumed, killed."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fmexp.sweep.launch import run
from tests.parabola import search
from tests.sweep_support import SOAK, assert_in_agreement, has_begun, kill_all, left_in, until

HERE = Path(__file__).resolve().parent.parent


def test_it_is_pruned_and_resumed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for n in (6, 10):
        assert run(search(n), Path()) == 0
    left = left_in(tmp_path)
    assert len(left.counted) == len(set(left.points)) == 10
    assert left.outcomes.keys() == {"completed", "pruned"}
    assert left.trials[0].params == {"x": 0.5}
    printed = capsys.readouterr().out
    assert "6 of 10 trials" in printed
    assert "10 of 10 trials" in printed


def start(folder, n_trials):
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    command = [sys.executable, "-m", "tests.parabola", str(n_trials)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **pipes)


@pytest.mark.parametrize("moment", range(10 if SOAK else 1))
def test_it_is_killed_and_goes_on_exactly(store_folder, moment):
    killed = start(store_folder, 12)
    until(lambda: has_begun(store_folder, 3 + moment))
    time.sleep(random.Random(moment).uniform(0, 0.3))
    kill_all(store_folder)
    killed.communicate()
    again = start(store_folder, 12)
    printed, _ = again.communicate(timeout=240)
    assert again.returncode == 0, printed
    left = left_in(store_folder)
    assert len(left.counted) == len(set(left.points)) == 12
    assert_in_agreement(left)
    best = min((t for t in left.counted if t.value is not None), key=lambda t: t.value)
    won = [n for n, run in left.children.items() if (run.artifacts / "won.txt").exists()]
    assert won == [best.number]
