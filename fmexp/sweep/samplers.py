"""Optuna's samplers, each drawing trial n from a stream of its own: that of (seed, n)."""

from __future__ import annotations

import importlib.util
import math
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.samplers import BaseSampler

from fmexp.errors import FmexpError, MissingPackageError
from fmexp.sweep.options import (
    CmaesOptions,
    GpOptions,
    GridOptions,
    HyperbandOptions,
    MedianOptions,
    PrunerOptions,
    QmcOptions,
    SamplerOptions,
    TpeOptions,
)
from fmexp.sweep.space import OUTSIDE, Dimension, Space, Value
from fmexp.sweep.trial_status import counts

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.study import Study
    from optuna.trial import FrozenTrial

Distributions = dict[str, "BaseDistribution"]


class SpaceExhaustedError(FmexpError):
    """The grid has no point left; the trial that asked has none."""


def searches_all(space: Space, n_trials: int) -> bool:
    """Whether there are as many trials as points: then each is tried once, in order."""
    size = space.size()
    return size is not None and size <= n_trials


def make_sampler(options: SamplerOptions, space: Space, n_trials: int = 0) -> BaseSampler:
    """The sampler that the options ask for; threads may share it.

    Args:
        options: `hydra/sweeper/sampler`.
        space: what is searched.
        n_trials: of the study; where there are enough for every point, the grid is walked.

    Raises:
        MissingPackageError: it needs a package that is not installed.
        ConfigError: a grid over a continuous dimension.
    """
    shared = [d for d in space.dimensions if d.condition is None and not d.distribution.single()]
    relative = {d.key: d.distribution for d in shared}
    if isinstance(options, GridOptions) or searches_all(space, n_trials):
        return GridSampler(space)
    if isinstance(options, QmcOptions):
        return SobolSampler(space, options.seed)
    if isinstance(options, TpeOptions):
        return SeededSampler(options.seed, relative, lambda seed: _tpe(options, seed))
    if isinstance(options, CmaesOptions):
        _require("cmaes", "cmaes", "pip install 'fmexp[cmaes]'")
        numbers = {k: d for k, d in relative.items() if not isinstance(d, CategoricalDistribution)}
        return SeededSampler(options.seed, numbers, lambda seed: _cmaes(options, seed))
    if isinstance(options, GpOptions):
        _require("gp", "torch", "pip install 'fmexp[torch]'")
        return SeededSampler(options.seed, relative, lambda seed: _gp(options, seed), True)
    return SeededSampler(options.seed, {}, lambda seed: optuna.samplers.RandomSampler(seed))


