"""Hydra's and OmegaConf's errors as ours: the one place where they are translated."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from fmexp.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def in_config_errors() -> Iterator[None]:
    """Raises ConfigError for whatever Hydra or OmegaConf refuse within the block."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ConfigError("; ".join(lines[:3])) from error
