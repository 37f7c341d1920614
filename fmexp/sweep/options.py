"""The schema of `hydra.sweeper`: every option of a sweep, its type and its limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fmexp.config.checks import build
from fmexp.config.schema import Bounds, Count, Positive, Seed
from fmexp.errors import ConfigError

Startup = Annotated[int, Bounds(0, 10**6)]
Share = Annotated[float, Bounds(0, 1)]


@dataclass
class TpeOptions:
    """`hydra/sweeper/sampler=tpe`: random for n_startup_trials, then by Parzen estimators."""

    name: Literal["tpe"]
    seed: Seed
    n_startup_trials: Startup
    n_ei_candidates: Count


@dataclass
class RandomOptions:
    """`hydra/sweeper/sampler=random`."""

    name: Literal["random"]
    seed: Seed


@dataclass
class GridOptions:
    """`hydra/sweeper/sampler=grid`: every point, in order."""

    name: Literal["grid"]


@dataclass
class QmcOptions:
    """`hydra/sweeper/sampler=qmc`: a scrambled Sobol sequence."""

    name: Literal["qmc"]
    seed: Seed


@dataclass
class CmaesOptions:
    """`hydra/sweeper/sampler=cmaes`: sigma0 null is a sixth of the narrowest dimension."""

    name: Literal["cmaes"]
    seed: Seed
    n_startup_trials: Startup
    sigma0: Positive | None


@dataclass
class GpOptions:
    """`hydra/sweeper/sampler=gp`: a Gaussian process."""

    name: Literal["gp"]
    seed: Seed
    n_startup_trials: Startup


@dataclass
class NoPrunerOptions:
    """`hydra/sweeper/pruner=none`."""

    name: Literal["none"]


@dataclass
class MedianOptions:
    """`hydra/sweeper/pruner=median`: stops what is worse than the median at the same epoch."""

    name: Literal["median"]
    n_startup_trials: Startup
    n_warmup_steps: Startup


@dataclass
class HyperbandOptions:
    """`hydra/sweeper/pruner=hyperband`: min_resource null is a 27th of the epochs."""

    name: Literal["hyperband"]
    min_resource: Count | None
    reduction_factor: Annotated[int, Bounds(2, 100)]


@dataclass
class MlflowOptions:
    """`hydra/sweeper/tracking=mlflow`; null: what MLflow's environment variables say."""

    name: Literal["mlflow"]
    uri: str | None
    experiment: str | None


@dataclass
class NoTrackingOptions:
    """`hydra/sweeper/tracking=none`."""

    name: Literal["none"]


SamplerOptions = TpeOptions | RandomOptions | GridOptions | QmcOptions | CmaesOptions | GpOptions
PrunerOptions = NoPrunerOptions | MedianOptions | HyperbandOptions
TrackingOptions = MlflowOptions | NoTrackingOptions


@dataclass
class SweepOptions:
    """`hydra.sweeper.*`; what space, conditions and points hold is checked where they are read.

    Attributes:
        n_trials: all trials of the study, those of earlier sittings among them.
        n_jobs: workers at a time.
        max_failure_rate: the sweep ends when more than this share of `n_trials` failed.
        timeout: seconds after which this command asks for no more trials.
        patience: seconds for which a study's database may be away.
        seeds: trainings per point, at seed, seed + 1, ...
        direction: null: as the objective asks (errors fall; accuracy, auc and r2 rise), else
            minimize.
        objective: metric by name; null: the application's own.
        tracking: where trials are recorded; `fmexp run` has `tracking` for that.
        enqueue: points to evaluate before the sampler's.
        relaunch: how often new workers are started when all were lost and trials are missing; how
            many workers a point may cost, at least two, before it fails.
        shared: whether the same command runs on several hosts.
    """

    sampler: SamplerOptions
    pruner: PrunerOptions
    tracking: TrackingOptions
    n_trials: Count
    n_jobs: Annotated[int, Bounds(1, 1024)]
    direction: Literal["minimize", "maximize"] | None
    storage: str | None
    study_name: str | None
    max_failure_rate: Share
    params: dict[str, Any]
    conditions: dict[str, Any]
    timeout: Positive | None
    patience: Positive
    seeds: Annotated[int, Bounds(1, 1000)]
    objective: str | None
    enqueue: list[dict[str, Any]]
    relaunch: Annotated[int, Bounds(0, 1000)]
    shared: bool
    resume: bool
    dry_run: bool


def read_options(tree: dict[str, Any]) -> SweepOptions:
    """The checked options of a sweep.

    Args:
        tree: `hydra.sweeper` as composed, with every reference resolved.

    Raises:
        ConfigError: unknown, missing or mistaken values; one line each, all of them.
    """
    own = {key: value for key, value in tree.items() if key != "_target_"}
    options, mistakes = build(SweepOptions, own, "hydra.sweeper")
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return options  # type: ignore[no-any-return]
