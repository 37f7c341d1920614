"""The classes that Hydra finds for hydra/sweeper=fmexp; all of the sweep is in fmexp.sweep.

Hydra imports this module whenever any Hydra app starts: it must import nothing heavy.
"""

from pathlib import Path

from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.plugins.sweeper import Sweeper


class FmexpSearchPath(SearchPathPlugin):
    """Lets every Hydra application find hydra/sweeper=fmexp and hydra/callbacks=fmexp."""

    def manipulate_search_path(self, search_path):
        """Add the folder conf beside this file."""
        search_path.append("fmexp", f"file://{Path(__file__).parent / 'conf'}")


class FmexpSweeper(Sweeper):
    """Optuna inside Hydra's multirun; conf/hydra/sweeper/fmexp_base.yaml has the options."""

    def __init__(self, **options):
        self.options = options

    def setup(self, *, hydra_context, task_function, config):
        """Keep what Hydra gives."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments):
        """Run it; returns the exit code for `fmexp run`, else the jobs as Hydra knows them."""
        if hasattr(self.task_function, "search"):
            return self._sweep_own(arguments)
        from fmexp.application.sweep import sweep

        return sweep(self.hydra_context, self.config, self.task_function, arguments)

    def _sweep_own(self, arguments):
        from omegaconf import OmegaConf

        from fmexp.sweep.hydra_launcher import other_launcher
        from fmexp.sweep.launch import run

        options = OmegaConf.to_container(self.config.hydra.sweeper, resolve=True)
        search = self.task_function.search(arguments, options)
        launcher = other_launcher(self.config, self.hydra_context, arguments)
        return run(search, self.task_function.folder, launcher)
