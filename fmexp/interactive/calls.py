"""`fmexp.run(...)` and `fmexp.sweep(...)`: the commands, called from Python; results as objects.

They leave nothing behind in the process: Hydra, signal handlers, environment and loggers are as
they were before, and no thread goes on. Both can be called again, from several threads, and where
an event loop runs.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmexp.backends.base import load_backend
from fmexp.cli.jobs import RunJob, first_parameters, tracker_of
from fmexp.config import compose
from fmexp.data.loading import load_for
from fmexp.errors import ConfigError
from fmexp.experiment import one_run
from fmexp.interactive.results import Run, Sweep
from fmexp.model import Model
from fmexp.record.patience import begin
from fmexp.record.tracker import Outcome, close
from fmexp.sweep import interrupt

if TYPE_CHECKING:
    from fmexp.record.tracker import Delivery
    from fmexp.sweep.search import Search
    from fmexp.sweep.study import SweepStudy

REDRAW_SECONDS = 0.1


def run(*overrides: str) -> Run:
    """Train once and record it, as `fmexp run` does.

    A Ctrl-C (a notebook's "interrupt") ends training at the next epoch and keeps what was learned.

    Args:
        overrides: as on the command line: `fmexp.run("data=csv", "data.path=t.csv", ...)`.

    Raises:
        UserError: what is wrong with the overrides or the data; nothing was written.
        StoreError: the run ended, but the store did not take it; it waits in .fmexp/spool.
    """
    begin()
    arguments = compose.parse_arguments(list(overrides))
    composed = compose.compose(arguments)
    config = composed.config
    load_backend(config.backend.name)
    data = load_for(config)
    parameters = first_parameters(composed, data)
    tracker = tracker_of(composed, Path.cwd())
    bar = _Bar(config.training.epochs, "epoch")
    try:
        with interrupt.stop_on_signals() as stop:

            def watch(
                epoch: int, train_loss: float, validation_loss: float | None
            ) -> Outcome | None:
                shown = train_loss if validation_loss is None else validation_loss
                bar.show(epoch, f"{config.loss} {shown:.6g}")
                return Outcome.INTERRUPTED if stop else None

            done = one_run.run(config, composed.config_tree, data, tracker, watch, parameters)
    finally:
        bar.close()
        delivery, lost = close(tracker)
    if lost:
        raise lost
    fit = done.fit
    model = None if fit.parameters is None else Model.of(config, data, fit.parameters)
    run_id = delivery.run_ids.get(done.key, "")
    return Run(done, config.loss, model, run_id, delivery.store)


def sweep(*overrides: str) -> Sweep:
    """Search, or go on with a search, as `fmexp run -m` does.

    Args:
        overrides: as on the command line: `fmexp.sweep("model.k=2,4,8", "hydra.sweeper.n_jobs=2")`.

    Raises:
        UserError: what is wrong with the overrides or the data; nothing was written.
        StoreError: study or record were lost; the same call goes on from there.
    """
    import optuna

    from fmexp.sweep.hydra_launcher import BASIC_LAUNCHER
    from fmexp.sweep.launch import run as run_sweep

    begin()
    where = Path.cwd()
    arguments = compose.parse_arguments(["-m", *overrides])
    job = RunJob(compose.compose(arguments), arguments, where)
    lines, hydra = compose.for_sweep(arguments)
    if hydra["launcher"]["_target_"] != BASIC_LAUNCHER:
        raise ConfigError("hydra/launcher=... is for the command line: fmexp run -m ...")
    if hydra["sweeper"].get("dry_run"):
        raise ConfigError("hydra.sweeper.dry_run=true is for the command line: fmexp run -m ...")
    search = job.search(lines, hydra["sweeper"])
    ended: list[tuple[SweepStudy, Delivery]] = []
    application = replace(
        search.application, when_ended=lambda *what: ended.append(what), line=_SweepBar
    )
    verbosity = optuna.logging.get_verbosity()
    try:
        run_sweep(replace(search, application=application), where)
    finally:
        optuna.logging.set_verbosity(verbosity)
    ((study, delivery),) = ended
    return Sweep(study, application.uri, delivery.store)


class _Bar:
    """tqdm's bar, the notebook's one there, drawn at most ten times a second."""

    def __init__(self, total: int, unit: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a notebook without ipywidgets has a bar of text
            from tqdm.auto import tqdm
        without_thread = type("Bar", (tqdm,), {"monitor_interval": 0})
        in_notebook = any(kind.__module__ == "tqdm.notebook" for kind in tqdm.__mro__)
        hidden = False if in_notebook else None  # None: unless on a terminal
        self._bar = without_thread(total=total, unit=unit, leave=False, disable=hidden)
        self._next = 0.0

    def show(self, done: int, words: str) -> None:
        """So many are done."""
        now = time.monotonic()
        if now < self._next and done < self._bar.total:
            return
        self._next = now + REDRAW_SECONDS
        self._bar.set_postfix_str(words, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Take it away."""
        self._bar.close()


class _SweepBar:
    """The progress of a sweep; see `fmexp.sweep.search.Line`."""

    def __init__(self, search: Search, study: SweepStudy) -> None:
        from fmexp.sweep.progress import total

        self._study = study
        self._bar = _Bar(total(search, 0), "trial")

    def show(self) -> None:
        ended: list[Any] = self._study.ended()
        best = self._study.winner()
        words = f"{self._study.plan.objective} {best.value:.6g}" if best else ""
        self._bar.show(len(ended), words)

    def clear(self) -> None:
        self._bar.close()
