"""From a composed tree to a checked Config; all mistakes in one message."""

from __future__ import annotations

import difflib
import shlex
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import PurePath
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from fmexp.config.meaning import filled
from fmexp.config.outside import load, outside
from fmexp.config.schema import (
    Config,
    CsvConfig,
    GibbsConfig,
    NotebookConfig,
    PlantedConfig,
    flatten,
)
from fmexp.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

NOT_GIVEN = " must be given: "


def parse(tree: dict[str, Any]) -> Config:
    """A checked Config from a composed, resolved tree.

    Args:
        tree: nested dicts of plain values, as YAML gives them.

    Raises:
        ConfigError: unknown, missing or mistaken values; one line each, all of them.
    """
    config, mistakes = build(Config, filled(tree))
    if not mistakes:
        mistakes = _contradictions(config)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return config  # type: ignore[no-any-return]


def build(kind: Any, tree: Any, path: str = "") -> tuple[Any, list[str]]:
    """An instance of the dataclass `kind` from the tree at the dotted `path`, and what is wrong."""
    mistakes: list[str] = []
    return _build(kind, tree, path, mistakes), mistakes


def _contradictions(config: Config) -> list[str]:
    """What is wrong with values that are each right by themselves."""
    split, data, training, found = config.split, config.data, config.training, []
    if split.validation + split.test >= 1:
        found.append(
            "split.validation + split.test must be < 1 so that rows are left to train on, got "
            f"{split.validation} + {split.test}"
        )
    if training.early_stopping.patience is not None and split.validation == 0:
        found.append(
            "training.early_stopping.patience needs a validation part: set split.validation > 0, "
            "or patience to null"
        )
    if training.average_from is not None and training.average_from > training.epochs:
        found.append(
            "training.average_from must be at most training.epochs, or nothing is averaged; got "
            f"{training.average_from} > {training.epochs}"
        )
    backend = config.backend
    if isinstance(backend, GibbsConfig) and (backend.burn_in or 0) >= training.epochs:
        found.append(
            "backend.burn_in must be below training.epochs, or no sweep is kept; got "
            f"{backend.burn_in} of {training.epochs}"
        )
    if isinstance(data, NotebookConfig) and data.minimum > data.maximum:
        found.append(f"data.minimum must be <= data.maximum, got {data.minimum} > {data.maximum}")
    if isinstance(data, CsvConfig) and data.thousands == data.decimal:
        found.append(f"data.thousands must differ from data.decimal, got {data.decimal!r} for both")
    if isinstance(data, PlantedConfig) and data.fields > data.columns:
        found.append(f"data.fields must be <= data.columns, got {data.fields} > {data.columns}")
    return found


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _build(kind: Any, tree: Any, path: str, mistakes: list[str]) -> Any:
    """An instance of the dataclass `kind` from `tree`; what is wrong is added to `mistakes`."""
    if not isinstance(tree, dict):
        mistakes.append(f"{path} must be a group of keys ({_names(kind)}), got {tree!r}")
        return None
    hints = _hints(kind)
    prefix = f"{path}." if path else ""
    for key in sorted(map(str, tree.keys() - hints.keys())):
        leaves = flatten({key: tree.get(key)}, prefix) or [f"{prefix}{key}"]
        mistakes += [
            f"data.path needs data that come from a file: {on_file(str(leaves[leaf]))}"
            if leaf == "data.path" and isinstance(leaves, dict)
            else f"{leaf} is not a key{_nearest(leaf, prefix, hints)}"
            for leaf in leaves
        ]
    values = {}
    for name, hint in hints.items():
        if name not in tree or tree[name] == "???":
            mistakes.append(f"{prefix}{name}{NOT_GIVEN}{_expected(hint)}")
        else:
            values[name] = _value(hint, tree[name], f"{prefix}{name}", mistakes)
    return None if len(values) < len(hints) else kind(**values)


def _value(hint: Any, x: Any, path: str, mistakes: list[str]) -> Any:
    """`x` as the type `hint` asks for it."""
    if is_dataclass(hint):
        return _build(hint, x, path, mistakes)
    if _is_group(hint):
        kinds = {_group_name(kind): kind for kind in get_args(hint)}
        name = x.get("name") if isinstance(x, dict) else x
        if path == "backend" and name not in kinds and name in outside():
            kinds[name] = load(name).Config
        if name in kinds and isinstance(x, dict):
            return _build(kinds[name], x, path, mistakes)
        how = "" if isinstance(x, dict) else f"; choose with {path.replace('.', '/')}=..."
        mistakes.append(f"{path} must be one of {', '.join(kinds)}, got {name!r}{how}")
        return None
    good, value = _convert(hint, x)
    if not good:
        mistakes.append(f"{path} must be {_expected(hint)}, got {x!r}")
    return value


