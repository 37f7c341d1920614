"""fmexp.run and fmexp.sweep in Python: what they return, and that they leave nothing behind."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from pathlib import Path

import optuna
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

import fmexp
from fmexp.config.compose import VERSION_BASE
from fmexp.errors import UserError
from fmexp.sweep import interrupt

PLANTED = ("data=planted", "training.epochs=15")


@pytest.fixture(autouse=True)
def here(store_folder, monkeypatch):
    monkeypatch.chdir(store_folder)


def test_a_run_gives_metrics_curve_model_and_its_id_in_mlflow():
    run = fmexp.run("training.epochs=30", "model.k=4")
    assert run.outcome == "completed"
    assert list(run.curve.columns) == ["train/mse", "val/mse"]
    assert run.curve["val/mse"].min() == run.metrics["best/val_mse"]
    assert fmexp.load(run.run_id).parameters.k == run.model.parameters.k == 4
    assert run.plot()._repr_png_().startswith(b"\x89PNG")
    assert run.run_id in run._repr_html_()
    assert repr(run).startswith("<Run diabetes-k4")


def test_a_sweep_gives_its_trials_and_the_best_one_and_goes_on():
    fmexp.sweep(*PLANTED, "hydra.sweeper.n_trials=2")
    sweep = fmexp.sweep(*PLANTED, "hydra.sweeper.n_trials=4")
    assert list(sweep.trials.index) == [0, 1, 2, 3]
    best = sweep.trials.sort_values("best/val_mse").iloc[0]
    assert sweep.value == best["best/val_mse"]
    assert sweep.best["model.k"] == best["model.k"] == sweep.model.parameters.k
    assert sweep.plot()._repr_png_().startswith(b"\x89PNG")
    assert sweep.name in sweep._repr_html_()


def test_neither_leaves_anything_behind():
    with initialize_config_dir(str(Path.cwd()), **VERSION_BASE):
        Path("mine.yaml").write_text("x: 1")
        fmexp.run(*PLANTED)  # what is loaded once, such as the recorder's client, is loaded now
        before = state()
        fmexp.run(*PLANTED)
        assert fmexp.sweep(*PLANTED, "hydra.sweeper.n_trials=2").model is not None
        assert state() == before
        assert compose("mine") == {"x": 1}


def state() -> list[object]:
    """What a process has one of."""
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    threads = sorted(t.name for t in threading.enumerate() if not t.name.startswith("Mlflow"))
    hydra, loggers = GlobalHydra.instance().hydra, logging.getLogger().handlers[:]
    return [handlers, threads, dict(os.environ), Path.cwd(), hydra, loggers,
            optuna.logging.get_verbosity()]  # fmt: skip


def test_both_work_in_threads_at_once_and_where_an_event_loop_runs():
    ended = []
    calls = [lambda k=k: fmexp.run(*PLANTED, "tracking=none", f"model.k={k}") for k in (2, 3)]
    calls.append(lambda: fmexp.sweep(*PLANTED, "tracking=none", "hydra.sweeper.n_trials=3"))
    threads = [threading.Thread(target=lambda c=call: ended.append(c())) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def within() -> fmexp.run:
        return fmexp.run(*PLANTED, "tracking=none")

    ended.append(asyncio.run(within()))
    assert sorted(type(each).__name__ for each in ended) == ["Run", "Run", "Run", "Sweep"]


def test_an_interrupt_keeps_what_was_learned(monkeypatch):
    class Pressed(interrupt.Stop):
        def __bool__(self):
            return True

    monkeypatch.setattr(interrupt, "Stop", Pressed)
    run = fmexp.run(*PLANTED, "tracking=none")
    assert (run.outcome, len(run.curve)) == ("interrupted", 1)
    assert run.model is not None


@pytest.mark.parametrize("call", [fmexp.run, fmexp.sweep])
def test_a_mistake_is_an_exception_in_the_command_lines_words(call):
    with pytest.raises(UserError, match=r"training\.lr is not a key"):
        call("training.lr=1")
    assert not Path(".fmexp").exists()


def test_a_sweep_that_kept_nothing_has_no_run():
    sweep = fmexp.sweep(*PLANTED, "tracking=none", "model.k=2,4")
    assert len(sweep.trials) == 2
    with pytest.raises(UserError, match="not recorded"):
        sweep.model  # noqa: B018
