"""From Hydra's command line to a checked configuration; the only place that sees a DictConfig."""

from __future__ import annotations

import difflib
import json
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from fmexp.config import hydra_code, meaning
from fmexp.config.checks import NOT_GIVEN, on_file, parse
from fmexp.config.shipped import config_folder
from fmexp.errors import ConfigError
from fmexp.record.passwords import without_passwords

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from hydra._internal.hydra import Hydra
    from hydra.core.override_parser.types import Override

    from fmexp.config.schema import Config

Tree = dict[str, Any]

LAUNCHERS = {
    "joblib": "'fmexp[joblib]'",
    "submitit_local": "'fmexp[submitit]'",
    "submitit_slurm": "'fmexp[submitit]'",
    "ray": "hydra-ray-launcher",
    "rq": "hydra-rq-launcher",
}
"""What pip installs for a launcher of Hydra's."""


@dataclass(frozen=True)
class Composed:
    """A configuration in the two forms that are needed of it.

    Attributes:
        config: checked, with every reference resolved.
        record: the same as a tree of plain values, but `${oc.env:...}` kept as a reference and
            no password: what may be written down.
        given: dotted names of what the command line set.
    """

    config: Config
    record: Tree
    given: frozenset[str]


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Hydra's own flags and the overrides, as in any Hydra app."""
    parser = get_args_parser()
    parser.prog = "fmexp run"
    parser.error = _refuse  # type: ignore[method-assign]
    arguments = parser.parse_intermixed_args(argv)
    if arguments.config_path:
        raise ConfigError("--config-path would hide fmexp's own configuration; use --config-dir")
    return arguments


def _refuse(message: str) -> NoReturn:
    """Instead of argparse's list of all flags, which fmexp's keys are not among."""
    raise ConfigError(f"{message}; keys are set as KEY=VALUE, for example backend=torch_adam")


def ask_hydra(argv: list[str], program: str = "fmexp run") -> None:
    """Let Hydra answer --cfg hydra, --info, --hydra-help or --shell-completion."""
    sys.argv = [program, *argv]
    hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="config")(
        lambda _: None
    )()


def compose(arguments: argparse.Namespace) -> Composed:
    """The configuration that the arguments describe.

    Raises:
        ConfigError: overrides, groups, keys or values are wrong; all of them are named.
    """
    with _composed(arguments) as (tree, given):
        return checked(tree, given)


def as_yaml(arguments: argparse.Namespace) -> str:
    """What `--cfg job` shows; what must be given and is not stands there as ???.

    Raises:
        ConfigError: as by `compose`, but for what is not given.
    """
    with _composed(arguments) as (tree, given):
        try:
            checked(tree, given)
        except ConfigError as error:
            if any(NOT_GIVEN not in line for line in str(error).splitlines()):
                raise
        if arguments.package:
            tree = OmegaConf.select(tree, arguments.package, default=OmegaConf.create())
        return OmegaConf.to_yaml(tree, resolve=bool(arguments.resolve))


@contextmanager
def _composed(arguments: argparse.Namespace) -> Iterator[tuple[DictConfig, frozenset[str]]]:
    """The composed tree, and the keys that the command line sets."""
    try:
        with _hydra(arguments.config_dir):
            overrides = [o for o in _checked_overrides(arguments) if not o.sweeps]
            tree = hydra.compose(
                arguments.config_name or "config", [override.line for override in overrides]
            )
            yield tree, frozenset(override.key for override in overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_in_words(error)) from error


def checked(tree: DictConfig, given: frozenset[str]) -> Composed:
    """A composed configuration in its two forms, checked; see `Composed`.

    Raises:
        ConfigError: keys or values are wrong; all of them are named.
    """
    try:
        resolved = OmegaConf.to_container(tree, resolve=True)
        record = without_passwords(_with_references(tree))
    except OmegaConfBaseException as error:
        raise ConfigError(_in_words(error)) from error
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    if name and "tracking.experiment" not in given:
        for each in (resolved, record):
            if each.get("tracking", {}).get("name") == "mlflow":  # type: ignore[union-attr]
                each["tracking"]["experiment"] = name  # type: ignore[index]
    config = parse(resolved)  # type: ignore[arg-type]
    meaning.refuse(given, config.backend.name)
    return Composed(config, meaning.without(record), given)  # type: ignore[arg-type]


def multirun(arguments: argparse.Namespace, job: Callable[[DictConfig], Any]) -> Any:
    """Let Hydra's sweeper run the sweep that the arguments describe; returns what it returns.

    Raises:
        ConfigError: Hydra cannot make sense of them.
    """
    refuse_foreign_code(arguments)
    try:
        with _hydra(arguments.config_dir):
            lines = [override.line for override in _checked_overrides(arguments)]
            name = arguments.config_name or "config"
            return _itself().multirun(name, job, lines, with_log_configuration=False)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_in_words(error)) from error


