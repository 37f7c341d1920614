"""From Hydra's command line to a checked configuration; the only place that sees a DictConfig."""

from __future__ import annotations

import difflib
import json
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from fmexp.config import hydra_code
from fmexp.config.checks import on_file, parse
from fmexp.config.shipped import config_folder
from fmexp.errors import ConfigError
from fmexp.record.locate import without_password

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from hydra._internal.hydra import Hydra
    from hydra.core.override_parser.types import Override

    from fmexp.config.schema import Config

Tree = dict[str, Any]


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


def asks_hydra(arguments: argparse.Namespace) -> bool:
    """Whether a flag asks for information that Hydra itself prints."""
    return bool(
        arguments.cfg or arguments.info or arguments.hydra_help or arguments.shell_completion
    )


def show(argv: list[str]) -> None:
    """Let Hydra answer --cfg, --info, --hydra-help or --shell-completion."""
    sys.argv = ["fmexp run", *argv]
    hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="config")(
        lambda _: None
    )()


def compose(arguments: argparse.Namespace) -> Composed:
    """The configuration that the arguments describe.

    Raises:
        ConfigError: overrides, groups, keys or values are wrong; all of them are named.
    """
    try:
        with _hydra():
            overrides = [o for o in _checked_overrides(arguments) if not o.sweeps]
            tree = hydra.compose(
                arguments.config_name or "config", [override.line for override in overrides]
            )
            return checked(tree, frozenset(override.key for override in overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_in_words(error)) from error


def checked(tree: DictConfig, given: frozenset[str]) -> Composed:
    """A composed configuration in its two forms, checked; see `Composed`.

    Raises:
        ConfigError: keys or values are wrong; all of them are named.
    """
    try:
        resolved = OmegaConf.to_container(tree, resolve=True)
        record = _without_secrets(_with_references(tree))
    except OmegaConfBaseException as error:
        raise ConfigError(_in_words(error)) from error
    return Composed(parse(resolved), record, given)  # type: ignore[arg-type]


def multirun(arguments: argparse.Namespace, job: Callable[[DictConfig], Any]) -> Any:
    """Let Hydra's sweeper run the sweep that the arguments describe; returns what it returns.

    Raises:
        ConfigError: Hydra cannot make sense of them.
    """
    refuse_foreign_code(arguments)
    try:
        with _hydra():
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
        with _hydra():
            given = _checked_overrides(arguments)
            name = arguments.config_name or "config"
            found, choices = hydra_code.settings(_itself(), name, [o.line for o in given])
            typed = [o for o in given if o.key.startswith(("hydra.", "hydra/"))]
            keys = {override.key for override in typed}
            groups = [f"{group}={choice}" for group, choice in choices.items()
                      if group.startswith("hydra/") and choice and group not in keys]  # fmt: skip
        with _hydra():
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
def _hydra() -> Iterator[None]:
    """Hydra with our configuration folder; within a sweep, another one beside the sweep's own."""
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(config_folder()), "fmexp", version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = outer


def _checked_overrides(arguments: argparse.Namespace) -> list[_Given]:
    """Every override; unknown keys are left to `parse`, and those of a space to the sweep."""
    extra = arguments.config_dir
    if extra and not Path(extra).is_dir():
        raise ConfigError(f"--config-dir must be a folder, got {extra}")
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
        mistakes += _mistakes(override, extra)
        given.append(_Given(key, _for_hydra(override), sweeps(override)))
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    if extra:
        place = f"hydra.searchpath=['file://{Path(extra).resolve()}']"
        given.append(_Given("hydra.searchpath", place))
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


def _mistakes(override: Override, extra_folder: str | None) -> list[str]:
    key = override.key_or_group
    choices = _choices(key, extra_folder)
    chosen = override.value()
    if not choices or chosen in choices or not isinstance(chosen, str):
        return []
    near = difflib.get_close_matches(chosen, choices, n=1)
    guess = f"; did you mean {near[0]}?" if near else ""
    return [f"{key} must be one of {', '.join(choices)}, got {chosen}{guess}"]


def sweeps(override: Override) -> bool:
    """Whether an override asks for several values."""
    return bool(override.is_sweep_override())


def _choices(group: str, extra_folder: str | None) -> list[str]:
    """The options of a config group; none if there is no such group.

    Asked of the sources themselves: `get_group_options` composes the primary configuration anew.
    """
    sources = GlobalHydra.instance().config_loader().get_sources()
    groups = [source for source in sources if source.is_group(group)]
    options = {option for each in groups for option in each.list(group, ObjectType.CONFIG)}
    if extra_folder:
        options |= {path.stem for path in (Path(extra_folder) / group).glob("*.yaml")}
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
    if _choices(key, None) or override.is_delete() or is_hydras:
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


def _without_secrets(record: Tree) -> Tree:
    """The record without the password that the store's address may hold."""
    uri = record.get("tracking", {}).get("uri")
    if isinstance(uri, str):
        record["tracking"]["uri"] = without_password(uri)
    return record


def _in_words(error: Exception) -> str:
    """The first paragraph of a Hydra or OmegaConf message, with its cause."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return "; ".join(line.strip() for line in lines[:3])
