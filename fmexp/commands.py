"""What each command does, from checked input to the exit code."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from fmexp import experiment, interrupt, screen
from fmexp.backends.base import load_backend
from fmexp.config import MlflowConfig
from fmexp.data.loading import load
from fmexp.tracking.base import NULL_TRACKER, Outcome, Tracker
from fmexp.tracking.locate import locate_store

if TYPE_CHECKING:
    from pathlib import Path

    from fmexp.compose import Composed

EXIT_CODES = {Outcome.COMPLETED: 0, Outcome.INTERRUPTED: 130}


def run_once(composed: Composed, folder: Path, began: float) -> int:
    """One tracked run in `folder`; `began` is the command's start on the monotonic clock."""
    config = composed.config
    interrupt.sigterm_is_ctrl_c()
    load_backend(config.backend.name)
    data = load(config.data, config.split, config.task)
    tracker = _tracker(composed, folder)
    try:
        progress = screen.Progress(config)
        with interrupt.stop_on_signals() as stop:

            def watch(
                epoch: int, train_loss: float, validation_loss: float | None
            ) -> Outcome | None:
                progress.show(epoch, train_loss, validation_loss)
                return Outcome.INTERRUPTED if stop else None

            result = experiment.run(config, composed.record, data, tracker, watch)
        progress.clear()
    finally:
        delivery = tracker.close()
    print(screen.summary(config, data, result, delivery, time.monotonic() - began))
    return EXIT_CODES.get(result.fit.outcome, 1)


def _tracker(composed: Composed, folder: Path) -> Tracker:
    """A tracker on the chosen store; its recorder starts to load MLflow at once."""
    tracking = composed.config.tracking
    if not isinstance(tracking, MlflowConfig):
        return NULL_TRACKER
    from fmexp.tracking.tracker import open_tracker

    on_command_line = tracking.uri if "tracking.uri" in composed.given else None
    store = locate_store(on_command_line, tracking.uri, os.environ)
    return open_tracker(store.uri, tracking.experiment, folder)