def refuse_foreign_code(arguments: argparse.Namespace) -> None:
    """Refuse files that set, below `hydra`, more than options; see `fmexp.config.hydra_code`.

    Raises:
        ConfigError: they do.
    """
    try:
        with _hydra(arguments.config_dir):
            given = _checked_overrides(arguments)
            name = arguments.config_name or "config"
            found, choices = hydra_code.settings(_itself(), name, [o.line for o in given])
            typed = [o for o in given if o.key.startswith(("hydra.", "hydra/"))]
            keys = {override.key for override in typed}
            groups = [f"{group}={choice}" for group, choice in choices.items()
                      if group.startswith("hydra/") and choice and group not in keys]  # fmt: skip
        with _hydra(None):
            lines = [o.line for o in typed if o.key != "hydra.searchpath"] + groups
            trusted, _ = hydra_code.settings(_itself(), "config", lines)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_in_words(error)) from error
    hydra_code.refuse_foreign(found, trusted, choices.get("hydra/sweeper") == "fmexp")


def _itself() -> Hydra:
    hydra_itself = GlobalHydra.instance().hydra
    assert hydra_itself is not None
    return hydra_itself


def sweeper_options(config: DictConfig) -> Tree:
    """`hydra.sweeper` as plain values."""
    return OmegaConf.to_container(config.hydra.sweeper, resolve=True)  # type: ignore[return-value]


def resolve(record: Tree) -> Tree:
    """A recorded tree with its references to the environment resolved.

    Raises:
        ConfigError: the environment has no such variable.
    """
    if "${" not in json.dumps(record):
        return record
    try:
        return OmegaConf.to_container(OmegaConf.create(record), resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise ConfigError(_in_words(error)) from error


@dataclass(frozen=True)
class _Given:
    """One override, in the form that Hydra takes."""

    key: str
    line: str
    sweeps: bool = False


@contextmanager
def _hydra(extra_folder: str | None) -> Iterator[None]:
    """Hydra with our configuration folder; within a sweep, another one beside the sweep's own.

    Args:
        extra_folder: `--config-dir`: searched after ours, also for the primary configuration.
    """
    if extra_folder and not Path(extra_folder).is_dir():
        raise ConfigError(f"--config-dir must be a folder, got {extra_folder}")
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(config_folder()), "fmexp", version_base="1.3"):
            if extra_folder:
                loader = GlobalHydra.instance().config_loader()
                places = loader.get_search_path()
                places.prepend(
                    "command-line",
                    f"file://{Path(extra_folder).resolve()}",
                    anchor=SearchPathQuery(provider="schema"),  # which stays the last
                )
                loader.repository.initialize_sources(places)  # type: ignore[attr-defined]
            yield
    finally:
        GlobalHydra.instance().hydra = outer


def _checked_overrides(arguments: argparse.Namespace) -> list[_Given]:
    """Every override; unknown keys are left to `parse`, and those of a space to the sweep."""
    given, mistakes = [], []
    for line in arguments.overrides:
        try:
            override = OverridesParser.create().parse_override(line)
        except HydraException as error:
            mistakes.append(_no_override(line, error))
            continue
        key = override.key_or_group
        if not arguments.multirun and (key.startswith("hydra.sweeper") or sweeps(override)):
            mistakes.append(f"{line}: sweeps need -m: fmexp run -m {line}")
        mistakes += _mistakes(override)
        mistakes += _without_effect(key, line, arguments)
        given.append(_Given(key, _for_hydra(override), sweeps(override)))
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


def _mistakes(override: Override) -> list[str]:
    """A choice that its group does not have."""
    key = override.key_or_group
    choices = _choices(key)
    chosen = override.value()
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
    words = ("hydra/launcher=", "hydra/sweeper=")
    return bool(arguments.config_dir) or any(o.startswith(words) for o in arguments.overrides)


def sweeps(override: Override) -> bool:
    """Whether an override asks for several values."""
    return bool(override.is_sweep_override())


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
    stay as they are; an experiment is always added.
    """
    line, key = str(override.input_line), override.key_or_group
    if key == "experiment":
        return f"+{line.lstrip('+')}"
    is_hydras = key.partition(".")[0] == "hydra" and not key.startswith("hydra.sweeper.")
    if _choices(key) or override.is_delete() or is_hydras:
        return line
    return f"++{line.lstrip('+')}"


def _with_references(node: DictConfig | ListConfig) -> Any:
    """Plain values; what the environment has a part in stays as it was written."""
    keys = range(len(node)) if isinstance(node, ListConfig) else list(node)
    values = []
    for key in keys:
        raw = OmegaConf.to_container(node, resolve=False)[key]  # type: ignore[index]
        with _watching_the_environment() as asked:
            value = raw if raw == "???" else node[key]
        value = raw if asked else value
        values.append(
            _with_references(value) if isinstance(value, DictConfig | ListConfig) else value
        )
    return values if isinstance(node, ListConfig) else dict(zip(keys, values, strict=True))


@contextmanager
def _watching_the_environment() -> Iterator[list[str]]:
    """Notes which environment variables are asked for, by whatever way of writing it down."""
    asked: list[str] = []

    def watched(name: str, *default: Any) -> Any:
        asked.append(name)
        return oc.env(name, *default)

    OmegaConf.register_new_resolver("oc.env", watched, replace=True)
    try:
        yield asked
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def _in_words(error: Exception) -> str:
    """The first paragraph of a Hydra or OmegaConf message, with its cause."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return "; ".join(line.strip() for line in lines[:3])
