"""The queue on disk between a trainer and its recorder: one folder per run, one line per event.

    .fmexp/spool/.lock                     held for the moment in which an owner appears or goes
    .fmexp/spool/.sweeps.lock              held while a sweep's own run is looked for and made
    .fmexp/spool/<owner>/owner.lock        held by the trainer as long as it lives
    .fmexp/spool/<owner>/recorder.lock     held by the one recorder that sends these runs
    .fmexp/spool/<owner>/store.json        where they go
    .fmexp/spool/<owner>/<run>/events.jsonl
    .fmexp/spool/<owner>/<run>/artifacts/  laid out as they will be in MLflow
    .fmexp/spool/<owner>/<run>/attached/<other run>/  artifacts for a run that has ended
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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fmexp.errors import FmexpError, StoreError
from fmexp.record import safe_files
from fmexp.record.events import DAMAGED, EVENTS, RunRecord, UnreadableError, read_run, unreadable
from fmexp.record.passwords import without_password

if TYPE_CHECKING:
    from collections.abc import Iterator

SPOOL = Path(".fmexp", "spool")
ATTACHED = "attached"
_LOCK = ".lock"
_OWNER_LOCK = "owner.lock"
RECORDER_LOCK = "recorder.lock"

State = Literal["open", "finished", "unsent", "orphaned", "unsettled"]
_STATES: dict[tuple[bool, bool], State] = {
    (True, False): "open", (True, True): "finished",
    (False, True): "unsent", (False, False): "orphaned",
}  # fmt: skip


@dataclass(frozen=True)
class Destination:
    """Where an owner's runs go.

    Attributes:
        uri: MLflow tracking URI without its password.
        experiment: MLflow experiment, by name.
        thin_to: most points that a curve keeps.
    """

    uri: str
    experiment: str
    thin_to: int

    def is_of(self, uri: str) -> bool:
        """Whether that store is meant; passwords do not count."""
        return without_password(self.uri) == without_password(uri)


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


def folder_id(folder: Path) -> str:
    """What tells a working folder from all others, whatever it is called on another machine.

    Made with its first use, in `folder`/.fmexp/id.
    """
    path = folder / ".fmexp" / "id"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        new = path.with_name(f"id-{new_key()}")
        new.write_text(new.name)
        with contextlib.suppress(FileExistsError):  # another was faster
            os.link(new, path)
        new.unlink()
    return safe_files.read_plain(path).decode(errors="replace")[:100]


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
        UserError: .fmexp leads elsewhere.
    """
    safe_files.check_work_folder(folder)
    spool = folder / SPOOL
    try:
        spool.mkdir(parents=True, exist_ok=True)
        with locked(spool / _LOCK):
            owner = spool / new_key()
            owner.mkdir(mode=0o700)
            held = safe_files.open_lock(owner / _OWNER_LOCK)
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
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of this file, waited for where another process or thread has it."""
    descriptor = safe_files.open_lock(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def try_lock(path: Path) -> int | None:
    """An open descriptor that holds the lock of this file; None when somebody else has it."""
    descriptor = safe_files.open_lock(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def lives(owner: Path) -> bool:
    """Whether the process that made this folder still runs."""
    with locked(owner.parent / _LOCK):
        try:
            descriptor = try_lock(owner / _OWNER_LOCK)
        except FileNotFoundError:
            return False
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is None


def settle_for_dead(run: SpooledRun, accepted: bool) -> None:
    """Say in a dead worker's place whether its study has the result; sent by the next recorder."""
    try:
        lock = safe_files.open_lock(run.folder.parent / RECORDER_LOCK)
    except FileNotFoundError:
        return  # somebody else has said it, and a recorder has sent it
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # its recorder may be at work still
        events = run.folder / EVENTS
        if events.exists():
            whole = events.read_bytes()
            torn = len(whole) - whole.rfind(b"\n") - 1
            with events.open("r+b") as file:
                file.truncate(len(whole) - torn)
                file.seek(0, os.SEEK_END)
                file.write(json.dumps({"settled": accepted}).encode() + b"\n")
    finally:
        os.close(lock)


def owners(spool: Path) -> list[Path]:
    """The folders of all owners, oldest first."""
    return sorted(p for p in spool.glob("[!.]*") if safe_files.is_own_folder(p))


def foreign(spool: Path) -> list[Path]:
    """What lies in a spool and is no folder of this user's: it is left alone."""
    return sorted(p for p in spool.glob("[!.]*") if not safe_files.is_own_folder(p))


def runs(owner: Path) -> list[Path]:
    """The folders of an owner's runs, in the order in which they were started."""
    with contextlib.suppress(FileNotFoundError):
        found = (Path(e.path) for e in os.scandir(owner) if e.name[0] != ".")
        return sorted(path for path in found if safe_files.is_own_folder(path))
    return []


def waits(spool: Path, key: str, but: Path | None = None) -> bool:
    """Whether a run of this key lies in the spool of anybody (`but` one owner)."""
    return any(found.parent != but for found in spool.glob(f"*/{key}"))


def destination(owner: Path) -> Destination | None:
    """Where an owner's runs go; None when it died before it could say (so it has no runs).

    Raises:
        UnreadableError: what it said is damaged.
    """
    try:
        text = safe_files.read_plain(owner / "store.json")
        if not text:
            return None
        found = Destination(**json.loads(text))
    except FileNotFoundError:
        return None
    except (*DAMAGED, FmexpError, OSError) as error:
        raise UnreadableError(unreadable(owner, error)) from error
    kinds = (found.uri, str), (found.experiment, str), (found.thin_to, int)
    if not all(isinstance(value, kind) for value, kind in kinds) or found.thin_to < 2:
        raise UnreadableError(f"{owner} cannot be read (its store.json names no store)")
    return found


def remove(folder: Path) -> None:
    """Take a run's or an owner's folder away: out of sight at once, then file by file."""
    gone = folder.with_name(f".gone-{folder.name}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


@dataclass(frozen=True)
class Survey:
    """What lies in a spool: runs that wait, and in words what cannot be read."""

    runs: list[SpooledRun] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def spooled_runs(folder: Path) -> list[SpooledRun]:
    """Every run under `folder` that has not reached its store, without touching any."""
    return survey(folder).runs


def survey(folder: Path) -> Survey:
    """All that waits under `folder`; what cannot be read is told, and the rest is there."""
    found = Survey()
    for path in foreign(folder / SPOOL):
        found.unreadable.append(f"{path} is no folder of yours and is left alone")
    for owner in owners(folder / SPOOL):
        try:
            alive, target = lives(owner), destination(owner)
        except (FmexpError, OSError) as error:
            found.unreadable.append(str(error))
            continue
        for run in runs(owner):
            try:
                record = read_run(run)
            except UnreadableError as error:
                found.unreadable.append(str(error))
                continue
            if record is None or target is None:
                continue
            state = _STATES[alive, record.end is not None]
            if record.end is not None and record.end.provisional and not alive:
                state = "unsettled"
            found.runs.append(SpooledRun(run.name, record.start.name, state, target, run, record))
    return found
