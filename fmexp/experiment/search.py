"""What a sweep of Factorization Machines is to do, checked before anything is written."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from fmexp.backends.base import require_backend
from fmexp.config import meaning
from fmexp.config.schema import MlflowConfig, flatten
from fmexp.errors import ConfigError
from fmexp.experiment import one_run
from fmexp.experiment.objectives import check_objective, choose_objective
from fmexp.experiment.trial import TrainingTask
from fmexp.experiment.trial_plan import DataCache, TrialPlan
from fmexp.record.locate import locate_store
from fmexp.record.passwords import no_password
from fmexp.sweep.expressions import ordered, read_space
from fmexp.sweep.options import MlflowOptions, read_options
from fmexp.sweep.samplers import make_sampler
from fmexp.sweep.search import Application, Search
from fmexp.sweep.space import Condition, Space
from fmexp.sweep.study import SweepPlan

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from hydra.core.override_parser.types import Override

    from fmexp.config.compose import Composed
    from fmexp.config.schema import Config
    from fmexp.data.dataset import Dataset
    from fmexp.sweep.space import Point

OPENER = "fmexp.experiment.trial:open_task"

BACKEND = "backend"

_ONE_FOR_ALL = ("split.", "tracking.", "experiment.")
"""Keys that begin so are the same in all trials of a sweep."""


class Command(Protocol):
    """The command that sweeps.

    Attributes:
        composed: the configuration without what is swept.
        arguments: the command line as parsed.
    """

    @property
    def composed(self) -> Composed: ...  # noqa: D102
    @property
    def arguments(self) -> argparse.Namespace: ...  # noqa: D102

    def compose_with(self, override: str) -> Composed:
        """The configuration with one more override."""
        ...


def prepare(command: Command, arguments: list[str], raw_options: dict[str, Any]) -> Search:
    """Check everything that the user gave, and load the data.

    Args:
        command: the configuration as composed.
        arguments: the overrides, swept ones among them.
        raw_options: `hydra.sweeper` as plain values.

    Raises:
        UserError: what is wrong with it.
    """
    composed, config = command.composed, command.composed.config
    options = read_options(raw_options)
    if options.tracking != MlflowOptions("mlflow", None, None):
        raise ConfigError("hydra.sweeper.tracking is for other applications; use tracking.uri=..., "
                          "tracking.experiment=... or tracking=none")  # fmt: skip
    overrides = OverridesParser.create().parse_overrides(arguments)
    leaves = flatten(composed.config_tree)
    space, excluded = read_space(options.params, overrides, options.conditions, leaves)
    space, excluded = _meaningful(space, excluded, config.backend.name, overrides)
    objective, direction = choose_objective(config, options)
    _refuse_unlike(space)
    variants = _variants(command, space)
    plan = TrialPlan(composed.config_tree, variants, objective, direction, options.seeds, ("", ""))
    default = space.default_point(leaves)
    points = space.checked_points(options.enqueue, "hydra.sweeper.enqueue")
    _check_space(plan, space, points)
    make_sampler(options.sampler, space)  # refuses what it cannot search
    if not space.outside(default):
        points.insert(0, default)
    for backend in plan.backends:
        require_backend(backend)
    data = DataCache().get(config)
    check_objective(objective, config, data)
    plan = replace(plan, digests=(data.data_digest, data.split_digest))
    application = _application(command, plan, data)
    steps = config.training.epochs
    shared = SweepPlan(objective, direction, "", steps, asdict(plan))
    return Search(application, options, raw_options, space, excluded, points, shared)


def _application(command: Command, plan: TrialPlan, data: Dataset) -> Application:
    """What the sweep must know of it."""
    composed, config = command.composed, command.composed.config
    shared = {k: v for k, v in composed.config_tree.items() if k != "tracking"}
    uri, experiment = "", ""
    if isinstance(config.tracking, MlflowConfig):
        given = config.tracking.uri if "tracking.uri" in composed.given else None
        uri = locate_store(given, config.tracking.uri, os.environ).uri
        experiment = config.tracking.experiment
    path = getattr(config.data, "path", "")
    # not from the study: data may lie elsewhere here, and what a choice stands for is one's own
    local = {"config_tree": composed.config_tree, "variants": plan.variants}
    return Application(
        name=one_run.data_name(config),
        config={k: v for k, v in flatten(shared).items() if k != "data.path"},
        inputs={
            "data": {"digest": data.data_digest, "is": Path(path).name or config.data.name},
            "split": {"digest": data.split_digest, "is": ""},
        },
        opener=OPENER,
        open_here=lambda settings: TrainingTask.of(settings | local, DataCache.of(config, data)),
        in_threads=plan.backends == {"numpy_sgd"},
        seconds_per_trial=lambda: _seconds_per_trial(config, data, plan.seeds),
        run=one_run.describe(config, composed.config_tree, data),
        files={
            "config.yaml": yaml.safe_dump(composed.config_tree, sort_keys=False, allow_unicode=True)
        },
        uri=uri,
        experiment=experiment,
        again=command_line(command.arguments),
        notes=list(data.notes),
        local=local,
    )


def _meaningful(
    space: Space, excluded: dict[str, str], backend: str, overrides: Sequence[Override]
) -> tuple[Space, dict[str, str]]:
    """The space without what the backend has no use for; conditional where backends are swept.

    Raises:
        ConfigError: the user asked to sweep a key that has no meaning.
    """
    if BACKEND in space:
        backends = [str(choice) for choice in space[BACKEND].values]
        rules = {d.key: d.condition for d in space.dimensions if d.condition}
        for d in space.dimensions:
            without = [name for name in backends if meaning.reason(d.key, name)]
            if without and d.key not in rules:
                rules[d.key] = Condition(BACKEND, without[0], unless=True)
        return Space(ordered(space.dimensions, rules)), excluded
    reasons = {d.key: meaning.reason(d.key, backend) for d in space.dimensions}
    meaning.refuse({o.key_or_group for o in overrides}, backend)
    kept = [d for d in space.dimensions if not reasons[d.key]]
    return Space(kept), excluded | {key: said for key, said in reasons.items() if said}


def command_line(arguments: argparse.Namespace) -> list[str]:
    """The command as it could be typed again, in words, without the program and passwords."""
    flags = [
        part
        for name in ("config_name", "config_dir")
        if (value := getattr(arguments, name))
        for part in (f"--{name.replace('_', '-')}", value)
    ]
    return ["run", "-m", *flags, *map(no_password, arguments.overrides)]


def _variants(command: Command, space: Space) -> dict[str, dict[str, Any]]:
    """What each choice of each swept config group puts under the group's key."""
    return {
        dimension.key: {
            str(choice): command.compose_with(f"{dimension.key}={choice}").config_tree[
                dimension.key
            ]
            for choice in dimension.values
        }
        for dimension in space.dimensions
        if dimension.key == BACKEND
    }


