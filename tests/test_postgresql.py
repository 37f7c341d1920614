"""The study and the record both on a real PostgreSQL server, with commands racing for it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from fmexp.sweep.marks import counts
from fmexp.sweep.storage import open_storage


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """host:port of a server of our own; as root it runs as the user postgres."""
    pytest.importorskip("psycopg")
    pg_config = shutil.which("pg_config")
    if pg_config is None:
        pytest.skip("no PostgreSQL server on this machine")
    found = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=True)
    programs = Path(found.stdout.strip())
    if not (programs / "initdb").exists():
        pytest.skip("PostgreSQL's server is not installed, only its client")
    folder = Path(tempfile.mkdtemp(prefix="fmexp-postgresql-"))
    user = "postgres" if os.geteuid() == 0 else None
    if user:
        shutil.chown(folder, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    subprocess.run(
        [programs / "initdb", "-D", folder / "data", "-U", "me", "-A", "trust"],
        user=user, cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    process = subprocess.Popen(
        [programs / "postgres", "-D", folder / "data", "-k", folder, "-p", str(port)],
        user=user, cwd=folder, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while subprocess.run(
            [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)], check=False
        ).returncode:
            assert process.poll() is None
            time.sleep(0.1)
        for database in ("study", "record"):
            make = ["-h", "127.0.0.1", "-p", str(port), "-U", "me", database]
            subprocess.run([programs / "createdb", *make], check=True)
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)  # SIGTERM would wait for clients
        process.wait()
        shutil.rmtree(folder)


def test_racing_commands_do_one_sweep_exactly_and_record_it(fmexp, server):
    from mlflow import MlflowClient

    record = f"postgresql+psycopg://me@{server}/record"
    sweep = (
        "run", "-m", "data=planted", "training.epochs=5", "hydra.sweeper.n_trials=12",
        f"hydra.sweeper.storage=postgresql://me@{server}/study", f"tracking.uri={record}",
    )  # fmt: skip
    commands = [fmexp.start(*sweep) for _ in range(3)]
    outputs = [command.communicate(timeout=240) for command in commands]
    assert [command.returncode for command in commands] == [0] * 3, outputs
    assert all("12 of 12 trials: 12 completed" in out for out, _ in outputs)

    storage = open_storage(f"postgresql+psycopg://me@{server}/study", fmexp.folder)
    (name,) = optuna.get_all_study_names(storage)
    counted = [t for t in optuna.load_study(study_name=name, storage=storage).trials if counts(t)]
    assert len(counted) == len({tuple(t.params.items()) for t in counted}) == 12

    client = MlflowClient(record)
    experiment = client.get_experiment_by_name("fmexp")
    (parent,) = client.search_runs([experiment.experiment_id], "tags.fmexp.kind = 'sweep'")
    trials = client.search_runs(
        [experiment.experiment_id], f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
    )
    assert [run.info.status for run in [parent, *trials]] == ["FINISHED"] * 13
    for run in trials:
        curve = client.get_metric_history(run.info.run_id, "val/mse")
        assert [point.step for point in curve] == [1, 2, 3, 4, 5]
        assert min(point.value for point in curve) == run.data.metrics["best/val_mse"]
