"""An environment as `make run` leaves it: the plain dependencies, no extra, no PyTorch."""

from __future__ import annotations

import sysconfig
import venv
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

SCRIPT = """#!{python}
import sys
from fmexp.cli.parser import entry
sys.exit(entry())
"""


def make(folder: Path) -> Path:
    """Make the environment of links to this one's packages; returns the folder of its programs."""
    venv.create(folder, symlinks=True)
    base = {"base": str(folder), "platbase": str(folder)}
    site = Path(sysconfig.get_path("purelib", "venv", base))
    here = Path(sysconfig.get_path("purelib"))
    for package in closure("fmexp", {}).values():
        for top in {file.parts[0] for file in package.files or []} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(here / top)
    programs = folder / "bin"
    (programs / "fmexp").write_text(SCRIPT.format(python=programs / "python"))
    (programs / "fmexp").chmod(0o755)
    return programs


def closure(name: str, found: dict[str, Distribution]) -> dict[str, Distribution]:
    """The package and all that it needs without any extra, by name."""
    if name in found:
        return found
    try:
        found[name] = distribution(name)
    except PackageNotFoundError:  # for another platform or Python
        return found
    for text in found[name].requires or []:
        needed = Requirement(text)
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            closure(needed.name, found)
    return found
