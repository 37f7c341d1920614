"""A worker's lease: how others know whether the one that runs a trial still lives."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fmexp.sweep.study import SweepStudy

PREFIX = "worker:"
"""Study attributes that begin so are leases."""


class Attributes(Protocol):
    """What a lease is written to."""

    def set_attribute(self, key: str, value: Any) -> None:
        """Write one; `value` as JSON knows it."""
        ...


def lease_seconds() -> float:
    """How long a lease lasts; three renewals fit into it."""
    return float(os.environ.get("FMEXP_LEASE_SECONDS", "30"))


class Lease:
    """Says in the study, again and again while it is open, that this process works on it.

    What it writes is a count that grows, and no time: clocks of two machines may be hours apart.

    Attributes:
        id: the worker's; its trials and runs carry it.
        seconds: how long it lasts without a renewal.
    """

    def __init__(self, study: Attributes, spool: str = "") -> None:
        """Args: `study` keeps it; `spool` is this worker's, see `fmexp.record.spool.folder_id`."""
        self.id = uuid.uuid4().hex[:12]
        self.seconds = lease_seconds()
        self._study = study
        self._who = {**this_process(), "started": process_start(os.getpid()), "spool": spool}
        self._renewals = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease-{self.id}", daemon=True)

    def __enter__(self) -> Self:
        """Begin: the lease is in the study when this returns."""
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End: what this worker has not finished is up for reclaim at once."""
        self._ended.set()
        self._thread.join()  # so that no renewal comes after the end
        self._write(has_ended=True)

    def _renew(self) -> None:
        while not self._ended.wait(self.seconds / 3):
            with contextlib.suppress(Exception):  # a store that is away now may be back in time
                self._write()

    def _write(self, has_ended: bool = False) -> None:
        self._renewals += 1
        lease = {**self._who, "renewals": self._renewals, "has_ended": has_ended}
        self._study.set_attribute(f"{PREFIX}{self.id}", lease)


class LeaseWatch:
    """Judges leases by whether they move, on this process's own monotonic clock.

    A lease that does not move for its length is over. It may not have moved because the storage
    was away, or because it was us who stood still: after a gap between two looks nothing is
    counted that was seen before it.
    """

    def __init__(self) -> None:
        self._seconds = lease_seconds()
        self._seen: dict[str, tuple[Any, float]] = {}
        self._looked = 0.0

    def look(self, found: Mapping[str, Any]) -> set[str]:
        """Those of these leases, by name, that are still held.

        Of a process on this machine the process must run too, so a killed one is known at once.

        Args:
            found: what each says now; whatever is given must change within the length of a lease.
        """
        now = time.monotonic()
        if now - self._looked > self._seconds / 2:
            self._seen.clear()
        self._looked = now
        for name, said in found.items():
            if name not in self._seen or self._seen[name][0] != said:
                self._seen[name] = said, now
        return {
            name
            for name, said in found.items()
            if now - self._seen[name][1] < self._seconds and not _is_over(said)
        }


def _is_over(said: Any) -> bool:
    """Whether a lease says so itself, or its process is of this machine and does not run."""
    if not isinstance(said, dict) or "pid" not in said:
        return False
    if said.get("has_ended"):
        return True
    if any(said[key] != value for key, value in this_process().items() if key != "pid"):
        return False
    return not process_start(said["pid"]) == said["started"] != ""


def leases(study: SweepStudy) -> dict[str, dict[str, Any]]:
    """Every lease of a study by worker id."""
    found = study.attributes().items()
    return {key.removeprefix(PREFIX): value for key, value in found if key.startswith(PREFIX)}


def is_of(lease: Mapping[str, Any] | None, spool: str) -> bool:
    """Whether a worker's runs went through this spool, or it is not known through which."""
    return not lease or lease.get("spool", "") in ("", spool)


def this_process() -> dict[str, Any]:
    """Host, boot id and PID namespace (to tell containers apart), and process number."""
    return {"host": platform.node(), "boot": _boot(), "pid": os.getpid()}


def process_start(pid: int) -> str:
    """When a process started, so that a reused number is told apart; "" if it does not run."""
    if Path("/proc/self/stat").exists():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return ""
        fields = stat.rpartition(")")[2].split()  # the name before may hold anything
        return "" if fields[0] in "ZX" else fields[19]  # field 22 of proc(5)
    return _output("ps", "-o", "lstart=", "-p", str(pid))


def _boot() -> str:
    boot_id = Path("/proc/sys/kernel/random/boot_id")
    if not boot_id.exists():
        return _output("sysctl", "-n", "kern.boottime")
    return f"{boot_id.read_text().strip()} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115


def _output(*command: str) -> str:
    """What a command prints; "" where it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
