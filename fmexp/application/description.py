"""What the record says of an application's run: params, origin, configuration."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from fmexp.application.trees import leaves
from fmexp.record.environment import environment_tags, user
from fmexp.record.tracker import APPLICATION

if TYPE_CHECKING:
    from omegaconf import DictConfig


def params(config: DictConfig) -> dict[str, str]:
    """A run's params: every leaf of the job's configuration, without Hydra's own."""
    return {re.sub(r"[^\w\-. /:]", "_", key)[:250]: str(x) for key, x in leaves(config).items()}


def tags(config: DictConfig) -> dict[str, str]:
    """Where a run comes from."""
    return environment_tags() | {
        APPLICATION: str(config.hydra.job.name),
        "mlflow.source.name": sys.argv[0] or str(config.hydra.job.name),
        "mlflow.source.type": "LOCAL",
        "mlflow.user": user(),
    }


def as_yaml(config: DictConfig) -> str:
    """A configuration as text, without Hydra's own and with its references."""
    return OmegaConf.to_yaml(
        OmegaConf.masked_copy(config, [str(k) for k in config if k != "hydra"])
    )
