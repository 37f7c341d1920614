"""A sweep of a Hydra application, from what Hydra hands its sweeper to the process's exit code."""

from __future__ import annotations

import copy
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import OmegaConf, open_dict

from fmexp.record.passwords import no_password
from fmexp.record.spool_tracker import dismiss_recorder, start_recorder_ahead

if TYPE_CHECKING:
    from collections.abc import Callable

    from hydra.core.utils import JobReturn
    from hydra.types import HydraContext
    from omegaconf import DictConfig


_WORKERS_JOB = ("hydra.sweep.subdir=worker-${hydra.job.num}", "hydra.output_subdir=null")
"""Of a launcher's job that is a worker: the folders of the trials' jobs are others."""


def sweep(
    context: HydraContext,
    config: DictConfig,
    function: Callable[[DictConfig], Any],
    arguments: list[str],
) -> list[list[JobReturn]]:
    """Run it; returns what Hydra knows of the newest jobs that ran in this process.

    Args:
        context: Hydra's.
        config: as composed for the sweep.
        function: the application's.
        arguments: the overrides, swept ones among them.

    Raises:
        SystemExit: with the exit codes of `fmexp run`: 1 the sweep failed, 2 what the user gave is
            wrong (a message says what), 130 interrupted.
    """
    if OmegaConf.select(config, "hydra.sweeper.tracking.name") == "mlflow":
        start_recorder_ahead()  # it loads MLflow while Optuna is loaded here
    from fmexp.errors import FmexpError

    returned: deque[JobReturn] = deque(maxlen=1000)
    try:
        code = _run(context, config, function, arguments, returned)
    except FmexpError as error:
        print(f"fmexp: {error}", file=sys.stderr)
        code = error.exit_code
    finally:
        dismiss_recorder()
    if code:
        sys.exit(code)
    return [list(returned)]


def _run(
    context: HydraContext,
    config: DictConfig,
    function: Callable[[DictConfig], Any],
    arguments: list[str],
    returned: deque[JobReturn],
) -> int:
    from fmexp.application.jobs import HydraJobs
    from fmexp.application.search import first_point, prepare
    from fmexp.sweep.hydra_launcher import BASIC_LAUNCHER, other_launcher
    from fmexp.sweep.launch import run

    folder = Path(str(config.hydra.sweep.dir))  # from now on the same time for all jobs
    shown = _without_secrets(config)
    jobs = HydraJobs(context, shown, function, arguments)
    elsewhere = config.hydra.launcher._target_ != BASIC_LAUNCHER
    given = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
    search = prepare(jobs, given, elsewhere, returned)  # type: ignore[arg-type]
    if not search.options.dry_run:
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(shown, folder / "multirun.yaml")
    worker = [*jobs.overrides(first_point(search.space, search.points)).values(), *_WORKERS_JOB]
    return run(search, Path.cwd(), other_launcher(config, context, worker))


def _without_secrets(config: DictConfig) -> DictConfig:
    """The configuration that jobs have, and that Hydra writes down: storage and store are masked.

    What the application's own keys hold stays, since its function needs it.
    """
    shown = copy.deepcopy(config)
    with open_dict(shown):
        for key in ("hydra.sweeper.storage", "hydra.sweeper.tracking.uri"):
            if isinstance(text := OmegaConf.select(shown, key), str):
                OmegaConf.update(shown, key, no_password(text))
        lines = cast("list[str]", OmegaConf.to_container(shown.hydra.overrides.hydra))
        shown.hydra.overrides.hydra = [no_password(line) for line in lines]
    return shown
