"""Which settings of Hydra's own a configuration file may make: none by which it would run code.

Hydra imports and calls whatever `_target_` names below `hydra.*`, and a launcher may run commands.
What is typed on the command line is the user's own word; a file may have come from anybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hydra.types import RunMode
from omegaconf import OmegaConf

from fmexp.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

_LAUNCHER_TEXTS = {
    "partition", "qos", "account", "comment", "constraint", "exclude", "gres", "name",
    "mem_per_gpu", "mem_per_cpu",
}  # fmt: skip
"""Texts that a scheduler takes for names."""

_BY_HYDRA = ("runtime", "overrides", "searchpath", "job.name", "job.config_name", "job.id",
             "job.num", "job.override_dirname", "mode", "help", "hydra_help")  # fmt: skip
"""Keys that Hydra itself sets, or only shows."""


def settings(hydra: Any, config_name: str, overrides: list[str]) -> tuple[dict[str, Any], Any]:
    """The leaves below `hydra` as composed, by dotted name, and the group choices."""
    tree = hydra.compose_config(
        config_name, overrides, RunMode.MULTIRUN, with_log_configuration=False
    )
    choices = OmegaConf.to_container(tree.hydra.runtime.choices)
    return dict(_leaves(OmegaConf.to_container(tree.hydra, resolve=False))), choices


def refuse_foreign(found: dict[str, Any], trusted: dict[str, Any], is_our_sweeper: bool) -> None:
    """Compare all settings with those that the command line alone gives.

    Args:
        found: leaves below `hydra` with all files.
        trusted: the same with fmexp's own files and the command line only.
        is_our_sweeper: whether `hydra.sweeper` holds options of fmexp's, which run nothing.

    Raises:
        ConfigError: a file sets what is not its business; all of it is named.
    """
    mistakes = [
        f"hydra.{key}={value!r}"
        for key, value in sorted(found.items(), key=lambda item: item[0])
        if value != trusted.get(key, _NOTHING) and not _may_set(key, value, is_our_sweeper)
    ]
    if mistakes:
        raise ConfigError(
            f"a configuration file sets {', '.join(mistakes)}: files may set the options of "
            "hydra/sweeper=fmexp, numbers of hydra.launcher, and choose launcher, sampler and "
            "pruner by name, nothing that Hydra would run; if it is your own, give it on the "
            "command line"
        )


_NOTHING = object()


def _may_set(key: str, value: Any, is_our_sweeper: bool) -> bool:
    area, _, rest = key.partition(".")
    if any(key == name or key.startswith(f"{name}.") for name in _BY_HYDRA):
        return True
    if "_target_" in rest:
        return False
    if area == "sweeper":
        return is_our_sweeper
    is_plain = value is None or isinstance(value, bool | int | float)
    return area == "launcher" and (is_plain or rest in _LAUNCHER_TEXTS)


def _leaves(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, node
