"""Memory is stated before it is taken, and refused where there is not enough."""

from __future__ import annotations

import logging
import math
import os
import resource
import shutil
from pathlib import Path

from fmexp.errors import DataError

STATED = 256e6
"""Bytes from which a need is worth a line."""

_log = logging.getLogger(__name__)


def claim(n_bytes: float, what: str, instead: str, folder: Path | None = None) -> None:
    """Say how much memory is needed for `what`; of what goes to a folder on disk, nothing.

    Raises:
        DataError: more than is available now; `instead` says what to do.
    """
    if folder is not None:
        left = float(shutil.disk_usage(folder).free)
        if n_bytes > left:
            raise DataError(
                f"{what} need about {size(n_bytes)} of disk, {size(left)} are free: {instead}"
            )
        return
    if n_bytes < STATED:
        return
    free = available()
    if n_bytes > free:
        raise DataError(
            f"{what} need about {size(n_bytes)} of memory, {size(free)} are available: {instead}"
        )
    _log.warning("%s take about %s of memory", what, size(n_bytes))


def available() -> float:
    """Bytes that this process can take, about: without swapping, and within its limits."""
    return max(0.0, min(_free_in_machine(), _left_of_address_space(), _left_of_container()))


def _free_in_machine() -> float:
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        return float(text.partition("MemAvailable:")[2].split()[0]) * 1024
    except (OSError, IndexError):  # elsewhere than on Linux
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _left_of_address_space() -> float:
    """What `ulimit -v` leaves."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return math.inf
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        pages = 0
    return float(limit - pages * os.sysconf("SC_PAGE_SIZE"))


def _left_of_container() -> float:
    """What the control group (version 2) leaves; cached files give way and do not count."""
    try:
        group = Path("/proc/self/cgroup").read_text(encoding="ascii").partition("0::/")[2].strip()
        folder = Path("/sys/fs/cgroup", group)
        limit = float((folder / "memory.max").read_text(encoding="ascii"))
        used = float((folder / "memory.current").read_text(encoding="ascii"))
        counts = (folder / "memory.stat").read_text(encoding="ascii").split()
        return limit - used + float(counts[counts.index("inactive_file") + 1])
    except (OSError, ValueError):  # no such group, or "max"
        return math.inf


def size(n_bytes: float) -> str:
    """In words: 1.5 GB."""
    for unit in ("bytes", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "bytes" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.1f} GB"
