"""Stores that hang, drip, refuse or are damaged; signals; folders whose names databases misread."""

from __future__ import annotations

import math
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fmexp.cli.parser import main
from fmexp.experiment import console, one_run
from fmexp.record.tracker import NULL_TRACKER, Delivery, nothing
from fmexp.sweep.interrupt import LEAVING_SECONDS

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
DENIED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


def serve(listener: socket.socket, kind: str) -> None:
    """Answer every connection in the way of that kind of server until the listener is closed."""

    def answer(to: socket.socket) -> None:
        with to:
            try:
                to.recv(1 << 16)
                if kind == "denies":
                    to.sendall(DENIED)
                    return
                for byte in HEAD if kind == "drips" else ():
                    to.sendall(bytes([byte]))
                    time.sleep(0.5)
                time.sleep(300)
            except OSError:
                return

    while True:
        try:
            to, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=answer, args=(to,), daemon=True).start()


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a bad server on this machine; its kind is the parameter."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener, request.param), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("server", ["hangs", "drips", "denies"], indirect=True)
def test_a_bad_server_ends_every_command_with_a_sentence(server, fmexp):
    fmexp.env |= {"FMEXP_PATIENCE": "4", "MLFLOW_TRACKING_URI": server}
    said = fmexp("run", "training.epochs=1", code=1)
    assert "has not taken the record" in said
    assert "Nothing is lost: it waits in" in said
    assert server in fmexp("compare", "latest", code=1)
    assert "none:" in fmexp("doctor", code=1)


@pytest.mark.parametrize("server", ["hangs"], indirect=True)
def test_an_interrupt_while_waiting_says_where_the_record_waits(server, fmexp):
    fmexp.env |= {"MLFLOW_TRACKING_URI": server}
    process = fmexp.start("run", "training.epochs=1")
    events = fmexp.folder / ".fmexp" / "spool"
    while not any(b'"end"' in path.read_bytes() for path in events.glob("*/*/events.jsonl")):
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)  # the command waits for its recorder now, or very soon
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert f"the record waits in {events}" in err


@pytest.mark.parametrize("moment", ["as training ends", "as its outcome is said"])
def test_an_interrupt_after_training_does_not_wait_for_the_record(moment, here, monkeypatch):
    waited: list[float] = []

    class Hanging:
        start_run = NULL_TRACKER.start_run

        def close(self, _=nothing, seconds=math.inf):
            waited.append(seconds)
            return Delivery()

    def interrupted(*arguments):
        result = was(*arguments)
        signal.raise_signal(signal.SIGINT)
        return result

    where, name = (one_run, "run") if moment == "as training ends" else (console, "outcome")
    was = getattr(where, name)
    monkeypatch.setattr("fmexp.cli.jobs.tracker_of", lambda *_: Hanging())
    monkeypatch.setattr(where, name, interrupted)
    assert main(["run", "training.epochs=1"]) == 130
    assert waited == [LEAVING_SECONDS]


def damage(database: Path, how: str) -> None:
    """Make a working store one that cannot be used."""
    if how == "damaged":
        whole = database.read_bytes()
        database.write_bytes(whole[:8192] + os.urandom(len(whole) - 8192))
        return
    with closing(sqlite3.connect(database)) as db:
        if how == "newer":
            db.execute("update alembic_version set version_num = 'ffffffffffff'")
        else:
            endless = (
                "with recursive r(x) as (select 1 union all select x+1 from r) select x from r"
            )
            db.execute("drop table experiments")
            db.execute(f"create view experiments as {endless}")
        db.commit()


@pytest.mark.usefixtures("store_folder")
@pytest.mark.parametrize("how", ["damaged", "newer", "loops"])
def test_a_database_that_is_broken_ends_every_command_with_a_sentence(how, fmexp):
    damage(fmexp.folder / "mlflow.db", how)
    fmexp.env |= {"FMEXP_PATIENCE": "4" if how == "loops" else "1000"}
    assert "Nothing is lost: it waits in" in fmexp("run", "training.epochs=1", code=1)
    assert "mlflow.db" in fmexp("compare", "latest", code=1)
    assert "none:" in fmexp("doctor", code=1)


@pytest.mark.parametrize("name", ["a?b", "a%20b", "a#b", "a?mode=memory"])
def test_a_folder_whose_name_a_database_would_misread_is_refused(name, fmexp):
    fmexp.folder = fmexp.folder / name
    fmexp.folder.mkdir()
    fmexp.made_store = None
    said = fmexp("run", "training.epochs=1", code=2)
    assert "in the name of a folder or file a database address cannot hold" in said
    assert list(fmexp.folder.iterdir()) == []
    assert list(fmexp.folder.parent.iterdir()) == [fmexp.folder]
    fmexp("run", "training.epochs=1", "tracking=none")
    assert fmexp.folder.name in fmexp("doctor", code=2)


@pytest.mark.parametrize("command", [
    ["run", "data=planted", "data.rows=2000000", "training.epochs=1000", "tracking=none"],
    ["run", "data=planted", "data.rows=2000000", "training.epochs=1000"],
    ["run", "-m", "data=planted", "data.rows=2000000", "training.epochs=1000", "tracking=none"],
])  # fmt: skip
def test_sigterm_ends_a_command_within_its_longest_epoch(command, fmexp):
    process = fmexp.start(*command)
    time.sleep(6)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode in (130, 143, -signal.SIGTERM)


def test_a_limit_under_which_openblas_would_spin_for_ever_is_refused(fmexp):
    done = subprocess.run(
        ["bash", "-c", 'ulimit -v 500000; exec "$0" "$@"', sys.executable, "-m", "fmexp", "run"],
        cwd=fmexp.folder, env=fmexp.environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "the limit is 488 MiB: raise it (ulimit -v 1048576)" in done.stderr


def cpu_ticks(pid: int) -> int:
    """User time of a process in hundredths of a second."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


ENDLESS = """
import sqlite3, sys
from fmexp.cli import parser

def loop(argv):
    parser.interrupt.sigterm_is_ctrl_c()
    parser.interrupt.GRACE_SECONDS = 1.0
    endless = "with recursive r(x) as (select 1 union all select x + 1 from r) select max(x) from r"
    with parser.interrupt.stop_on_signals(in_time=True):  # as a sweep does
        print("on", flush=True)
        sqlite3.connect(":memory:").execute(endless).fetchone()

parser._dispatch = loop
sys.exit(parser.entry())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_sweep_whose_main_thread_never_comes_back_to_python_ends_in_time(number, here):
    process = subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "on\n"
    used = cpu_ticks(process.pid)
    while cpu_ticks(process.pid) < used + 50:  # it is in its loop
        assert process.poll() is None
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert "terminated in mid-work" in err
