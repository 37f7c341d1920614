"""What a result depends on besides its configuration: versions, CPU, code."""

from __future__ import annotations

import getpass
import os
import platform
import shlex
import shutil
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fmexp import __version__

PACKAGES = ("numpy", "numba", "llvmlite", "torch")
"""Packages whose version can change the bits of a result."""


@cache
def environment_tags() -> dict[str, str]:
    """Tags that say with what a run was made: versions, CPU, the working directory's commit."""
    tags = {"fmexp.version": __version__, "fmexp.python": platform.python_version()}
    tags |= {f"fmexp.{name}": found for name in PACKAGES if (found := installed(name))}
    return tags | {"fmexp.cpu": cpu_name()} | _git_tags()


def program() -> str:
    """How the user can call fmexp again: its name where that is found, else as it was called."""
    called = Path(sys.argv[0])
    if called.name != "fmexp":
        return "python -m fmexp"
    return "fmexp" if shutil.which("fmexp") else shlex.quote(str(called))


def installed(package: str) -> str:
    """Version of a package, "" if it is not installed; nothing is imported."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def cpu_name() -> str:
    """The CPU's name as its maker writes it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def user() -> str:
    """The user's login name; a container may have none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _git_tags() -> dict[str, str]:
    """Commit, and whether files differ from it; {} outside a git checkout."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return {}
    return {"mlflow.source.git.commit": commit, "fmexp.git_dirty": _dirty()}


def _dirty() -> str:
    """True or false; unknown where a filter of the repository's own would have to run to know."""
    defined = _git("config", "--show-scope", "--name-only", "--list")
    if defined is None:
        return "unknown"
    for line in defined.splitlines():
        scope, _, key = line.partition("\t")
        if scope in ("local", "worktree") and key.startswith("filter."):
            return "unknown"
    changed = _git("status", "--porcelain", "--untracked-files=no", "--no-renames",
                   "--ignore-submodules=all")  # fmt: skip
    return "unknown" if changed is None else "true" if changed else "false"


_RUN_NOTHING = ("core.fsmonitor=false", "core.hooksPath=/dev/null", "status.submoduleSummary=false")
"""Settings by which `git status` would run programs that the repository names."""


def _git(*arguments: str) -> str | None:
    """What git prints; None where it fails. Nothing that the repository names is run or fetched."""
    settings = [word for setting in _RUN_NOTHING for word in ("-c", setting)]
    never = {"GIT_OPTIONAL_LOCKS": "0", "GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1"}
    try:
        done = subprocess.run(  # noqa: S603 (fixed words)
            ["git", *settings, *arguments],  # noqa: S607 (the user's own git)
            capture_output=True, check=False, timeout=10, env=os.environ | never,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None
