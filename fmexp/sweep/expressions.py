"""From Hydra's override expressions to a search space."""

from __future__ import annotations

import dataclasses
from decimal import ROUND_CEILING, Decimal
from math import isfinite
from random import Random
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    QuotedString,
    RangeSweep,
)
from hydra.errors import HydraException

from fmexp.errors import ConfigError
from fmexp.sweep.space import Condition, Dimension, Space, Value, is_plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PARAMS, CONDITIONS = "hydra.sweeper.params", "hydra.sweeper.conditions"
_FORMS = "choice(a, b), range(start, stop), interval(low, high) or tag(log, interval(low, high))"


class _MistakeError(Exception):
    """What is wrong with one expression, in words."""


def read_space(
    params: Mapping[str, Any],
    overrides: Sequence[Override],
    conditions: Mapping[str, Any],
    leaves: Mapping[str, Any],
) -> tuple[Space, dict[str, str]]:
    """The space that configuration and command line describe together.

    The keys that have several values on the command line are the space. Where none has, it is
    `params`, the default space, without the keys that have one value on the command line.

    Args:
        params: `hydra.sweeper.params`: expressions by key, dotted or nested; null: not swept.
        overrides: the command line, parsed by Hydra; those of `hydra.*` are passed over.
        conditions: `hydra.sweeper.conditions`: "other.key=value" by key.
        leaves: the composed configuration by dotted key.

    Returns:
        The space, and why each key that left it did, for the screen.

    Raises:
        ConfigError: expressions or conditions are wrong; one line each, all of them.
    """
    mistakes: list[str] = []
    found: dict[str, Dimension] = {}
    excluded: dict[str, str] = {}
    last = {swept_key(o): o for o in overrides if not o.is_hydra_override()}
    if any(override.is_sweep_override() for override in last.values()):
        unused = _flat(params)
        conditions = {k: v for k, v in _flat(conditions).items() if k in last or k not in unused}
    else:
        found = _from_params(params, mistakes)
    for override in overrides:
        if not override.is_hydra_override():
            _take(override, found, excluded, mistakes)
    rules = _read_conditions(conditions, found, excluded, leaves, mistakes)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return Space(ordered(list(found.values()), rules)), excluded


def _from_params(params: Mapping[str, Any], mistakes: list[str]) -> dict[str, Dimension]:
    """Dimensions by key of `hydra.sweeper.params`."""
    found = {}
    for key, text in _flat(params).items():
        if text is None:
            continue
        try:
            override = OverridesParser.create().parse_override(f"{key}={text}")
            found[key] = _dimension(key, override)
        except (HydraException, _MistakeError) as error:
            mistakes.append(f"{PARAMS}.{key}: {text}: {_first_line(error)}")
    return found


def _take(
    override: Override, found: dict[str, Dimension], excluded: dict[str, str], mistakes: list[str]
) -> None:
    """Let one override of the command line change the dimensions that were found so far."""
    key = swept_key(override)
    if not override.is_sweep_override():
        if found.pop(key, None):
            excluded[key] = "fixed on the command line"
        return
    excluded.pop(key, None)
    try:
        found[key] = _dimension(key, override)
    except _MistakeError as mistake:
        found.pop(key, None)
        mistakes.append(f"{override.input_line}: {mistake}")


def swept_key(override: Override) -> str:
    """What an override is called in the space: its key, with the package where it has one."""
    package = f"@{override.package}" if override.package is not None else ""
    return f"{override.key_or_group}{package}"


def _dimension(key: str, override: Override) -> Dimension:
    """The dimension that an override sweeps."""
    sweep = override.value()
    tags: set[str] = getattr(sweep, "tags", set())
    if unknown := sorted(tags - {"log"}):
        raise _MistakeError(f"the only tag is log, got {', '.join(unknown)}")
    if isinstance(sweep, IntervalSweep):
        return _interval(key, sweep)
    if tags:
        raise _MistakeError("log goes with an interval: tag(log, int(interval(low, high)))")
    if isinstance(sweep, RangeSweep):
        return _range(key, sweep)
    if isinstance(sweep, ChoiceSweep):
        return _choice(key, sweep)
    if override.is_sweep_override():
        raise _MistakeError("glob(...) has no meaning here; list the values: choice(a, b)")
    raise _MistakeError(f"expected {_FORMS}; for a fixed value write {override.input_line} "
                        "on the command line")  # fmt: skip


def _interval(key: str, sweep: IntervalSweep) -> Dimension:
    low, high, log = sweep.start, sweep.end, "log" in sweep.tags
    assert low is not None
    assert high is not None
    if not (isfinite(low) and isfinite(high)):
        raise _MistakeError(f"the ends of an interval must be finite, got {low} and {high}")
    if low >= high:
        raise _MistakeError(f"an interval's low end must be below its high, got {low} and {high}")
    if log and low <= 0:
        raise _MistakeError(f"log needs a low end > 0, got {low}")
    if isinstance(low, int) and isinstance(high, int):
        return Dimension(key, "int", low, high, 1, log)
    return Dimension(key, "float", float(low), float(high), None, log)


