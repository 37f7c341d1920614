"""A run's events: the lines of its events.jsonl, how they are written and what they say."""

from __future__ import annotations

import contextlib
import json
import os
import time
from array import array
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from typing import TYPE_CHECKING, Any

from fmexp.errors import FmexpError, StoreError
from fmexp.record import safe_files
from fmexp.record.tracker import Outcome, RunStart

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

EVENTS = "events.jsonl"
REFUSED = "its result came after the study had given the trial up"
_LARGEST_EVENTS = 400_000_000
"""Bytes; a file that is larger was not written by a run."""

Point = tuple[int, int, dict[str, float]]
"""Step, time in milliseconds, values by metric name."""


class UnreadableError(FmexpError):
    """An entry of the spool is damaged, or of another version; the others are not concerned."""


@dataclass
class Curve:
    """One metric's points as columns; times in milliseconds."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    times: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def last(self) -> tuple[int, int, float]:
        """The newest point."""
        return self.steps[-1], self.times[-1], self.values[-1]

    def thinned(self, limit: int) -> Iterator[tuple[int, int, float]]:
        """At most `limit` (>= 2) points, evenly spaced, the first and the last among them."""
        last = len(self.steps) - 1
        picked: Sequence[int] = range(last + 1)
        if last >= limit:
            picked = [round(i * last / (limit - 1)) for i in range(limit)]
        return ((self.steps[i], self.times[i], self.values[i]) for i in picked)


@dataclass(frozen=True)
class End:
    """The last event of a run; `time` in milliseconds. See `Run.finish` for the rest."""

    outcome: Outcome
    reason: str
    metrics: dict[str, float]
    tags: dict[str, str]
    time: int
    links: dict[str, str] = field(default_factory=dict)
    provisional: bool = False
    children: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class RunRecord:
    """What a run's events say so far."""

    start: RunStart
    started: int
    curves: dict[str, Curve] = field(default_factory=dict)
    end: End | None = None
    confirmed: str = ""
    """See `Run.confirm`."""