def make_pruner(options: PrunerOptions, epochs: int) -> BasePruner:
    """The pruner that the options ask for; a step is an epoch, of `epochs` at most.

    Where nobody knows how many there are at most, `epochs` is 0: Hyperband then takes the steps of
    the first trial that completes, and prunes none before.
    """
    if isinstance(options, MedianOptions):
        return optuna.pruners.MedianPruner(options.n_startup_trials, options.n_warmup_steps)
    if isinstance(options, HyperbandOptions):
        least, most = options.min_resource or max(1, epochs // 27), epochs or "auto"
        least = min(least, epochs) if epochs else least
        return optuna.pruners.HyperbandPruner(least, most, options.reduction_factor)
    return optuna.pruners.NopPruner()


class SeededSampler(BaseSampler):
    """Has one of Optuna's samplers, made anew for each draw, so that it keeps no state.

    A sampler of Optuna draws from one stream; made again with the same seed, by a second sitting or
    a second worker, it draws the same points again. Here the stream of a draw depends on nothing
    but the seed, the trial's number and the parameter's name.

    What is searched together is known from the space. Optuna would take what all trials have in
    common, and that would lose a key for good with the first trial whose value lies outside.
    """

    def __init__(
        self,
        seed: int,
        relative: Distributions,
        make: Callable[[int], BaseSampler],
        only_whole: bool = False,
    ) -> None:
        self._seed, self._relative, self._make = seed, relative, make
        self._only_whole = only_whole

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Distributions:  # noqa: ARG002
        """What is searched together."""
        return self._relative

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: Distributions
    ) -> dict[str, Any]:
        """Values for all of `search_space`; none for a trial that has values outside the space."""
        if not search_space or OUTSIDE in trial.user_attrs:
            return {}
        seen: Any = _WholeTrials(study, set(search_space)) if self._only_whole else study
        return self._inner(trial, "").sample_relative(seen, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A value for one parameter."""
        inner = self._inner(trial, param_name)
        return inner.sample_independent(study, trial, param_name, param_distribution)

    def _inner(self, trial: FrozenTrial, name: str) -> BaseSampler:
        words = (self._seed, trial.number, zlib.crc32(name.encode()))
        return self._make(int(np.random.SeedSequence(words).generate_state(1)[0]))


class SobolSampler(BaseSampler):
    """Trial n is point n of a scrambled Sobol sequence, a coordinate for each dimension."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space, self._seed = space, seed
        self._relative = {d.key: d.distribution for d in space.dimensions}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Distributions:  # noqa: ARG002
        """The whole space."""
        return self._relative

    def sample_relative(
        self,
        study: Study,  # noqa: ARG002
        trial: FrozenTrial,
        search_space: Distributions,  # noqa: ARG002
    ) -> dict[str, Any]:
        """The trial's point; dimensions that do not exist there have a value too, never asked."""
        if not self._relative:
            return {}
        from scipy.stats import qmc  # type: ignore[import-untyped]  # slow, so only here

        sequence = qmc.Sobol(len(self._relative), rng=np.random.default_rng(self._seed))
        if trial.number > 0:
            sequence.fast_forward(trial.number)
        coordinates = sequence.random(1)[0]
        return {
            d.key: value_at(d, float(u))
            for d, u in zip(self._space.dimensions, coordinates, strict=True)
        }

    def sample_independent(
        self,
        study: Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
        param_name: str,
        param_distribution: BaseDistribution,  # noqa: ARG002
    ) -> Any:
        """Never asked: a point has all values."""
        raise AssertionError(param_name)


class GridSampler(BaseSampler):
    """The first point of the grid that no other trial has, of those that count.

    Two trials that look at the same moment could take the same; so each passes over as many points
    as there are older trials that have yet to choose. Where they meet all the same, the later one
    is a repeat, as with any sampler.
    """

    def __init__(self, space: Space) -> None:
        space.grid()  # refuses continuous dimensions
        self._space = space
        self._relative = {d.key: d.distribution for d in space.dimensions}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Distributions:  # noqa: ARG002
        """The whole space."""
        return self._relative

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: Distributions,  # noqa: ARG002
    ) -> dict[str, Any]:
        """The trial's point; an enqueued trial has one already.

        Raises:
            SpaceExhaustedError: all are taken.
        """
        if "fixed_params" in trial.system_attrs:
            return {}
        taken, choosing = self._others(study, trial)
        mine = None
        for point in self._space.grid():
            if self._space.key(point) in taken:
                continue
            mine, choosing = point, choosing - 1
            if choosing < 0:
                break
        if mine is None:
            raise SpaceExhaustedError(f"all {self._space.size()} points of the grid are taken")
        return mine

    def sample_independent(
        self,
        study: Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
        param_name: str,
        param_distribution: BaseDistribution,  # noqa: ARG002
    ) -> Any:
        """The first value, for what an enqueued point leaves open."""
        return self._space[param_name].values[0]

    def _others(self, study: Study, trial: FrozenTrial) -> tuple[set[str], int]:
        """Keys of the points that the other trials have; how many older ones have yet to choose."""
        taken, choosing = set(), 0
        for other in study.get_trials(deepcopy=False):
            if other.number == trial.number or not counts(other):
                continue
            point = self._space.planned(other)
            if self._space.is_whole(point) or other.state.is_finished():
                taken.add(self._space.key(point))
            elif other.number < trial.number:
                choosing += 1
        return taken, choosing


class _WholeTrials:
    """A study seen without the finished trials that lack a parameter: GPSampler raises on such."""

    def __init__(self, study: Study, keys: set[str]) -> None:
        self._study, self._keys = study, keys

    def _get_trials(self, *args: Any, **options: Any) -> list[FrozenTrial]:
        trials = self._study._get_trials(*args, **options)
        return [t for t in trials if not t.state.is_finished() or self._keys <= t.params.keys()]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)


def value_at(d: Dimension, u: float) -> Value:
    """The value at fraction `u` (0 <= u < 1) of a dimension, by its logarithm where it has one.

    >>> [value_at(Dimension("k", "int", 2, 5, 1), u) for u in (0.0, 0.3, 0.99)]
    [2, 3, 5]
    >>> round(value_at(Dimension("rate", "float", 0.01, 1.0, log=True), 0.5), 9)
    0.1
    """
    if not d.log and not d.continuous:
        return d.values[int(u * len(d.values))]
    margin = 0.5 if d.kind == "int" else 0.0
    low, high = d.low - margin, d.high + margin
    x = math.exp(math.log(low) * (1 - u) + math.log(high) * u) if d.log else low + u * (high - low)
    inside = min(max(x, d.low), d.high)
    return round(inside) if d.kind == "int" else inside


def _tpe(options: TpeOptions, seed: int) -> BaseSampler:
    return optuna.samplers.TPESampler(
        n_startup_trials=options.n_startup_trials,
        n_ei_candidates=options.n_ei_candidates,
        seed=seed,
    )


def _cmaes(options: CmaesOptions, seed: int) -> BaseSampler:
    from fmexp.sweep.cmaes_state import SafeCmaEsSampler

    return SafeCmaEsSampler(
        sigma0=options.sigma0,
        n_startup_trials=options.n_startup_trials,
        warn_independent_sampling=False,
        seed=seed,
    )


def _gp(options: GpOptions, seed: int) -> BaseSampler:
    return optuna.samplers.GPSampler(
        n_startup_trials=options.n_startup_trials, warn_independent_sampling=False, seed=seed
    )


def _require(sampler: str, package: str, command: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise MissingPackageError(f"sampler={sampler} needs {package}: {command}")
