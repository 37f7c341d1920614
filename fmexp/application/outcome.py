"""What the value that an application's function returns makes of its trial."""

from __future__ import annotations

from math import isfinite
from typing import Any

from fmexp.application.trial import as_number
from fmexp.record.tracker import Outcome
from fmexp.sweep.task import Evaluation

OBJECTIVE = "objective"
"""Metric of each trial: the value by which it is ranked, under whatever further name."""


def numbers(returned: Any, name: str | None = None) -> dict[str, float]:
    """The returned value as metrics.

    Args:
        returned: a number, or numbers by name.
        name: what a number without a name is called; None for `OBJECTIVE`.

    Raises:
        TypeError: it is neither.
    """
    if returned is None:
        raise TypeError(
            "the function returned None; a sweep needs a number, or a dictionary of numbers"
        )
    if isinstance(returned, dict):
        return {str(key): as_number(str(key), x) for key, x in returned.items()}
    return {name or OBJECTIVE: as_number(name or OBJECTIVE, returned)}


def evaluation(returned: Any, objective: str | None) -> Evaluation:
    """What a function's value makes of its trial.

    Args:
        returned: a number, or numbers by name.
        objective: the name of the one that counts; None where there is one only.

    Raises:
        TypeError: it is neither, or does not hold the objective.
    """
    metrics = numbers(returned, objective)
    name = objective or (next(iter(metrics)) if len(metrics) == 1 else "")
    if name not in metrics:
        is_now = f"; it is {objective}" if objective else ""
        raise TypeError(
            f"the function returned {', '.join(metrics) or 'no metrics'}: set "
            f"hydra.sweeper.objective to the one that trials are ranked by{is_now}"
        )
    value, finite = metrics[name], {each: x for each, x in metrics.items() if isfinite(x)}
    if not isfinite(value):
        return Evaluation(Outcome.DIVERGED, reason=f"{name} is {value}", metrics=finite)
    return Evaluation(Outcome.COMPLETED, value, metrics=finite | {OBJECTIVE: value})
