"""The raw table behind a data configuration, with its schema."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fmexp.config.schema import CsvConfig, DataConfig, LibsvmConfig, ParquetConfig
from fmexp.data import synthetic
from fmexp.data.cells import LIST_SEPARATOR
from fmexp.data.schema import ColumnOptions, Schema, infer
from fmexp.data.split import FILE, SplitBy
from fmexp.data.table import Dictionary, Table, Text, as_bytes, digest
from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fmexp.data.cache import CachedTable
    from fmexp.data.joins import JoinedFile
    from fmexp.data.read_plan import TableFiles


@dataclass(frozen=True)
class Source:
    """A raw table and what is known of it.

    Attributes:
        description: where it came from: a path, or how it was generated.
        table: features and target.
        schema: what each column is for.
        noise_floor: expected loss of the true model, where there is one.
        first: number of the first feature of a block of sparse rows.
        data_digest: hash of the files' bytes; None where there are no files.
        cache: the table's files, where it is mapped from some; else None.
    """

    description: str
    table: Table
    schema: Schema
    noise_floor: float | None = None
    first: int = 0
    data_digest: str | None = None
    cache: CachedTable | None = None

    def columns_digest(self) -> str:
        """Hash of every cell of the table, and of those that are joined."""
        if self.cache is None:
            return self.table.digest()
        joined = Table({name: each.column for name, each in self.table.references.items()})
        own = self.cache.columns_digest
        return digest([own.encode(), joined.digest().encode()]) if joined.columns else own

    def weight_digest(self) -> str:
        """Hash of the rows' weights; "" where they have none."""
        name = self.schema.weight
        return "" if name is None else digest([as_bytes(np.asarray(self.table.columns[name]))])


def read(data: DataConfig, by: SplitBy, task: str) -> Source:
    """Read or generate the table.

    Raises:
        DataError: it cannot be used as it is.
        MissingPackageError: the source needs a package that is not installed.
    """
    if isinstance(data, CsvConfig | ParquetConfig):
        return _of_columns(data, by, task)
    if isinstance(data, LibsvmConfig):
        return _of_libsvm(data, by)
    description, table, noise_floor = synthetic.table_of(data, task)
    *names, target = table.columns
    texts = [name for name in names if isinstance(table.columns[name], Text)]
    schema = Schema(target, [name for name in names if name not in texts], texts)
    return Source(description, table, schema, noise_floor)


def _of_columns(data: CsvConfig | ParquetConfig, by: SplitBy, task: str) -> Source:
    from fmexp.data import cache, csv, files, joins, parquet

    found = files.find(data.path)
    opened = (
        csv.open_table(found, data) if isinstance(data, CsvConfig) else parquet.open_table(found)
    )
    _refuse_unlike(opened)
    joined = [
        joins.read(key, path, found[0].parent, opened.text)
        for key, path in (data.joins or {}).items()
    ]
    schema = _schema(data, by, task, opened, joined)
    plan = _own(schema, joined).read_plan(
        task, data.missing == "mean", data.missing_target == "drop"
    )

    def read_file(file: Path) -> Iterator[Table]:
        return map(plan.with_targets, opened.batches(file, plan))

    asked = [data.name, plan.key(), opened.how, by.kind]
    table, data_digest, cached = cache.read_table(
        found, asked, lambda: _numbered(found, read_file, by)
    )
    if table.left_out:
        note = f"{table.left_out:,} rows have no target ({schema.target}) and are left out"
        schema = replace(schema, notes=[*schema.notes, note])
    path = str(Path(data.path).resolve())
    for each in joined:
        numbers = {name: schema.dates.get(name) for name in schema.numeric}
        join = each.join(numbers, list(schema.categorical), data.missing == "mean")
        table = join.attach(table, path)
        schema = replace(schema, joins=(*schema.joins, join))
    if joined:
        data_digest = joins.all_digests(data_digest, joined)
    return Source(path, table, schema, data_digest=data_digest, cache=cached)


