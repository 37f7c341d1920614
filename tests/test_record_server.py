"""Against a real `mlflow server` that is killed and started again while runs are open."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fmexp.record.spool_tracker import open_tracker
from fmexp.record.tracker import Outcome, RunStart
from tests.record_support import stored
from tests.servers_support import MlflowServer


@pytest.mark.skipif(not os.environ.get("FMEXP_SOAK"), reason="half a minute: make soak")
def test_a_server_killed_and_started_again_gets_every_run_once(store_folder: Path) -> None:
    server = MlflowServer(store_folder)
    server.start()
    try:
        tracker = open_tracker(server.uri, "served", store_folder)

        def train(name: str) -> None:
            run = tracker.start_run(RunStart(name, {"model.k": "3"}, {}))
            assert run.folder is not None
            (run.folder / "config.yaml").write_text("seed: 0\n")
            for epoch in range(1100):
                run.log(epoch, {"train/mse": 1.0})
            run.finish(Outcome.COMPLETED)

        for i in range(3):
            train(f"before-{i}")
        until = time.monotonic() + 60
        while not stored(store_folder / "mlflow.db") and time.monotonic() < until:
            time.sleep(0.05)
        server.kill()
        for i in range(3):
            train(f"while-{i}")
        server.start()
        delivery = tracker.close()
    finally:
        server.kill()
    runs = stored(store_folder / "mlflow.db")
    assert sorted(run.run_id for run in runs) == sorted(delivery.run_ids.values())
    assert sorted(run.name for run in runs) == [
        f"{when}-{i}" for when in ("before", "while") for i in range(3)
    ]
    assert {run.status for run in runs} == {"FINISHED"}
    assert all([s for s, _ in run.metrics["train/mse"]] == list(range(1100)) for run in runs)
    assert len(list((store_folder / "served").rglob("config.yaml"))) == 6
