"""From Hydra's command line to a checked configuration; the only place that sees a DictConfig."""

from __future__ import annotations

import json
import os
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import hydra
import omegaconf
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from hydra.version import VersionBase
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.resolvers import oc

from fmexp.config import flags, hydra_code, meaning, outside, yaml_files
from fmexp.config.checks import NOT_GIVEN, parse
from fmexp.config.hydra_errors import composing, in_config_errors
from fmexp.config.overrides import checked_overrides
from fmexp.config.shipped import config_folder
from fmexp.errors import ConfigError
from fmexp.record.passwords import without_passwords

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from fmexp.config.schema import Config

Tree = dict[str, Any]

register_resolver: Any = (  # OmegaConf 2.3 has another function of the newer one's name
    OmegaConf.register_new_resolver
    if omegaconf.__version__.startswith("2.3.")
    else OmegaConf.register_resolver
)
_one_at_a_time = threading.RLock()
"""Hydra is one for a process, and threads may each have a run of their own."""

VERSION_BASE: dict[str, Any] = (
    {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}
)
"""Hydra 1.3 warns where it is left out, Hydra 1.4 where it is given."""


@dataclass(frozen=True)
class Composed:
    """A configuration in the two forms that are needed of it.

    Attributes:
        config: checked, with every reference resolved.
        config_tree: the same as a tree of plain values, but `${oc.env:...}` kept as a reference and
            no password: what may be written down.
        given: dotted names of what the command line set.
    """

    config: Config
    config_tree: Tree
    given: frozenset[str]


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Hydra's own flags and the overrides, as in any Hydra app."""
    parser = flags.parser()
    parser.error = _refuse  # type: ignore[method-assign]
    arguments = parser.parse_intermixed_args(argv)
    if arguments.config_path:
        raise ConfigError("--config-path would hide fmexp's own configuration; use --config-dir")
    return arguments


def _refuse(message: str) -> NoReturn:
    """Instead of argparse's list of all flags, which fmexp's keys are not among."""
    raise ConfigError(f"{message}; keys are set as KEY=VALUE, for example backend=torch_adam")


def ask_hydra(argv: list[str], program: str = "fmexp run") -> None:
    """Let Hydra answer --cfg hydra, --info, --hydra-help or --shell-completion.

    It shows no sweep: asked for both, it raises.
    """
    sys.argv = [program, *(word for word in argv if word not in ("-m", "--multirun"))]
    answer = hydra.main(config_path=str(config_folder()), config_name="config", **VERSION_BASE)
    answer(lambda _: None)()


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
    with _hydra(arguments.config_dir):
        with composing():
            overrides = [o for o in checked_overrides(arguments) if not o.sweeps]
            name = arguments.config_name or "config"
            tree = hydra.compose(name, [override.line for override in overrides])
        with in_config_errors():
            yield tree, frozenset(override.key for override in overrides)


def checked(tree: DictConfig, given: frozenset[str]) -> Composed:
    """A composed configuration in its two forms, checked; see `Composed`.

    Raises:
        ConfigError: keys or values are wrong; all of them are named.
    """
    with composing():
        resolved = OmegaConf.to_container(tree, resolve=True)
        config_tree = without_passwords(_with_references(tree))
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    if name and "tracking.experiment" not in given:
        for each in (resolved, config_tree):
            if each.get("tracking", {}).get("name") == "mlflow":  # type: ignore[union-attr]
                each["tracking"]["experiment"] = name  # type: ignore[index]
    config = parse(resolved)  # type: ignore[arg-type]
    meaning.refuse(given, config.backend.name)
    return Composed(config, meaning.without(config_tree), given)  # type: ignore[arg-type]


def multirun(arguments: argparse.Namespace, job: Callable[[DictConfig], Any]) -> Any:
    """Let Hydra's sweeper run the sweep that the arguments describe; returns what it returns.

    Raises:
        ConfigError: Hydra cannot make sense of them.
    """
    refuse_foreign_code(arguments)
    with in_config_errors(), _hydra(arguments.config_dir):
        lines = [override.line for override in checked_overrides(arguments)]
        name = arguments.config_name or "config"
        return _itself().multirun(name, job, lines, with_log_configuration=False)


