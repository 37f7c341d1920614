"""What the rest of the code sees of tracking: start a run, log to it, finish it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path


class Outcome(StrEnum):
    """How a run ended; the tag `fmexp.outcome`."""

    COMPLETED = "completed"
    PRUNED = "pruned"
    DIVERGED = "diverged"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


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
    """

    name: str
    params: dict[str, str]
    tags: dict[str, str]
    dataset: dict[str, str] | None = None
    parent: str | None = None


class Run(Protocol):
    """One open run. Several can be open at once; each is used by one thread.

    Attributes:
        key: unique name of the run, ours; in MLflow the tag `fmexp.run_key`.
        folder: where artifacts are put before `finish`, laid out as they will be in MLflow;
            None when nothing is kept.
    """

    key: str
    folder: Path | None

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Add one point to each named curve. All values finite. Cheap: buffered, then spooled."""
        ...

    def finish(
        self,
        outcome: Outcome,
        reason: str = "",
        metrics: dict[str, float] | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        """Close the run: last metrics, tags, every file in `folder`. On disk when this returns."""
        ...


@dataclass(frozen=True)
class Delivery:
    """What became of the runs of a tracker.

    Attributes:
        store: the tracking URI, without a password; "" when nothing is kept.
        run_ids: MLflow's run id of each key.
        experiment_id: MLflow's, "" when nothing is kept.
        mended: run ids of what killed processes had left unsent, sent now.
    """

    store: str = ""
    run_ids: dict[str, str] = field(default_factory=dict)
    experiment_id: str = ""
    mended: tuple[str, ...] = ()


class Tracker(Protocol):
    """Where runs go."""

    def start_run(self, start: RunStart) -> Run:
        """Open a run; returns at once."""
        ...

    def close(self) -> Delivery:
        """Wait until the store has accepted everything.

        Raises:
            StoreError: it has not; what it lacks stays in the spool for the next command.
        """
        ...


class _NullRun:
    key = ""
    folder: Path | None = None

    def log(self, step: int, metrics: dict[str, float]) -> None: ...

    def finish(
        self,
        outcome: Outcome,
        reason: str = "",
        metrics: dict[str, float] | None = None,
        tags: dict[str, str] | None = None,
    ) -> None: ...


class _NullTracker:
    def start_run(self, start: RunStart) -> Run:  # noqa: ARG002
        return _NullRun()

    def close(self) -> Delivery:
        return Delivery()


NULL_TRACKER: Tracker = _NullTracker()
"""Keeps nothing (tracking=none)."""