def _check_space(plan: TrialPlan, space: Space, points: list[Point]) -> None:
    """Refuse a space or points with values that the configuration cannot take.

    Raises:
        ConfigError: what is wrong with each, one line each.
    """
    probes = [
        space.ruling_values(d) | {d.key: probe} for d in space.dimensions for probe in d.probes
    ]
    mistakes: dict[str, None] = {}
    for point in [*probes, *points]:
        try:
            plan.at(point)
        except ConfigError as error:
            mistakes |= dict.fromkeys(str(error).splitlines())
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def _refuse_unlike(space: Space) -> None:
    """Refuse keys whose values make losses that cannot be compared."""
    mistakes = []
    for d in space.dimensions:
        if d.key == "seed":
            mistakes.append(
                "seed cannot be swept: the best of several seeds is the luckiest, no better model; "
                f"hydra.sweeper.seeds={max(2, len(d.choices))} trains every point at seed, "
                "seed + 1, ... and judges it by the mean"
            )
        elif d.key in ("data", "tracking", "experiment", "task") or d.key.startswith(_ONE_FOR_ALL):
            mistakes.append(
                f"{d.key} cannot be swept: losses on unlike data cannot be compared, and "
                "one sweep has one store; run a sweep for each"
            )
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def _seconds_per_trial(config: Config, data: Dataset, seeds: int) -> float:
    """Training time of one trial, extrapolated from a few epochs of the first point."""
    from fmexp.training.fitting import fit

    epochs = config.training.epochs
    few = min(3, epochs)
    fitted = fit(replace(config, training=replace(config.training, epochs=few)), data)
    return fitted.fit_seconds / few * epochs * seeds
