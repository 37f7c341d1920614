"""The schema of the configuration: every key, its type and its limits."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal


@dataclass(frozen=True)
class Bounds:
    """Limits of a number: at_least <= x <= at_most, x > above, x < below."""

    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None

    def __str__(self) -> str:
        if self.at_least is not None and self.at_most is not None:
            return f"from {self.at_least:,} to {self.at_most:,}"
        signs = {">=": self.at_least, ">": self.above, "<=": self.at_most, "<": self.below}
        return " and ".join(f"{sign} {x:,}" for sign, x in signs.items() if x is not None)

    def hold(self, x: float) -> bool:
        """Whether x lies within the limits; NaN and the infinities never do."""
        return (
            abs(x) < math.inf
            and (self.at_least is None or x >= self.at_least)
            and (self.at_most is None or x <= self.at_most)
            and (self.above is None or x > self.above)
            and (self.below is None or x < self.below)
        )


Seed = Annotated[int, Bounds(0, 2**32 - 1)]
Count = Annotated[int, Bounds(1, 10**9)]
Positive = Annotated[float, Bounds(above=0)]
NotNegative = Annotated[float, Bounds(0)]
Fraction = Annotated[float, Bounds(0, below=1)]
Dtype = Literal["float32", "float64"]


STARTS = ("normal", "notebook")
"""`model.start` that is no run or folder."""


@dataclass
class ModelConfig:
    """`model.*`; init_stdev is the standard deviation of V's normal draw (w0 and w start at 0)."""

    k: Annotated[int, Bounds(1, 4096)]
    init_stdev: NotNegative
    start: str
    clip: bool


@dataclass
class EarlyStoppingConfig:
    """`training.early_stopping.*`: stop after `patience` epochs without a relative gain."""

    patience: Annotated[int, Bounds(1, 10**9)] | None
    min_delta: Fraction


@dataclass
class TrainingConfig:
    """`training.*`; epoch e (from 0) trains at learning_rate / (1 + learning_rate_decay e).

    From epoch `average_from` (from 1) on, the model is the mean of the parameters after each epoch
    since (Polyak and Juditsky 1992); training goes on from the last ones.

    With `cap_steps`, numpy_sgd takes a row at the rate min(rate, c / G), where G is
    |d y_hat / d parameters|^2 and c is 1 for squared error, 4 for log loss.
    """

    learning_rate: Positive
    epochs: Count
    shuffle: bool
    reg_w0: NotNegative
    reg_w: NotNegative
    reg_V: NotNegative  # noqa: N815 (the paper's letter)
    learning_rate_decay: NotNegative
    average_from: Count | None
    cap_steps: bool
    early_stopping: EarlyStoppingConfig


@dataclass
class NumpySgdConfig:
    """`backend=numpy_sgd`: one update per row, compiled by Numba."""

    name: Literal["numpy_sgd"]
    dtype: Dtype


@dataclass
class TorchAdamConfig:
    """`backend=torch_adam`: batch_size null takes all rows at once."""

    name: Literal["torch_adam"]
    dtype: Dtype
    batch_size: Count | None
    device: Literal["auto", "cpu", "cuda"]


@dataclass
class GibbsConfig:
    """`backend=gibbs`: samples from the posterior; training.epochs counts sweeps over the data.

    The first `burn_in` sweeps are thrown away (null: a fifth of them). Predictions are means over
    `kept` samples of the others, evenly spaced. The result does not depend on `threads` (null: as
    many as OMP_NUM_THREADS says, else as the process may use).
    """

    name: Literal["gibbs"]
    burn_in: Annotated[int, Bounds(0, 10**9)] | None
    kept: Annotated[int, Bounds(1, 10**6)]
    threads: Annotated[int, Bounds(1, 1024)] | None


@dataclass
class DiabetesConfig:
    """`data=diabetes`: 442 patients, 10 measurements, shipped with fmexp."""

    name: Literal["diabetes"]
    standardize: bool


@dataclass
class NotebookConfig:
    """`data=notebook`: integers minimum..maximum, uniform targets, NumPy's legacy stream."""

    name: Literal["notebook"]
    standardize: bool
    rows: Count
    columns: Count
    minimum: int
    maximum: int
    seed: Seed


@dataclass
class NotebookTorchConfig:
    """`data=notebook_torch`: standard normal features and targets from torch's stream."""

    name: Literal["notebook_torch"]
    standardize: bool
    rows: Count
    columns: Count
    seed: Seed


