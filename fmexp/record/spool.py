"""The queue on disk between a trainer and its recorder: one folder per run, one line per event.

    .fmexp/spool/.lock                     held for the moment in which an owner appears or goes
    .fmexp/spool/<owner>/owner.lock        held by the trainer as long as it lives
    .fmexp/spool/<owner>/recorder.lock     held by the one recorder that sends these runs
    .fmexp/spool/<owner>/store.json        where they go
    .fmexp/spool/<owner>/<run>/events.jsonl
    .fmexp/spool/<owner>/<run>/artifacts/  laid out as they will be in MLflow
    .fmexp/spool/<owner>/<run>/tried       there once the run may be in MLflow

Locks are `flock`s: they go with the process that holds them, so a dead owner is known for dead
even when its process number lives on as somebody else's. Only one process ever appends to an
events.jsonl; a last line without its newline is what a kill left of an append, and does not count.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from array import array
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fmexp.errors import StoreError
from fmexp.record.tracker import Outcome, RunStart

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SPOOL = Path(".fmexp", "spool")
_EVENTS = "events.jsonl"
REFUSED = "its result came after the study had given the trial up"
_OWNER_LOCK = "owner.lock"
RECORDER_LOCK = "recorder.lock"

State = Literal["open", "finished", "unsent", "orphaned", "unsettled"]
_STATES: dict[tuple[bool, bool], State] = {
    (True, False): "open", (True, True): "finished",
    (False, True): "unsent", (False, False): "orphaned",
}  # fmt: skip

Point = tuple[int, int, dict[str, float]]
"""Step, time in milliseconds, values by metric name."""


@dataclass(frozen=True)
class Destination:
    """Where an owner's runs go.

    Attributes:
        uri: MLflow tracking URI; it may hold a password, so the file is the user's own (0600).
        experiment: MLflow experiment, by name.
        thin_to: most points that a curve keeps.
    """

    uri: str
    experiment: str
    thin_to: int


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


@dataclass(frozen=True)
class SpooledRun:
    """A run that MLflow does not have (whole) yet, as `fmexp doctor` lists it.

    Attributes:
        state: "open" or "finished" while its trainer lives; "unsent" (finished) or "orphaned"
            (not even that) when it died: those wait for the next command. "unsettled": a trial
            that ended, whose worker died before it had told the study.
        folder: its own in the spool.
        record: what its events say.
    """

    key: str
    name: str
    state: State
    destination: Destination
    folder: Path
    record: RunRecord


def milliseconds() -> int:
    """Now, as MLflow counts time."""
    return time.time_ns() // 1_000_000


def new_key() -> str:
    """A name that no other run or owner anywhere has; it sorts by time."""
    seconds, fraction = divmod(time.time_ns(), 10**9)
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(seconds))
    return f"{stamp}-{fraction // 1000:06d}-{os.urandom(6).hex()}"


def become_owner(folder: Path, destination: Destination) -> tuple[Path, int]:
    """Make a folder for this process's runs under `folder`/.fmexp/spool.

    Returns:
        The owner's folder and the descriptor whose lock says that the owner lives.

    Raises:
        StoreError: the folder cannot be written.
    """
    spool = folder / SPOOL
    try:
        spool.mkdir(parents=True, exist_ok=True)
        with spool_locked(spool):
            owner = spool / new_key()
            owner.mkdir(mode=0o700)
            held = os.open(owner / _OWNER_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(held, fcntl.LOCK_EX)
        private = os.open(owner / "store.json", os.O_WRONLY | os.O_CREAT, 0o600)
        with open(private, "w") as file:  # noqa: PTH123
            json.dump(asdict(destination), file)
    except OSError as error:
        raise StoreError(
            f"runs wait in {spool} until MLflow has them, and it cannot be written "
            f"({error.strerror}); work in a folder that you may write to, or use tracking=none"
        ) from error
    return owner, held


@contextlib.contextmanager
def spool_locked(spool: Path) -> Iterator[None]:
    """Hold the lock under which owners appear and go."""
    with (spool / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def try_lock(path: Path) -> int | None:
    """An open descriptor that holds the lock of this file; None when somebody else has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def lives(owner: Path) -> bool:
    """Whether the process that made this folder still runs."""
    with spool_locked(owner.parent):
        try:
            descriptor = try_lock(owner / _OWNER_LOCK)
        except FileNotFoundError:
            return False
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is None