def _range(key: str, sweep: RangeSweep) -> Dimension:
    """The end is excluded, as everywhere in Hydra; float steps are taken as they are written."""
    start, stop, step = sweep.start, sweep.stop, sweep.step
    assert start is not None
    assert stop is not None
    for cast in getattr(sweep, "transformers", ()):  # of Hydra 1.4; 1.3 has applied them
        start, stop, step = cast(start), cast(stop), cast(step)
    if not all(map(isfinite, (start, stop, step))) or step == 0:
        raise _MistakeError("start, stop and step of a range must be finite, and step not 0")
    distance = Decimal(str(step))
    ratio = (Decimal(str(stop)) - Decimal(str(start))) / distance
    count = int(ratio.to_integral_value(ROUND_CEILING))
    if count < 1:
        raise _MistakeError(f"the range is empty (its end is excluded): from {start} to {stop} in "
                            f"steps of {step}")  # fmt: skip
    whole = all(isinstance(x, int) for x in (start, stop, step))
    kind = int if whole else float
    first, last = kind(start), kind(Decimal(str(start)) + (count - 1) * distance)
    low, high = min(first, last), max(first, last)
    ranged = Dimension(key, "int" if whole else "float", low, high, step)
    if not sweep.shuffle:
        return ranged
    return Dimension(key, "choice", choices=_shuffled(key, ranged.values))


def _choice(key: str, sweep: ChoiceSweep) -> Dimension:
    values = [x.text if isinstance(x, QuotedString) else x for x in sweep.list]
    for i, x in enumerate(values):
        if not is_plain(x):
            raise _MistakeError(f"a choice must be a plain, finite value, got {x!r}")
        if any(x == y for y in values[:i] if (x is None) == (y is None)):
            raise _MistakeError(f"choices must differ (1, 1.0 and true do not), got {x!r} twice")
    choices: tuple[Value, ...] = tuple(values)  # type: ignore[arg-type]
    return Dimension(key, "choice", choices=_shuffled(key, choices) if sweep.shuffle else choices)


def _shuffled(key: str, values: Sequence[Value]) -> tuple[Value, ...]:
    """In an order that is the key's own, so that the same command makes the same space."""
    return tuple(Random(key).sample(values, len(values)))


def _read_conditions(
    conditions: Mapping[str, Any],
    found: dict[str, Dimension],
    excluded: dict[str, str],
    leaves: Mapping[str, Any],
    mistakes: list[str],
) -> dict[str, Condition]:
    """Conditions that only a point can decide; the others are decided here."""
    rules = {}
    for key, text in _flat(conditions).items():
        where = f"{CONDITIONS}.{key}: {text}"
        if text is None or key in excluded:
            continue
        try:
            rule = _condition(str(text))
        except _MistakeError as mistake:
            mistakes.append(f"{where}: {mistake}")
            continue
        if key not in found:
            mistakes.append(f"{where}: {key} is not in the space, which has {', '.join(found)}")
        elif rule.key in found:
            rules[key] = rule
            mistakes += _impossible(where, rule, found[rule.key])
        elif rule.key not in leaves:
            mistakes.append(f"{where}: {rule.key} is neither in the space nor in the configuration")
        elif not rule.holds(leaves):
            excluded[key] = f"exists only with {rule}"
            del found[key]
    mistakes += _circles(rules)
    return rules


def _condition(text: str) -> Condition:
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException:
        raise _MistakeError("a condition is written other.key=value") from None
    value = override.value()
    if override.is_sweep_override() or override.is_delete() or not is_plain(value):
        raise _MistakeError("a condition asks for one value: other.key=value")
    return Condition(override.key_or_group, value)  # type: ignore[arg-type]


def _impossible(where: str, rule: Condition, ruling: Dimension) -> list[str]:
    if ruling.find(rule.value)[0]:
        return []
    return [f"{where}: can never hold, {ruling.key} is swept over {ruling}"]


def _circles(rules: dict[str, Condition]) -> list[str]:
    """Conditions that wait for themselves."""
    mistakes = []
    for key in rules:
        seen, at = [key], rules[key].key
        while at in rules and at not in seen:
            seen.append(at)
            at = rules[at].key
        if at == key:
            mistakes.append(f"{CONDITIONS}.{key}: waits for itself ({' <- '.join([*seen, key])})")
    return mistakes


def ordered(dimensions: Sequence[Dimension], rules: dict[str, Condition]) -> list[Dimension]:
    """With these conditions, as given but each after the one that its condition looks at."""
    waiting = [dataclasses.replace(d, condition=rules.get(d.key)) for d in dimensions]
    placed: list[Dimension] = []
    while waiting:
        open_keys = {d.key for d in waiting}
        ready = next(d for d in waiting if not d.condition or d.condition.key not in open_keys)
        waiting.remove(ready)
        placed.append(ready)
    return placed


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of a mapping that may be nested; what stands later wins."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if isinstance(error, _MistakeError) else f"expected {_FORMS} ({lines[-1]})"
