"""Passwords and terminal escapes: nowhere on the screen, in a record, or in a list of processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fmexp.cli.parser import main
from fmexp.errors import StoreError
from fmexp.record.passwords import without_password
from fmexp.record.spool_tracker import open_tracker
from fmexp.record.tracker import Outcome, RunStart
from tests.record_support import uri_of

FORMS = [
    "postgresql://me:s3cr3t@127.0.0.1:9/db",
    "postgresql://me:a/s3cr3t@127.0.0.1:9/db",
    "postgresql://me:a s3cr3t@127.0.0.1:9/db",
    "postgresql://me:a@s3cr3t@127.0.0.1:9/db",
    "postgresql://me:a:s3cr3t@127.0.0.1:9/db",
    "postgresql://me:a?s3cr3t#b@127.0.0.1:9/db",
    "postgresql://me:s3cr3t%40b@127.0.0.1:9/db",
    "postgresql://me@corp:s3cr3t@127.0.0.1:9/db",
    "postgresql://me:s3cr3t@[::1]:9/db",
    "postgresql://127.0.0.1:9/db?user=me&password=s3cr3t",
    "postgresql://127.0.0.1:9/db?user=me:s3cr3t",
    "postgresql://127.0.0.1:9/db?sslmode=disable&sslpassword=s3cr3t",
    "mysql+pymysql://me:s3cr3t@127.0.0.1:9/db?charset=utf8",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3D%7BX%7D%3BPWD%3Ds3cr3t",
    "mssql+pyodbc:///?odbc_connect=DRIVER={ODBC X};UID=me;PWD=a&s3cr3t",
    "http://me:s3cr3t@127.0.0.1:9",
    "http://:s3cr3t@127.0.0.1:9",
    "http://s3cr3t@127.0.0.1:9",
    "HTTPS://s3cr3t@127.0.0.1:9",
    "http://127.0.0.1:9?token=s3cr3t",
    "http://127.0.0.1:9/path?a=1&api_key=s3cr3t#x",
    "http://127.0.0.1:9/#access_token=s3cr3t",
    "sqlite+pysqlcipher://:s3cr3t@/runs.db",
    "gopher://me:s3cr3t@127.0.0.1:9",
]


@pytest.mark.parametrize("uri", FORMS)
@pytest.mark.parametrize("around", ["{}", "cannot reach {}: no answer", "a\nkey='{}'\nb"])
def test_every_form_of_a_password_is_recognised(uri, around):
    shown = without_password(around.format(uri))
    assert "s3cr3t" not in shown
    assert "***" in shown
    assert shown.startswith(around.partition("{")[0])


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:5000/#/experiments/1/runs?searchFilter=a&orderByKey=metrics.%60b%60",
        "sqlite:////home/me@corp/mlflow.db",
        "postgresql://me@host:5432/db?sslmode=require&connect_timeout=3",
        "write to me@example.org: nothing to hide",
        "s3://bucket/table.csv",
    ],
)
def test_what_is_no_password_stays(text):
    assert without_password(text) == text


def test_a_mistaken_store_or_value_is_named_without_its_password(refused):
    for uri in FORMS:
        assert "s3cr3t" not in refused("doctor", "--uri", f"x{uri}")
    overrides = [f"model.q{i}='{uri}'" for i, uri in enumerate(FORMS)]
    assert "s3cr3t" not in refused("run", *overrides)
    assert "s3cr3t" not in refused("run", *(f"'{uri}" for uri in FORMS))


def test_a_storage_that_cannot_be_used_is_named_without_its_password(here, capsys):
    sweep = ["run", "-m", "tracking=none", "hydra.sweeper.n_trials=1", "training.epochs=1"]
    for uri in (FORMS[3], FORMS[-1], f"sqlite:///no/folder?password={FORMS[0]}"):
        assert main([*sweep, f"hydra.sweeper.storage='{uri}'"]) in (1, 2)
        printed = capsys.readouterr()
        assert "storage" in printed.err
        assert "s3cr3t" not in printed.out + printed.err


def test_no_password_is_in_a_process_list_or_what_doctor_says(here, monkeypatch, capsys):
    started = spied(monkeypatch)
    monkeypatch.setenv("FMEXP_PATIENCE", "5")
    assert main(["doctor", "--uri", "postgresql://me:s3cr3t@127.0.0.1:9/db"]) == 1
    printed = capsys.readouterr()
    assert "postgresql://me:***@127.0.0.1:9/db" in printed.out
    assert started
    assert "s3cr3t" not in printed.out + printed.err + "".join(started)


def test_nothing_that_is_written_down_holds_a_password(here):
    uri = "http://me:s3cr3t@127.0.0.1:9"
    tracker = open_tracker(uri, "test", here, patience_seconds=0.1)
    study = {"name": "a", "trial": "0", "storage": uri}
    dataset = {"name": "n", "digest": "d", "source": uri}
    run = tracker.start_run(RunStart(f"r {uri}", {"a": uri}, {"b": uri}, dataset, study=study))
    run.finish(Outcome.FAILED, f"OperationalError: {uri}", tags={"c": uri})
    with pytest.raises(StoreError) as lost:
        tracker.close()
    assert "s3cr3t" not in str(lost.value)
    written = [p for p in here.rglob("*") if p.is_file()]
    assert {"events.jsonl", "store.json", "recorder.log"} <= {p.name for p in written}
    assert not [p for p in written if b"s3cr3t" in p.read_bytes()]


ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\u202egnp"


@pytest.fixture
def named_badly(store_folder: Path) -> Path:
    """A folder whose one run has terminal escapes in its name, params, tags and outcome."""
    tracker = open_tracker(uri_of(store_folder), "test", store_folder)
    tags = {"fmexp.reason": ESCAPES, "fmexp.version": ESCAPES}
    run = tracker.start_run(RunStart(f"run {ESCAPES}", {"model.k": ESCAPES}, tags))
    run.finish(Outcome.COMPLETED, ESCAPES, {"best/val_mse": 1.0})
    tracker.close()
    return store_folder


def test_terminal_escapes_in_stored_names_are_shown_not_obeyed(named_badly, monkeypatch, capsys):
    monkeypatch.chdir(named_badly)
    for command in (["compare", "latest"], ["compare", "--best", "2"], ["reproduce", "latest"],
                    ["predict", "latest", "--data", "x"], ["score", "latest"], ["export", "latest"],
                    ["report", "latest"], ["compare", "nobody", ESCAPES]):  # fmt: skip
        main(command)
        printed = capsys.readouterr()
        assert not set(printed.out + printed.err) & set("\x1b\x07\x9b\r\u202e")
    assert "\\x1b[2J" in printed.err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_a_terminal_cannot_show_is_shown_as_an_escape(encoding, tmp_path):
    (tmp_path / "prix.csv").write_text("prix en €,y\n" + "".join(f"{i},{i}\n" for i in range(30)))
    done = subprocess.run(
        [sys.executable, "-m", "fmexp", "data", "prix.csv", "--target", "y"], cwd=tmp_path,
        env={"PYTHONIOENCODING": encoding, "LC_ALL": "C"}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert ("€" if encoding == "utf-8" else "\\u20ac") in done.stdout.decode(encoding)


def spied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command lines of all processes that are started from now on."""
    started: list[str] = []
    popen = subprocess.Popen.__init__

    def spy(self, command, *args, **kwargs):
        started.append(str(command))
        popen(self, command, *args, **kwargs)

    monkeypatch.setattr(subprocess.Popen, "__init__", spy)
    return started


