"""Reading runs back: by id, beginning of the id, name or `latest`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fmexp.errors import StoreError, UserError
from fmexp.record.queries import StoredRuns
from fmexp.record.spool_tracker import open_tracker
from fmexp.record.tracker import Outcome, RunStart
from tests.record_support import copy_store, uri_of


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A folder whose store holds, in this order: first, twin, twin, a sweep and its two trials."""
    folder = copy_store(empty_store, tmp_path_factory.mktemp("recorded"))
    tracker = open_tracker(uri_of(folder), "records", folder)
    for name in ("first run", "twin", "twin"):
        run = tracker.start_run(RunStart(name, {"model.k": "3"}, {"who": "me"}))
        for epoch in (1, 2, 3):
            run.log(epoch, {"train/mse": 1 / epoch})
        assert run.folder is not None
        (run.folder / "model").mkdir()
        (run.folder / "model/model.json").write_text("{}")
        run.finish(Outcome.COMPLETED, metrics={"best/val_mse": 0.25})
    parent = tracker.start_run(RunStart("a sweep", {}, {"fmexp.kind": "sweep"}))
    for n, outcome in enumerate((Outcome.COMPLETED, Outcome.DIVERGED)):
        start = RunStart(f"trial {n}", {}, {"fmexp.trial": str(n)}, parent=parent.key)
        tracker.start_run(start).finish(outcome)
    parent.finish(Outcome.COMPLETED)
    tracker.close()
    return folder


@pytest.fixture
def records(recorded: Path) -> Iterator[StoredRuns]:
    with StoredRuns(uri_of(recorded)) as opened:
        yield opened


def test_a_run_is_found_by_id_beginning_and_name(records: StoredRuns) -> None:
    by_name = records.find("first run")
    assert records.find(by_name.run_id) == by_name
    assert records.find(by_name.run_id[:8]) == by_name
    assert by_name.params == {"model.k": "3"}
    assert (by_name.outcome, by_name.status) == ("completed", "FINISHED")
    assert by_name.metrics["best/val_mse"] == 0.25


def test_a_number_is_that_trial_of_the_newest_sweep(records: StoredRuns) -> None:
    assert records.find("1").name == "trial 1"
    with pytest.raises(UserError, match="no run '7'"):
        records.find("7")


def test_latest_is_the_newest_that_is_no_trial(records: StoredRuns) -> None:
    assert records.find("latest").name == "a sweep"


def test_the_latest_sweep_is_found_whatever_ran_since(recorded: Path, tmp_path: Path) -> None:
    folder = copy_store(recorded / "mlflow.db", tmp_path)
    tracker = open_tracker(uri_of(folder), "records", folder)
    tracker.start_run(RunStart("since", {}, {})).finish(Outcome.COMPLETED)
    tracker.close()
    with StoredRuns(uri_of(folder)) as records:
        assert records.find("latest").name == "since"
        assert records.find_sweep("latest").name == "a sweep"
        assert records.find_sweep("trial 0").name == "a sweep"
        with pytest.raises(UserError, match="single run, no sweep"):
            records.find_sweep("since")


def test_a_sweep_stands_for_its_winner(records: StoredRuns) -> None:
    sweep, winner = records.find("a sweep"), records.find("trial 0")
    with pytest.raises(UserError, match="no winner yet"):
        records.find_trained("a sweep")
    records.note(sweep, {"fmexp.winner": winner.run_id}, {})
    assert records.find_trained("a sweep").run_id == winner.run_id
    assert records.find_trained("latest").run_id == winner.run_id
    assert records.find_trained("first run").name == "first run"


def test_a_name_that_several_have_is_asked_for_by_id(records: StoredRuns) -> None:
    with pytest.raises(UserError, match=r"2 runs are called 'twin': .* \(completed\), "):
        records.find("twin")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("frist run", "did you mean first run"), ("zzzzzzzz", "the newest are trial 1"), ("'", "")],
)
def test_an_unknown_name_gets_the_nearest(records: StoredRuns, name: str, hint: str) -> None:
    with pytest.raises(UserError, match=f"no run .*{hint}"):
        records.find(name)


def test_children_curve_and_artifacts(records: StoredRuns) -> None:
    sweep, first = records.find("a sweep"), records.find("first run")
    children = records.children(sweep)
    assert [child.name for child in children] == ["trial 0", "trial 1"]
    assert {child.parent_id for child in children} == {sweep.run_id}
    assert records.curve(first, "train/mse") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert records.curve(first, "val/mse") == []
    assert (records.artifact(first, "model") / "model.json").read_text() == "{}"
    with pytest.raises(UserError, match=r"trial 1 .* has no model: it ended diverged"):
        records.artifact(children[1], "model")


def test_a_note_is_added_to_a_run_that_has_ended(records: StoredRuns) -> None:
    run = records.find("trial 0")
    records.note(run, {"fmexp.scored": "once"}, {"test/mse": 0.5})
    again = records.find("trial 0")
    assert (again.tags["fmexp.scored"], again.metrics["test/mse"]) == ("once", 0.5)
    assert again.status == "FINISHED"


def test_reading_makes_no_store(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no store"):
        StoredRuns(uri_of(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StoreError, match="cannot be read") as error:
        StoredRuns("http://me:secret@127.0.0.1:9")
    assert "secret" not in str(error.value)
