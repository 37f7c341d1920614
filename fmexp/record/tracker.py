"""What the rest of the code sees of tracking: start a run, log to it, finish it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

from fmexp.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


APPLICATION = "fmexp.application"
"""Tag of a run of another application than `fmexp run`: its name."""


class RunExistsError(Exception):
    """Somebody else has made the run meanwhile."""


class Outcome(StrEnum):
    """How a run ended; the tag `fmexp.outcome`."""

    COMPLETED = "completed"
    PRUNED = "pruned"
    DIVERGED = "diverged"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


STATUS = {
    Outcome.COMPLETED: "FINISHED",
    Outcome.PRUNED: "FINISHED",
    Outcome.DIVERGED: "FAILED",
    Outcome.FAILED: "FAILED",
    Outcome.INTERRUPTED: "KILLED",
}
"""MLflow's run status for each outcome (it has none for pruned)."""


@dataclass(frozen=True)
class RunStart:
    """What is known of a run before its first epoch.

    Attributes:
        name: run name shown in MLflow.
        params: config leaves under their config names.
        tags: `fmexp.*`, `mlflow.*` and the user's own.
        dataset: name, digest, source and a profile (numbers of rows and features) for MLflow's
            dataset input; None for a run without data (a sweep's parent).
        parent: key of the parent run, opened through any tracker on the same store.
        key: the run's unique name; "" for a new one.
        may_exist: the store may have a run of this key already: it is taken up.
        reopens: such a run is opened again when it had ended.
        elected: commands elsewhere may want to make it too: it counts once it is confirmed.
        study: where to ask whether a provisional end counts (a sweep's trials); never sent.
    """

    name: str
    params: dict[str, str]
    tags: dict[str, str]
    dataset: dict[str, str] | None = None
    parent: str | None = None
    key: str = ""
    may_exist: bool = False
    reopens: bool = False
    elected: bool = False
    study: dict[str, str] | None = None


@dataclass(frozen=True)
class Content:
    """What a run that has ended holds besides its name, params and tags.

    Attributes:
        points: (name, step, time in milliseconds, finite value).
        artifacts: the folder to copy; it need not be there.
        ended: how, and when in milliseconds; None while something is to be added by the API.
    """

    points: list[tuple[str, int, int, float]]
    artifacts: Path
    ended: tuple[Outcome, int] | None