class EventWriter:
    """Appends a run's events; each method returns when they are in the file."""

    def __init__(self, owner: Path, key: str, start: RunStart) -> None:
        self.key = key
        self.artifacts = owner / key / "artifacts"
        self.artifacts.mkdir(parents=True)
        self._file = os.open(owner / key / EVENTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._append({"start": asdict(start), "time": milliseconds()})

    def points(self, points: list[Point]) -> None:
        """Add points to the curves, column by column (a third of the bytes of row by row)."""
        if points:
            self._append(_columns(points))

    def end(self, points: list[Point], end: End) -> None:
        """Add the last points, then close the run: for good, or until it is settled."""
        self.points(points)
        self._append({"end": asdict(end)})
        if not end.provisional:
            os.close(self._file)

    def confirm(self, run_id: str) -> None:
        """See `Run.confirm`; also after the run's end."""
        with contextlib.suppress(FileNotFoundError):  # it is whole in the store
            self._file = os.open(self.artifacts.parent / EVENTS, os.O_WRONLY | os.O_APPEND)
            self._append({"confirmed": run_id})

    def settle(self, accepted: bool) -> None:
        """Make a provisional end final."""
        self._append({"settled": accepted})
        os.close(self._file)

    def _append(self, *events: dict[str, Any]) -> None:
        data = "".join(
            json.dumps(event, allow_nan=False, default=float) + "\n" for event in events
        ).encode()
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            raise StoreError(
                f"the record of a run cannot be written to {self.artifacts.parent}: "
                f"{error.strerror}; the runs finished before are safe"
            ) from error


class RunReader:
    """Follows a run's events.

    Attributes:
        record: what they said so far; None until the run has begun.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self.record: RunRecord | None = None
        self._offset = 0

    def advance(self) -> bool:
        """Take in what is new; False when nothing is.

        Raises:
            UnreadableError: these are not a run's events as this version writes them.
        """
        try:
            lines = self._new_lines()
            for line in lines:
                self._take(json.loads(line))
                self._offset += len(line)
        except FileNotFoundError:
            return False
        except (*DAMAGED, FmexpError, OSError) as error:
            raise UnreadableError(unreadable(self.run, error)) from error
        return bool(lines)

    def _new_lines(self) -> list[bytes]:
        with os.fdopen(safe_files.open_plain(self.run / EVENTS), "rb") as file:
            if os.fstat(file.fileno()).st_size > _LARGEST_EVENTS:
                raise ValueError(f"{EVENTS} has more than {_LARGEST_EVENTS:,} bytes")
            file.seek(self._offset)
            lines = file.read().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()  # torn by a kill, or still being written
        return lines

    def _take(self, event: dict[str, Any]) -> None:
        if "start" in event:
            self.record = RunRecord(_start(event["start"]), _whole(event["time"]))
            return
        if self.record is None:
            raise ValueError("the first event is no start")
        if "confirmed" in event:
            self.record.confirmed = _text(event["confirmed"])
        if "end" in event and self.record.end is None:  # the first one counts
            self.record.end = _end(event["end"])
        elif "settled" in event and self.record.end:
            self.record.end = _settled(self.record.end, event["settled"])
        for names, steps, times, columns in event.get("points", ()):
            for name, values in zip(names, columns, strict=True):
                curve = self.record.curves.setdefault(name, Curve())
                if not len(steps) == len(times) == len(values) or not all(map(isfinite, values)):
                    raise ValueError("points must be finite, as many as their steps and times")
                curve.steps.extend(steps)
                curve.times.extend(times)
                curve.values.extend(values)


DAMAGED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError,
            MemoryError)  # fmt: skip
"""What taking in an event raises that is not as it should be."""


def unreadable(entry: Path, error: BaseException) -> str:
    """In words that an entry of the spool cannot be read, and why."""
    return f"{entry} cannot be read ({type(error).__name__}: {error})"


def _start(fields: dict[str, Any]) -> RunStart:
    start = RunStart(**fields)
    for texts in (start.params, start.tags, start.dataset or {}, start.study or {}):
        if not all(isinstance(text, str) for item in texts.items() for text in item):
            raise TypeError("params, tags, dataset and study must hold texts")
    if not all(isinstance(text, str) for text in (start.name, start.key, start.parent or "")):
        raise TypeError("name, key and parent must be texts")
    if start.study is not None:
        int(start.study["trial"]), start.study["name"], start.study["storage"]
    return start


def _end(fields: dict[str, Any]) -> End:
    end = End(**fields | {"outcome": Outcome(fields["outcome"]), "time": _whole(fields["time"])})
    for texts in (end.tags, end.links):
        if not all(isinstance(text, str) for item in texts.items() for text in item):
            raise TypeError("tags and links must hold texts")
    if not all(isfinite(value) for value in end.metrics.values()):
        raise ValueError("metrics must be finite")
    if not all(isinstance(child, dict) for child in end.children.values()):
        raise TypeError("children must be groups of keys")
    return end


def _whole(milliseconds: Any) -> int:
    """A time that a database can hold."""
    if not isinstance(milliseconds, int) or not 0 <= milliseconds < 1 << 62:
        raise ValueError(f"a time must be milliseconds since the epoch, got {milliseconds!r}")
    return milliseconds


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a run id must be a text")
    return value


def _settled(end: End, accepted: bool) -> End:
    if accepted:
        return replace(end, provisional=False)
    return End(Outcome.INTERRUPTED, REFUSED, {}, {}, end.time)


def read_run(run: Path) -> RunRecord | None:
    """All whole events of a run; None when it has not even begun.

    Raises:
        UnreadableError: they are damaged.
    """
    reader = RunReader(run)
    reader.advance()
    return reader.record


def last_written(run: Path) -> int:
    """When the run's events were last added to, in milliseconds."""
    return (run / EVENTS).stat().st_mtime_ns // 1_000_000


def milliseconds() -> int:
    """Now, as MLflow counts time."""
    return time.time_ns() // 1_000_000


def _columns(points: list[Point]) -> dict[str, Any]:
    """Points as one event: for each set of metric names its steps, times and values."""
    groups: dict[tuple[str, ...], list[Any]] = {}
    for step, when, metrics in points:
        names = tuple(metrics)
        if names not in groups:
            groups[names] = [names, [], [], [[] for _ in names]]
        _, steps, times, columns = groups[names]
        steps.append(step)
        times.append(when)
        for column, value in zip(columns, metrics.values(), strict=True):
            column.append(value)
    return {"points": list(groups.values())}
