"""The raw table behind a data configuration, with the role of each column."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fmexp.config.schema import (
    CsvConfig,
    DataConfig,
    DiabetesConfig,
    GaussianConfig,
    LibsvmConfig,
    NotebookConfig,
    NotebookTorchConfig,
    ParquetConfig,
    PlantedConfig,
)
from fmexp.data import budget, synthetic
from fmexp.data.split import FILE, SplitBy
from fmexp.data.table import Dictionary, Table, Text, stack
from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fmexp.data.cache import CachedTable
    from fmexp.data.csv import Dialect
    from fmexp.data.schema import ReadPlan, Schema

CACHES = Path(".fmexp", "cache")
"""Under the working directory; can be removed at any time."""

DIABETES = Path(__file__).with_name("diabetes.csv")


@dataclass(frozen=True)
class Source:
    """A raw table and what is known of it.

    Attributes:
        description: where it came from: a path, or how it was generated.
        table: features and target.
        target: the target's column.
        numeric: columns of numbers.
        categorical: columns of names.
        noise_floor: expected loss of the true model, where there is one.
        notes: what was inferred, in sentences for the user.
        first: number of the first feature of a block of sparse rows.
        dates: how numeric columns are written that hold dates.
        data_digest: hash of the files' bytes; None where there are no files.
        cache: the table's files, where it is mapped from some; else None.
    """

    description: str
    table: Table
    target: str
    numeric: list[str]
    categorical: list[str]
    noise_floor: float | None = None
    notes: tuple[str, ...] = ()
    first: int = 0
    dates: Mapping[str, str] = field(default_factory=dict)
    data_digest: str | None = None
    cache: CachedTable | None = None

    def columns_digest(self) -> str:
        """Hash of every cell of the table."""
        return self.cache.columns_digest if self.cache else self.table.digest()


def read(data: DataConfig, by: SplitBy, task: str) -> Source:
    """Read or generate the table.

    Raises:
        DataError: it cannot be used as it is.
        MissingPackageError: the source needs a package that is not installed.
    """
    if isinstance(data, PlantedConfig | GaussianConfig | NotebookConfig | NotebookTorchConfig):
        _claim_generated(data)
    match data:
        case CsvConfig() | ParquetConfig():
            return _columns_of_files(data, by, task)
        case LibsvmConfig():
            return _libsvm(data, by)
        case DiabetesConfig():
            return _by_kind("442 diabetes patients (Efron et al. 2004)", _diabetes())
        case NotebookConfig():
            return _by_kind(_recipe(data), synthetic.notebook(data))
        case NotebookTorchConfig():
            return _by_kind(_recipe(data), synthetic.notebook_torch(data))
        case GaussianConfig():
            return _by_kind(_recipe(data), synthetic.gaussian(data))
        case PlantedConfig():
            return _by_kind(_recipe(data), *synthetic.planted(data, task))


def _claim_generated(
    data: PlantedConfig | GaussianConfig | NotebookConfig | NotebookTorchConfig,
) -> None:
    """State the memory of a table before it is generated: the table, and what it is made from."""
    width = float(data.columns)
    if isinstance(data, PlantedConfig):
        width += data.k
        if data.fields:
            width = data.fields / 2 + 3 * data.k
    budget.claim(
        2 * 8 * (width + 1) * data.rows, "the generated rows", "generate fewer (data.rows)"
    )


def _diabetes() -> Table:
    """The table of scikit-learn's load_diabetes(scaled=False): diabetes.csv beside this file.

    Source: B. Efron, T. Hastie, I. Johnstone, R. Tibshirani, "Least Angle Regression", Annals of
    Statistics 32 (2004); https://www4.stat.ncsu.edu/~boos/var.select/diabetes.html. Ten
    measurements of 442 patients and the progression of the disease one year later.
    """
    lines = DIABETES.read_text(encoding="utf-8").splitlines()
    names = lines[0].split(",")
    cells = np.array(",".join(lines[1:]).split(","), np.float64).reshape(-1, len(names))
    return Table({name: np.ascontiguousarray(cells[:, j]) for j, name in enumerate(names)})


def _by_kind(description: str, table: Table, noise_floor: float | None = None) -> Source:
    """The last column is the target; the others are what they hold."""
    *names, target = table.columns
    categorical = [name for name in names if isinstance(table.columns[name], Text)]
    numeric = [name for name in names if not isinstance(table.columns[name], Text)]
    return Source(description, table, target, numeric, categorical, noise_floor)


def _recipe(data: DataConfig) -> str:
    """How a table was generated, in one line."""
    keys = {k: v for k, v in vars(data).items() if k not in ("name", "standardize")}
    return f"{data.name}({', '.join(f'{key}={value}' for key, value in keys.items())})"


def _columns_of_files(data: CsvConfig | ParquetConfig, by: SplitBy, task: str) -> Source:
    from fmexp.data import files, schema

    found = files.find(data.path)
    roles, read_batches = schema_of(data, found, by, task)
    plan = _plan_of(data, roles, by, task)
    dialect = str(dialect_of(data, found[0])) if isinstance(data, CsvConfig) else ""
    asked = [data.name, plan.numbers, plan.texts, plan.dates, dialect, by.kind]
    asked += [sorted(roles.missing_labels), data.missing_target]

    def read_file(file: Path) -> Iterator[Table]:
        tables = read_batches(file, plan)
        if data.missing_target == "error":
            return tables
        return (schema.without_missing_targets(table, roles) for table in tables)

    table, cache, data_digest = _table(found, asked, lambda: _numbered(found, read_file, by))
    notes = list(roles.notes)
    if table.left_out:
        notes.append(f"{table.left_out:,} rows have no target ({roles.target}) and are left out")
    return Source(
        description=str(Path(data.path).resolve()),
        table=table,
        target=roles.target,
        numeric=roles.numeric,
        categorical=roles.categorical,
        notes=tuple(notes),
        dates=roles.dates,
        data_digest=data_digest,
        cache=cache,
    )


def schema_of(
    data: CsvConfig | ParquetConfig, found: list[Path], by: SplitBy, task: str
) -> tuple[Schema, Callable[[Path, ReadPlan], Iterator[Table]]]:
    """The schema of a table in files, and the function that reads each of them.

    Raises:
        DataError: the first file has no usable columns, or the others have different ones.
    """
    from fmexp.data import csv, files, parquet, schema

    split_by = (by.kind, by.column) if by.column else None
    options = schema.ColumnOptions(
        data.target, data.numeric, data.categorical, data.drop, split_by, data.dates or {}
    )
    if isinstance(data, ParquetConfig):
        sample = parquet.sample(found[0])
        _refuse_unlike(found, list(sample), parquet.names)
        n_rows = sum(map(parquet.n_rows, found))
        return schema.infer(sample, n_rows, options, str(found[0]), task), parquet.batches
    dialect = dialect_of(data, found[0])
    sample = csv.sample(found[0], dialect)
    _refuse_unlike(found, list(sample), lambda file: csv.header(file, dialect))
    estimate = csv.estimate_rows(sample, sum(map(files.unpacked_size, found)))
    roles = schema.infer(sample, estimate, options, str(found[0]), task)
    return roles, lambda file, plan: csv.batches(file, dialect, plan)


def dialect_of(data: CsvConfig, file: Path) -> Dialect:
    """How the file is written, as told or as found out."""
    from fmexp.data import csv

    return csv.sniff(file, data.delimiter, data.encoding, data.quoting, data.names)


def _refuse_unlike(
    found: list[Path], names: list[str], names_of: Callable[[Path], list[str]]
) -> None:
    """All files of a data set have the same columns in the same order."""
    for file in found[1:]:
        other = names_of(file)
        if other != names:
            raise DataError(
                f"{file}: expected the columns of {found[0].name} ({', '.join(names[:8])}), "
                f"got {', '.join(other[:8])}"
            )


def _plan_of(data: CsvConfig | ParquetConfig, roles: Schema, by: SplitBy, task: str) -> ReadPlan:
    """What the readers are to read: the schema's columns and the one that decides the parts."""
    from fmexp.data.schema import ReadPlan

    numbers, texts = roles.kinds(task, by.column)
    may_miss = set(roles.numeric) if data.missing == "mean" else set()
    may_miss |= {roles.target} if data.missing_target == "drop" else set()
    return ReadPlan({n: n in may_miss for n in numbers}, texts, roles.dates, roles.target)