@dataclass
class GaussianConfig:
    """`data=gaussian`: standard normal features and targets; nothing to learn."""

    name: Literal["gaussian"]
    standardize: bool
    rows: Count
    columns: Count
    seed: Seed


@dataclass
class PlantedConfig:
    """`data=planted`: rows from a known FM with noise; fields > 0 makes one-hot rows."""

    name: Literal["planted"]
    standardize: bool
    rows: Count
    columns: Count
    fields: Annotated[int, Bounds(0, 10**6)]
    k: Annotated[int, Bounds(1, 4096)]
    noise: NotNegative
    seed: Seed


@dataclass
class ColumnsConfig:
    """What `data=csv` and `data=parquet` share: columns by name; what is null is found out."""

    standardize: bool
    path: str
    target: str | None
    categorical: list[str] | None
    numeric: list[str] | None
    drop: list[str]
    dates: dict[str, str] | None
    date_parts: list[Literal["weekday", "month", "hour"]]
    lists: dict[str, str] | None
    list_weight: Literal["sqrt", "mean", "one"]
    joins: dict[str, str] | None
    history: dict[str, str] | None
    history_own: bool
    min_count: Count
    missing: Literal["error", "mean"]
    missing_target: Literal["error", "drop"]
    weight: str | None


@dataclass
class CsvConfig(ColumnsConfig):
    """`data=csv`: delimited text."""

    name: Literal["csv"]
    delimiter: str | None
    encoding: str
    quoting: bool
    names: list[str] | None
    skip_rows: Annotated[int, Bounds(0, 10**9)]
    decimal: Literal[".", ","]
    thousands: Literal[",", ".", " ", "'", "_"] | None
    missing_values: list[str]


@dataclass
class ParquetConfig(ColumnsConfig):
    """`data=parquet`: nothing that only text needs."""

    name: Literal["parquet"]


@dataclass
class LibsvmConfig:
    """`data=libsvm`: lines of `target number:value number:value ...`, as libsvm and libFM write."""

    name: Literal["libsvm"]
    standardize: bool
    path: str


@dataclass
class SplitConfig:
    """`split.*`: fractions of the rows, and what decides them.

    by: null (random rows), group:COLUMN, time:COLUMN, column:COLUMN or files.
    """

    validation: Fraction
    test: Fraction
    by: str | None
    seed: Seed


@dataclass
class MlflowConfig:
    """`tracking=mlflow`."""

    name: Literal["mlflow"]
    uri: str | None
    experiment: str
    run_name: str | None
    tags: dict[str, str]
    prediction_rows: Count


@dataclass
class NoTrackingConfig:
    """`tracking=none`: nothing is kept."""

    name: Literal["none"]


BackendConfig = NumpySgdConfig | TorchAdamConfig | GibbsConfig
DataConfig = (
    DiabetesConfig | NotebookConfig | NotebookTorchConfig | GaussianConfig | PlantedConfig
    | CsvConfig | ParquetConfig | LibsvmConfig
)  # fmt: skip
TrackingConfig = MlflowConfig | NoTrackingConfig


@dataclass
class Config:
    """The whole configuration of one run."""

    seed: Seed
    task: Literal["regression", "classification"]
    model: ModelConfig
    training: TrainingConfig
    backend: BackendConfig
    data: DataConfig
    split: SplitConfig
    tracking: TrackingConfig

    @property
    def loss(self) -> str:
        """The name of the loss in curves and metrics."""
        return "mse" if self.task == "regression" else "logloss"


MAPPINGS = frozenset(["data.dates", "data.lists", "data.joins", "data.history"])
"""Keys whose value is a mapping: its names are the user's and no keys."""


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted leaves of a nested dict; a group's `name` stands under the group's own name.

    >>> flatten({"backend": {"name": "numpy_sgd", "dtype": "float64"}, "seed": 0})
    {'backend': 'numpy_sgd', 'backend.dtype': 'float64', 'seed': 0}
    """
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        path = prefix[:-1] if key == "name" and prefix else f"{prefix}{key}"
        if isinstance(value, dict) and path not in MAPPINGS:
            leaves |= flatten(value, f"{path}.")
        else:
            leaves[path] = value
    return leaves


def config_hash(tree: dict[str, Any]) -> str:
    """Hash of what decides a result: every leaf but those of `tracking`; 16 hexadecimal digits."""
    leaves = {k: v for k, v in flatten(tree).items() if k.partition(".")[0] != "tracking"}
    return hashlib.sha256(json.dumps(leaves, sort_keys=True).encode()).hexdigest()[:16]
