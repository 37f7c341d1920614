"""Hydra applications of a test's own, swept in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins

from fmexp.config.compose import VERSION_BASE
from fmexp.record.tracker import MemoryTracker
from fmexp.sweep.worker_process import Job

Plugins.instance()  # loaded before hydra_restore_singletons first keeps Hydra's state

QUIET = ("hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.output_subdir=null")
CONFIG = {"config.yaml": "defaults: [{model: a}, _self_]\nx: 1.0\ny: ${x}\nname: ${model.name}\n",
          "model/a.yaml": "name: a\nk: 1\n", "model/b.yaml": "name: b\nk: 2\n"}  # fmt: skip


class Application:
    """A function and its configuration in a folder."""

    def __init__(self, folder: Path, monkeypatch, files: dict[str, str]) -> None:
        self.tracker = MemoryTracker(folder / "records")
        self.conf = folder / "conf"
        for name, text in files.items():
            (self.conf / name).parent.mkdir(parents=True, exist_ok=True)
            (self.conf / name).write_text(text)
        monkeypatch.chdir(folder)
        monkeypatch.setattr(Job, "open_tracker", lambda _: self.tracker)

    def hydra(self):
        """Hydra with the configuration, as a context."""
        return initialize_config_dir(str(self.conf), "app", **VERSION_BASE)

    def sweep(self, function, *overrides: str, code: int = 0):
        """Sweep it; the trials' runs by number."""
        lines = ["hydra/sweeper=fmexp", "hydra/sweeper/tracking=none", "hydra.sweep.dir=jobs",
                 *QUIET, *overrides]  # fmt: skip
        self.tracker.runs.clear()
        with self.hydra():
            itself = GlobalHydra.instance().hydra
            if code:
                with pytest.raises(SystemExit) as ended:
                    itself.multirun("config", function, lines, with_log_configuration=False)
                assert ended.value.code == code
            else:
                itself.multirun("config", function, lines, with_log_configuration=False)
        children = [run for run in self.tracker.runs if run.start.parent is not None]
        return {int(run.tags["fmexp.trial"]): run for run in children}

    @property
    def parent(self):
        """The sweep's own run."""
        (parent,) = [run for run in self.tracker.runs if run.start.parent is None]
        return parent
