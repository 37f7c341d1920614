"""From a record back to what it was made of: configuration, data, model.

Nothing in a record is executed: config.yaml is plain YAML, and `${...}` in it is only a text.
"""

from __future__ import annotations

import ast
import glob
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmexp import model
from fmexp.config import yaml_files
from fmexp.config.checks import parse
from fmexp.config.schema import CsvConfig, LibsvmConfig, ParquetConfig
from fmexp.data.loading import load_for
from fmexp.errors import ConfigError, DataError
from fmexp.record.tracker import APPLICATION

if TYPE_CHECKING:
    from fmexp.config.schema import Config
    from fmexp.data.dataset import Dataset
    from fmexp.record.queries import StoredRun, StoredRuns

CONFIG = "config.yaml"
_LARGEST_CONFIG = 1_000_000


def read_tree(records: StoredRuns, record: StoredRun) -> dict[str, Any]:
    """The configuration as it was written down: config.yaml, else put together from the params.

    Raises:
        ConfigError: the run has neither.
    """
    if not records.has_artifact(record, CONFIG):
        return from_params(record.params)
    path = records.artifact(record, CONFIG)
    if path.stat().st_size > _LARGEST_CONFIG:
        raise ConfigError(f"{CONFIG} of {record} has {path.stat().st_size:,} bytes: that is none")
    tree = yaml_files.load(path.read_bytes(), f"{CONFIG} of {record}")
    if not isinstance(tree, dict):
        raise ConfigError(f"{CONFIG} of {record} must hold keys, got {type(tree).__name__}")
    return tree


def read_config(records: StoredRuns, record: StoredRun) -> Config:
    """The checked configuration of a run.

    Raises:
        ConfigError: it is missing, or not one that this fmexp knows.
    """
    if APPLICATION in record.tags:
        raise ConfigError(f"{record} is of the application {record.tags[APPLICATION]}, of whose "
                          "data and model fmexp knows nothing")  # fmt: skip
    try:
        return parse(read_tree(records, record))
    except ConfigError as error:
        made_by = record.tags.get("fmexp.version", "none")
        raise ConfigError(
            f"the configuration of {record} cannot be used (fmexp that made it: {made_by}):\n"
            f"{error}"
        ) from None


def from_params(params: dict[str, str]) -> dict[str, Any]:
    """The configuration tree that was flattened into params.

    >>> from_params({"backend": "numpy_sgd", "backend.dtype": "float64", "seed": "0"})["backend"]
    {'name': 'numpy_sgd', 'dtype': 'float64'}
    """
    tree: dict[str, Any] = {}
    for key in sorted(params):  # a group's own name comes before its keys
        *groups, leaf = key.split(".")
        node = tree
        for name in groups:
            inner = node.setdefault(name, {})
            if not isinstance(inner, dict):  # that was the group's name
                inner = node[name] = {"name": inner}
            node = inner
        node[leaf] = _value(params[key])
    tree["tracking"] = {"name": "none"}
    return tree


def load_data(
    config: Config, record: StoredRun, given: Path | None = None, folder: Path | None = None
) -> Dataset:
    """The very data of a run.

    A file is looked for where `given` says; else at the recorded absolute path, then under the
    same name in `folder`. Whether it is the one is judged by the digest of its content.

    Args:
        config: of the run.
        record: of the run.
        given: the file, where the user named one.
        folder: the working directory by default.

    Raises:
        DataError: it is not there, or holds other data; or the split comes out differently.
    """
    if not isinstance(config.data, CsvConfig | ParquetConfig | LibsvmConfig):
        return _checked(load_for(config), record, config.data.name)
    recorded = config.data.path
    places = [given] if given else [Path(record.source or recorded), _beside(recorded, folder)]
    others = []
    for place in dict.fromkeys(places):
        if not _is_there(place):
            continue
        try:
            data = load_for(replace(config, data=_at(config.data, place, folder)))
            return _checked(data, record, str(place))
        except DataError as error:
            others.append(str(error))
    if others:
        raise DataError("\n".join(others))
    raise DataError(
        f"the data of {record} are missing: looked for {' and '.join(map(str, places))}; "
        "say where they are with --data FILE"
    )


def load_model(records: StoredRuns, record: StoredRun) -> model.Model:
    """The model that a run kept.

    Raises:
        UserError: it kept none.
    """
    return model.load(records.artifact(record, "model"))


def _checked(data: Dataset, record: StoredRun, place: str) -> Dataset:
    """`data`, if it is what the run was trained on."""
    for tag, found, what in (
        ("fmexp.columns_digest", data.columns_digest, "other data than"),
        ("fmexp.split_digest", data.split_digest, "the data of, but split unlike,"),
    ):
        expected = record.tags.get(tag, "none")
        if found != expected:
            raise DataError(
                f"{place} holds {what} {record}: expected digest {expected[:12]}, got {found[:12]}"
            )
    return data


def _at(
    data: CsvConfig | ParquetConfig | LibsvmConfig, place: Path, folder: Path | None
) -> CsvConfig | ParquetConfig | LibsvmConfig:
    """The data with the first table at a place; second tables that have moved lie beside it."""
    if isinstance(data, LibsvmConfig) or not data.joins:
        return replace(data, path=str(place))
    beside = place if place.is_dir() else place.parent
    joins = {}
    for key, path in data.joins.items():
        own = Path(path).expanduser()
        candidates = [own, beside / own, beside / own.name, _beside(path, folder)]
        there = [each for each in candidates if _is_there(each)]
        if not there:
            raise DataError(
                f"data.joins.{key}: {path} is missing: put it beside {place} under that name"
            )
        joins[key] = str(there[0].resolve() if there[0].exists() else there[0])
    return replace(data, path=str(place), joins=joins)


def _is_there(path: Path) -> bool:
    """Whether a path, or a pattern of paths, stands for a file; a name may look like a pattern."""
    return path.exists() or bool(glob.glob(str(path)))  # noqa: PTH207 -- absolute patterns, too


def _beside(path: str, folder: Path | None) -> Path:
    return (folder or Path.cwd()) / Path(path).name


def _value(text: str) -> Any:
    """What `str` made of a plain value."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
