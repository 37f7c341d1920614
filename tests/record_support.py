"""Real trainers, recorders and stores for the tracking tests, and a look into a sqlite store."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from fmexp.record.spool_tracker import open_tracker

POINTS = 20

WORKER = f"""
import sys, time
from pathlib import Path
from fmexp.record.tracker import Outcome, RunStart
from fmexp.record.spool_tracker import open_tracker

uri, n_runs, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
tracker = open_tracker(uri, "test", Path.cwd())
print("recorder", tracker._recorder.pid, flush=True)
for i in range(n_runs):
    run = tracker.start_run(RunStart(f"run-{{i}}", {{"model.k": str(i)}}, {{"who": "worker"}}))
    for step in range({POINTS}):
        run.log(step, {{"train/mse": 1.0 / (1 + step)}})
        time.sleep(pause / {POINTS})
    (run.folder / "model").mkdir()
    (run.folder / "model" / "parameters.json").write_text("[1, 2, 3]")
    run.finish(Outcome.COMPLETED, "all epochs", {{"best/val_mse": 0.5}})
    print("finished", run.key, flush=True)
tracker.close()
print("closed", "-", flush=True)
"""


@dataclass
class StoredRun:
    """A run as the sqlite file of a store has it."""

    run_id: str
    name: str
    status: str
    artifacts: Path
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, list[tuple[int, float]]]
    datasets: list[tuple[str, str]]


def stored(database: Path) -> list[StoredRun]:
    """All runs of a sqlite store, read without MLflow."""
    with closing(sqlite3.connect(database)) as db:
        ask = lambda sql, *a: db.execute(sql, a).fetchall()  # noqa: E731
        return [
            StoredRun(
                run_id, name, status, Path(uri),
                dict(ask("select key, value from params where run_uuid=?", run_id)),
                dict(ask("select key, value from tags where run_uuid=?", run_id)),
                _metrics(ask("select key, step, value from metrics where run_uuid=?", run_id)),
                ask(
                    "select d.name, d.digest from datasets d join inputs i "
                    "on i.source_id = d.dataset_uuid where i.destination_id=?", run_id
                ),
            )
            for run_id, name, status, uri in ask(
                "select run_uuid, name, status, artifact_uri from runs"
            )
        ]  # fmt: skip


def _metrics(rows: list[tuple[str, int, float]]) -> dict[str, list[tuple[int, float]]]:
    metrics: dict[str, list[tuple[int, float]]] = {}
    for key, step, value in sorted(rows):
        metrics.setdefault(key, []).append((step, value))
    return metrics


def uri_of(folder: Path) -> str:
    return f"sqlite:///{folder}/mlflow.db"


def start_worker(folder: Path, n_runs: int, pause: float = 0.0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, uri_of(folder), str(n_runs), str(pause)],
        cwd=folder, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def told(output: str) -> dict[str, list[str]]:
    """A worker's lines by their first word; one torn by a kill does not count."""
    lines: dict[str, list[str]] = {"recorder": [], "finished": [], "closed": []}
    for line in output.splitlines(keepends=True):
        if line.endswith("\n"):
            word, rest = line.split()
            lines[word].append(rest)
    return lines


def next_start(folder: Path) -> None:
    """What any later command does: open a tracker, close it."""
    open_tracker(uri_of(folder), "test", folder).close()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables; making them takes seconds, so it is done once."""
    folder = tmp_path_factory.mktemp("store")
    next_start(folder)
    return folder / "mlflow.db"


def copy_store(empty_store: Path, folder: Path) -> Path:
    """Put a store that has no runs, but whose artifacts will lie there, into a folder."""
    shutil.copy(empty_store, folder / "mlflow.db")
    with closing(sqlite3.connect(folder / "mlflow.db")) as db:
        db.execute("update experiments set artifact_location = ?", (f"{folder}/mlruns/1",))
        db.commit()
    return folder


@pytest.fixture
def store_folder(tmp_path: Path, empty_store: Path) -> Path:
    """A working folder with a store that has no runs."""
    return copy_store(empty_store, tmp_path)


def assert_whole(runs: list[StoredRun], finished: list[str]) -> None:
    """Every finished run is there once and complete, every other one closed as interrupted."""
    by_key: dict[str, list[StoredRun]] = {}
    for run in runs:
        by_key.setdefault(run.tags["fmexp.run_key"], []).append(run)
    assert all(len(same) == 1 for same in by_key.values())
    for key in finished:
        (run,) = by_key.pop(key)
        assert (run.status, run.tags["fmexp.outcome"]) == ("FINISHED", "completed")
        assert [step for step, _ in run.metrics["train/mse"]] == list(range(POINTS))
        assert run.metrics["best/val_mse"] == [(0, 0.5)]
        assert run.params == {"model.k": run.name.removeprefix("run-")}
        assert json.loads((run.artifacts / "model/parameters.json").read_text()) == [1, 2, 3]
    for (run,) in by_key.values():  # ended, but killed before it could say so, or not ended
        assert run.status in ("FINISHED", "KILLED")
        assert run.tags["fmexp.outcome"] in ("completed", "interrupted")
