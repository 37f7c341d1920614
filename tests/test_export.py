"""`fmexp export`: MLflow's own server, on the command that was printed, predicts the same bits."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import fmexp as package
from tests.record_support import uri_of
from tests.test_ui import free_port

DOCUMENT = Path(__file__).parents[1] / "docs" / "model-format.md"

TABLE = "size,colour,shelf,price\n" + "\n".join(
    f"{i % 7 + 0.5},{('red', 'blue', 'green')[i % 3]},{i % 4},{i % 5 + (i % 3) * (i % 4)}"
    for i in range(200)
)


@pytest.fixture
def trained(fmexp):
    """A run on numbers, names and ids; the rows of its predictions.csv."""
    (fmexp.folder / "table.csv").write_text(TABLE)
    fmexp("run", "data=csv", "data.path=table.csv", "data.target=price")
    (run,) = fmexp.runs()
    path = fmexp.store.download_artifacts(run.info.run_id, "predictions.csv", str(fmexp.folder))
    with open(path) as file:  # noqa: PTH123
        return list(csv.DictReader(file))


@contextmanager
def served(command: str, folder, port: int):
    """MLflow's server as the printed command starts it."""
    server = subprocess.Popen(
        ["bash", "-c", f"{command} --host 127.0.0.1 --port {port}"],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        yield server
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def post(server, port: int, body: dict) -> dict:
    """The answer to a request, once the server is up."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    until = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error
        except OSError:
            assert server.poll() is None and time.monotonic() < until, "no server"  # noqa: PT018
            time.sleep(0.1)


def test_mlflow_serves_the_same_predictions_from_the_registry(fmexp, trained):
    printed = fmexp("export", "latest", "--register", "prices")
    assert "registry prices, version 1\n" in printed
    command = printed.partition("serve    ")[2].splitlines()[0]
    assert command.endswith("-m models:/prices/1")
    columns = {"shelf": int, "size": float, "colour": str}
    data = [[kind(row[name]) for name, kind in columns.items()] for row in trained]
    body = {"dataframe_split": {"columns": list(columns), "data": data}}
    port = free_port()
    with served(command, fmexp.folder, port) as server:
        answer = post(server, port, body)
    assert answer["predictions"] == [float(row["y_pred"]) for row in trained]


def test_export_changes_nothing_of_the_run_and_pickles_nothing(fmexp, trained):
    (before,) = fmexp.runs()
    printed = fmexp("export", "latest")
    (after,) = fmexp.runs()
    assert (after.info.status, after.info.end_time) == (before.info.status, before.info.end_time)
    model_id = printed.partition("models:/")[2].split()[0]
    (folder,) = fmexp.folder.rglob(f"{model_id}/artifacts")
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"served.py", "model.json", "parameters.npz"} <= names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".cloudpickle"))]


def test_a_run_without_a_model_is_refused(fmexp):
    fmexp("run", "training.learning_rate=1e9", "training.cap_steps=false", code=1)
    assert "has no model: it ended diverged" in fmexp("export", "latest", code=2)


def test_python_loads_a_run_or_a_folder(fmexp, trained, monkeypatch):
    uri = uri_of(fmexp.folder)
    rows = {name: [row[name] for row in trained] for name in ("size", "colour", "shelf")}
    rows["size"] = [float(x) for x in rows["size"]]
    expected = np.array([float(row["y_pred"]) for row in trained])
    found = package.load("latest", uri)
    assert (found.predict(rows) == expected).all()
    found.save(fmexp.folder / "kept")
    assert (package.load(fmexp.folder / "kept").predict(rows) == expected).all()
    with pytest.raises(
        AttributeError, match="it has FMClassifier, FMRegressor, current_trial, load"
    ):
        package.other  # noqa: B018


def test_the_documented_script_predicts_what_predictions_csv_says(fmexp, trained):
    (run,) = fmexp.runs()
    folder = fmexp.store.download_artifacts(run.info.run_id, "model", str(fmexp.folder))
    script = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)[1]
    imported = set(re.findall(r"^(?:import|from) (\w+)", script, re.MULTILINE))
    assert imported <= {"json", "math", "numpy", "pathlib", "sys"}
    names = {}
    exec(script, names)
    rows = {name: [row[name] for row in trained] for name in ("size", "colour", "shelf")}
    rows["size"] = [float(x) for x in rows["size"]]
    expected = np.array([float(row["y_pred"]) for row in trained])
    assert (names["predict"](folder, rows) == expected).all()
