"""What a sweep is to do, checked before anything is written."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from hydra.core.override_parser.overrides_parser import OverridesParser

from fmexp.backends.base import require_backend
from fmexp.config.schema import STARTS, flatten
from fmexp.errors import ConfigError
from fmexp.experiment.trial import DataCache, Plan, check_space
from fmexp.sweep.expressions import fixed_overrides, read_space
from fmexp.sweep.options import SweepOptions, read_options
from fmexp.sweep.samplers import make_sampler

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from fmexp.config.compose import Composed
    from fmexp.config.schema import Config
    from fmexp.data.dataset import Dataset
    from fmexp.sweep.space import Point, Space


class Command(Protocol):
    """The command that sweeps.

    Attributes:
        composed: the configuration without what is swept.
        arguments: the command line as parsed.
        folder: where the command runs.
    """

    @property
    def composed(self) -> Composed: ...  # noqa: D102
    @property
    def arguments(self) -> argparse.Namespace: ...  # noqa: D102
    @property
    def folder(self) -> Path: ...  # noqa: D102

    def compose_with(self, override: str) -> Composed:
        """The configuration with one more override."""
        ...


@dataclass(frozen=True)
class Sweep:
    """What is to be done, all of it checked; nothing is written yet.

    Attributes:
        options: `hydra.sweeper`, checked.
        raw_options: the same as plain values.
        space: what is searched.
        left: keys that left the space, and why.
        plan: what all trials share.
        points: to be evaluated first: the configuration as composed, then what was enqueued.
        config: the configuration as composed, checked.
        data: its rows.
    """

    options: SweepOptions
    raw_options: dict[str, Any]
    space: Space
    left: dict[str, str]
    plan: Plan
    points: list[Point]
    config: Config
    data: Dataset

    @property
    def identity(self) -> dict[str, Any]:
        """What makes two sweeps the same one; see `study_name` in docs/sweeps.md."""
        record = {k: v for k, v in self.plan.record.items() if k != "tracking"}
        return {
            "config": flatten(record),
            "space": {d.key: str(d) for d in self.space.dimensions},
            "objective": self.plan.objective,
            "direction": self.options.direction,
            "seeds": self.plan.seeds,
            "data": self.data.data_digest,
            "split": self.data.split_digest,
        }

    @property
    def name(self) -> str:
        """The study's name: given, or from the identity, so that the same command continues."""
        text = json.dumps(self.identity, sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        return self.options.study_name or f"{self.config.data.name}-{digest}"

    @property
    def all_numpy(self) -> bool:
        """Whether every trial trains with compiled loops, which release the interpreter."""
        return self.plan.backends == {"numpy_sgd"}


def prepare(command: Command, arguments: list[str], raw_options: dict[str, Any]) -> Sweep:
    """Check everything that the user gave, and load the data.

    Raises:
        UserError: what is wrong with it.
    """
    composed = command.composed
    options = read_options(raw_options)
    overrides = OverridesParser.create().parse_overrides(arguments)
    leaves = flatten(composed.record)
    space, left = read_space(options.params, overrides, options.conditions, leaves)
    config = composed.config
    plan = Plan(
        record=composed.record,
        variants=_variants(command, space),
        objective=_objective(config, options),
        seeds=options.seeds,
        sweep_key="",
        digests=("", ""),
    )
    default = space.default_point(leaves)
    points = space.checked_points(options.enqueue, "hydra.sweeper.enqueue")
    check_space(plan, space, points)
    make_sampler(options.sampler, space)  # refuses what it cannot search
    if options.sampler.name != "grid" or not space.outside(default):  # a grid is just the grid
        points.insert(0, default)
    for backend in plan.backends:
        require_backend(backend)
    data = DataCache().get(config)
    plan = replace(plan, digests=(data.data_digest, data.split_digest))
    return Sweep(options, raw_options, space, left, plan, points, config, data)


def fixed_texts(arguments: list[str]) -> list[str]:
    """The overrides that sweep nothing, as they were written."""
    parsed = OverridesParser.create().parse_overrides(arguments)
    return [str(override.input_line) for override in fixed_overrides(parsed)]


def _variants(command: Command, space: Space) -> dict[str, dict[str, Any]]:
    """What each choice of each swept config group puts under the group's key."""
    groups = [d for d in space.dimensions if d.key in ("backend", "data", "tracking", "experiment")]
    for dimension in groups:
        if dimension.key != "backend":
            raise ConfigError(
                f"{dimension.key} cannot be swept: losses on unlike data cannot be compared, and "
                "one sweep has one store; run a sweep for each"
            )
    return {
        dimension.key: {
            str(choice): command.compose_with(f"{dimension.key}={choice}").record[dimension.key]
            for choice in dimension.values
        }
        for dimension in groups
    }


def _objective(config: Config, options: SweepOptions) -> str:
    """The metric that is minimised, checked."""
    if config.split.validation == 0:
        raise ConfigError(
            "a sweep needs a validation part to choose by: set split.validation > 0 "
            "(got 0); the training error would choose what overfits"
        )
    if config.model.start not in STARTS:
        raise ConfigError(
            f"a sweep cannot start from a model (model.start={config.model.start}): its k is one; "
            f"use model.start={STARTS[0]}"
        )
    loss = config.loss
    known = [f"best/val_{loss}", f"val/{loss}", f"train/{loss}", "time/fit_seconds"]
    objective = options.objective or known[0]
    if objective not in known:
        raise ConfigError(
            f"hydra.sweeper.objective must be one of {', '.join(known)}, got {objective}"
        )
    return objective
