"""The search space: which keys a sweep varies, over which values, under which conditions."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from decimal import Decimal
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal

from fmexp.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import optuna

    from fmexp.sweep.draw import Drawing

Value = bool | int | float | str | None
Point = dict[str, Value]
"""A value for each dimension that exists, in the order of the space."""

OUTSIDE = "outside_space"
"""Trial attribute: values of a trial's point that lie outside the space, by key."""


def same(a: Value, b: Value) -> bool:
    """Whether two values mean the same: 1 and 1.0 do, 1 and true do not."""
    return isinstance(a, bool) == isinstance(b, bool) and a == b


@dataclass(frozen=True)
class Condition:
    """A dimension exists only where `key` has `value`; or, with `unless`, another one."""

    key: str
    value: Value
    unless: bool = False

    def __str__(self) -> str:
        return f"{self.key}{'!=' if self.unless else '='}{_text(self.value)}"

    def holds(self, values: Mapping[str, Value]) -> bool:
        """Whether it does among these; a key that is missing has no value."""
        return self.key in values and same(values[self.key], self.value) != self.unless


@dataclass(frozen=True)
class Dimension:
    """One swept key.

    Attributes:
        key: config key or config group.
        kind: whole numbers, numbers, or choices.
        low: smallest value, itself in the space; 0 for choices.
        high: largest value, itself in the space; 0 for choices.
        step: distance of two neighbours, negative where a grid walks downwards; None where every
            number between low and high is allowed.
        log: whether the sampler sees the logarithm.
        choices: the values of a choice, in the order of a grid.
        condition: where it exists; None: everywhere.
    """

    key: str
    kind: Literal["int", "float", "choice"]
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False
    choices: tuple[Value, ...] = ()
    condition: Condition | None = None

    def __str__(self) -> str:
        if self.kind == "choice":
            text = " | ".join(map(_text, self.choices))
        else:
            steps = "" if self.stride in (None, 1) else f" in steps of {self.stride}"
            whole = "whole " if self.kind == "int" else ""
            text = f"{whole}{self.low} to {self.high}{steps}{', log' if self.log else ''}"
        return text + (f", only with {self.condition}" if self.condition else "")

    @property
    def continuous(self) -> bool:
        """Whether its values cannot be counted."""
        return self.kind == "float" and self.step is None

    @property
    def stride(self) -> float | None:
        """The step without its direction."""
        return None if self.step is None else abs(self.step)

    @property
    def values(self) -> Sequence[Value]:
        """All of them in the order of a grid; not for a continuous dimension."""
        if self.kind == "choice":
            return self.choices
        assert self.step is not None, f"{self.key} is continuous"
        if self.kind == "int":
            upwards: Sequence[Value] = range(int(self.low), int(self.high) + 1, abs(int(self.step)))
        else:
            count = round((self.high - self.low) / abs(self.step)) + 1
            upwards = [nth(self.low, abs(self.step), n) for n in range(count)]
        return upwards if self.step > 0 else upwards[::-1]

    @property
    def probes(self) -> list[Value]:
        """Values that find a mistaken bound or type: choices all, else both ends and between."""
        if self.kind == "choice":
            return list(self.choices)
        ends: list[Value] = [self.low, self.high]
        if self.continuous:
            ends.append(self.low + 0.381966 * (self.high - self.low))
        return ends

    def find(self, x: Any) -> tuple[bool, Value]:
        """Whether `x` is one of the values, and that value in its own type.

        >>> Dimension("model.k", "int", 2, 64, 1).find(4.0)
        (True, 4)
        >>> Dimension("rate", "float", 0.1, 0.7, 0.2).find(0.30000000000000004)
        (True, 0.3)
        """
        if self.kind == "choice":
            found = [value for value in self.choices if same(x, value)]
            return bool(found), found[0] if found else x
        if isinstance(x, bool) or not isinstance(x, int | float) or not isfinite(x):
            return False, x
        if self.step is None:
            return self.low <= x <= self.high, float(x) + 0.0  # no -0.0
        steps = round((x - self.low) / abs(self.step))
        value = nth(self.low, abs(self.step), steps)
        near = abs(x - value) <= 1e-6 * abs(self.step) and self.low <= value <= self.high
        if near:
            return True, value
        return False, int(x) if self.kind == "int" and x == int(x) else x

    @property
    def distribution(self) -> optuna.distributions.BaseDistribution:
        """The same for Optuna."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.kind == "choice":
            return CategoricalDistribution(self.choices)
        if self.kind == "int":
            return IntDistribution(int(self.low), int(self.high), self.log, int(self.stride or 1))
        return FloatDistribution(self.low, self.high, self.log, self.stride)


class Space:
    """Dimensions in order; a condition's key stands before the dimension that it rules."""

    def __init__(self, dimensions: Sequence[Dimension]) -> None:
        self.dimensions = tuple(dimensions)
        self._by_key = {dimension.key: dimension for dimension in dimensions}
        self._ruling = {d.condition.key for d in dimensions if d.condition}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self.dimensions == other.dimensions

    def __hash__(self) -> int:
        return hash(self.dimensions)

    def __getitem__(self, key: str) -> Dimension:
        return self._by_key[key]

    def __contains__(self, key: str) -> bool:
        return key in self._by_key

    def __str__(self) -> str:
        width = max((len(key) for key in self._by_key), default=0)
        return "\n".join(f"{d.key:<{width}}  {d}" for d in self.dimensions)

    def suggest(self, trial: Drawing | optuna.Trial) -> Point:
        """The point of a trial: what was enqueued, else what the sampler draws."""
        own = trial.user_attrs.get(OUTSIDE, {})
        point: Point = {}
        for d in self._existing(point):
            point[d.key] = own[d.key] if d.key in own else d.find(_suggest(trial, d))[1]
        return point

    def point(self, trial: optuna.trial.FrozenTrial | optuna.Trial) -> Point:
        """The point of a trial as stored; a trial that has not drawn all of it lacks values."""
        return self.canonical({**trial.params, **trial.user_attrs.get(OUTSIDE, {})})

    def enqueued(self, trial: optuna.trial.FrozenTrial) -> Point:
        """The values for which a trial was enqueued."""
        fixed = trial.system_attrs.get("fixed_params", {})
        return self.canonical({**fixed, **trial.user_attrs.get(OUTSIDE, {})})

    def planned(self, trial: optuna.trial.FrozenTrial) -> Point:
        """The point of a trial, with the values for which it was enqueued, drawn yet or not."""
        return self.canonical({**self.enqueued(trial), **self.point(trial)})

    def is_whole(self, point: Mapping[str, Value]) -> bool:
        """Whether a point has a value for each dimension that exists there."""
        return all(d.key in point for d in self._existing(point))

    def canonical(self, values: Mapping[str, Any]) -> Point:
        """`values` without keys that do not exist at this point, in order, each in its own type."""
        point: Point = {}
        for d in self._existing(point):
            if d.key in values:
                point[d.key] = d.find(values[d.key])[1]
        return point

    def key(self, point: Mapping[str, Any]) -> str:
        """Text that two points share exactly when they are the same; stable across processes."""
        return json.dumps(self.canonical(point))

    def outside(self, point: Mapping[str, Any]) -> Point:
        """The values of a point that the space does not hold."""
        return {k: v for k, v in self.canonical(point).items() if not self[k].find(v)[0]}

    def enqueue(
        self,
        study: optuna.Study,
        point: Mapping[str, Any],
        attributes: dict[str, Any] | None = None,
    ) -> None:
        """Have a point evaluated next, wherever it lies; a key that it lacks is drawn.

        Optuna can hold no value outside a distribution (a number out of range is stored with a
        warning and misleads the samplers, an unknown choice is refused), so such a value goes into
        a trial attribute of ours and the trial has no Optuna parameter of that name: samplers pass
        it over, `suggest` and `point` know it.
        """
        canonical, outside = self.canonical(point), self.outside(point)
        inside = {k: v for k, v in canonical.items() if k not in outside}
        own = {OUTSIDE: outside} if outside else {}
        study.enqueue_trial(inside, user_attrs={**(attributes or {}), **own})

    def default_point(self, leaves: Mapping[str, Any]) -> Point:
        """The composed configuration's own values, whether the space holds them or not.

        Args:
            leaves: the configuration by dotted key (`fmexp.config.schema.flatten`); a key that it
                lacks (one of another backend) is left to the sampler.
        """
        return self.canonical(leaves)

    def checked_points(self, points: Sequence[Mapping[str, Any]], where: str) -> list[Point]:
        """Points that a user wrote, such as `enqueue`; keys may be missing, values lie anywhere.

        Raises:
            ConfigError: a key that is not swept, or a value that cannot be one; all mistakes.
        """
        mistakes = []
        for i, point in enumerate(points):
            mistakes += [
                f"{where}[{i}]: {key} is not in the space; it has {', '.join(self._by_key)}"
                for key in point
                if key not in self
            ]
            mistakes += [
                f"{where}[{i}]: {key} must be a plain value, got {value!r}"
                for key, value in point.items()
                if not is_plain(value)
            ]
        if mistakes:
            raise ConfigError("\n".join(mistakes))
        return [self.canonical(point) for point in points]

    def size(self) -> int | None:
        """The number of points; None where a dimension is continuous."""
        if any(d.continuous for d in self.dimensions):
            return None
        return self._count(0, {})

    def grid(self) -> Iterator[Point]:
        """All points, the last dimension fastest.

        Raises:
            ConfigError: dimensions are continuous; each is named.
        """
        mistakes = [
            f"sampler=grid needs values that can be counted, and {d.key} ({d}) has none; write "
            f"{d.key}=choice(...) or range(...), or take another sampler"
            for d in self.dimensions
            if d.continuous
        ]
        if mistakes:
            raise ConfigError("\n".join(mistakes))
        return self._walk(0, {})

    def to_json(self) -> str:
        """Everything that makes the space, in the same words for the same space."""
        return json.dumps([asdict(d) for d in self.dimensions], sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Space:
        """The space that `to_json` wrote."""
        dimensions = []
        for fields in json.loads(text):
            condition = fields.pop("condition")
            fields |= {"choices": tuple(fields["choices"])}
            fields |= {"condition": Condition(**condition) if condition else None}
            dimensions.append(Dimension(**fields))
        return cls(dimensions)

    def ruling_values(self, d: Dimension) -> Point:
        """What lets a dimension exist: a value for the key that its condition looks at."""
        if d.condition is None:
            return {}
        ruling = self._by_key[d.condition.key]
        holding = (x for x in ruling.values if d.condition.holds({ruling.key: x}))
        return {ruling.key: next(holding)}

    def _existing(self, point: Mapping[str, Value]) -> Iterator[Dimension]:
        """Dimensions whose condition holds in `point`, which the caller fills as it goes."""
        return (d for d in self.dimensions if d.condition is None or d.condition.holds(point))

    def _count(self, i: int, point: Point) -> int:
        """Points from dimension `i` on, after these values."""
        if i == len(self.dimensions):
            return 1
        d = self.dimensions[i]
        if d.condition and not d.condition.holds(point):
            return self._count(i + 1, point)
        if d.key not in self._ruling:
            return len(d.values) * self._count(i + 1, point)
        return sum(self._count(i + 1, {**point, d.key: value}) for value in d.values)

    def _walk(self, i: int, point: Point) -> Iterator[Point]:
        """Points from dimension `i` on, after these values."""
        if i == len(self.dimensions):
            yield point
            return
        d = self.dimensions[i]
        if d.condition and not d.condition.holds(point):
            yield from self._walk(i + 1, point)
            return
        for value in d.values:
            yield from self._walk(i + 1, {**point, d.key: value})


def nth(low: float, step: float, n: int) -> float:
    """Low + n step, as one would write it.

    >>> [nth(0.1, 0.1, n) for n in range(4)]
    [0.1, 0.2, 0.3, 0.4]
    """
    if isinstance(low, int) and isinstance(step, int):
        return low + n * step
    return float(Decimal(str(low)) + n * Decimal(str(step)))


def is_plain(x: Any) -> bool:
    """Whether `x` can be a value: null, true, false, a text or a finite number."""
    return x is None or isinstance(x, bool | int | str) or (isinstance(x, float) and isfinite(x))


def in_words(point: Mapping[str, Value]) -> str:
    """A point in few words, for names and tables: the keys' last parts."""
    shown = (
        f"{key.rpartition('.')[2]}={f'{x:.4g}' if isinstance(x, float) else x}"
        for key, x in point.items()
    )
    return " ".join(shown) or "as composed"


def _suggest(trial: Drawing | optuna.Trial, d: Dimension) -> Any:
    """What Optuna has for this dimension of the trial's point."""
    if d.kind == "choice":
        return trial.suggest_categorical(d.key, d.choices)
    if d.kind == "int":
        low, high, step = int(d.low), int(d.high), int(d.stride or 1)
        return trial.suggest_int(d.key, low, high, step=step, log=d.log)
    return trial.suggest_float(d.key, d.low, d.high, step=d.stride, log=d.log)


def _text(value: Value) -> str:
    """A value as YAML writes it."""
    return value if isinstance(value, str) else json.dumps(value)
