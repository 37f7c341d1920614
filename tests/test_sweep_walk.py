"""A sweep goes down once: following one, no module of it is entered more than three times."""

from __future__ import annotations

import sys
import threading
from collections import defaultdict

from tests.sweep_support import sweep_here

VALUES = {"space", "trial_status", "progress"}
"""Modules of values, and of words for the screen."""

PREFIX = "fmexp.sweep."


def module_of(frame):
    name = frame.f_globals.get("__name__", "") if frame else ""
    return name.removeprefix(PREFIX).partition(".")[0] if name.startswith(PREFIX) else ""


def entered(sweep):
    """The functions and constructors of each module of the sweep that other modules call."""
    found = defaultdict(set)

    def note(frame, event, _):
        module, name = module_of(frame), frame.f_code.co_qualname.removesuffix(".__init__")
        if event != "call" or not module or "<" in name or name not in frame.f_globals:
            return
        caller = frame.f_back
        while caller is not None and not caller.f_globals.get("__name__", "").startswith("fmexp."):
            caller = caller.f_back
        if caller is not None and module_of(caller) != module:
            found[module].add(name)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        sweep()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return found


def test_no_module_is_entered_more_than_three_times(tmp_path, monkeypatch, capsys):
    options = ("hydra.sweeper.n_trials=3", "training.epochs=2", "hydra/sweeper/pruner=median")
    found = entered(lambda: sweep_here(tmp_path, monkeypatch, capsys, *options))
    assert {"launch", "open_study", "worker_process", "worker", "task", "sweep_run"} <= found.keys()
    many = {module: names for module, names in found.items() if len(names) > 3}
    assert not {module: names for module, names in many.items() if module not in VALUES}
