"""The queue on disk: what is written comes back, and what a kill tore does not count."""

from __future__ import annotations

import os
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from fmexp.errors import StoreError
from fmexp.record import events, spool
from fmexp.record.events import Curve, End, EventWriter, read_run
from fmexp.record.sender import Sender
from fmexp.record.spool import Destination
from fmexp.record.tracker import Outcome, RunStart

START = RunStart("a run", {"model.k": "3"}, {"who": "me"}, {"name": "d", "digest": "1"}, "parent")
TO = Destination("sqlite:////nowhere/mlflow.db", "test", 320)


def write(owner: Path, key: str = "run") -> EventWriter:
    return EventWriter(owner, key, START)


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    writer = write(tmp_path)
    writer.points([(0, 5, {"train/mse": 2.0, "val/mse": 3.0}), (1, 6, {"train/mse": 1.0})])
    end = End(Outcome.PRUNED, "hopeless", {"best/epoch": 0}, {"a": "b"}, 7)
    writer.end([(2, 7, {"train/mse": 0.1 + 0.2})], end)
    record = read_run(tmp_path / "run")
    assert record is not None
    assert (record.start, record.end) == (START, end)
    train, val = record.curves["train/mse"], record.curves["val/mse"]
    assert list(train.thinned(10)) == [(0, 5, 2.0), (1, 6, 1.0), (2, 7, 0.1 + 0.2)]
    assert list(val.thinned(10)) == [(0, 5, 3.0)]


@pytest.mark.parametrize("torn", ['{"end": {"outcome": "completed"', "{", '{"points": []}'])
def test_a_torn_last_line_does_not_count(tmp_path: Path, torn: str) -> None:
    writer = write(tmp_path)
    writer.points([(0, 5, {"train/mse": 2.0})])
    with (tmp_path / "run/events.jsonl").open("a") as file:
        file.write(torn)
    record = read_run(tmp_path / "run")
    assert record is not None
    assert record.end is None
    assert list(record.curves["train/mse"].thinned(10)) == [(0, 5, 2.0)]


def test_a_reader_takes_each_event_once_and_a_line_only_when_whole(tmp_path: Path) -> None:
    writer = write(tmp_path)
    reader = events.RunReader(tmp_path / "run")
    assert reader.advance()
    assert not reader.advance()
    writer.points([(0, 5, {"loss": 2.0})])
    with (tmp_path / "run/events.jsonl").open("a") as file:
        file.write('{"points": [[["loss"], [1], [6]')
        file.flush()
        reader.advance()
        file.write(", [[1.5]]]]}\n")
    reader.advance()
    assert reader.record is not None
    assert list(reader.record.curves["loss"].thinned(9)) == [(0, 5, 2.0), (1, 6, 1.5)]


@pytest.mark.parametrize("n", [1, 2, 319, 320, 321, 640, 5000, 100_001])
def test_thinning_keeps_first_and_last_and_is_even(n: int) -> None:
    curve = Curve()
    curve.steps.extend(range(n))
    curve.times.extend(range(n))
    curve.values.extend(float(i) for i in range(n))
    steps = [step for step, _, _ in curve.thinned(320)]
    assert len(steps) == min(n, 320)
    assert (steps[0], steps[-1]) == (0, n - 1)
    gaps = [b - a for a, b in pairwise(steps)]
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_an_owner_lives_as_long_as_it_holds_its_lock(tmp_path: Path) -> None:
    owner, lock = spool.become_owner(tmp_path, TO)
    assert spool.lives(owner)
    assert spool.destination(owner) == TO
    os.close(lock)
    assert not spool.lives(owner)


def test_runs_are_listed_with_their_state(tmp_path: Path) -> None:
    owner, lock = spool.become_owner(tmp_path, TO)
    write(owner, "1")
    write(owner, "2").end([], End(Outcome.COMPLETED, "", {}, {}, 5))
    assert [(r.key, r.state) for r in spool.spooled_runs(tmp_path)] == [
        ("1", "open"),
        ("2", "finished"),
    ]
    os.close(lock)
    assert [r.state for r in spool.spooled_runs(tmp_path)] == ["orphaned", "unsent"]


def test_keys_are_unique_and_sort_by_time() -> None:
    keys = [spool.new_key() for _ in range(1000)]
    assert len(set(keys)) == 1000
    assert [k[:22] for k in keys] == sorted(k[:22] for k in keys)


def test_the_spool_is_readable_by_its_user_only(tmp_path: Path) -> None:
    owner, lock = spool.become_owner(tmp_path, TO)
    assert owner.stat().st_mode & 0o077 == 0
    assert (owner / "store.json").stat().st_mode & 0o077 == 0
    os.close(lock)


def test_a_folder_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("a file is in the way")
    with pytest.raises(StoreError, match=r"cannot be written .* tracking=none"):
        spool.become_owner(tmp_path / "folder", TO)


class SlowServer:
    """A store whose runs' ids do not follow from their keys; another recorder comes meanwhile."""

    ids_follow_keys = False

    def __init__(self, meanwhile) -> None:
        self.made: list[str] = []
        self._meanwhile = meanwhile

    def find(self, key: str) -> str | None:
        return f"id of {key}" if key in self.made else None

    def create(self, key: str, *_: object) -> tuple[str, bool]:
        meanwhile, self._meanwhile = self._meanwhile, lambda: None
        meanwhile()
        self.made.append(key)
        return f"id of {key}", True

    def __getattr__(self, name: str):
        return lambda *_: None


def test_two_recorders_of_a_folder_make_a_sweeps_own_run_once(tmp_path: Path) -> None:
    """The first one's command was killed before it could tell; its recorder is at it still."""
    owners = tmp_path / "first", tmp_path / "second"
    for owner in owners:
        EventWriter(owner, "sweep", RunStart("s", {}, {}, may_exist=True, reopens=True))

    def send(owner: Path) -> None:
        assert list(Sender(owner, server, 100, wait_for_parents=True).send(last=False)) == []  # type: ignore[arg-type]

    second = threading.Thread(target=send, args=(owners[1],))

    def meanwhile() -> None:
        second.start()
        second.join(0.5)

    server = SlowServer(meanwhile)
    send(owners[0])
    second.join()
    assert server.made == ["sweep"]