def _schema(
    data: CsvConfig | ParquetConfig,
    by: SplitBy,
    task: str,
    opened: TableFiles,
    joined: list[JoinedFile],
) -> Schema:
    """What each column is for, those of joined tables among them."""
    sample, signs = dict(opened.sample), dict(opened.signs)
    for each in joined:
        if each.key not in opened.sample:
            raise DataError(f"{opened.found[0]}: data.joins names {each.key!r}, which is no column")
        if twice := [name for name in each.names if name in sample]:
            raise DataError(
                f"{each.found[0]}: a column {twice[0]!r} is in another table too: rename one"
            )
        sample |= each.sample(opened.sample[each.key])
        signs |= {name: each.opened.signs[name] for name in each.names if name in each.opened.signs}
    lists = [*opened.lists, *(name for each in joined for name in each.opened.lists)]
    if twice := [name for name in data.lists or {} if name in lists]:
        raise DataError(f"data.lists: {twice[0]!r} holds lists already: nothing separates them")
    named = {*data.drop, *(data.categorical or ())}
    separators = dict.fromkeys((n for n in lists if n not in named), LIST_SEPARATOR)
    options = ColumnOptions(
        data.target, data.numeric, data.categorical, data.drop,
        (by.kind, by.column) if by.column else None,
        data.dates or {}, (data.lists or {}) | separators, [each.key for each in joined],
        data.history or {}, data.weight,
    )  # fmt: skip
    where = str(opened.found[0])
    try:
        schema = infer(sample, opened.n_rows, options, where, task, signs)
    except DataError as error:
        raise DataError(f"{error}{opened.hint()}") from None
    elsewhere = {name for each in joined for name in each.names}
    own = [("target", schema.target), ("split.by", by.column), ("data.weight", data.weight)]
    own += [("data.history", name) for pair in options.history.items() for name in pair]
    for what, name in own:
        if name in elsewhere:
            raise DataError(f"{where}: {what} must name columns of this table, {name!r} is joined")
    return replace(schema, text=opened.text)


def _own(schema: Schema, joined: list[JoinedFile]) -> Schema:
    """The schema without the columns of joined tables."""
    elsewhere = {name for each in joined for name in each.names}
    return replace(
        schema,
        numeric=[name for name in schema.numeric if name not in elsewhere],
        categorical=[name for name in schema.categorical if name not in elsewhere],
        signs={name: sign for name, sign in schema.signs.items() if name not in elsewhere},
    )


def _refuse_unlike(opened: TableFiles) -> None:
    """All files of a table have the same columns in the same order."""
    first, *others = opened.found
    names = list(opened.sample)
    for file in others:
        other = opened.names_of(file)
        if other != names:
            raise DataError(
                f"{file}: expected the columns of {first.name} ({', '.join(names[:8])}), "
                f"got {', '.join(other[:8])}"
            )


def _of_libsvm(data: LibsvmConfig, by: SplitBy) -> Source:
    from fmexp.data import cache, files, libsvm

    found = files.find(data.path)
    if by.column:
        raise DataError(
            f"split.by={by} names a column, but libsvm text has none: use files or null"
        )
    table, data_digest, cached = cache.read_table(
        found, [data.name, by.kind], lambda: _numbered(found, libsvm.training_batches, by)
    )
    assert table.block is not None
    first = int(table.block.indices.min(initial=1) > 0)
    schema = Schema(libsvm.TARGET, notes=[f"features are numbered from {first}"])
    path = str(Path(data.path).resolve())
    return Source(path, table, schema, first=first, data_digest=data_digest, cache=cached)


def _numbered(
    found: list[Path], read_batches: Callable[[Path], Iterator[Table]], by: SplitBy
) -> Iterator[Table]:
    """The tables of all files, with the file's name as a column where the split needs it."""
    names = Dictionary()
    for file in found:
        code = names.codes_of([file.name])
        for table in read_batches(file):
            if by.kind == "files":
                column = Text(np.repeat(code, len(table)), names.names)
                yield replace(table, columns=table.columns | {FILE: column})
            else:
                yield table
