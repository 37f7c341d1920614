"""`fmexp ui` as a process: what it prints is there, and nothing of it stays behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from itertools import takewhile
from pathlib import Path
from urllib.parse import unquote

import pytest

from fmexp.cli.ui import serve
from fmexp.errors import UserError
from fmexp.record.spool_tracker import open_tracker
from fmexp.record.tracker import Outcome, RunStart
from tests.record_support import uri_of


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def record_a_sweep(folder: Path) -> dict[str, str]:
    """Seven trials, losses 6 to 0; the run ids by name."""
    tracker = open_tracker(uri_of(folder), "test", folder)
    names = {}
    parent = tracker.start_run(RunStart("sweep", {}, {}))
    for i in range(7):
        run = tracker.start_run(RunStart(f"trial-{i}", {}, {}, parent=parent.key))
        run.finish(Outcome.COMPLETED, metrics={"best/val_mse": float(6 - i)})
        names[run.key] = f"trial-{i}"
    parent.finish(Outcome.COMPLETED)
    names[parent.key] = "sweep"
    return {names[key]: run_id for key, run_id in tracker.close().run_ids.items()}


def processes_with(argument: str) -> list[str]:
    listing = subprocess.check_output(["ps", "-wweo", "pid,args"], text=True)
    return [line for line in listing.splitlines() if argument in line and "mlflow" in line]


@pytest.mark.parametrize(
    "sent", [signal.SIGINT, *([signal.SIGTERM] if os.environ.get("FMEXP_SOAK") else [])]
)
def test_it_prints_the_newest_sweep_and_leaves_nothing_behind(
    store_folder: Path, sent: signal.Signals
) -> None:
    ids, port = record_a_sweep(store_folder), free_port()
    ui = subprocess.Popen(
        [sys.executable, "-m", "fmexp", "ui", "--port", str(port)],
        cwd=store_folder, stdout=subprocess.PIPE, text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")},
    )  # fmt: skip
    assert ui.stdout is not None
    with ui.stdout:
        lines = list(takewhile(lambda line: "Ctrl-C" not in line, ui.stdout))
        started = processes_with(f"--port {port}")
        ui.send_signal(sent)
        lines += ui.stdout.readlines()
    assert ui.wait() == 0
    assert started != []
    assert processes_with(f"--port {port}") == []
    shown = unquote("".join(lines))
    assert f"http://127.0.0.1:{port}/#/experiments/1/runs/{ids['sweep']}?" in shown
    compared = re.search(r'compare-runs\?runs=(\[.*\])&experiments=\["1"\]', shown)
    assert compared is not None
    assert json.loads(compared[1]) == [ids[f"trial-{i}"] for i in (6, 5, 4, 3, 2)]


def test_without_a_store_it_says_so_and_makes_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no store .*mlflow.db yet; `fmexp run`"):
        serve(uri_of(tmp_path), "127.0.0.1", 5000, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_taken_port_is_said_with_another(store_folder: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port {port} cannot be listened on .*--port \d+"):
            serve(uri_of(store_folder), "127.0.0.1", port, store_folder)


def test_a_server_is_only_pointed_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve("http://me:secret@host:5000", "127.0.0.1", 5000, tmp_path) == 0
    out = capsys.readouterr().out
    assert "host:5000" in out
    assert "secret" not in out
