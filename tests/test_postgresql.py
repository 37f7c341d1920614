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

import pytest


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
    import psycopg

    record = f"postgresql+psycopg://me@{server}/record"
    sweep = (
        "run", "-m", "data=planted", "training.epochs=5", "hydra.sweeper.n_trials=12",
        f"hydra.sweeper.storage=postgresql://me@{server}/study", f"tracking.uri={record}",
    )  # fmt: skip
    commands = [fmexp.start(*sweep) for _ in range(3)]
    outputs = [command.communicate(timeout=240) for command in commands]
    assert [command.returncode for command in commands] == [0] * 3, outputs
    assert all("12 of 12 trials: 12 completed" in out for out, _ in outputs)

    with psycopg.connect(f"postgresql://me@{server}/study") as study:
        points = study.execute(
            "select string_agg(param_name || param_value, ' ' order by param_name) from trials "
            "join trial_params using (trial_id) where state = 'COMPLETE' group by trial_id"
        ).fetchall()
    assert len(points) == len(set(points)) == 12
    with psycopg.connect(f"postgresql://me@{server}/record") as recorded:
        statuses = recorded.execute("select status from runs").fetchall()
        curves = recorded.execute(
            "select array_agg(step order by step), min(value), "
            "(select value from latest_metrics b where b.run_uuid = m.run_uuid "
            "and key = 'best/val_mse') from metrics m where key = 'val/mse' group by run_uuid"
        ).fetchall()
    assert statuses == [("FINISHED",)] * 13
    assert [steps for steps, _, _ in curves] == [[1, 2, 3, 4, 5]] * 12
    assert all(lowest == best for _, lowest, best in curves)
