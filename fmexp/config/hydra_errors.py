"""Hydra's and OmegaConf's errors as ours: the one place where they are translated."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import yaml
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from fmexp.errors import ConfigError, FmexpError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def in_config_errors() -> Iterator[None]:
    """Raises ConfigError for whatever Hydra, OmegaConf or YAML refuse within the block."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, RecursionError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ConfigError("; ".join(lines[:3]).replace(".; ", "; ")) from error


@contextmanager
def composing() -> Iterator[None]:
    """The same while files are put together: there, Hydra meets odd ones with errors of any kind.

    Nothing of ours runs in the block but what raises ConfigError itself.
    """
    try:
        with in_config_errors():
            yield
    except FmexpError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ConfigError(
            f"the configuration files cannot be put together: {type(error).__name__}: {reason}"
        ) from error