class EventWriter:
    """Appends a run's events; each method returns when they are in the file."""

    def __init__(self, owner: Path, key: str, start: RunStart) -> None:
        self.key = key
        self.artifacts = owner / key / "artifacts"
        self.artifacts.mkdir(parents=True)
        self._file = os.open(owner / key / _EVENTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
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
        """Take in what is new; False when nothing is."""
        try:
            with (self.run / _EVENTS).open("rb") as file:
                file.seek(self._offset)
                lines = file.read().splitlines(keepends=True)
        except FileNotFoundError:
            return False
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()  # torn by a kill, or still being written
        for line in lines:
            self._take(json.loads(line))
            self._offset += len(line)
        return bool(lines)

    def _take(self, event: dict[str, Any]) -> None:
        if "start" in event:
            self.record = RunRecord(RunStart(**event["start"]), event["time"])
            return
        assert self.record is not None, f"{self.run}: no start"
        if "end" in event and self.record.end is None:  # the first one counts
            outcome = Outcome(event["end"].pop("outcome"))
            self.record.end = End(outcome=outcome, **event["end"])
        elif "settled" in event and self.record.end:
            self.record.end = _settled(self.record.end, event["settled"])
        for names, steps, times, columns in event.get("points", ()):
            for name, values in zip(names, columns, strict=True):
                curve = self.record.curves.setdefault(name, Curve())
                curve.steps.extend(steps)
                curve.times.extend(times)
                curve.values.extend(values)


def _settled(end: End, accepted: bool) -> End:
    if accepted:
        return replace(end, provisional=False)
    return End(Outcome.INTERRUPTED, REFUSED, {}, {}, end.time)


def settle_for_dead(run: SpooledRun, accepted: bool) -> None:
    """Say in a dead worker's place whether its study has the result; sent by the next recorder."""
    try:
        lock = os.open(run.folder.parent / RECORDER_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        return  # somebody else has said it, and a recorder has sent it
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # its recorder may be at work still
        events = run.folder / _EVENTS
        if events.exists():
            whole = events.read_bytes()
            torn = len(whole) - whole.rfind(b"\n") - 1
            with events.open("r+b") as file:
                file.truncate(len(whole) - torn)
                file.seek(0, os.SEEK_END)
                file.write(json.dumps({"settled": accepted}).encode() + b"\n")
    finally:
        os.close(lock)


def read_run(run: Path) -> RunRecord | None:
    """All whole events of a run; None when it has not even begun."""
    reader = RunReader(run)
    reader.advance()
    return reader.record


def last_written(run: Path) -> int:
    """When the run's events were last added to, in milliseconds."""
    return (run / _EVENTS).stat().st_mtime_ns // 1_000_000


def owners(spool: Path) -> list[Path]:
    """The folders of all owners, oldest first."""
    return sorted(p for p in spool.glob("[!.]*") if p.is_dir())


def runs(owner: Path) -> list[Path]:
    """The folders of an owner's runs, in the order in which they were started."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(Path(e.path) for e in os.scandir(owner) if e.is_dir() and e.name[0] != ".")
    return []


def waits(spool: Path, key: str, but: Path | None = None) -> bool:
    """Whether a run of this key lies in the spool of anybody (`but` one owner)."""
    return any(found.parent != but for found in spool.glob(f"*/{key}"))


def destination(owner: Path) -> Destination | None:
    """Where an owner's runs go; None when it died before it could say (so it has no runs)."""
    try:
        return Destination(**json.loads((owner / "store.json").read_text()))
    except (FileNotFoundError, ValueError):
        return None


def remove(folder: Path) -> None:
    """Take a run's or an owner's folder away: out of sight at once, then file by file."""
    gone = folder.with_name(f".gone-{folder.name}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def spooled_runs(folder: Path) -> list[SpooledRun]:
    """Every run under `folder` that has not reached its store, without touching any."""
    found = []
    for owner in owners(folder / SPOOL):
        alive, target = lives(owner), destination(owner)
        for run in runs(owner):
            record = read_run(run)
            if record is None or target is None:
                continue
            state = _STATES[alive, record.end is not None]
            if record.end is not None and record.end.provisional and not alive:
                state = "unsettled"
            found.append(SpooledRun(run.name, record.start.name, state, target, run, record))
    return found


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