def for_sweep(arguments: argparse.Namespace) -> tuple[list[str], Tree]:
    """What Hydra would hand its sweeper: overrides, swept ones among them, and `hydra` as composed.

    Raises:
        ConfigError: as by `multirun`.
    """
    refuse_foreign_code(arguments)
    with in_config_errors(), _hydra(arguments.config_dir):
        lines = [override.line for override in checked_overrides(arguments)]
        name = arguments.config_name or "config"
        tree = (
            _itself()
            .compose_config(name, lines, RunMode.MULTIRUN, with_log_configuration=False)
            .hydra
        )
        parts = {
            part: OmegaConf.to_container(tree[part], resolve=True)
            for part in ("sweeper", "launcher")
        }
        return list(tree.overrides.task), parts


def refuse_foreign_code(arguments: argparse.Namespace) -> None:
    """Refuse files that set, below `hydra`, more than options; see `fmexp.config.hydra_code`.

    Costs two compositions, so only where there are files besides fmexp's own.

    Raises:
        ConfigError: they do.
    """
    if not arguments.config_dir and not any("searchpath" in o for o in arguments.overrides):
        return
    with composing():
        with _hydra(arguments.config_dir):
            given = checked_overrides(arguments)
            name = arguments.config_name or "config"
            found, choices = hydra_code.settings(_itself(), name, [o.line for o in given])
            typed = [o for o in given if o.key.startswith(("hydra.", "hydra/"))]
            keys = {override.key for override in typed}
            groups = [f"{group}={choice}" for group, choice in choices.items()
                      if group.startswith("hydra/") and choice and group not in keys]  # fmt: skip
        with _hydra(None):
            lines = [o.line for o in typed if o.key != "hydra.searchpath"] + groups
            trusted, _ = hydra_code.settings(_itself(), "config", lines)
    hydra_code.refuse_foreign(found, trusted, choices.get("hydra/sweeper") == "fmexp")


def _itself() -> Any:
    hydra_itself = GlobalHydra.instance().hydra
    assert hydra_itself is not None
    return hydra_itself


def resolve(tree: Tree) -> Tree:
    """A recorded tree with its references to the environment resolved.

    Raises:
        ConfigError: the environment has no such variable.
    """
    if "${" not in json.dumps(tree):
        return tree
    with in_config_errors():
        return OmegaConf.to_container(OmegaConf.create(tree), resolve=True)  # type: ignore[return-value]


@contextmanager
def _hydra(extra_folder: str | None) -> Iterator[None]:
    """Hydra with our configuration folder; within a sweep, another one beside the sweep's own.

    Args:
        extra_folder: `--config-dir`: searched after ours, also for the primary configuration.
    """
    if extra_folder and not Path(extra_folder).is_dir():
        raise ConfigError(f"--config-dir must be a folder, got {extra_folder}")
    if extra_folder:
        yaml_files.check_folder(Path(extra_folder))
    _one_at_a_time.acquire()
    outer = GlobalHydra.instance().hydra
    outer_base = VersionBase.instance().version_base
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(config_folder()), "fmexp", **VERSION_BASE):
            more = [("fmexp.backends", folder) for folder in outside.folders()]
            more += [("command-line", Path(extra_folder))] if extra_folder else []
            loader = GlobalHydra.instance().config_loader()
            places = loader.get_search_path()
            for provider, folder in more:
                places.prepend(
                    provider,
                    f"file://{folder.resolve()}",
                    anchor=SearchPathQuery(provider="schema"),  # which stays the last
                )
            if more:
                loader.repository.initialize_sources(places)  # type: ignore[attr-defined]
            yield
    finally:
        GlobalHydra.instance().hydra = outer
        VersionBase.instance().version_base = outer_base
        _one_at_a_time.release()


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

    register_resolver("oc.env", watched, replace=True)
    try:
        yield asked
    finally:
        register_resolver("oc.env", oc.env, replace=True)
