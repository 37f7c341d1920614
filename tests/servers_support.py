"""A PostgreSQL and an MLflow server of the tests' own, which can be killed and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

LEAN = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Postgres:
    """A server of our own; as root it runs as the user postgres."""

    def __init__(self, *settings: str) -> None:
        """Args: settings of the server's, by default the fastest."""
        self._settings = settings or ("fsync=off",)
        pytest.importorskip("psycopg")
        pg_config = shutil.which("pg_config")
        if pg_config is None:
            pytest.skip("no PostgreSQL server on this machine")
        found = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=True)
        self._programs = Path(found.stdout.strip())
        if not (self._programs / "initdb").exists():
            pytest.skip("PostgreSQL's server is not installed, only its client")
        self._folder = Path(tempfile.mkdtemp(prefix="fmexp-postgresql-"))
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self._folder, self._user)
        self.port = free_port()
        self._data = self._folder / "data"
        self._run("initdb", "-D", self._data, "-U", "me", "-A", "trust")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._server = subprocess.Popen(
            [self._programs / "postgres", "-D", self._data, "-k", self._folder,
             "-p", str(self.port), *(f"--{each}" for each in self._settings)],
            user=self._user, cwd=self._folder, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        ready = [self._programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode:
            assert self._server.poll() is None
            time.sleep(0.1)

    @property
    def pid(self) -> int:
        """Of the server's first process."""
        return self._server.pid

    def stop(self) -> None:
        """Stop it; its clients lose their connections."""
        self._server.send_signal(signal.SIGINT)  # SIGTERM would wait for clients
        self._server.wait()

    def database(self, name: str) -> str:
        """Make an empty database; its URL."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "me", name)
        return f"postgresql://me@127.0.0.1:{self.port}/{name}"

    def close(self) -> None:
        """Stop it for good."""
        self.stop()
        shutil.rmtree(self._folder)

    def _run(self, program: str, *arguments: object) -> None:
        subprocess.run(
            [self._programs / program, *map(str, arguments)],
            user=self._user, cwd=self._folder, check=True, capture_output=True,
        )  # fmt: skip


class MlflowServer:
    """`mlflow server` on a store of its own."""

    def __init__(self, folder: Path, store: str = "") -> None:
        self.folder, self._port = folder, free_port()
        self._store = store or f"sqlite:///{folder}/mlflow.db"
        self.uri = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port",
                str(self._port), "--backend-store-uri", self._store,
                "--artifacts-destination", f"{self.folder}/served",
            ],
            cwd=self.folder, env=os.environ | LEAN,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        until = time.monotonic() + 90
        while time.monotonic() < until:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
                return
            except OSError:
                time.sleep(0.1)
        pytest.fail("mlflow server did not start")

    def kill(self) -> None:
        """End it as a crash would."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
