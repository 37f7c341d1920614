"""A run written straight into MLflow's tables is the one that MLflow's API would have made."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

from fmexp.record import events, spool
from fmexp.record.sender import Sender
from fmexp.record.tracker import Content, Outcome, RunExistsError, RunStart
from tests.record_support import stored, uri_of

START = RunStart(
    "a run",
    {"model.k": "8", "data.path": "a.csv", "empty": "", "long": "x" * 7000},
    {"fmexp.version": "0.1", "mlflow.user": "ada", "with space": "ü"},
)
POINTS = [
    *(("train/mse", step, 1000 + step, 1.0 / step) for step in range(1, 60)),
    ("val/mse", 2, 5, 0.5),
    ("val/mse", 1, 9, 0.7),  # the latest is that of the highest step, not the last one sent
    ("val/mse", 1, 9, 0.7),
    ("best/val_mse", 0, 7, -1e300),
]


knows_the_tables = pytest.mark.skipif(
    Version(version("mlflow")) < Version("3.17"), reason="there, MLflow's API writes it all"
)


@pytest.fixture
def store(store_folder: Path):
    from fmexp.record.mlflow_store import Store

    return Store(uri_of(store_folder), "test", store_folder)


def files(folder: Path) -> Path:
    (folder / "files" / "model").mkdir(parents=True)
    (folder / "files" / "model" / "a.json").write_text("[1]")
    return folder / "files"


def content_of(artifacts: Path) -> Content:
    return Content(POINTS, artifacts, (Outcome.DIVERGED, 2000))


def everything(folder: Path, run_id: str) -> dict[str, list[tuple]]:
    """All rows of all tables that know the run, its id replaced."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as db:
        found = {}
        for (table,) in db.execute("select name from sqlite_master where type='table'").fetchall():
            rows = [
                tuple(str(v).replace(run_id, "ID") for v in row)
                for row in db.execute(f"select * from {table}")
                if run_id in "|".join(map(str, row))
            ]
            if rows:
                found[table] = sorted(rows)
    return found


@knows_the_tables
def test_every_table_holds_what_the_api_would_have_written(store, store_folder, tmp_path):
    artifacts = files(tmp_path)
    content = content_of(artifacts)
    whole, is_whole = store.create("key", START, {"more": "1"}, 500, "parent", content)
    assert is_whole
    store._tables.usable = False
    by_api, _ = store.create("key", START, {"more": "1"}, 500, "parent")
    store.log(by_api, START.params, POINTS)
    store.log_artifacts(by_api, artifacts)
    store.terminate(by_api, Outcome.DIVERGED, 2000)
    ours, theirs = everything(store_folder, whole), everything(store_folder, by_api)
    assert ours == theirs
    assert set(ours) == {"runs", "tags", "params", "metrics", "latest_metrics"}
    for run_id in (whole, by_api):
        assert (store_folder / "mlruns/1" / run_id / "artifacts/model/a.json").read_text() == "[1]"


@knows_the_tables
def test_a_second_attempt_is_the_same_run(store, store_folder, tmp_path):
    first, _ = store.create("key", START, {}, 500, None)
    assert store.find("key") == first
    with pytest.raises(RunExistsError):
        store.create("key", START, {}, 500, None)
    with pytest.raises(RunExistsError):
        store.create("key", START, {}, 500, None, content_of(files(tmp_path)))
    assert len(everything(store_folder, first)["runs"]) == 1


@pytest.mark.parametrize(
    "start",
    [
        RunStart("a run", {}, {"a//b": "1"}),
        RunStart("a run", {"../up": "1"}, {}),
        RunStart("a run", {}, {"mlflow.runName": "another"}),
        RunStart("x" * 251, {}, {}),
    ],
)
def test_what_the_api_may_refuse_is_left_to_it(store, store_folder, tmp_path, start):
    content = content_of(files(tmp_path))
    assert store._tables.insert("key", start.name, 500, start.tags, start.params, content) == ""
    assert not (store_folder / "mlruns").exists()


