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
    """Say how much memory is needed for `what`, or ask the disk of `folder` whether it has room.

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
    return max(0.0, min(_free_in_machine(), _left_of_address_space(), left_of_container()))


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


_CGROUP_FILES = {
    "2": ("memory.max", "memory.current", "inactive_file"),
    "1": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""By version the files with a control group's limit and use, and a count of memory.stat."""


def left_of_container(root: Path = Path("/")) -> float:
    """What the control groups of this process, and those that they lie in, leave; bytes.

    Of version 1 or 2. Within a container its group may be seen as the topmost one.

    Args:
        root: holds proc and sys.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):  # elsewhere than on Linux
        return math.inf
    mounted, least = root / "sys/fs/cgroup", math.inf
    for number, names, group in (line.split(":", 2) for line in lines if line.count(":") > 1):
        if number == "0":
            places = [(mounted, "2"), (mounted / "unified", "2")]
        else:
            places = [(mounted / "memory", "1")] if "memory" in names.split(",") else []
        for top, version in places:
            home = top / group.strip("/")
            above = [folder for folder in home.parents if folder.is_relative_to(top)]
            least = min([least, *(_left_of_group(each, version) for each in (home, *above))])
    return least


def _left_of_group(folder: Path, version: str) -> float:
    """What one of them leaves; cached files give way and do not count."""
    limited, used, cached = _CGROUP_FILES[version]
    try:
        limit, now = (
            float((folder / name).read_text(encoding="ascii")) for name in (limited, used)
        )
        counts = (folder / "memory.stat").read_text(encoding="ascii").split()
        return limit - now + float(counts[counts.index(cached) + 1])
    except (OSError, ValueError):  # no such group, or "max"
        return math.inf


def size(n_bytes: float) -> str:
    """In words: 1.5 GB."""
    for unit in ("bytes", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "bytes" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.1f} GB"