def holding(folder: Path, secret: bytes) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and secret in p.read_bytes()]


def test_no_workers_command_line_and_no_file_of_a_sweep_holds_a_password(here, monkeypatch, capsys):
    monkeypatch.setenv("FMEXP_PATIENCE", "1")
    started = spied(monkeypatch)
    sweep = [
        "run",
        "-m",
        "training.epochs=1",
        "model.k=2,3",
        "backend=gibbs",
        "hydra.sweeper.n_jobs=2",
    ]
    assert main([*sweep, "tracking.uri='http://me:s3cr3t@127.0.0.1:9'"]) == 1
    printed = capsys.readouterr()
    assert sum("worker_process" in command for command in started) == 2
    assert "s3cr3t" not in printed.out + printed.err + "".join(started)
    assert holding(here, b"s3cr3t") == []


APPLICATION = """
import hydra
@hydra.main(config_path=None, version_base="1.3")
def square(cfg):
    return cfg.x ** 2
square()
"""


def test_what_hydra_writes_down_of_an_applications_sweep_holds_no_password(here):
    Path("app.py").write_text(APPLICATION)
    done = subprocess.run(
        [sys.executable, "app.py", "-m", "hydra/sweeper=fmexp", "+x=1,2",
         "hydra.sweeper.tracking.uri='http://me:s3cr3t@127.0.0.1:9'"],
        env=os.environ | {"FMEXP_PATIENCE": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "http://me:***@127.0.0.1:9" in done.stderr
    assert len(list(here.rglob("hydra.yaml"))) == 2
    assert holding(here, b"s3cr3t") == []
    assert "s3cr3t" not in done.stdout + done.stderr
