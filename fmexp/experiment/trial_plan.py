"""What all trials of a sweep share: the configuration, the data, the objective."""

from __future__ import annotations

import copy
import json
import threading
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fmexp.config import meaning
from fmexp.config.checks import parse
from fmexp.config.compose import resolve
from fmexp.data.loading import TAKE_SHARED_RUNS, load_for
from fmexp.errors import DataError

if TYPE_CHECKING:
    from fmexp.config.schema import Config
    from fmexp.data.dataset import Dataset
    from fmexp.sweep.space import Point
    from fmexp.sweep.study import Direction


@dataclass(frozen=True)
class TrialPlan:
    """What all trials of a study share, frozen with it: nothing of it is read again.

    Attributes:
        config_tree: the configuration as composed, environment references kept.
        variants: of each swept config group, what each choice puts under the group's key.
        objective: metric by which trials are ranked.
        direction: minimize or maximize, as the objective asks.
        seeds: trainings per point.
        digests: of the data and of the split, as they were when the study was made.
    """

    config_tree: dict[str, Any]
    variants: dict[str, dict[str, Any]]
    objective: str
    direction: Direction
    seeds: int
    digests: tuple[str, str]

    @property
    def backends(self) -> set[str]:
        """The backends that trials can have."""
        return set(self.variants.get("backend") or [self.config_tree["backend"]["name"]])

    def at(self, point: Point) -> tuple[Config, dict[str, Any]]:
        """The configuration at a point, checked, and as a tree that may be written down.

        Raises:
            ConfigError: a value of the point cannot be.
        """
        tree = copy.deepcopy(self.config_tree)
        for key in sorted(point, key=lambda key: key not in self.variants):  # groups first
            if key in self.variants:
                tree[key] = copy.deepcopy(self.variants[key][str(point[key])])
            else:
                _set(tree, key.split("."), point[key])
        return parse(resolve(tree)), meaning.without(tree)


class DataCache:
    """Each data set of a sweep once, for all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded: dict[str, Dataset] = {}

    @classmethod
    def of(cls, config: Config, data: Dataset) -> DataCache:
        """A cache that has the data set of this configuration already."""
        cache = cls()
        cache._loaded[_data_key(config)] = data
        return cache

    def get(self, config: Config) -> Dataset:
        """The data set that a configuration asks for."""
        key = _data_key(config)
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = load_for(config)
            return self._loaded[key]


def check_data(plan: TrialPlan, data: DataCache) -> None:
    """Refuse to go on with other rows than those for which the study was made.

    Raises:
        DataError: they have changed.
    """
    config, _ = plan.at({})
    loaded = data.get(config)
    if [loaded.data_digest, loaded.split_digest] != list(plan.digests):
        raise DataError(
            f"the data ({loaded.source}) have changed since this sweep began; run the command "
            "again: it will start a new study on the new rows"
        )


def _data_key(config: Config) -> str:
    shared = config.backend.name in TAKE_SHARED_RUNS
    return json.dumps([asdict(config.data), asdict(config.split), config.task, shared])


def _set(tree: dict[str, Any], path: list[str], value: object) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = value