def _convert(hint: Any, x: Any) -> tuple[bool, Any]:
    """Whether `x` can stand where `hint` is asked for, and the value that then stands there."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return True, x
    if origin in (Union, UnionType):
        kinds = [kind for kind in args if kind is not NoneType]
        return (True, None) if x is None else _convert(kinds[0], x)
    if origin is Literal:
        return x in args, x
    if origin is Annotated:
        good, value = _convert(args[0], x)
        return good and args[1].hold(value), value
    if origin is list:
        converted = [_convert(args[0], item) for item in x] if isinstance(x, list) else []
        return isinstance(x, list) and all(g for g, _ in converted), [v for _, v in converted]
    if origin is dict:
        pairs = x.items() if isinstance(x, dict) else ()
        return isinstance(x, dict), {str(k): v if args[1] is Any else str(v) for k, v in pairs}
    if isinstance(x, bool) or x is None:
        return hint is bool and x is not None, x
    if hint is int:
        whole = isinstance(x, int) or (isinstance(x, float) and x.is_integer())
        return whole, int(x) if whole else None
    if hint is float:
        return isinstance(x, int | float), float(x) if isinstance(x, int | float) else None
    return hint is str and isinstance(x, str | int), str(x)


def _expected(hint: Any) -> str:
    """What `hint` asks for, in words."""
    origin, args = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return f"a group of keys ({_names(hint)})"
    if _is_group(hint):
        return f"one of {', '.join(_group_name(kind) for kind in args)}"
    if origin in (Union, UnionType):
        return f"{_expected(args[0])}, or null"
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}" if len(args) > 1 else str(args[0])
    if origin is Annotated:
        return f"{_expected(args[0])} {args[1]}"
    if origin is list:
        return f"a list, each {_expected(args[0])}"
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return plain.get(hint, "a mapping of names to texts")


def _is_group(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType) and all(map(is_dataclass, get_args(hint)))


def on_file(path: str) -> str:
    """The overrides that take a table from a file, by the end of its name."""
    kinds = {".parquet": "parquet", ".pq": "parquet", ".svm": "libsvm", ".libsvm": "libsvm"}
    kind = kinds.get(PurePath(path).suffix.lower(), "csv")
    return f"data={kind} {shlex.quote(f'data.path={path}')}"


def _group_name(kind: Any) -> str:
    return str(get_args(_hints(kind)["name"])[0])


def _names(kind: Any) -> str:
    return ", ".join(field.name for field in fields(kind))


def known_keys(kind: Any = Config, prefix: str = "") -> list[str]:
    """Every leaf of the schema as a dotted name, those of all groups together."""
    keys: list[str] = []
    for name, hint in _hints(kind).items():
        for branch in get_args(hint) if _is_group(hint) else (hint,):
            path = f"{prefix}{name}"
            keys += known_keys(branch, f"{path}.") if is_dataclass(branch) else [path]
    return list(dict.fromkeys(keys))


def _nearest(path: str, prefix: str, known_here: dict[str, Any]) -> str:
    """'; did you mean ...?', or the names that are known at this place."""
    known = known_keys()
    if path in known:
        return f" of this choice of {path.partition('.')[0]} (it belongs to another)"
    last = path.rpartition(".")[2]
    by_leaf = {
        alias: key
        for key in reversed(known)
        for leaf in (key.rpartition(".")[2],)
        for alias in (leaf, "".join(word[0] for word in leaf.split("_")))
    }

    def close(name: str, to: Iterable[str]) -> list[str]:
        return difflib.get_close_matches(name, to, n=1, cutoff=0.75)

    near = [by_leaf[last]] if last in by_leaf else []  # so that training.lr is the learning rate
    near = near or [prefix + name for name in close(last, known_here)] or close(path, known)
    near = near or [by_leaf[alias] for alias in close(last, by_leaf)]
    here = ", ".join(known_here)
    return (
        f"; did you mean {near[0]}?"
        if near
        else f"; known {'in ' + prefix[:-1] if prefix else 'keys'}: {here}"
    )
