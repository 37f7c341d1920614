"""The overrides of a command line, checked before Hydra composes with them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from fmexp.config.checks import on_file
from fmexp.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from hydra.core.override_parser.types import Override

LAUNCHERS = {
    "joblib": "'fmexp[joblib]'",
    "submitit_local": "'fmexp[submitit]'",
    "submitit_slurm": "'fmexp[submitit]'",
    "ray": "hydra-ray-launcher",
    "rq": "hydra-rq-launcher",
}
"""What pip installs for a launcher of Hydra's."""

LAUNCHER_OF = {"slurm": "submitit_slurm", "ray": "ray"}
"""The launcher of a `+cluster=`."""


@dataclass(frozen=True)
class Given:
    """One override, in the form that Hydra takes.

    Attributes:
        key: dotted name, or the group's name with slashes.
        line: what Hydra is given.
        sweeps: whether it asks for several values.
    """

    key: str
    line: str
    sweeps: bool = False


def checked_overrides(arguments: argparse.Namespace) -> list[Given]:
    """Every override; unknown keys are left to `checks.parse`, those of a space to the sweep.

    To be called while Hydra is initialized with the configuration folders.

    Args:
        arguments: as parsed by `compose.parse_arguments`.

    Raises:
        ConfigError: overrides that are none, choices that there are not, keys without effect; all
            of them are named.
    """
    given, mistakes = [], []
    for line in arguments.overrides:
        try:
            override = OverridesParser.create().parse_override(line)
        except HydraException as error:
            mistakes.append(_no_override(line, error))
            continue
        key = override.key_or_group
        if not arguments.multirun and (
            key.startswith("hydra.sweeper") or key == "cluster" or override.is_sweep_override()
        ):
            mistakes.append(f"{line}: sweeps need -m: fmexp run -m {line}")
        mistakes += _unknown_choice(override)
        mistakes += _without_effect(key, line, arguments)
        several = bool(override.is_sweep_override())
        given.append(Given(key, _for_hydra(override), several))
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return given


def _no_override(line: str, error: HydraException) -> str:
    """What Hydra's grammar refuses of a line, in Hydra's words where these say more."""
    key, equals, value = line.partition("=")
    if not equals and (Path(line).is_file() or line.endswith((".csv", ".tsv", ".parquet", ".gz"))):
        return f"{line!r} is a file and no override; write {on_file(line)}"
    if "NoneType is incompatible" in str(error) and value.startswith("choice("):
        plain = value.removeprefix("choice(").removesuffix(")")
        return f"{line}: Hydra's choice(...) takes no null; without it null can be: {key}={plain}"
    reason = f" ({str(error).splitlines()[0]})" if value else ""
    return f"{line!r} is not an override{reason}; write key=value, such as model.k=4"


def _unknown_choice(override: Override) -> list[str]:
    """A choice that its group does not have."""
    key = override.key_or_group
    chosen = override.value()
    if key == "cluster" and str(chosen) in LAUNCHER_OF:
        key, chosen = "hydra/launcher", LAUNCHER_OF[str(chosen)]
    choices = _choices(key)
    if not choices or chosen in choices or not isinstance(chosen, str):
        return []
    if key == "hydra/launcher" and chosen in LAUNCHERS:
        return [f"hydra/launcher={chosen} is not installed: pip install {LAUNCHERS[chosen]}"]
    near = difflib.get_close_matches(chosen, choices, n=1)
    guess = f"; did you mean {near[0]}?" if near else ""
    return [f"{key} must be one of {', '.join(choices)}, got {chosen}{guess}"]


def _without_effect(key: str, line: str, arguments: argparse.Namespace) -> list[str]:
    """A key of Hydra's own that would change nothing, as fmexp writes to no folder of Hydra's.

    A launcher or another sweeper may use all that is not of a single run.
    """
    first = key.replace("/", ".").split(".")[:2]
    if first[0] != "hydra" or first[1:] in (["searchpath"], ["sweeper"]):
        return []
    others = first[1:] == ["launcher"] or _has_other_plugins(arguments)
    if arguments.multirun and others and first[1:] != ["run"]:
        return []
    return [f"{line} has no effect, as fmexp writes no folders or logs of Hydra's; leave it out"]


def _has_other_plugins(arguments: argparse.Namespace) -> bool:
    """Whether a launcher or another sweeper is chosen, or may be in a file of the user's."""
    words = ("hydra/launcher=", "hydra/sweeper=", "+cluster=", "cluster=")
    return bool(arguments.config_dir) or any(o.startswith(words) for o in arguments.overrides)


def _choices(group: str) -> list[str]:
    """The options of a config group; none if there is no such group.

    Asked of the sources themselves: `get_group_options` composes the primary configuration anew.
    """
    sources = GlobalHydra.instance().config_loader().get_sources()
    groups = [source for source in sources if source.is_group(group)]
    options = {option for each in groups for option in each.list(group, ObjectType.CONFIG)}
    return sorted(options)


def _for_hydra(override: Override) -> str:
    """The override in the form that Hydra takes without asking whether the key exists.

    That is for the schema to say, with all other mistakes. Groups, deletions and Hydra's own keys
    stay as they are; an experiment or a cluster is always added.
    """
    line, key = str(override.input_line), override.key_or_group
    if key in ("experiment", "cluster"):
        return f"+{line.lstrip('+')}"
    is_hydras = key.partition(".")[0] == "hydra" and not key.startswith("hydra.sweeper.")
    if _choices(key) or override.is_delete() or is_hydras:
        return line
    return f"++{line.lstrip('+')}"
