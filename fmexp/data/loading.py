"""One data configuration in, one encoded and split data set out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fmexp.config import (
    CsvConfig,
    DataConfig,
    DiabetesConfig,
    GaussianConfig,
    NotebookConfig,
    NotebookTorchConfig,
    PlantedConfig,
    SplitConfig,
)
from fmexp.data import generate
from fmexp.data.dataset import Dataset, Part
from fmexp.data.learn import Learning, learn
from fmexp.data.split import split_rows
from fmexp.data.table import Table, Text
from fmexp.errors import DataError

if TYPE_CHECKING:
    from fmexp.data.encode import Encoder

DIABETES = Path(__file__).with_name("diabetes.csv")


@dataclass(frozen=True)
class Source:
    """A raw table and what is known of it.

    Attributes:
        description: where it came from: a path, or how it was generated.
        table: features and target.
        target: the target's column.
        noise_floor: expected loss of the true model, where there is one.
        numeric: columns of numbers.
        categorical: columns of names.
        notes: what was inferred, in sentences for the user.
    """

    description: str
    table: Table
    target: str
    numeric: list[str]
    categorical: list[str]
    noise_floor: float | None = None
    notes: tuple[str, ...] = ()


def load(data: DataConfig, split: SplitConfig, task: str) -> Dataset:
    """Read or generate the table, split its rows, learn the encoding and apply it.

    Args:
        data: which table.
        split: which rows are held out.
        task: regression or classification.

    Raises:
        DataError: the table cannot be used as it is.
        MissingPackageError: the source needs a package that is not installed.
    """
    source = read(data, task)
    table = source.table
    rows = split_rows(len(table), split)
    training = table.take(rows.train)
    learning = Learning(task, data.standardize)
    encoder = learn(lambda: [training], source.target, source.numeric, source.categorical, learning)
    return Dataset(
        name=data.name,
        source=source.description,
        train=_encoded(encoder, training, rows.train),
        validation=_part(encoder, table, rows.validation),
        test=_part(encoder, table, rows.test),
        encoder=encoder,
        data_digest=table.digest(),
        split_digest=rows.digest(),
        noise_floor=source.noise_floor,
        table=table,
        notes=source.notes,
    )


def read(data: DataConfig, task: str) -> Source:
    """The raw table of a data configuration, with the role of each column."""
    match data:
        case DiabetesConfig():
            return _by_kind("442 diabetes patients (Efron et al. 2004)", _diabetes())
        case NotebookConfig():
            return _by_kind(_recipe(data), generate.notebook(data))
        case NotebookTorchConfig():
            return _by_kind(_recipe(data), generate.notebook_torch(data))
        case GaussianConfig():
            return _by_kind(_recipe(data), generate.gaussian(data))
        case PlantedConfig():
            table, floor = generate.planted(data, task)
            return _by_kind(_recipe(data), table, floor)
        case CsvConfig():
            return _delimited(data, task)


def _delimited(data: CsvConfig, task: str) -> Source:
    """A delimited text file, its roles as the user named them or inferred."""
    from fmexp.data import contract, delimited

    path = Path(data.path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"data.path must be a file, {data.path!r} {what}")
    dialect = delimited.Dialect()
    wishes = contract.Wishes(data.target, data.numeric, data.categorical, data.drop)
    roles = contract.infer(delimited.sample(path, dialect), wishes, data.path, task)
    table = delimited.read(path, dialect, roles, task)
    return Source(
        str(path.resolve()),
        table,
        roles.target,
        roles.numeric,
        roles.categorical,
        notes=tuple(roles.notes),
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
    numeric = [name for name in names if name not in categorical]
    return Source(description, table, target, numeric, categorical, noise_floor)


def _recipe(data: DataConfig) -> str:
    """How a table was generated, in one line."""
    keys = {k: v for k, v in vars(data).items() if k not in ("name", "standardize")}
    return f"{data.name}({', '.join(f'{key}={value}' for key, value in keys.items())})"


def _part(encoder: Encoder, table: Table, rows: np.ndarray) -> Part | None:
    return _encoded(encoder, table.take(rows), rows) if len(rows) else None


def _encoded(encoder: Encoder, table: Table, rows: np.ndarray) -> Part:
    return Part(encoder.features(table), encoder.target(table), rows)
