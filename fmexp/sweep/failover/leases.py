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
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from fmexp.sweep.study import SweepStudy

PREFIX = "worker:"
"""Study attributes that begin so are leases."""


def lease_seconds() -> float:
    """How long a lease lasts; three renewals fit into it."""
    return float(os.environ.get("FMEXP_LEASE_SECONDS", "30"))


class Lease:
    """Says in the study, again and again while it is open, that this process works on it.

    Attributes:
        id: the worker's; its trials and runs carry it.
        seconds: how long it lasts without a renewal.
    """

    def __init__(self, study: SweepStudy) -> None:
        self.id = uuid.uuid4().hex[:12]
        self.seconds = lease_seconds()
        self._study = study
        self._who = {**this_process(), "started": process_start(os.getpid())}
        self._who["since"] = time.time()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease-{self.id}", daemon=True)

    def __enter__(self) -> Self:
        """Begin: the lease is in the study when this returns."""
        self._write(time.time() + self.seconds)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End: what this worker has not finished is up for reclaim at once."""
        self._ended.set()
        self._thread.join()  # so that no renewal comes after the end
        self._write(0.0)

    def _renew(self) -> None:
        while not self._ended.wait(self.seconds / 3):
            with contextlib.suppress(Exception):  # a store that is away now may be back in time
                self._write(time.time() + self.seconds)

    def _write(self, until: float) -> None:
        self._study.set_attribute(f"{PREFIX}{self.id}", {**self._who, "until": until})


def is_alive(attribute: dict[str, Any] | None, now: float) -> bool:
    """Whether the worker that wrote this lease still has it.

    On this machine its process must run too, so that a killed worker is known at once; of another
    machine only the time is known.

    Args:
        attribute: the study attribute `worker:<id>`; None where there is none.
        now: seconds since the epoch.
    """
    if attribute is None or now >= attribute["until"]:
        return False
    if any(attribute[key] != value for key, value in this_process().items() if key != "pid"):
        return True
    return bool(process_start(attribute["pid"]) == attribute["started"] != "")


def leases(study: SweepStudy) -> dict[str, dict[str, Any]]:
    """Every lease of a study by worker id."""
    found = study.attributes().items()
    return {key.removeprefix(PREFIX): value for key, value in found if key.startswith(PREFIX)}


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
