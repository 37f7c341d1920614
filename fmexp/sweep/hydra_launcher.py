"""Another launcher of Hydra's as a pool of workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from fmexp.sweep.pool import LaunchedWorker
from fmexp.sweep.scheduled_jobs import ScheduledJobs

if TYPE_CHECKING:
    from collections.abc import Callable

    from hydra.types import HydraContext
    from omegaconf import DictConfig

    from fmexp.sweep.pool import WorkerPool

BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
SUBMITIT = "hydra_plugins.hydra_submitit_launcher.submitit_launcher"


def other_launcher(
    config: DictConfig, context: HydraContext, arguments: list[str]
) -> Callable[[WorkerPool], None] | None:
    """What starts the workers as jobs of `hydra/launcher`; None for Hydra's basic one.

    Args:
        config: Hydra's, as composed for the sweep.
        context: likewise.
        arguments: the overrides, swept ones among them.

    Raises:
        UserError: the launcher cannot work here.
    """
    target, n_jobs = config.hydra.launcher._target_, int(config.hydra.sweeper.n_jobs)
    if target == BASIC_LAUNCHER:
        return None
    if target.startswith(f"{SUBMITIT}."):
        options = OmegaConf.to_container(config.hydra.launcher, resolve=True)
        jobs = ScheduledJobs(options, target == f"{SUBMITIT}.SlurmLauncher")  # type: ignore[arg-type]
        return lambda pool: pool.jobs(jobs, n_jobs)
    parsed = OverridesParser.create().parse_overrides(arguments)
    fixed = [str(each.input_line) for each in parsed if not each.is_sweep_override()]

    def launch(pool: WorkerPool) -> None:
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=context, task_function=LaunchedWorker(pool.job), config=config
        )
        pool.launcher(launcher, n_jobs, fixed)

    return launch
