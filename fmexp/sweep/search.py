"""What a sweep is to do, checked before anything is written."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from fmexp.record.tracker import Delivery, RunStart
    from fmexp.sweep.options import SweepOptions
    from fmexp.sweep.space import Point, Space
    from fmexp.sweep.study import SweepPlan, SweepStudy
    from fmexp.sweep.task import Task


@dataclass(frozen=True)
class Application:
    """What is swept, as far as a sweep must know it.

    Attributes:
        name: of its data, for the study's name.
        config: what all trials share, by dotted key: a part of what makes two sweeps the same.
        inputs: what it reads, by name: digest, and a name for the screen; keys of `config` that
            begin with the input's name belong to it.
        opener: `package.module:function` that makes the task in a worker process.
        open_here: the same function in this process, where what it reads is loaded already.
        in_threads: whether trials run beside each other in threads; else in processes.
        seconds_per_trial: measures how long a trial will take, about; None where nobody knows.
        run: the sweep's own run; its name, key and further tags are the sweep's.
        files: texts to keep with that run, by name.
        uri: the record's store, "" for none.
        experiment: the MLflow experiment.
        again: the command as it could be typed again, in words, without the program.
        notes: what is to be said of it before it begins.
        foreground: whether one worker works in the main thread, and trials write to the terminal.
        payload: what `opener` needs besides its settings; goes to workers alone, into no study.
        program: the words that `again` is typed after; "" for fmexp.
        when_ended: is called with the study and what became of the record.
        line: makes what shows the progress, from search and study; None: a line on the terminal.
        local: settings of the task that are this machine's own, such as where its data lie; they
            take the place of those that the study keeps.
    """

    name: str
    config: dict[str, Any]
    inputs: dict[str, dict[str, str]]
    opener: str
    open_here: Callable[[dict[str, Any]], Task]
    in_threads: bool
    seconds_per_trial: Callable[[], float | None]
    run: RunStart
    files: dict[str, str]
    uri: str
    experiment: str
    again: list[str]
    notes: list[str]
    foreground: bool = False
    payload: str = ""
    program: str = ""
    when_ended: Callable[[SweepStudy, Delivery], None] | None = None
    line: Callable[[Search, SweepStudy], Line] | None = None
    local: dict[str, Any] = field(default_factory=dict)


class Line(Protocol):
    """Shows the progress of a sweep."""

    def show(self) -> None: ...  # noqa: D102
    def clear(self) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class Search:
    """What is to be done, all of it checked; nothing is written yet.

    Attributes:
        application: what is swept.
        options: `hydra.sweeper`, checked.
        raw_options: the same as plain values.
        space: what is searched.
        excluded: keys that left the space, and why.
        points: to be evaluated first.
        plan: what all workers share; its key is not given yet.
    """

    application: Application
    options: SweepOptions
    raw_options: dict[str, Any]
    space: Space
    excluded: dict[str, str]
    points: list[Point]
    plan: SweepPlan

    @property
    def identity(self) -> dict[str, Any]:
        """What makes two sweeps the same one, as JSON; see `study_name` in docs/sweeps.md."""
        identity = {
            "config": self.application.config,
            "inputs": self.application.inputs,
            "space": {d.key: str(d) for d in self.space.dimensions},
            "objective": self.plan.objective,
            "direction": self.plan.direction,
            "seeds": self.options.seeds,
        }
        plain: dict[str, Any] = json.loads(json.dumps(identity, sort_keys=True, default=str))
        return plain

    @property
    def name(self) -> str:
        """The study's name: given, or from the identity, so that the same command continues."""
        same = {**self.identity, "inputs": [x["digest"] for x in self.application.inputs.values()]}
        digest = hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:10]
        return self.options.study_name or f"{self.application.name}-{digest}"
