"""The tracker on real recorder processes and a real sqlite store."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fmexp.errors import StoreError, UserError
from fmexp.record import spool_tracker as module
from fmexp.record.events import End, EventWriter
from fmexp.record.spool import Destination, become_owner, spooled_runs
from fmexp.record.spool_tracker import drain, open_tracker
from fmexp.record.tracker import STATUS, Outcome, RunStart
from tests.record_support import assert_whole, start_worker, stored, told, uri_of

DATASET = {"name": "planted", "digest": "d" * 64, "source": "generated", "rows": "100"}


def wait_for_a_run(folder: Path) -> str:
    """The id of the first run to show up in the store."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for row in stored(folder / "mlflow.db"):
            return row.run_id
        time.sleep(0.05)
    raise AssertionError("no run showed up")


def test_the_training_process_loads_neither_mlflow_nor_numpy() -> None:
    code = (
        "import sys, fmexp.record.spool_tracker as t; print({'mlflow', 'numpy'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


def test_a_run_arrives_whole(store_folder: Path) -> None:
    tracker = open_tracker(uri_of(store_folder), "test", store_folder)
    start = RunStart("mine", {"model.k": "3", "long": "x" * 7000}, {"me": "you"}, DATASET)
    run = tracker.start_run(start)
    assert run.folder is not None
    (run.folder / "model").mkdir()
    (run.folder / "model/parameters.npz").write_bytes(b"\x00\xff")
    for epoch in range(50):
        run.log(epoch, {"train/mse": 1 / (epoch + 1), "val/mse": 2.0})
    run.finish(Outcome.COMPLETED, "all epochs", {"best/epoch": 49}, {"late": "tag"})
    delivery = tracker.close()

    (row,) = stored(store_folder / "mlflow.db")
    assert delivery.run_ids == {run.key: row.run_id}
    assert (row.name, row.status) == ("mine", "FINISHED")
    assert row.params["model.k"] == "3"
    assert row.params["long"] == "x" * 5997 + "..."
    assert row.metrics["train/mse"] == [(e, 1 / (e + 1)) for e in range(50)]
    assert row.metrics["best/epoch"] == [(0, 49)]
    expected = {"me": "you", "late": "tag", "fmexp.outcome": "completed"}
    assert expected.items() <= row.tags.items()
    assert row.tags["fmexp.reason"] == "all epochs"
    assert (row.artifacts / "model/parameters.npz").read_bytes() == b"\x00\xff"
    assert row.datasets == [("planted", "d" * 36)]
    assert spooled_runs(store_folder) == []
    assert not any((store_folder / ".fmexp/spool").glob("2*"))


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Outcome.COMPLETED, "FINISHED"),
        (Outcome.PRUNED, "FINISHED"),
        (Outcome.DIVERGED, "FAILED"),
        (Outcome.FAILED, "FAILED"),
        (Outcome.INTERRUPTED, "KILLED"),
    ],
)
def test_outcomes(outcome: Outcome, status: str) -> None:
    assert STATUS[outcome] == status


