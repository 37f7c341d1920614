"""The metrics that a sweep's trials can be ranked by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fmexp.config.schema import STARTS
from fmexp.data.features import CHUNK_ROWS
from fmexp.errors import ConfigError, DataError
from fmexp.experiment import one_run
from fmexp.training.metrics import rises

if TYPE_CHECKING:
    from fmexp.config.schema import Config
    from fmexp.data.dataset import Dataset
    from fmexp.sweep.options import SweepOptions
    from fmexp.sweep.study import Direction


def objectives(config: Config) -> list[str]:
    """Every metric that trials can be ranked by; the first is the default."""
    loss = config.loss
    fixed = [f"best/val_{loss}", f"val/{loss}", f"train/{loss}", "time/fit_seconds"]
    return fixed + held_out_objectives(config)


def held_out_objectives(config: Config) -> list[str]:
    """Metrics of the kept model's predictions on the validation part."""
    names = ("rmse", "mae", "r2") if config.task == "regression" else ("accuracy", "auc")
    return [f"best/val_{name}" for name in names]


def choose_objective(config: Config, options: SweepOptions) -> tuple[str, Direction]:
    """The metric that trials are ranked by, and the direction in which it gets better.

    Raises:
        ConfigError: the objective is none, or the direction is not its own.
    """
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


def check_objective(objective: str, config: Config, data: Dataset) -> None:
    """Refuse an objective that these rows cannot give.

    Raises:
        DataError: what they lack.
    """
    if objective not in held_out_objectives(config):
        return
    if objective not in one_run.held_out_names(config, data):
        assert data.validation is not None
        raise DataError(
            f"hydra.sweeper.objective={objective} cannot be told of this validation part of "
            f"{len(data.validation.target):,} rows: it has one value of the target only, or more "
            f"than {CHUNK_ROWS:,} rows; use {objectives(config)[0]}"
        )