def _libsvm(data: LibsvmConfig, by: SplitBy) -> Source:
    from fmexp.data import files, libsvm

    found = files.find(data.path)
    if by.column:
        raise DataError(
            f"split.by={by} names a column, but libsvm text has none: use files or null"
        )
    read_all = partial(_numbered, found, libsvm.batches, by)
    table, cache, data_digest = _table(found, [data.name, by.kind], read_all)
    assert table.block is not None
    first = int(table.block.indices.min(initial=1) > 0)
    return Source(
        description=str(Path(data.path).resolve()),
        table=table,
        target=libsvm.TARGET,
        numeric=[],
        categorical=[],
        notes=(f"features are numbered from {first}",),
        first=first,
        data_digest=data_digest,
        cache=cache,
    )


def _table(
    found: list[Path], asked: object, read_all: Callable[[], Iterator[Table]]
) -> tuple[Table, CachedTable | None, str]:
    """All rows, in memory or mapped from the cache where the files are large; the files' hash."""
    from fmexp.data import cache, files

    n_bytes = sum(file.stat().st_size for file in found)
    if n_bytes >= cache.SMALLEST:
        cached = cache.table_in_files(found, asked, read_all, CACHES)
        return cached.table, cached, cached.data_digest
    tables = list(read_all())
    if not any(map(len, tables)):
        raise DataError(f"{found[0]} holds no rows" + (" with a target" if tables else ""))
    return stack(tables), None, files.digest(found)


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
