"""A trial's point, drawn with few calls to the storage."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

if TYPE_CHECKING:
    from collections.abc import Sequence

    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial


class Drawing:
    """Suggests as `optuna.Trial` does, and reports nothing: for studies without a pruner.

    `optuna.Trial` reads the trial from the storage when it is made, which on a database is six
    statements of the forty that a whole trial may take.

    Attributes:
        number: the trial's.
        user_attrs: as the trial has them.
        params: what was drawn, and so written to the storage.
    """

    def __init__(
        self, study: optuna.Study, storage: BaseStorage, trial_id: int, trial: FrozenTrial
    ) -> None:
        """Args: `trial` as it was read last; it is copied."""
        self._study, self._storage, self._id = study, storage, trial_id
        self._trial = copy.copy(trial)
        self.number, self.user_attrs = trial.number, trial.user_attrs
        self._together: dict[str, Any] | None = None

    @property
    def params(self) -> dict[str, Any]:
        """See the class."""
        return self._trial.params

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """See `optuna.Trial.suggest_float`."""
        return float(self._suggest(name, FloatDistribution(low, high, log, step)))

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """See `optuna.Trial.suggest_int`."""
        return int(self._suggest(name, IntDistribution(low, high, log, step)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """See `optuna.Trial.suggest_categorical`."""
        return self._suggest(name, CategoricalDistribution(choices))

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if name in self._trial.params:
            return self._trial.params[name]
        value = self._value(name, distribution)
        internal = distribution.to_internal_repr(value)
        self._storage.set_trial_param(self._id, name, internal, distribution)
        value = distribution.to_external_repr(internal)
        self._trial.params = {**self._trial.params, name: value}
        self._trial.distributions = {**self._trial.distributions, name: distribution}
        return value

    def _value(self, name: str, distribution: BaseDistribution) -> Any:
        """What was enqueued, else what the sampler draws: together with others, or alone."""
        fixed = self._trial.system_attrs.get("fixed_params", {})
        if name in fixed:
            return fixed[name]
        if distribution.single():
            return _only_value(distribution)
        sampler = self._study.sampler
        if self._together is None:
            together = sampler.infer_relative_search_space(self._study, self._trial)
            self._together = sampler.sample_relative(self._study, self._trial, together)
        if name in self._together:
            return self._together[name]
        return sampler.sample_independent(self._study, self._trial, name, distribution)


def _only_value(distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return distribution.low
