"""What a sweep of a Hydra application is to do, checked before anything is written."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import OmegaConf

from fmexp.application.description import as_yaml, params, tags
from fmexp.application.outcome import OBJECTIVE
from fmexp.application.task import HydraTask, payload
from fmexp.application.trees import lasting_leaves, leaves
from fmexp.errors import ConfigError
from fmexp.record.locate import locate_store
from fmexp.record.passwords import no_password
from fmexp.record.tracker import RunStart
from fmexp.sweep.expressions import read_space
from fmexp.sweep.options import MlflowOptions, read_options
from fmexp.sweep.samplers import make_sampler, searches_all
from fmexp.sweep.search import Application, Search
from fmexp.sweep.study import SweepPlan

if TYPE_CHECKING:
    from collections import deque

    from hydra.core.utils import JobReturn
    from omegaconf import DictConfig

    from fmexp.application.jobs import HydraJobs
    from fmexp.sweep.options import SweepOptions
    from fmexp.sweep.space import Point, Space
    from fmexp.sweep.study import SweepStudy

OPENER = "fmexp.application.task:open_task"


def prepare(
    jobs: HydraJobs, raw_options: dict[str, Any], other_launcher: bool, returned: deque[JobReturn]
) -> Search:
    """Check everything that the user gave.

    Args:
        jobs: the application.
        raw_options: `hydra.sweeper` as plain values.
        other_launcher: whether workers are jobs of another launcher of Hydra's.
        returned: takes Hydra's record of the newest jobs that ran in this process.

    Raises:
        UserError: what is wrong with it.
    """
    config = jobs.config
    options = read_options(raw_options)
    if options.seeds != 1:
        raise ConfigError(
            "hydra.sweeper.seeds is for `fmexp run`, which knows its seed; run several within the "
            "function, and return their mean"
        )
    choices = cast("dict[str, Any]", OmegaConf.to_container(config.hydra.runtime.choices))
    default = leaves(config) | choices
    space, excluded = read_space(options.params, jobs.parsed, options.conditions, default)
    points = space.checked_points(options.enqueue, "hydra.sweeper.enqueue")
    make_sampler(options.sampler, space)  # refuses what it cannot search
    composed = space.default_point({f: x for f, x in default.items() if x != "???"})
    whole = space.is_whole(composed) and not space.outside(composed)
    if whole and not searches_all(space, options.n_trials):
        points.insert(0, composed)
    _check_values(jobs, space, points)
    objective = options.objective or OBJECTIVE
    plan = SweepPlan(objective, options.direction or "minimize", "", 0, {})
    task = HydraTask(jobs, options.objective)
    apart = other_launcher or options.n_jobs > 1
    given = payload(task, 0 if other_launcher else options.n_jobs) if apart else ""
    task.returned = returned
    application = _application(task, options, given)
    return Search(application, options, raw_options, space, excluded, points, plan)


def _application(task: HydraTask, options: SweepOptions, given: str) -> Application:
    """What the sweep must know of it."""
    config, name = task.jobs.config, str(task.jobs.config.hydra.job.name)
    uri, experiment = _store(options, task.jobs)
    return Application(
        name=name,
        config={"application": name} | lasting_leaves(config),
        inputs={},
        opener=OPENER,
        open_here=lambda _: task,
        in_threads=False,
        seconds_per_trial=lambda: None,
        run=RunStart("", params(config), tags(config)),
        files={"config.yaml": as_yaml(config)},
        uri=uri,
        experiment=experiment,
        again=[no_password(word) for word in sys.argv[1:]],
        notes=[],
        foreground=True,
        payload=given,
        program=f"python {shlex.quote(sys.argv[0])}",
        when_ended=lambda study, _: _write_results(config, study),
    )


def _store(options: SweepOptions, jobs: HydraJobs) -> tuple[str, str]:
    """Tracking URI and experiment; both "" where nothing is recorded."""
    if not isinstance(options.tracking, MlflowOptions):
        return "", ""
    given, config = options.tracking, jobs.config
    typed = any("sweeper.tracking.uri=" in line for line in config.hydra.overrides.hydra)
    uri = locate_store(
        given.uri if typed else None, given.uri, os.environ, key="hydra.sweeper.tracking.uri"
    ).uri
    named = given.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME")
    return uri, named or str(config.hydra.job.name)


def _check_values(jobs: HydraJobs, space: Space, points: list[Point]) -> None:
    """Refuse choices that a config group does not have, and values that a key cannot take.

    Where a group is swept, which keys there are depends on it; then a job says what is wrong.

    Raises:
        ConfigError: what is wrong with each, one line each.
    """
    mistakes: dict[str, None] = {}
    groups = [d for d in space.dimensions if jobs.is_group(d.key)]
    for d in groups:
        known = jobs.choices(d.key)
        for x in d.probes:
            if str(x) not in known:
                mistakes[f"{d.key} must be one of {', '.join(known)}, got {x}"] = None
    if not mistakes:
        first = first_point(space, points)
        base = jobs.compose(first, 0)
        for d in space.dimensions:
            for x in d.probes if not groups and d.key in first else ():
                mistakes |= dict.fromkeys(jobs.refusal(base, d.key, x))
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def first_point(space: Space, points: list[Point]) -> Point:
    """A point to look at: the first that is to be tried, else the first value of each dimension."""
    if points and space.is_whole(points[0]):
        return points[0]
    point: Point = {}
    for d in space.dimensions:
        if d.condition is None or d.condition.holds(point):
            point[d.key] = d.probes[0]
    return point


def _write_results(config: DictConfig, study: SweepStudy) -> None:
    """`optimization_results.yaml` in the sweep's folder, as Hydra's Optuna sweeper writes it."""
    winner = study.winner()
    if winner is None:
        return
    point = dict(study.space.point(winner))
    found = {"name": "fmexp", "best_params": point, "best_value": winner.value}
    OmegaConf.save(
        OmegaConf.create(found), Path(config.hydra.sweep.dir) / "optimization_results.yaml"
    )