def test_several_threads_share_a_tracker_and_children_know_their_parent(
    store_folder: Path,
) -> None:
    tracker = open_tracker(uri_of(store_folder), "test", store_folder, thin_to=5)
    parent = tracker.start_run(RunStart("sweep", {}, {}))

    def trial(number: int) -> None:
        run = tracker.start_run(RunStart(f"trial-{number}", {}, {}, parent=parent.key))
        for epoch in range(100):
            run.log(epoch, {"loss": float(number)})
        run.finish(Outcome.COMPLETED)

    threads = [threading.Thread(target=trial, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    parent.finish(Outcome.COMPLETED)
    ids = tracker.close().run_ids
    runs = {run.name: run for run in stored(store_folder / "mlflow.db")}
    assert len(runs) == 9
    for i in range(8):
        child = runs[f"trial-{i}"]
        assert child.tags["mlflow.parentRunId"] == ids[parent.key]
        assert child.metrics["loss"] == [(e, float(i)) for e in (0, 25, 50, 74, 99)]


def test_a_parent_of_another_tracker_is_found_and_a_short_wait_for_it_is_no_news(
    store_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    launcher = open_tracker(uri_of(store_folder), "test", store_folder)
    parent = launcher.start_run(RunStart("sweep", {}, {}))
    worker = open_tracker(uri_of(store_folder), "test", store_folder)
    worker.start_run(RunStart("child", {}, {}, parent=parent.key)).finish(Outcome.COMPLETED)
    child_ids = worker.close().run_ids  # waits for the parent, which shows after two seconds
    assert caplog.messages == []
    parent.finish(Outcome.COMPLETED)
    parent_id = launcher.close().run_ids[parent.key]
    runs = {run.run_id: run for run in stored(store_folder / "mlflow.db")}
    (child_id,) = child_ids.values()
    assert runs[child_id].tags["mlflow.parentRunId"] == parent_id


def test_a_long_run_can_be_watched(store_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FLUSH_SECONDS", 0.1)
    tracker = open_tracker(uri_of(store_folder), "test", store_folder)
    run = tracker.start_run(RunStart("long", {"model.k": "3"}, {}))
    seen, step, until = [], 0, time.monotonic() + 60
    while len(seen) < 2 and time.monotonic() < until:
        run.log(step, {"loss": 1.0})
        step += 1
        time.sleep(0.05)
        runs = stored(store_folder / "mlflow.db")
        seen = runs[0].metrics.get("loss", []) if runs else []
    assert len(seen) >= 2
    assert runs[0].status == "RUNNING"
    assert runs[0].params == {"model.k": "3"}
    run.finish(Outcome.COMPLETED)
    tracker.close()
    (row,) = stored(store_folder / "mlflow.db")
    assert [s for s, _ in row.metrics["loss"]] == list(range(step))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nothing_that_is_not_finite_is_logged(store_folder: Path, value: float) -> None:
    run = module._SpooledRun(
        None, module.events.EventWriter(store_folder, "r", RunStart("", {}, {}))
    )  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match=r"train/mse=.* end the run as diverged"):
        run.log(0, {"train/mse": value})
    with pytest.raises(AssertionError, match="best/val_mse"):
        run.finish(Outcome.COMPLETED, metrics={"best/val_mse": value})


def test_a_store_that_does_not_answer_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = "http://me:secret@127.0.0.1:9"
    tracker = open_tracker(uri, "test", tmp_path, patience_seconds=0.2)
    tracker.start_run(RunStart("mine", {}, {})).finish(Outcome.COMPLETED)
    with pytest.raises(StoreError, match=r"Nothing is lost: it waits in .*\.fmexp/spool") as error:
        tracker.close()
    assert "secret" not in str(error.value) + caplog.text
    assert "127.0.0.1" in str(error.value)
    (waiting,) = spooled_runs(tmp_path)
    assert (waiting.name, waiting.state) == ("mine", "unsent")
    assert drain(tmp_path, uri, 0.2).troubles != ()
    assert len(spooled_runs(tmp_path)) == 1


def test_who_is_in_a_hurry_leaves_the_rest_to_the_recorder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = open_tracker("http://127.0.0.1:9", "test", tmp_path, patience_seconds=10)
    tracker.start_run(RunStart("mine", {}, {})).finish(Outcome.COMPLETED)
    assert tracker.close(seconds=0.1).run_ids == {}
    assert "still being sent, in the background" in caplog.text
    recorder = tracker._recorder  # type: ignore[attr-defined]
    assert recorder.poll() is None
    tracker._lost = "killed"  # type: ignore[attr-defined] # not to be started again
    recorder.kill()
    tracker._listener.join()  # type: ignore[attr-defined]


def test_a_name_that_mlflow_refuses_is_refused_at_once(store_folder: Path) -> None:
    tracker = open_tracker(uri_of(store_folder), "test", store_folder)
    with pytest.raises(UserError, match="tag 'a=b' cannot be stored"):
        tracker.start_run(RunStart("mine", {}, {"a=b": "c"}))
    tracker.close()


def test_drain_sends_what_a_killed_trainer_left(store_folder: Path) -> None:
    owner, lock = become_owner(store_folder, Destination(uri_of(store_folder), "test", 320))
    for name in ("finished", "orphan"):
        writer = EventWriter(owner, name, RunStart(name, {}, {}, parent="never-heard-of"))
        (writer.artifacts / "model.npz").write_text("maybe half of it")
        writer.points([(0, 5, {"loss": 1.0})])
        if name == "finished":
            writer.end([], End(Outcome.COMPLETED, "", {}, {}, 7))
    assert drain(store_folder, uri_of(store_folder)).run_ids == ()  # its trainer lives
    os.close(lock)
    assert len(drain(store_folder, uri_of(store_folder)).run_ids) == 2

    runs = {run.name: run for run in stored(store_folder / "mlflow.db")}
    assert {name: run.status for name, run in runs.items()} == {
        "finished": "FINISHED",
        "orphan": "KILLED",
    }
    assert runs["orphan"].tags["fmexp.outcome"] == "interrupted"
    assert "killed" in runs["orphan"].tags["fmexp.reason"]
    assert runs["orphan"].metrics == {"loss": [(0, 1.0)]}
    assert runs["orphan"].tags["fmexp.parent_key"] == "never-heard-of"
    assert (runs["finished"].artifacts / "model.npz").exists()
    assert not runs["orphan"].artifacts.exists()
    assert drain(store_folder, uri_of(store_folder)).run_ids == ()


def test_a_run_that_its_user_closed_is_left_alone(store_folder: Path) -> None:
    tracker = open_tracker(uri_of(store_folder), "test", store_folder)
    run = tracker.start_run(RunStart("mine", {}, {}))
    run_id = wait_for_a_run(store_folder)
    code = (
        "import sys, mlflow; mlflow.MlflowClient(sys.argv[1]).set_terminated(sys.argv[2], 'KILLED')"
    )
    subprocess.run([sys.executable, "-c", code, uri_of(store_folder), run_id], check=True)
    run.finish(Outcome.COMPLETED)
    tracker.close()
    (row,) = stored(store_folder / "mlflow.db")
    assert row.status == "KILLED"
    assert "fmexp.outcome" not in row.tags


def test_a_recorder_killed_in_mid_run_is_replaced_by_one_that_finds_the_run(
    store_folder: Path,
) -> None:
    tracker = open_tracker(uri_of(store_folder), "test", store_folder)
    run = tracker.start_run(RunStart("mine", {"model.k": "3"}, {}))
    run.log(0, {"loss": 1.0})
    wait_for_a_run(store_folder)
    tracker._recorder.kill()  # type: ignore[attr-defined]
    run.log(1, {"loss": 2.0})
    run.finish(Outcome.COMPLETED)
    ids = tracker.close().run_ids
    (row,) = stored(store_folder / "mlflow.db")
    assert ids == {run.key: row.run_id}
    assert (row.status, row.metrics["loss"]) == ("FINISHED", [(0, 1.0), (1, 2.0)])


def test_a_recorder_that_cannot_live_is_a_store_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow/__init__.py").write_text("import os; os._exit(9)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    tracker = open_tracker(uri_of(tmp_path), "test", tmp_path)
    tracker.start_run(RunStart("mine", {}, {})).finish(Outcome.COMPLETED)
    with pytest.raises(StoreError, match=r"recorder died 4 times .* Nothing is lost"):
        tracker.close()
    assert [run.state for run in spooled_runs(tmp_path)] == ["unsent"]


def test_four_trackers_at_once_on_an_empty_folder(tmp_path: Path) -> None:
    workers = [start_worker(tmp_path, 2) for _ in range(4)]
    outputs = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4
    finished = [key for output in outputs for key in told(output)["finished"]]
    assert len(finished) == 8
    assert_whole(stored(tmp_path / "mlflow.db"), finished)


def test_a_winner_that_a_killed_command_left_is_sent_before_the_sweep_that_links_to_it(
    store_folder: Path,
) -> None:
    tracker = open_tracker(uri_of(store_folder), "test", store_folder)
    sweep = tracker.start_run(RunStart("sweep", {}, {}, key="sweep", reopens=True))
    dead, lock = become_owner(store_folder, Destination(uri_of(store_folder), "test", 100))
    left = EventWriter(dead, "sweep-0", RunStart("0", {}, {}, parent="sweep", key="sweep-0"))
    left.end([], End(Outcome.COMPLETED, "", {"best/val_mse": 0.5}, {}, 1000))
    os.close(lock)
    folder = sweep.attach("sweep-0")
    assert folder is not None
    (folder / "curve.png").write_bytes(b"a picture")
    sweep.finish(Outcome.COMPLETED, links={"fmexp.winner": "sweep-0"})
    tracker.close()
    runs = {run.name: run for run in stored(store_folder / "mlflow.db")}
    assert runs["sweep"].tags["fmexp.winner"] == runs["0"].run_id
    assert (runs["0"].artifacts / "curve.png").read_bytes() == b"a picture"
    assert runs["0"].tags["mlflow.parentRunId"] == runs["sweep"].run_id
