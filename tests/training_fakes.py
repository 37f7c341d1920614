"""Small configurations and datasets for the tests of the maths."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fmexp.config.schema import (
    Config,
    EarlyStoppingConfig,
    GaussianConfig,
    GibbsConfig,
    ModelConfig,
    NoTrackingConfig,
    NumpySgdConfig,
    SplitConfig,
    TorchAdamConfig,
    TrainingConfig,
)
from fmexp.data.dataset import Part
from fmexp.data.features import CSR
from fmexp.data.related import FeatureRows
from fmexp.fm import Parameters

KEYS = {"k": 3, "init_stdev": 0.1, "start": "normal", "clip": False}
KEYS |= {"learning_rate": 0.01, "epochs": 5, "shuffle": False, "learning_rate_decay": 0.0}
KEYS |= {"reg_w0": 0.0, "reg_w": 0.0, "reg_V": 0.0, "patience": None, "min_delta": 0.0}
KEYS |= {"average_from": None, "cap_steps": False}
KEYS |= {"burn_in": None, "kept": 64, "threads": 1}
KEYS |= {"seed": 0, "task": "regression", "dtype": "float64", "batch_size": None}


def make_config(backend: str = "numpy_sgd", **changes: Any) -> Config:
    """A configuration, keys without their groups."""
    assert set(changes) <= set(KEYS), changes
    key = KEYS | changes
    backends = {
        "numpy_sgd": NumpySgdConfig("numpy_sgd", key["dtype"]),
        "torch_adam": TorchAdamConfig("torch_adam", key["dtype"], key["batch_size"], "cpu"),
        "gibbs": GibbsConfig("gibbs", key["burn_in"], key["kept"], key["threads"]),
    }
    stopping = EarlyStoppingConfig(key["patience"], key["min_delta"])
    training = ("learning_rate", "epochs", "shuffle", "reg_w0", "reg_w", "reg_V")
    return Config(
        seed=key["seed"],
        task=key["task"],
        model=ModelConfig(key["k"], key["init_stdev"], key["start"], key["clip"]),
        training=TrainingConfig(
            **{name: key[name] for name in training},
            learning_rate_decay=key["learning_rate_decay"],
            average_from=key["average_from"],
            cap_steps=key["cap_steps"],
            early_stopping=stopping,
        ),
        backend=backends[backend],
        data=GaussianConfig("gaussian", True, 10, 3, 0),
        split=SplitConfig(0.0, 0.0, None, 0),
        tracking=NoTrackingConfig("none"),
    )


@dataclass
class FakeEncoder:
    """What training looks at."""

    feature_names: list[str]
    target_offset: float = 0.0
    target_scale: float = 1.0

    @property
    def n_features(self) -> int:
        return len(self.feature_names)


@dataclass
class FakeDataset:
    """As `fmexp.data.dataset.Dataset`, without a table."""

    train: Part
    validation: Part | None
    encoder: FakeEncoder


def make_dataset(
    features: FeatureRows, target: np.ndarray, n_validation: int = 0, target_scale: float = 1.0
) -> Any:
    """The last `n_validation` rows are for validation."""
    n = len(target) - n_validation
    names = [f"x{j}" for j in range(features.shape[1])]
    validation = take(features, target, range(n, len(target))) if n_validation else None
    encoder = FakeEncoder(names, target_scale=target_scale)
    return FakeDataset(take(features, target, range(n)), validation, encoder)


def take(features: FeatureRows, target: np.ndarray, rows: range) -> Part:
    """A part of consecutive rows."""
    some = slice(rows.start, rows.stop)
    if isinstance(features, np.ndarray):
        chosen: FeatureRows = np.ascontiguousarray(features[some])
    else:
        chosen = features.take(some)
    return Part(chosen, target[some], np.asarray(rows))


def to_csr(X: np.ndarray, one_hot: bool = False) -> CSR:
    """Dense rows as CSR; one_hot leaves out the values, which must all be 1."""
    rows = CSR.from_dense(X)
    assert not one_hot or (rows.values == 1).all()
    return replace(rows, values=None) if one_hot else rows


def random_parameters(n_features: int, k: int, seed: int = 0, scale: float = 0.3) -> Parameters:
    """Nothing at zero."""
    g = np.random.default_rng(seed)
    return Parameters(
        0.3, g.normal(size=n_features) * scale, g.normal(size=(n_features, k)) * scale
    )


def random_rows(n_rows: int, n_features: int, seed: int = 0, density: float = 1.0) -> np.ndarray:
    """Dense rows with zeros where `density` says so."""
    g = np.random.default_rng(seed)
    return g.normal(size=(n_rows, n_features)) * (g.random((n_rows, n_features)) < density)
