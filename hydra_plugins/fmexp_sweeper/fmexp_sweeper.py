"""The class that Hydra finds for hydra/sweeper=fmexp; all of the sweep is in fmexp.sweep.

Hydra imports this module whenever any Hydra app starts: it must import nothing heavy.
"""

from hydra.plugins.sweeper import Sweeper


class FmexpSweeper(Sweeper):
    """Optuna inside Hydra's multirun; see fmexp/conf/hydra/sweeper/fmexp.yaml for the options."""

    def __init__(self, **options):
        self.options = options

    def setup(self, *, hydra_context, task_function, config):
        """Keep what Hydra gives."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments):
        """Run the sweep; returns the exit code of the command."""
        if not hasattr(self.task_function, "search"):
            raise RuntimeError("hydra/sweeper=fmexp sweeps `fmexp run -m` only")
        from omegaconf import OmegaConf

        from fmexp.sweep.hydra_launcher import other_launcher
        from fmexp.sweep.launch import run

        options = OmegaConf.to_container(self.config.hydra.sweeper, resolve=True)
        search = self.task_function.search(arguments, options)
        launcher = other_launcher(self.config, self.hydra_context, arguments)
        return run(search, self.task_function.folder, launcher)
