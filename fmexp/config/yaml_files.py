"""YAML that may have come from anybody: read only if it is small with its aliases expanded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from fmexp.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

LARGEST = 1_000_000
"""Bytes of a file, and nodes of its tree."""

DEEPEST = 60


def load(text: str | bytes, what: str) -> Any:
    """The plain values of a YAML text.

    Args:
        text: UTF-8.
        what: it is, for the message.

    Raises:
        ConfigError: it is no YAML, or made to take all memory.
    """
    check(text, what)
    try:
        return yaml.load(text, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise _refused(what, error) from error


def check(text: str | bytes, what: str) -> None:
    """Refuse what is no YAML, too large, too deep, or repeats itself by aliases without end.

    Raises:
        ConfigError: it is.
    """
    if len(text) > LARGEST:
        raise ConfigError(f"{what} has {len(text):,} bytes: that is no configuration")
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []
    total = 0
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.AliasEvent):
                if event.anchor not in sizes:
                    raise ConfigError(f"{what}: *{event.anchor} stands within what it repeats")
                total += sizes[event.anchor]
            elif isinstance(event, yaml.CollectionStartEvent):
                open_nodes.append((event.anchor, total))
                total += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, before = open_nodes.pop()
                sizes |= {anchor: total - before} if anchor else {}
            elif isinstance(event, yaml.ScalarEvent):
                total += 1
                sizes |= {event.anchor: 1} if event.anchor else {}
            if total > LARGEST or len(open_nodes) > DEEPEST:
                raise ConfigError(f"{what} is too deep, or too large once its aliases are expanded")
    except (yaml.YAMLError, ValueError) as error:
        raise _refused(what, error) from error


def check_folder(folder: Path) -> None:
    """Check every YAML file below a folder of configuration files.

    Raises:
        ConfigError: one cannot be used.
    """
    for file in sorted(folder.rglob("*.y*ml")):
        if file.is_file():
            try:
                check(file.read_bytes(), str(file))
            except OSError as error:
                raise ConfigError(f"{file} cannot be read: {error.strerror}") from error


def _refused(what: str, error: Exception) -> ConfigError:
    reason = " ".join(line.strip() for line in str(error).splitlines()[:4])
    return ConfigError(f"{what} cannot be read as YAML: {reason}")
