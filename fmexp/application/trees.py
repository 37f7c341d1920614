"""An application's configuration by dotted key: for the record, and for what makes sweeps alike."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hydra.core.utils import setup_globals
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fmexp.config.compose import register_resolver
from fmexp.record.passwords import without_password

if TYPE_CHECKING:
    from collections.abc import Iterator

_PRIVATE = "hydra"


def leaves(config: DictConfig) -> dict[str, Any]:
    """Values by dotted key, resolved where they can be, without passwords and Hydra's own keys."""
    return {key: without_password(x) if isinstance(x, str) else x
            for name in config if name != _PRIVATE
            for key, x in _leaves(config, str(name), "")}  # fmt: skip


def lasting_leaves(config: DictConfig) -> dict[str, Any]:
    """The same, but what changes from command to command, the time and Hydra's job, as written."""
    copied = OmegaConf.create(OmegaConf.to_container(config, resolve=False))
    assert isinstance(copied, DictConfig)
    with _as_written("now", "hydra"):
        return leaves(copied)


def _leaves(node: DictConfig | ListConfig, key: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    path = f"{prefix}{key}"
    try:
        value = "???" if OmegaConf.is_missing(node, key) else node[key]
    except OmegaConfBaseException:  # it stands for what only a job knows, or nobody
        value = OmegaConf.to_container(node, resolve=False)[key]  # type: ignore[index]
    if isinstance(value, DictConfig) and value:
        for name in value:
            yield from _leaves(value, name, f"{path}.")
    elif isinstance(value, DictConfig | ListConfig):
        try:
            yield path, OmegaConf.to_container(value, resolve=True)
        except OmegaConfBaseException:
            yield path, OmegaConf.to_container(value, resolve=False)
    else:
        yield path, value if value is None or isinstance(value, bool | int | float) else str(value)


@contextmanager
def _as_written(*resolvers: str) -> Iterator[None]:
    """Within the block these of Hydra's resolvers give the words that they were called with."""
    for name in resolvers:
        register_resolver(
            name, lambda *words, _name=name: f"{_name}:{','.join(words)}", replace=True
        )
    try:
        yield
    finally:
        setup_globals()  # Hydra's own
