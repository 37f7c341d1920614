"""Commands that are started at the same moment in an empty folder do not disturb each other."""

from __future__ import annotations

import os

import pytest

ATTEMPTS = int(os.environ.get("FMEXP_TOGETHER", "2" if os.environ.get("FMEXP_SLOW") else "1"))


@pytest.mark.parametrize("attempt", range(ATTEMPTS))
def test_four_runs_at_once_in_an_empty_folder(fmexp, attempt):
    processes = [fmexp.start("run", f"model.k={k}", "training.epochs=2") for k in (1, 2, 3, 4)]
    for process in processes:
        out, err = process.communicate(timeout=180)
        assert process.returncode == 0, out + err
    runs = fmexp.runs()
    assert [run.info.status for run in runs] == ["FINISHED"] * 4
    assert sorted(run.data.params["model.k"] for run in runs) == ["1", "2", "3", "4"]
