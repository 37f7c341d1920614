"""The jobs of a Hydra application: the configuration at a point, and Hydra's own job runner.

Composing a configuration takes Hydra 60 ms and more. So it is asked once for each choice of config
groups; at other points a copy has the changed keys set, as Hydra would set them.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.utils import run_job
from omegaconf import DictConfig, OmegaConf, open_dict

from fmexp.config.hydra_errors import composing, in_config_errors
from fmexp.errors import ConfigError
from fmexp.sweep.expressions import swept_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from hydra.core.override_parser.types import Override
    from hydra.core.utils import JobReturn
    from hydra.types import HydraContext

    from fmexp.sweep.space import Point, Value


@dataclass
class HydraJobs:
    """An application as Hydra hands it to a sweeper, from which jobs are made. Can be pickled.

    Attributes:
        context: Hydra's.
        config: as composed for the sweep, without what is swept.
        function: the application's.
        arguments: the overrides of the command line, swept ones among them.
    """

    context: HydraContext
    config: DictConfig
    function: Callable[[DictConfig], Any]
    arguments: list[str]

    def __post_init__(self) -> None:
        self._parsed = OverridesParser.create().parse_overrides(self.arguments)
        self._groups: dict[str, bool] = {}
        self._composed: dict[tuple[str, ...], DictConfig] = {}

    @property
    def parsed(self) -> list[Override]:
        """The overrides of the command line."""
        return self._parsed

    def is_group(self, key: str) -> bool:
        """Whether a key names a config group."""
        if key not in self._groups:
            name, loader = key.lstrip("+").partition("@")[0], self.context.config_loader
            self._groups[key] = any(source.is_group(name) for source in loader.get_sources())
        return self._groups[key]

    def choices(self, group: str) -> list[str]:
        """The options of a config group."""
        name, loader = group.lstrip("+").partition("@")[0], self.context.config_loader
        sources = [source for source in loader.get_sources() if source.is_group(name)]
        return sorted({each for s in sources for each in s.list(name, ObjectType.CONFIG)})

    def refusal(self, config: DictConfig, key: str, x: Value) -> list[str]:
        """What is wrong with a value of a key, in a composed configuration that it may change."""
        try:
            with in_config_errors():
                OmegaConf.update(config, key.lstrip("+"), x, merge=True)
        except ConfigError as error:
            return [f"{key}={as_text(x)}: {error}"]
        return []

    def overrides(self, point: Point) -> dict[str, str]:
        """The overrides of the job at a point by key: as typed, each swept key with its value.

        Keys that the command line does not name, those of hydra.sweeper.params, come first, as in
        Hydra's own sweeper.
        """
        typed, swept = {}, set()
        for override in self._parsed:
            key = swept_key(override)
            if not override.is_sweep_override():
                typed[key] = str(override.input_line)
            elif key in point:
                typed[key] = f"{override.get_key_element()}={as_text(point[key])}"
            swept.add(key)
        return {k: f"{k}={as_text(x)}" for k, x in point.items() if k not in swept} | typed

    def compose(self, point: Point, number: int) -> DictConfig:
        """The configuration of job `number`, as Hydra would compose it.

        Raises:
            ConfigError: Hydra cannot.
        """
        lines = self.overrides(point)
        plain = {key: x for key, x in point.items() if not self.is_group(key)}
        chosen = tuple(as_text(x) for key, x in point.items() if key not in plain)
        same = (*chosen, *point)
        with composing():
            if same not in self._composed:
                loader = self.context.config_loader
                self._composed[same] = loader.load_sweep_config(self.config, list(lines.values()))
            config = copy.deepcopy(self._composed[same])
            for key, x in plain.items():
                OmegaConf.update(config, key.lstrip("+"), x, merge=True)
        with open_dict(config):
            config.hydra.overrides.task = list(lines.values())
            if not OmegaConf.is_interpolation(config.hydra.job, "override_dirname"):
                config.hydra.job.override_dirname = _override_dirname(config, lines)
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
        return config

    def run(self, config: DictConfig) -> JobReturn:
        """Run one job, with Hydra's directory, logging, environment and callbacks."""
        return run_job(
            hydra_context=self.context,
            task_function=self.function,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )


def as_text(value: Value) -> str:
    """A value as an override writes it, quoted where Hydra would read something else.

    >>> [as_text(x) for x in ("adam", "1", 0.1, True, None, "a, b")]
    ['adam', "'1'", '0.1', 'true', 'null', "'a, b'"]
    """
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if not isinstance(value, str):
        return repr(value)
    if re.fullmatch(r"[A-Za-z_][\w./-]*", value) and value.lower() not in _NO_TEXT:
        return value
    return QuotedString(value, Quote.single).with_quotes()


_NO_TEXT = {"null", "true", "false", "nan", "inf"}


def _override_dirname(config: DictConfig, lines: dict[str, str]) -> str:
    """`hydra.job.override_dirname`, as Hydra 1.3 makes it; Hydra 1.4 has a resolver for it."""
    how = config.hydra.job.config.override_dirname
    kept = sorted(line for key, line in lines.items()
                  if key.lstrip("+").partition("@")[0] not in how.exclude_keys)  # fmt: skip
    return str(how.item_sep).join(kept).replace("=", how.kv_sep)
