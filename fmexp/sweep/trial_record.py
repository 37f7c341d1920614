"""A trial's run in the record: its name, key and tags."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fmexp.record.passwords import without_password
from fmexp.record.tracker import RunStart
from fmexp.sweep.space import in_words

if TYPE_CHECKING:
    from fmexp.sweep.space import Point
    from fmexp.sweep.study import SweepStudy
    from fmexp.sweep.task import Evaluation

OBJECTIVE = "fmexp.objective"
"""Tag of a trial: the value that the study was told."""

WINNER = "fmexp.winner"
"""Tag of a sweep: the run of its best trial."""


def trial_start(study: SweepStudy, number: int, point: Point, worker: str = "") -> RunStart:
    """A trial's run as it begins, as far as study and point say it.

    Args:
        study: whose trial.
        number: the trial's.
        point: where it is.
        worker: id of the lease of who evaluates it; "" for nobody.
    """
    tags = {"fmexp.trial": str(number), "fmexp.sweep": study.name}
    return RunStart(
        name=f"{number}: {in_words(point)}",
        params={key: str(value) for key, value in point.items()},
        tags=tags | ({"fmexp.worker": worker} if worker else {}),
        parent=study.plan.sweep_key,
        key=study.plan.trial_key(number),
        study={
            "name": study.name,
            "storage": without_password(study.url),
            "trial": str(number),
        },
    )


def with_objective(ended: Evaluation) -> Evaluation:
    """The same with the objective among the tags, exactly."""
    if ended.value is None:
        return ended
    return replace(ended, tags=ended.tags | {OBJECTIVE: repr(ended.value)})
