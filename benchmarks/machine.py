"""The first lines of every benchmark: date, machine, versions."""

from __future__ import annotations

import datetime as dt
import os
import platform

from fmexp import __version__
from fmexp.record.environment import cpu_name, installed


def describe_machine(*packages: str) -> str:
    """Date, CPU, cores, Python and the versions of these packages."""
    versions = ", ".join(f"{name} {installed(name) or 'missing'}" for name in packages)
    today = dt.datetime.now(dt.UTC).date()
    return (
        f"{today}  {cpu_name()}, {os.cpu_count()} cores, {platform.system()}\n"
        f"fmexp {__version__}, Python {platform.python_version()}, {versions}"
    )
