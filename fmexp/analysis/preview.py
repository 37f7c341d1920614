"""What would be made of a file: its schema, sizes, oddities, and the run to start."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fmexp.analysis import oddities, text_keys
from fmexp.config.schema import CsvConfig, LibsvmConfig, ParquetConfig
from fmexp.config.shipped import shipped
from fmexp.data import budget, csv, dates, files, joins, parquet, schema
from fmexp.data.cells import MISSING, is_number
from fmexp.data.features import CHUNK_ROWS, CSR, Features, chunks
from fmexp.data.learn import Learning, learn
from fmexp.data.sources import read
from fmexp.data.split import SplitBy
from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fmexp.data.encode import Encoder
    from fmexp.data.table import Table

Files = CsvConfig | ParquetConfig | LibsvmConfig


@dataclass(frozen=True)
class Options:
    """What the user said of the file.

    Attributes:
        target: the column to predict; None: by its name.
        delimiter: of text; None: found out.
        encoding: of text; None: found out.
        weight: the column of the rows' weights; None: they have none.
        joins: second tables, by the column that joins.
    """

    target: str | None = None
    delimiter: str | None = None
    encoding: str | None = None
    weight: str | None = None
    joins: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Look:
    """A table that was read and encoded.

    Attributes:
        table: all rows, raw.
        encoder: learned from all of them.
        notes: what was inferred.
        features: encoded rows of the first block.
        target: encoded, of all rows.
        keys: of `data`, that differ from what is inferred or the default.
    """

    table: Table
    encoder: Encoder
    notes: tuple[str, ...]
    features: Features
    target: np.ndarray
    keys: dict[str, Any]


def inspect(path: str, options: Options) -> str:
    """The report on a file, a folder or a glob.

    Raises:
        DataError: it cannot be read as a table, or the target is not to be told.
    """
    file = files.find(path)[0]
    start = files.head(file)
    if not start.startswith(b"PAR1") and _looks_like_libsvm(start):
        if options.weight or options.joins:
            raise DataError(f"{path} is libsvm text, without columns of weights or keys: use CSV")
        config: Files = LibsvmConfig("libsvm", True, path)
        return _report(config, _look(config, "regression", {}), {}, "regression")
    found: text_keys.Found = {}
    roles = {"target": options.target, "weight": options.weight}
    keys: dict[str, Any] = {key: name for key, name in roles.items() if name}
    if not start.startswith(b"PAR1"):
        found = text_keys.find(file, options.delimiter, options.encoding)
        given = {"delimiter": options.delimiter, "encoding": options.encoding}
        keys |= {key: value for key, value in given.items() if value}
        keys |= {key: value for key, (value, _) in found.items()}
    keys |= {"joins": dict(options.joins)} if options.joins else {}
    kind = "parquet" if start.startswith(b"PAR1") else "csv"
    sample = _sample(_config(kind, path, keys))
    found |= _dates(sample)
    keys |= {key: value for key, (value, _) in found.items()}
    config = _config(kind, path, keys)
    seen = {key: why for key, (_, why) in found.items()}
    try:
        target = options.target or schema.find_target(list(sample), path)
    except DataError:
        return _columns_only(path, sample)
    if target not in sample:
        raise DataError(f"{path} has no column {target!r}; there are {', '.join(sample)}")
    task = _task(target, sample[target], path)
    return _report(config, _look(config, task, keys), seen, task)


def _dates(sample: dict[str, list[str]]) -> text_keys.Found:
    """How the dates of columns are written that are no ISO 8601."""
    forms = {
        name: fitting
        for name, cells in sample.items()
        if not dates.are_iso(cells[:100]) and (fitting := dates.fitting(cells))
    }
    if not forms:
        return {}
    said = [
        f"{name}: {next(filter(None, sample[name]))!r}"
        + f" (or {' or '.join(repr(form) for form in others)}?)" * bool(others)
        for name, (_, *others) in forms.items()
    ]
    return {"dates": ({name: first for name, (first, *_) in forms.items()}, ", ".join(said))}


def _look(config: Files, task: str, keys: dict[str, Any]) -> Look:
    """Read all rows and learn the encoding from all of them."""
    source = read(config, SplitBy(), task)
    table = source.table
    encoder = learn(
        lambda: map(table.take, chunks(len(table))),
        source.schema,
        Learning(task, fill_missing=True),
        source.first,
    )
    if table.left_out:
        keys = keys | {"missing_target": "drop"}
    if any(column.marked for column in encoder.numeric) or oddities.rows_without(encoder, table):
        keys = keys | {"missing": "mean"}
    first = table.take(slice(0, min(len(table), CHUNK_ROWS)))
    notes = tuple(source.schema.notes)
    return Look(table, encoder, notes, encoder.features(first), encoder.target(table), keys)


def _config(kind: str, path: str, keys: dict[str, Any]) -> CsvConfig | ParquetConfig:
    """The configuration of a first look, which takes in what a run refuses: missing cells."""
    tree = shipped(data=kind)["data"] | keys | {"path": path}
    tree |= {"missing": "mean", "missing_target": "drop"}
    return CsvConfig(**tree) if kind == "csv" else ParquetConfig(**tree)


def _looks_like_libsvm(start: bytes) -> bool:
    """Whether the first lines with entries are `number number:number ...`."""
    lines = [line.split() for line in start.split(b"\n")[:20] if b":" in line]
    return bool(lines) and all(
        is_number(cells[0].decode("latin-1")) and all(cell.count(b":") == 1 for cell in cells[1:])
        for cells in lines[:5]
    )


def _sample(config: CsvConfig | ParquetConfig) -> dict[str, list[str]]:
    """The first rows, those that are joined among their cells."""
    found = files.find(config.path)
    if isinstance(config, ParquetConfig):
        opened = parquet.open_table(found)
    else:
        opened = csv.open_table(found, config)
    sample = dict(opened.sample)
    for key, path in (config.joins or {}).items():
        joined = joins.read(key, path, found[0].parent, opened.text)
        sample |= joined.sample(opened.sample[key]) if key in opened.sample else {}
    return sample


def _task(target: str, cells: list[str], path: str) -> str:
    """Classification where the target is text of two names, else regression."""
    cells = [cell for cell in cells if cell.strip() not in MISSING] or cells
    texts = {cell for cell in cells if not is_number(cell)}
    if len(texts) <= 0.1 * len(cells) and len(texts) < len(set(cells)):
        return "regression"
    if len(set(cells)) > 2:
        raise DataError(
            f"{path}: the target {target!r} holds {len(set(cells))} names such as "
            f"{min(texts)!r}; expected numbers, or two names (classification). "
            "More than two classes are taken one against the rest: a column of your own that is 1 "
            "for one of them, or sklearn.multiclass.OneVsRestClassifier(fmexp.FMClassifier())"
        )
    return "classification"


def _columns_only(path: str, sample: dict[str, list[str]]) -> str:
    """What can be said before the target is known."""
    lines = [f"{path}: {len(sample)} columns; the first rows of each:"]
    width = max(map(len, sample))
    for name, cells in sample.items():
        lines.append(f"  {name:<{width}}  {_examples(cells[:40], 60)}")
    return "\n".join([*lines, "", f"Which one is to be predicted? fmexp data {path} --target NAME"])


def _examples(cells: Sequence[str], width: int) -> str:
    """As many different cells as fit, each of them whole; "..." where there are more."""
    distinct = list(dict.fromkeys(cell.replace("\n", "\\n") or "(empty)" for cell in cells))
    shown = ""
    for cell in distinct:
        if shown and len(shown) + len(cell) + 2 > width:
            return f"{shown}, ..."
        shown += f", {cell}" if shown else cell if len(cell) <= width else f"{cell[:width]}..."
    return shown


def _report(config: Files, data: Look, seen: dict[str, str], task: str) -> str:
    suspicious = oddities.find(data.table, data.encoder, data.target)
    size = budget.size(_size(config.path))
    return "\n".join(
        [
            f"{config.path}: {config.name}, {size}, {len(data.table):,} rows",
            *(f"  data.{key}={data.keys[key]}: {why}" for key, why in seen.items()),
            *([""] if seen else []),
            *_contract_lines(data),
            "",
            *_size_lines(data),
            *(["", "Worth a look:"] if suspicious else []),
            *(f"  {line}" for line in suspicious),
            "",
            "Train on it:",
            f"  {_command(config, data, task)}",
        ]
    )


def _contract_lines(data: Look) -> list[str]:
    """One line a column: its role, what is in it, and why."""
    encoder = data.encoder
    why = {note.partition(" (")[0]: note.partition(" (")[2].rstrip(")") for note in data.notes}
    rows: list[tuple[str, str, str]] = []
    if encoder.block is not None:
        rows.append(("features", f"{encoder.n_features:,} without names", data.notes[0]))
    for column in () if encoder.block else encoder.numeric:
        x = np.asarray(data.table.column(column.name))
        missing = int(np.isnan(x).sum())
        ends = [np.nanmin(x), np.nanmax(x)]
        shown = dates.texts(ends, column.date) if column.date else [f"{end:g}" for end in ends]
        holds = " to ".join(shown) + (f", {missing:,} missing" * (missing > 0))
        rows.append(("numeric", column.name, holds))
    for field in encoder.categorical:
        examples = _examples(field.categories[:3], 40)
        holds = f"{len(field.categories):,} categories: {examples}"
        rows.append(("categorical", field.name, holds))
    low, high = encoder.target_range
    labels = encoder.labels
    holds = f"{labels[0]} or {labels[1]}" if labels else f"{low:g} to {high:g}"
    rows.append(("target", encoder.target_name, holds))
    if weight := data.keys.get("weight"):
        x = np.asarray(data.table.columns[weight])
        rows.append(("weight", weight, f"{x.min():g} to {x.max():g}, {x.mean():.3g} on average"))
    rows += [("dropped", key.partition(": ")[2], "") for key in why if key.startswith("dropped: ")]
    width = max(len(name) for _, name, _ in rows)
    lines = []
    for role, name, holds in rows:
        reason = why.get(f"{role}: {name}", "")
        lines.append(f"  {role:<12} {name:<{width}}  {holds}{f'  ({reason})' if reason else ''}")
    return lines


def _size_lines(data: Look) -> list[str]:
    features = data.features
    n_rows, n_features = features.shape
    times = len(data.table) / n_rows
    if isinstance(features, CSR):
        arrays = [features.indptr, features.indices, features.values]
        n_bytes = sum(array.nbytes for array in arrays if array is not None)
        share = len(features.indices) / (n_rows * n_features)
        kept = f"sparse, {len(features.indices) / n_rows:.1f} entries a row ({share:.2%} of all)"
    else:
        n_bytes, kept = features.nbytes, "dense"
    return [f"{n_features:,} features; rows are kept {kept}, {budget.size(n_bytes * times)} in all"]


def _command(config: Files, data: Look, task: str) -> str:
    """The `fmexp run` that uses the file so, with only what is not found out."""
    words = ["fmexp", "run", f"data={config.name}", f"data.path={_value(config.path)}"]
    words += [f"data.{key}={_value(value)}" for key, value in data.keys.items()]
    if task != "regression":
        words.append(f"task={task}")
    return " ".join(shlex.quote(word) for word in words)


def _value(value: Any) -> str:
    """A text, a number, a list or a mapping of texts as Hydra's override grammar takes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_value(k)}: {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return f"[{','.join(map(_value, value))}]"
    text = str(value)
    if text and all((c.isalnum() and c.isascii()) or c in "_-./" for c in text):
        return text
    quote = "'" if '"' in text else '"'  # the shell quotes with ' too
    return quote + text.replace("\\", "\\\\").replace(quote, f"\\{quote}") + quote


def _size(path: str) -> int:
    return sum(file.stat().st_size for file in files.find(path))
