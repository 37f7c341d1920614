"""`fmexp doctor` says what is there, sends what waits, and names what is wrong."""

from __future__ import annotations

import signal
import time

import pytest


def test_an_empty_folder_is_healthy_and_stays_empty(fmexp):
    printed = fmexp("doctor")
    assert "the default, mlflow.db in the working directory" in printed
    assert "the first run makes it" in printed
    assert list(fmexp.folder.iterdir()) == []


@pytest.mark.usefixtures("store_folder")
def test_a_killed_run_is_closed(fmexp):
    process = fmexp.start("run", "data=planted", "data.rows=50000", "training.epochs=1000000000")
    events = fmexp.folder / ".fmexp" / "spool"
    while not any(path.stat().st_size > 1000 for path in events.glob("*/*/events.jsonl")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    printed = fmexp("doctor")
    assert "0 runs RUNNING" in printed
    (run,) = fmexp.runs()
    assert run.info.status == "KILLED"
    assert run.data.tags["fmexp.outcome"] == "interrupted"
    assert "spool    empty" in fmexp("doctor")


def test_a_store_that_does_not_answer_is_named(fmexp):
    (fmexp.folder / "mlflow.db").write_bytes(b"SQLite format 3\x00 and then rubbish")
    printed = fmexp("doctor", code=1)
    assert "answer   none:" in printed


def test_an_address_that_cannot_be_is_the_users_mistake(fmexp):
    assert "MLflow knows no store" in fmexp("doctor", "--uri", "gopher://x", code=2)
