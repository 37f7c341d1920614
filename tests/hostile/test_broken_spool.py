"""Entries of the spool that cannot be read: reported, and the rest goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fmexp.cli.parser import main
from fmexp.record import spool
from tests.hostile.support import plant_run
from tests.record_support import uri_of


def events(run: Path, *lines: object) -> None:
    (run / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


START = {"start": {"name": "a", "params": {}, "tags": {}}, "time": 1}
END = {"outcome": "completed", "reason": "", "metrics": {}, "tags": {}, "time": 2}


def pipe(run: Path, name: str) -> None:
    (run / name).unlink()
    os.mkfifo(run / name)


BROKEN = {
    "garbage": lambda run: (run / "events.jsonl").write_bytes(b"\x00\xff{\n"),
    "no start": lambda run: events(run, {"end": END}),
    "an unknown field": lambda run: events(run, {"start": {**START["start"], "new": 1}, "time": 1}),
    "an unknown outcome": lambda run: events(run, START, {"end": {**END, "outcome": "fine"}}),
    "huge numbers": lambda run: events(run, START, {"points": [[["a"], [10**40], [1], [[1.0]]]]}),
    "a huge time": lambda run: events(run, {**START, "time": 10**40}),
    "not finite": lambda run: events(run, START, {"points": [[["a"], [1], [1], [[1e999]]]]}),
    "unequal": lambda run: events(run, START, {"points": [[["a"], [1, 2], [1], [[1.0]]]]}),
    "other types": lambda run: events(
        run, {"start": {**START["start"], "params": {"a": [1]}}, "time": 1}),
    "a study without a trial": lambda run: events(
        run, {"start": {**START["start"], "study": {"name": "s"}}, "time": 1}),
    "a list": lambda run: events(run, [1, 2]),
    "deep": lambda run: (run / "events.jsonl").write_text("[" * 100_000 + "\n"),
    "a pipe": lambda run: pipe(run, "events.jsonl"),
    "a huge file": lambda run: os.truncate(run / "events.jsonl", 10**12),
    "no store": lambda run: (run.parent / "store.json").write_text("{}"),
    "a store that is a pipe": lambda run: pipe(run.parent, "store.json"),
    "a lock that is a pipe": lambda run: pipe(run.parent, "owner.lock"),
}  # fmt: skip


@pytest.mark.parametrize("how", BROKEN)
def test_an_entry_that_cannot_be_read_is_named(how, here):
    run = plant_run(here, uri_of(here))
    BROKEN[how](run)
    found = spool.survey(here)
    assert found.runs == []
    (said,) = found.unreadable
    assert str(run.parent) in said


@pytest.fixture
def one_good_many_bad(store_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in whose spool one run waits among all that cannot be read."""
    for how, spoil in BROKEN.items():
        spoil(plant_run(store_folder, uri_of(store_folder), how.replace(" ", "-")))
    plant_run(store_folder, uri_of(store_folder), "good")
    monkeypatch.chdir(store_folder)
    return store_folder


def test_every_command_goes_on_and_reports_them(one_good_many_bad, capsys):
    for command in ("compare good good", "predict good --data none.csv", "reproduce good",
                    "score good", "export good", "run training.epochs=1", "doctor"):  # fmt: skip
        code = main(command.split())
        printed = capsys.readouterr()
        assert code == {"run": 0, "doctor": 1}.get(command.split()[0], code)
        assert "Traceback" not in printed.err
        assert command.startswith("run") or "cannot be read" in printed.err + printed.out
    assert "remove it, or read it with the fmexp that wrote it" in printed.out
    assert [run.key for run in spool.survey(one_good_many_bad).runs] == []
