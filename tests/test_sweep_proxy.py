"""Optuna's gRPC proxy as a study's storage: grpc://host:port."""

from __future__ import annotations

import subprocess
import sys
import threading

import optuna
import pytest

from fmexp.errors import StoreError
from fmexp.sweep.storage import open_storage
from fmexp.sweep.study import SweepStudy
from tests.servers_support import free_port
from tests.sweep_support import sweep_here
from tests.test_docs import blocks
from tests.test_sweep_machines import assert_exact

pytest.importorskip("grpc")
DATABASE = '"postgresql+psycopg://fmexp@localhost:5433/study"'
BEHIND = """
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
behind = JournalStorage(JournalFileBackend("behind.journal"))
"""


@pytest.fixture
def proxy(tmp_path):
    """Starts the proxy of docs/scale.md, on a journal, and ends it afterwards."""
    started = []

    def start(port):
        (shown,) = blocks("docs/scale.md", "python")
        assert DATABASE in shown
        server = BEHIND + shown.replace(DATABASE, "behind").replace("13000", str(port))
        command = [sys.executable, "-W", "ignore", "-c", server]
        started.append(subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_sweep_through_a_proxy_is_exact_and_waits_for_one_that_is_restarted(
    proxy, tmp_path, monkeypatch, capsys
):
    port = free_port()
    url, running = f"grpc://127.0.0.1:{port}", proxy(port)
    storage = open_storage(url, tmp_path, patience=60, opening=60)
    where = (f"hydra.sweeper.storage={url}", "hydra/sweeper/sampler=random")
    jobs = ("hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=6")
    assert "6 of 6 trials" in sweep_here(tmp_path, monkeypatch, capsys, *where, *jobs)
    assert_exact(storage, 6)
    running.kill()
    running.wait()
    again = threading.Timer(1.0, proxy, [port])
    again.start()
    (name,) = optuna.get_all_study_names(storage)
    SweepStudy(storage, name).set_attribute("a", 1)
    again.join()
    assert SweepStudy(storage, name).attributes()["a"] == 1


def test_what_names_no_proxy_is_refused(refused):
    printed = refused("run", "-m", "data=planted", "hydra.sweeper.storage=grpc://host")
    assert "grpc://host:port (Optuna's proxy)" in printed


def test_a_proxy_that_does_not_answer_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"does not answer; does optuna\.storages\.run_grpc"):
        open_storage(f"grpc://127.0.0.1:{free_port()}", tmp_path)
