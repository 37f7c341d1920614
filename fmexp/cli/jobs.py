"""What `fmexp run` does: one run, or a sweep, from a checked configuration to the exit code."""

from __future__ import annotations

import argparse
import math
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fmexp.backends.base import load_backend
from fmexp.config import compose
from fmexp.config.schema import STARTS, MlflowConfig
from fmexp.data.loading import load_for
from fmexp.errors import ConfigError
from fmexp.experiment import console, one_run
from fmexp.fm import Samples
from fmexp.record.locate import StoreChoice, locate_store
from fmexp.record.tracker import NULL_TRACKER, Outcome, Tracker, close
from fmexp.sweep import interrupt

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig

    from fmexp.config.compose import Composed
    from fmexp.data.dataset import Dataset
    from fmexp.fm import Parameters
    from fmexp.sweep.search import Search

EXIT_CODES = {Outcome.COMPLETED: 0, Outcome.INTERRUPTED: 130}


def run_once(composed: Composed, folder: Path, began: float) -> int:
    """One tracked run in `folder`; `began` is the command's start on the monotonic clock."""
    config = composed.config
    interrupt.sigterm_is_ctrl_c()
    load_backend(config.backend.name)
    data = load_for(config)
    for note in data.notes:
        print(note)
    parameters = first_parameters(composed, data)
    tracker = tracker_of(composed, folder)
    progress, seconds = console.Progress(config), math.inf
    try:
        with interrupt.stop_on_signals() as stop:

            def watch(
                epoch: int, train_loss: float, validation_loss: float | None
            ) -> Outcome | None:
                progress.show(epoch, train_loss, validation_loss)
                return Outcome.INTERRUPTED if stop else None

            result = one_run.run(config, composed.config_tree, data, tracker, watch, parameters)
        progress.clear()
        print(console.outcome(config, data, result), flush=True)
        if stop and result.fit.outcome is not Outcome.INTERRUPTED:  # training was over by then
            raise KeyboardInterrupt
        progress.wait()
    except KeyboardInterrupt:
        seconds = interrupt.LEAVING_SECONDS
        raise
    finally:
        delivery, lost = close(tracker, seconds=seconds)
        progress.clear()
    print(console.record(config, data, result, delivery, time.monotonic() - began))
    if lost:
        raise lost
    return EXIT_CODES.get(result.fit.outcome, 1)


@dataclass(frozen=True)
class RunJob:
    """What a sweep works from; called with a configuration, it is one run of hydra/sweeper=basic.

    Attributes:
        composed: the configuration without what is swept.
        arguments: the command line as parsed.
        folder: where the command runs.
    """

    composed: Composed
    arguments: argparse.Namespace
    folder: Path

    def __call__(self, tree: DictConfig) -> int:
        """One run; returns its exit code."""
        given = self.composed.given
        return run_once(compose.checked(tree, given), self.folder, time.monotonic())

    def search(self, arguments: list[str], options: dict[str, Any]) -> Search:
        """What hydra/sweeper=fmexp is to do; see `fmexp.experiment.search.prepare`."""
        from fmexp.experiment.search import prepare

        return prepare(self, arguments, options)

    def compose_with(self, override: str) -> Composed:
        """The configuration with one more override."""
        fixed = [o for o in self.arguments.overrides if not o.startswith("hydra.")]
        arguments = argparse.Namespace(**vars(self.arguments))
        arguments.overrides = [*fixed, override]
        return compose.compose(arguments)


def run_many(composed: Composed, arguments: argparse.Namespace, folder: Path) -> int:
    """A sweep in `folder`; returns the exit code, the highest of the runs' for Hydra's sweepers."""
    interrupt.sigterm_is_ctrl_c()
    returned = compose.multirun(arguments, RunJob(composed, arguments, folder))
    if isinstance(returned, int):
        return returned
    return max((job.return_value for jobs in returned for job in jobs), default=0)


def tracker_of(composed: Composed, folder: Path) -> Tracker:
    """A tracker on the chosen store; its recorder starts to load MLflow at once."""
    tracking = composed.config.tracking
    if not isinstance(tracking, MlflowConfig):
        return NULL_TRACKER
    from fmexp.record.spool_tracker import open_tracker

    return open_tracker(_store(composed).uri, tracking.experiment, folder)


def _store(composed: Composed) -> StoreChoice:
    tracking = composed.config.tracking
    uri = tracking.uri if isinstance(tracking, MlflowConfig) else None
    on_command_line = uri if "tracking.uri" in composed.given else None
    return locate_store(on_command_line, uri, os.environ)


def first_parameters(composed: Composed, data: Dataset) -> Parameters | None:
    """The parameters of the run or folder that `model.start` names; None where it names none.

    Raises:
        UserError: there is no such model, or it is of another shape.
    """
    chosen = composed.config.model
    if chosen.start in STARTS:
        return None
    from fmexp.analysis.predict import find_model

    model = find_model(chosen.start, _store(composed).uri)
    k = model.parameters.k
    if k != chosen.k:
        raise ConfigError(f"model.start={chosen.start} has k={k}; set model.k={k}")
    theirs, ours = model.encoder.feature_names, data.encoder.feature_names
    if theirs != ours:
        raise ConfigError(
            f"model.start={chosen.start} was trained on other features "
            f"({len(theirs)}, these data have {len(ours)})"
        )
    return model.parameters.at(-1) if isinstance(model.parameters, Samples) else model.parameters
