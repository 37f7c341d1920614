"""Backends of other packages: `pip install my-fm` makes `backend=mine` work.

Such a package names a module in its entry points (group fmexp.backends), and has the choice's
defaults in conf/backend/mine.yaml beside its own code. The module has `start`, as
`fmexp.backends.base.Start` says, and a dataclass `Config` of the keys below `backend`, whose `name`
is `Literal["mine"]`. It is imported only when the backend is used.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fmexp.errors import ConfigError

GROUP = "fmexp.backends"


@cache
def outside() -> dict[str, EntryPoint]:
    """The entry point of each backend that another package brings."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def folders() -> list[Path]:
    """The folders conf of the packages that have one, found without importing them."""
    packages = {entry.module.partition(".")[0] for entry in outside().values()}
    specs = [find_spec(package) for package in sorted(packages)]
    places = [Path(p) for spec in specs if spec for p in spec.submodule_search_locations or ()]
    return [place / "conf" for place in places if (place / "conf").is_dir()]


def load(name: str) -> Any:
    """The module of such a backend.

    Raises:
        ConfigError: it cannot be imported, or lacks `start` or `Config`.
    """
    entry = outside()[name]
    package = entry.dist.name if entry.dist else entry.module
    try:
        module = entry.load()
    except Exception as error:
        raise ConfigError(
            f"backend={name} of the package {package} cannot be loaded: "
            f"{type(error).__name__}: {error}"
        ) from error
    lacking = [what for what in ("start", "Config") if not hasattr(module, what)]
    if lacking:
        raise ConfigError(f"backend={name}: {entry.value} ({package}) has no "
                          f"{' and no '.join(lacking)}; docs/framework.md shows both")  # fmt: skip
    return module
