"""Tables that need no file of the user's: patients, and rows that are generated from a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fmexp.config.schema import (
    DiabetesConfig,
    GaussianConfig,
    NotebookConfig,
    NotebookTorchConfig,
    PlantedConfig,
)
from fmexp.data import budget
from fmexp.data.table import Column, Table, Text
from fmexp.errors import MissingPackageError

TARGET = "y"

DIABETES = Path(__file__).with_name("diabetes.csv")

Generated = PlantedConfig | GaussianConfig | NotebookConfig | NotebookTorchConfig


def table_of(data: Generated | DiabetesConfig, task: str) -> tuple[str, Table, float | None]:
    """The table that a configuration names; its last column is the target.

    Returns:
        How it came to be, the table, and the expected loss of the true model where there is one.

    Raises:
        DataError: it does not fit into memory.
        MissingPackageError: it needs torch, which is not installed.
    """
    if isinstance(data, DiabetesConfig):
        return "442 diabetes patients (Efron et al. 2004)", diabetes(), None
    _claim_memory(data)
    keys = {k: v for k, v in vars(data).items() if k not in ("name", "standardize")}
    recipe = f"{data.name}({', '.join(f'{key}={value}' for key, value in keys.items())})"
    if isinstance(data, PlantedConfig):
        return recipe, *planted(data, task)
    if isinstance(data, GaussianConfig):
        return recipe, gaussian(data), None
    if isinstance(data, NotebookConfig):
        return recipe, notebook(data), None
    return recipe, notebook_torch(data), None


def _claim_memory(data: Generated) -> None:
    """State the memory of a table before it is generated: the table, and what it is made from."""
    width = float(data.columns)
    if isinstance(data, PlantedConfig):
        width += data.k
        if data.fields:
            width = data.fields / 2 + 3 * data.k
    budget.claim(
        2 * 8 * (width + 1) * data.rows, "the generated rows", "generate fewer (data.rows)"
    )


def diabetes() -> Table:
    """The table of scikit-learn's load_diabetes(scaled=False): diabetes.csv beside this file.

    Source: B. Efron, T. Hastie, I. Johnstone, R. Tibshirani, "Least Angle Regression", Annals of
    Statistics 32 (2004); https://www4.stat.ncsu.edu/~boos/var.select/diabetes.html. Ten
    measurements of 442 patients and the progression of the disease one year later.
    """
    lines = DIABETES.read_text(encoding="utf-8").splitlines()
    names = lines[0].split(",")
    cells = np.array(",".join(lines[1:]).split(","), np.float64).reshape(-1, len(names))
    return Table({name: np.ascontiguousarray(cells[:, j]) for j, name in enumerate(names)})


def notebook(config: NotebookConfig) -> Table:
    """The notebook's integers, minimum to maximum (both included), and uniform targets.

    Features and targets each start NumPy's legacy stream anew from the seed, as the notebook did.
    """
    shape = config.rows, config.columns
    X = np.random.RandomState(config.seed).randint(config.minimum, config.maximum + 1, shape)
    y = np.random.RandomState(config.seed).rand(config.rows)
    return _numbers(X, y, first=1)


def notebook_torch(config: NotebookTorchConfig) -> Table:
    """The notebook's normal features and targets from one torch stream, float32 values.

    Raises:
        MissingPackageError: torch is not installed.
    """
    try:
        import torch
    except ImportError:
        raise MissingPackageError(
            "data=notebook_torch draws its rows with torch, which is not installed: "
            "pip install 'fmexp[torch]'"
        ) from None
    stream = torch.Generator().manual_seed(config.seed)
    X = torch.randn(config.rows, config.columns, generator=stream)
    y = torch.randn(config.rows, generator=stream)
    return _numbers(X.numpy(), y.numpy(), first=0)


def gaussian(config: GaussianConfig) -> Table:
    """Standard normal features and targets: there is nothing to learn."""
    stream = np.random.default_rng(config.seed)
    X = stream.standard_normal((config.rows, config.columns))
    return _numbers(X, stream.standard_normal(config.rows), first=0)


def planted(config: PlantedConfig, task: str) -> tuple[Table, float]:
    """Rows of a Factorization Machine with known parameters, and the loss that it has itself.

    The linear part and the interactions each give half of the score's variance of 1. In
    regression the target is score + noise * normal. In classification it is 1 where
    score + noise * logistic > 0, so that P(1) = sigmoid(score / noise).

    Returns:
        The table and its noise floor: the expected mean squared error (or log loss) of the true
        model.
    """
    stream = np.random.default_rng(config.seed)
    columns, score = (_one_hot if config.fields else _dense)(config, stream)
    if task == "classification":
        noise = stream.logistic(size=config.rows) * config.noise
        labels = (score + noise > 0).astype(np.float64)
        return Table(columns | {TARGET: labels}), _log_loss_floor(score, config.noise)
    target = score + stream.standard_normal(config.rows) * config.noise
    return Table(columns | {TARGET: target}), config.noise**2


def _numbers(X: np.ndarray, y: np.ndarray, first: int) -> Table:
    """A table of numeric columns that are named by their number."""
    columns: dict[str, Column] = {
        str(first + j): np.ascontiguousarray(X[:, j], dtype=np.float64) for j in range(X.shape[1])
    }
    return Table(columns | {TARGET: y.astype(np.float64)})


def _dense(
    config: PlantedConfig, stream: np.random.Generator
) -> tuple[dict[str, Column], np.ndarray]:
    """Standard normal features, named 0, 1, ..., and their scores."""
    n, k = config.columns, config.k
    w = stream.normal(scale=np.sqrt(0.5 / n), size=n)
    V = stream.normal(scale=_factor_stdev(n, k), size=(n, k))
    X = stream.standard_normal((config.rows, n))
    square_of_sum = np.square(X @ V).sum(axis=1)
    sum_of_squares = np.square(X) @ np.square(V).sum(axis=1)
    score = X @ w + 0.5 * (square_of_sum - sum_of_squares)
    return {str(j): np.ascontiguousarray(X[:, j]) for j in range(n)}, score


def _one_hot(
    config: PlantedConfig, stream: np.random.Generator
) -> tuple[dict[str, Column], np.ndarray]:
    """One category per field, uniformly drawn, and the scores of the rows."""
    k, n_fields = config.k, config.fields
    score = np.zeros(config.rows)
    sum_V, sum_of_squares = np.zeros((config.rows, k)), np.zeros(config.rows)
    columns: dict[str, Column] = {}
    for field in range(n_fields):
        n = config.columns // n_fields + (field < config.columns % n_fields)
        w = stream.normal(scale=np.sqrt(0.5 / n_fields), size=n)
        V = stream.normal(scale=_factor_stdev(n_fields, k), size=(n, k))
        codes = stream.integers(n, size=config.rows, dtype=np.int32)
        score += w[codes]
        sum_V += V[codes]
        sum_of_squares += np.square(V).sum(axis=1)[codes]
        columns[f"field_{field}"] = Text(codes, [str(c) for c in range(n)])
    return columns, score + 0.5 * (np.square(sum_V).sum(axis=1) - sum_of_squares)


def _factor_stdev(n: int, k: int) -> float:
    """The deviation of V at which n(n-1)/2 pairs of unit features add a variance of 1/2."""
    return float((1 / (max(n * (n - 1), 1) * k)) ** 0.25)


def _log_loss_floor(score: np.ndarray, noise: float) -> float:
    """Expected log loss of the probabilities sigmoid(score / noise)."""
    if noise == 0:
        return 0.0
    margin = score / noise
    p = 1 / (1 + np.exp(-np.clip(margin, -700, 700)))
    return float(np.mean(np.logaddexp(0, margin) - p * margin))
