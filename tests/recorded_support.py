"""Real runs in a real store, made within the test's own process."""

from __future__ import annotations

from pathlib import Path

from fmexp.config.compose import compose, parse_arguments
from fmexp.data.loading import load
from fmexp.experiment import one_run
from fmexp.record.spool_tracker import open_tracker
from fmexp.record.tracker import Tracker
from tests.record_support import uri_of


def train(tracker: Tracker, *overrides: str) -> str:
    """What `fmexp run` does between its first and its last line; the run's key."""
    composed = compose(parse_arguments(list(overrides)))
    config = composed.config
    data = load(config.data, config.split, config.task)
    return one_run.run(config, composed.config_tree, data, tracker, lambda *_: None).key


def record(folder: Path, **runs: list[str]) -> dict[str, str]:
    """Train a run for each keyword; the run ids by keyword."""
    tracker = open_tracker(uri_of(folder), "test", folder)
    keys = {
        name: train(tracker, f"tracking.run_name={name}", *overrides)
        for name, overrides in runs.items()
    }
    ids = tracker.close().run_ids
    return {name: ids[key] for name, key in keys.items()}
