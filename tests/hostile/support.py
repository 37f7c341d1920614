"""Spools as a stranger may leave them in a folder, written with the spool's own functions."""

from __future__ import annotations

import os
from pathlib import Path

from fmexp.record import events, spool
from fmexp.record.tracker import Outcome, RunStart


def plant_run(folder: Path, uri: str, key: str = "planted", **start: object) -> Path:
    """A finished run of a dead command that waits in `folder` for the store `uri`; its folder."""
    owner, lock = spool.become_owner(folder, spool.Destination(uri, "planted", 100))
    writer = events.EventWriter(owner, key, RunStart(key, {}, {}, key=key, **start))
    writer.end([(0, 1, {"val/mse": 1.0})], events.End(Outcome.COMPLETED, "", {}, {}, 1))
    os.close(lock)
    return owner / key
