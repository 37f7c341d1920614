"""What a sweep is to do, checked before anything is written."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from hydra.core.override_parser.overrides_parser import OverridesParser

from fmexp.backends.base import require_backend
from fmexp.config import meaning
from fmexp.config.schema import STARTS, flatten
from fmexp.data.features import CHUNK_ROWS
from fmexp.errors import ConfigError, DataError
from fmexp.experiment import one_run
from fmexp.experiment.trial_plan import (
    DataCache,
    Plan,
    check_space,
    held_out_objectives,
    objectives,
)
from fmexp.sweep.expressions import fixed_overrides, ordered, read_space
from fmexp.sweep.options import SweepOptions, read_options
from fmexp.sweep.samplers import make_sampler
from fmexp.sweep.space import Condition, Space
from fmexp.training.metrics import rises

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

    from hydra.core.override_parser.types import Override

    from fmexp.config.compose import Composed
    from fmexp.config.schema import Config
    from fmexp.data.dataset import Dataset
    from fmexp.experiment.trial_plan import Direction
    from fmexp.sweep.space import Point

_ONE_FOR_ALL = ("split.", "tracking.", "experiment.")
"""Keys that begin so are the same in all trials of a sweep."""

BACKEND = "backend"


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
        points: to be evaluated first: the configuration as composed, where the space holds it,
            then what was enqueued.
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
            "direction": self.plan.direction,
            "seeds": self.plan.seeds,
            "data": self.data.data_digest,
            "split": self.data.split_digest,
        }

    @property
    def name(self) -> str:
        """The study's name: given, or from the identity, so that the same command continues."""
        text = json.dumps(self.identity, sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        return self.options.study_name or f"{one_run.data_name(self.config)}-{digest}"

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
    space, left = _meaningful(space, left, composed.config.backend.name, overrides)
    config = composed.config
    objective, direction = _objective(config, options)
    plan = Plan(
        record=composed.record,
        variants=_variants(command, space),
        objective=objective,
        direction=direction,
        seeds=options.seeds,
        sweep_key="",
        digests=("", ""),
    )
    default = space.default_point(leaves)
    points = space.checked_points(options.enqueue, "hydra.sweeper.enqueue")
    check_space(plan, space, points)
    make_sampler(options.sampler, space)  # refuses what it cannot search
    if not space.outside(default):
        points.insert(0, default)
    for backend in plan.backends:
        require_backend(backend)
    data = DataCache().get(config)
    _check_objective(objective, config, data)
    plan = replace(plan, digests=(data.data_digest, data.split_digest))
    return Sweep(options, raw_options, space, left, plan, points, config, data)


def _meaningful(
    space: Space, left: dict[str, str], backend: str, overrides: Sequence[Override]
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
        return Space(ordered(space.dimensions, rules)), left
    reasons = {d.key: meaning.reason(d.key, backend) for d in space.dimensions}
    meaning.refuse({o.key_or_group for o in overrides}, backend)
    kept = [d for d in space.dimensions if not reasons[d.key]]
    return Space(kept), left | {key: said for key, said in reasons.items() if said}


def fixed_texts(arguments: list[str]) -> list[str]:
    """The overrides that sweep nothing, as they were written."""
    parsed = OverridesParser.create().parse_overrides(arguments)
    return [str(override.input_line) for override in fixed_overrides(parsed)]


def _variants(command: Command, space: Space) -> dict[str, dict[str, Any]]:
    """What each choice of each swept config group puts under the group's key."""
    _refuse_unlike(space)
    groups = [d for d in space.dimensions if d.key == BACKEND]
    return {
        dimension.key: {
            str(choice): command.compose_with(f"{dimension.key}={choice}").record[dimension.key]
            for choice in dimension.values
        }
        for dimension in groups
    }


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


def _objective(config: Config, options: SweepOptions) -> tuple[str, Direction]:
    """The metric that trials are ranked by, and the direction in which it gets better; checked."""
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
    known = objectives(config)
    short = {name.replace("best/val_", "val/"): name for name in held_out_objectives(config)}
    given = options.objective or known[0]
    objective = short.get(given, given)
    if objective not in known:
        raise ConfigError(
            f"hydra.sweeper.objective must be one of {', '.join([*known, *short])}, got {given}"
        )
    direction: Direction = "maximize" if rises(objective) else "minimize"
    if options.direction not in (None, direction):
        raise ConfigError(
            f"hydra.sweeper.direction={options.direction} would look for the worst {objective}, of "
            f"which {'more' if direction == 'maximize' else 'less'} is better; leave it out"
        )
    return objective, direction


def _check_objective(objective: str, config: Config, data: Dataset) -> None:
    """Refuse an objective that these rows cannot give."""
    if objective not in held_out_objectives(config):
        return
    if objective not in one_run.held_out_names(config, data):
        assert data.validation is not None
        raise DataError(
            f"hydra.sweeper.objective={objective} cannot be told of this validation part of "
            f"{len(data.validation.target):,} rows: it has one value of the target only, or more "
            f"than {CHUNK_ROWS:,} rows; use {objectives(config)[0]}"
        )