def test_a_schema_that_no_test_has_compared_is_left_to_the_api(store, monkeypatch, tmp_path):
    from fmexp.record import bulk_insert

    monkeypatch.setattr(bulk_insert, "_REVISIONS", frozenset({"another"}))
    tables = bulk_insert.Tables(store._client, store.experiment_id, "mlruns")
    content = content_of(files(tmp_path))
    assert tables.insert("key", START.name, 500, START.tags, {}, content) == ""


@pytest.mark.parametrize("missing", ["_tracking_client", "SqlAlchemyStore"])
def test_without_what_we_reach_for_in_mlflow_the_api_takes_the_run(
    store, store_folder, monkeypatch, tmp_path, missing
):
    from fmexp.record import bulk_insert

    if missing == "SqlAlchemyStore":
        monkeypatch.setattr(bulk_insert, missing, None)
    client = object() if missing == "_tracking_client" else store._client
    store._tables = bulk_insert.Tables(client, store.experiment_id, "mlruns")
    run_id, is_whole = store.create("key", START, {}, 500, None, content_of(files(tmp_path)))
    assert not is_whole
    assert store.find("key") == run_id


def test_a_process_stopped_while_it_opens_a_store_keeps_nobody_out(store_folder):
    from fmexp.record.mlflow_store import Store, _locked

    with _locked(store_folder / ".fmexp", alone=False):
        Store(uri_of(store_folder), "test", store_folder)


def test_a_store_that_somebody_is_writing_to_has_its_tables(store_folder):
    from fmexp.record.mlflow_store import _has_tables

    with closing(sqlite3.connect(store_folder / "mlflow.db")) as writer:
        writer.execute("begin exclusive")
        assert _has_tables(store_folder / "mlflow.db")
    assert not _has_tables(store_folder / "none.db")


def test_one_stopped_while_it_makes_a_store_is_named_after_a_while(tmp_path, monkeypatch):
    from fmexp.errors import StoreError
    from fmexp.record import mlflow_store
    from fmexp.record.recorder import _in_words

    monkeypatch.setattr(mlflow_store, "_LONGEST_WAIT_SECONDS", 0.1)
    held = mlflow_store._locked(tmp_path / ".fmexp", alone=True)
    with held, pytest.raises(StoreError) as raised:
        mlflow_store.Store(uri_of(tmp_path), "test", tmp_path)
    assert "store.lock is held by a process that does not go on" in _in_words(raised.value)


@knows_the_tables
def test_two_commands_that_make_a_sweeps_run_at_once_make_one(store, store_folder, monkeypatch):
    owner, lock = spool.become_owner(store_folder, spool.Destination("", "test", 100))
    start = replace(START, may_exist=True, reopens=True)
    ended = events.End(Outcome.COMPLETED, "", {"best/val_mse": 0.5}, {}, 900)
    events.EventWriter(owner, "key", start).end([], ended)
    looked_too_early = iter([None])
    find = store.find
    monkeypatch.setattr(store, "find", lambda key: next(looked_too_early, find(key)))
    others, _ = store.create("key", START, {}, 500, None)
    sent = dict(Sender(owner, store, 100, wait_for_parents=False).send(last=True))
    os.close(lock)
    assert sent == {"key": others}
    (run,) = stored(store_folder / "mlflow.db")
    assert (run.status, run.metrics) == ("FINISHED", {"best/val_mse": [(0, 0.5)]})


def test_a_long_batch_with_points_that_are_there_already_adds_the_others(store, store_folder):
    run_id, _ = store.create("key", START, {}, 500, None)
    curve = [(name, step, 1000 + step, 0.5) for name in ("a", "b") for step in range(100)]
    store.log(run_id, points=curve[50:60])
    store.log(run_id, points=curve)
    (run,) = stored(store_folder / "mlflow.db")
    assert {name: len(points) for name, points in run.metrics.items()} == {"a": 100, "b": 100}
