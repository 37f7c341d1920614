"""Memory is stated before it is taken, and refused where there is not enough."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from fmexp.errors import DataError

STATED = 256e6
"""Bytes from which a need is worth a line."""

_log = logging.getLogger(__name__)


def claim(n_bytes: float, what: str, instead: str) -> None:
    """Say how much memory is needed for `what`.

    Raises:
        DataError: more than is available now; `instead` says what to do.
    """
    if n_bytes < STATED:
        return
    free = available()
    if n_bytes > free:
        raise DataError(
            f"{what} need about {size(n_bytes)} of memory, {size(free)} are available: {instead}"
        )
    _log.warning("%s take about %s of memory", what, size(n_bytes))


def available() -> float:
    """Bytes that can be taken without swapping, about."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        return float(text.partition("MemAvailable:")[2].split()[0]) * 1024
    except (OSError, IndexError):  # elsewhere than on Linux
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def size(n_bytes: float) -> str:
    """In words: 1.5 GB."""
    for unit in ("bytes", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "bytes" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.1f} GB"
