"""The values that conf/ ships, read without Hydra: the one place of all defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

_HYDRA_S = ("defaults", "hydra")


def config_folder() -> Path:
    """conf/ inside the installed package, else beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    return next(path for path in (package / "conf", package.parent / "conf") if path.is_dir())


def shipped(**groups: str) -> dict[str, Any]:
    """The tree of conf/config.yaml and of these choices, as in `shipped(backend="numpy_sgd")`."""
    tree = _read("config")
    for group, choice in groups.items():
        tree[group] = _read(f"{group}/{choice}")
    return tree


def _read(name: str) -> dict[str, Any]:
    tree = yaml.safe_load((config_folder() / f"{name}.yaml").read_text())
    return {key: value for key, value in tree.items() if key not in _HYDRA_S}