class Run(Protocol):
    """One open run. Several can be open at once; each is used by one thread.

    Attributes:
        key: unique name of the run, ours; in MLflow the tag `fmexp.run_key`.
        folder: where artifacts are put before `finish`, laid out as they will be in MLflow;
            None when nothing is kept.
    """

    key: str
    folder: Path | None

    def log(self, step: int, metrics: dict[str, float], at: float | None = None) -> None:
        """Add one point to each named curve. All values finite. Cheap: buffered, then spooled.

        Args:
            step: epoch, or another count.
            metrics: values by name.
            at: seconds since the epoch; None: now.
        """
        ...

    def finish(
        self,
        outcome: Outcome,
        reason: str = "",
        metrics: dict[str, float] | None = None,
        tags: dict[str, str] | None = None,
        links: dict[str, str] | None = None,
        provisional: bool = False,
        children: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        """Close the run: last metrics, tags, every file in `folder`. On disk when this returns.

        Args:
            outcome: how it ended.
            reason: in words.
            metrics: last values, finite.
            tags: added to those of the start.
            links: tags that hold the id of another run, given by its key; `{tag}` in the other
                tags stands for that run's page.
            provisional: not sent before `settle`.
            children: of a sweep's own run: how its trials ended, by key, for the store to be
                mended by; each has name, outcome, reason, params, metrics, ended and is_wanted.
        """
        ...

    def confirm(self, run_id: str) -> None:
        """Say which run of the store this is, where several may have been made.

        Args:
            run_id: the store's id, which all who may make it have agreed on.
        """
        ...

    def attach(self, key: str) -> Path | None:
        """A folder whose files become artifacts of another run when this run's end is sent.

        Args:
            key: of the other run, which has ended; None is returned when nothing is kept.
        """
        ...

    def settle(self, accepted: bool) -> None:
        """Make a provisional end final; without acceptance the run ends as interrupted."""
        ...


@dataclass(frozen=True)
class Delivery:
    """What became of the runs of a tracker.

    Attributes:
        store: the tracking URI, without a password; "" when nothing is kept.
        run_ids: MLflow's run id of each key.
        experiment_id: MLflow's, "" when nothing is kept.
        option: what a command needs to find the store again; see `locate.as_option`.
    """

    store: str = ""
    run_ids: dict[str, str] = field(default_factory=dict)
    experiment_id: str = ""
    option: str = ""


def nothing() -> None:
    """What there is to do while a tracker closes, mostly."""


class Tracker(Protocol):
    """Where runs go."""

    def start_run(self, start: RunStart) -> Run:
        """Open a run; returns at once."""
        ...

    def run_id(self, key: str) -> str:
        """The store's id of an open run that may be made by others too; "" while it has none."""
        ...

    def close(self, meanwhile: Callable[[], None] = nothing, seconds: float = inf) -> Delivery:
        """Wait until the store has accepted everything.

        Args:
            meanwhile: called a few times a second.
            seconds: after which what is left is sent without us, who are in a hurry.

        Raises:
            StoreError: it has not; what it lacks stays in the spool for the next command.
        """
        ...


class _NullRun:
    key = ""
    folder: Path | None = None

    def confirm(self, run_id: str) -> None: ...

    def log(self, step: int, metrics: dict[str, float], at: float | None = None) -> None: ...

    def finish(
        self,
        outcome: Outcome,
        reason: str = "",
        metrics: dict[str, float] | None = None,
        tags: dict[str, str] | None = None,
        links: dict[str, str] | None = None,
        provisional: bool = False,
        children: dict[str, dict[str, Any]] | None = None,
    ) -> None: ...

    def attach(self, key: str) -> Path | None: ...

    def settle(self, accepted: bool) -> None: ...


class _NullTracker:
    def start_run(self, start: RunStart) -> Run:  # noqa: ARG002
        return _NullRun()

    def run_id(self, key: str) -> str:  # noqa: ARG002
        return "none"

    def close(self, meanwhile: Callable[[], None] = nothing, seconds: float = inf) -> Delivery:  # noqa: ARG002
        return Delivery()


class MemoryRun:
    """A run that is kept in memory, as it was told.

    Attributes:
        points: (step, value) of each curve, in the order in which they were logged.
        outcome: how it ended; None while it is open.
        accepted: what a provisional end was settled with; True for any other end.
    """

    def __init__(self, start: RunStart, folder: Path | None) -> None:
        self.start, self.key, self.folder = start, start.key or start.name, folder
        self.points: dict[str, list[tuple[int, float]]] = {}
        self.outcome: Outcome | None = None
        self.reason = ""
        self.metrics: dict[str, float] = {}
        self.tags = dict(start.tags)
        self.links: dict[str, str] = {}
        self.children: dict[str, dict[str, Any]] = {}
        self.accepted: bool | None = None

    def confirm(self, run_id: str) -> None:
        """See `Run.confirm`."""

    def log(self, step: int, metrics: dict[str, float], at: float | None = None) -> None:  # noqa: ARG002
        """See `Run.log`."""
        for name, value in metrics.items():
            self.points.setdefault(name, []).append((step, value))

    def finish(
        self,
        outcome: Outcome,
        reason: str = "",
        metrics: dict[str, float] | None = None,
        tags: dict[str, str] | None = None,
        links: dict[str, str] | None = None,
        provisional: bool = False,
        children: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        """See `Run.finish`."""
        self.outcome, self.reason, self.metrics = outcome, reason, metrics or {}
        self.tags |= tags or {}
        self.links, self.children = links or {}, children or {}
        self.accepted = None if provisional else True

    def attach(self, key: str) -> Path | None:
        """See `Run.attach`; the other run's own folder."""
        if self.folder is None:
            return None
        folder = self.folder.with_name(key)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def settle(self, accepted: bool) -> None:
        """See `Run.settle`."""
        self.accepted = accepted


class MemoryTracker:
    """Keeps runs in memory, their files in folders named by their keys; starts no process.

    Attributes:
        runs: all of them, in the order in which they began.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Keep files below `folder`; none where it is None."""
        self.folder = folder
        self.runs: list[MemoryRun] = []

    def start_run(self, start: RunStart) -> Run:
        """See `Tracker.start_run`."""
        folder = None
        if self.folder is not None:
            folder = self.folder / (start.key or start.name)
            folder.mkdir(parents=True, exist_ok=True)
        run = MemoryRun(start, folder)
        self.runs.append(run)
        return run

    def run_id(self, key: str) -> str:
        """See `Tracker.run_id`."""
        return key

    def close(self, meanwhile: Callable[[], None] = nothing, seconds: float = inf) -> Delivery:  # noqa: ARG002
        """See `Tracker.close`."""
        return Delivery(run_ids={run.key: run.key for run in self.runs})


def close(
    tracker: Tracker, meanwhile: Callable[[], None] = nothing, seconds: float = inf
) -> tuple[Delivery, StoreError | None]:
    """What became of the runs, and what went wrong: for commands that first say how it ended."""
    try:
        return tracker.close(meanwhile, seconds), None
    except StoreError as error:
        return Delivery(), error


NULL_TRACKER: Tracker = _NullTracker()
"""Keeps nothing (tracking=none)."""
