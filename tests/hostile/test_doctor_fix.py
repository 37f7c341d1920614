"""`fmexp doctor --fix` mends what is safe and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import optuna
import pytest

from fmexp.cli.parser import main
from fmexp.sweep.storage import open_storage

SWEEP = [
    "run",
    "-m",
    "tracking.experiment=other",
    "training.epochs=1",
    "hydra.sweeper.n_trials=3",
    "hydra.sweeper.n_jobs=1",
]


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["doctor", *words])
    return code, capsys.readouterr().out


def test_half_a_line_is_put_aside(here, capsys):
    assert main([*SWEEP[:2], *SWEEP[3:], "tracking=none"]) == 0
    journal = here / "optuna.journal"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":4,"wor')
    capsys.readouterr()
    code, words = said(capsys)
    assert (code, journal.read_bytes()) == (1, whole + b'{"op_code":4,"wor')
    assert "optuna.journal ends in half a line (a kill?): fmexp doctor --fix" in words
    assert said(capsys, "--fix")[0] == 0
    assert journal.read_bytes() == whole
    assert [p.read_bytes() for p in here.glob("*.torn-*")] == [b'{"op_code":4,"wor']
    assert said(capsys) == (0, said(capsys)[1])


def running_trial(journal: Path) -> None:
    """A trial that a dead worker of this host has begun."""
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    create = next(line for line in lines if line["op_code"] == 4)
    create = {k: v for k, v in create.items() if k in ("op_code", "worker_id", "study_id")}
    create["datetime_start"] = "2026-01-01T00:00:00.000000"
    with journal.open("a") as file:
        file.write(json.dumps(create, separators=(",", ":")) + "\n")


@pytest.mark.usefixtures("store_folder")
def test_trials_and_runs_of_dead_workers_are_given_up(here, fmexp, capsys):
    assert main(SWEEP) == 0
    running_trial(here / "optuna.journal")
    parent = next(run for run in fmexp.runs() if "fmexp.kind" in run.data.tags)
    trial = next(run for run in fmexp.runs() if "fmexp.kind" not in run.data.tags)
    for run in (parent, trial):
        fmexp.store.update_run(run.info.run_id, status="RUNNING")
    shutil.rmtree(here / ".fmexp")
    capsys.readouterr()
    code, words = said(capsys)
    assert code == 1
    assert "1 trials are running whose workers are dead" in words
    assert {run.info.status for run in fmexp.runs()} >= {"RUNNING"}
    code, words = said(capsys, "--fix")
    assert code == 0
    assert "1 trials of dead workers were given up" in words
    assert f"{trial.info.run_id} was RUNNING without owner" in words
    assert "RUNNING" not in {run.info.status for run in fmexp.runs()}
    assert sum(run.info.status == "KILLED" for run in fmexp.runs()) == 2


@pytest.mark.parametrize("storage", ["elsewhere/a.journal", "sqlite:///elsewhere/a.db"])
def test_the_studies_of_a_storage_that_is_named_are_mended_too(storage, here, capsys):
    (here / "elsewhere").mkdir()
    sweep = [*SWEEP[:2], *SWEEP[3:], "tracking=none", f"hydra.sweeper.storage={storage}"]
    assert main(sweep) == 0
    url = storage if ":" in storage else f"journal://{here}/{storage}"
    opened = open_storage(url, here)
    study = optuna.load_study(study_name=None, storage=opened)
    study.ask()
    optuna.create_study(study_name="a", storage=opened)  # another program's, and first by name
    capsys.readouterr()
    code, words = said(capsys, "--storage", storage)
    assert code == 1
    assert "study a is left alone: " in words
    assert "1 trials are running whose workers are dead" in words
    code, words = said(capsys, "--storage", storage, "--fix")
    assert (code, "1 trials of dead workers were given up" in words) == (0, True)
    assert "dead" not in said(capsys, "--storage", storage)[1]


@pytest.mark.parametrize("storage", ["sqlite:///no.db", "no.journal"])
def test_a_storage_that_is_not_there_is_refused_and_not_made(storage, here, capsys):
    assert main(["doctor", "--storage", storage]) == 2
    assert "--storage: there is no" in capsys.readouterr().err
    assert list(here.iterdir()) == []
