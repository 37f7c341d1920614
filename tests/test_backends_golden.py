"""numpy_sgd gives the bits that were written down on another machine: digests for each layout."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fmexp.config.compose import compose, parse_arguments
from fmexp.data.loading import load
from fmexp.experiment.artifacts import write_curves
from fmexp.training.fitting import fit
from tests.training_fakes import make_config, make_dataset, to_csr

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS = f"numba {version('numba')}, numpy {version('numpy')}"

CURVES = {
    "numba 0.68.1, numpy 2.4.6": {
        "diabetes": "5f3c32028edaede50d29f4d6f1f3dee30daaa1a38ae49897c2cb01284100aedb",
        "planted": "c67aeddb1379c536aeffa14f0b128d1265be5a39d3295e3ed2c12e67118d4541",
    }
}
"""SHA-256 of curve.csv, by the versions of what compiles and draws. First seen on an AMD EPYC."""

MODELS = {
    "numba 0.68.1, numpy 2.4.6": {
        "dense regression float64": "b5637efcc7e43991 3672d35e5ab1442a",
        "dense regression float32": "016899ccff0d68a8 9cee73db80a95632",
        "dense classification float64": "887da5192bbb20ef e03a2e11c56fc811",
        "dense classification float32": "29aa0f6fd89e4111 1fcee6e2e7f4d2f0",
        "csr regression float64": "a9e3dcdde0dc6062 eee9391f9550dbf0",
        "csr regression float32": "bfa8b109fd38f071 a4c5d6f6ae9bdbd9",
        "csr classification float64": "25761c1ea5df8c8e 6f995213dc0cda93",
        "csr classification float32": "45cf0e32120346f1 aec6c73642c4fbcd",
        "one-hot regression float64": "0c39d3be76a5be5c 982f4af1fc0874e9",
        "one-hot regression float32": "04f8ffeef73333cb 77c13b7014fd2e93",
        "one-hot classification float64": "140ff7ecc791dc26 ee28e7e5fd0ff157",
        "one-hot classification float32": "ac5c0cb411527b42 56c63beae765f8ab",
        "csr wide regression float64": "4e2a8ed1e3901169 f0762405af0f7231",
        "csr wide regression float32": "0971edc9afbdd7ac 3286b76a46c69a1e",
        "csr wide classification float64": "ccc5b8bc61aa6d1b e33ee72dc39f948f",
        "csr wide classification float32": "1b5e60a7aa429f7f cb03351b0534a2f4",
    }
}
"""First digits of the SHA-256 of curves and parameters: steps as they come, steps capped."""

KEYS = [
    "seed=0", "task=regression", "model.k=8", "model.init_stdev=0.05", "model.start=normal",
    "model.clip=false", "training.learning_rate=0.007", "training.epochs=50",
    "training.shuffle=true", "training.reg_w0=0", "training.reg_w=0.01", "training.reg_V=0.01",
    "training.learning_rate_decay=0.01", "training.average_from=null", "training.cap_steps=false",
    "training.early_stopping.patience=null", "training.early_stopping.min_delta=0",
    "backend=numpy_sgd", "backend.dtype=float64", "data.standardize=true", "split.validation=0.2",
    "split.test=0.2", "split.by=null", "split.seed=0", "tracking=none",
]  # fmt: skip
"""Every key of the defaults of November 2026."""

DATA = {
    "diabetes": ["data=diabetes"],
    "planted": ["data=planted", "data.rows=2000", "data.columns=10", "data.fields=0", "data.k=4",
                "data.noise=0.5", "data.seed=0"],
}  # fmt: skip

LAYOUTS = ["dense", "csr", "one-hot", "csr wide"]


def written_down(digests: dict[str, dict[str, str]]) -> dict[str, str]:
    if VERSIONS not in digests:
        pytest.skip(f"digests are of other versions than {VERSIONS}")
    return digests[VERSIONS]


@pytest.mark.parametrize("name", DATA)
def test_the_default_runs_curve_is_the_one_written_down(name: str, tmp_path: Path) -> None:
    config = compose(parse_arguments([*DATA[name], *KEYS])).config
    data = load(config.data, config.split, config.task)
    write_curves(tmp_path / "curve.csv", config.loss, {0: fit(config, data)})
    digest = hashlib.sha256((tmp_path / "curve.csv").read_bytes()).hexdigest()
    assert digest == written_down(CURVES)[name]


def digest_of(layout: str, dtype: str, task: str, cap_steps: bool) -> str:
    """Trains on numbers that are whole multiples of 1/16, so equal wherever they are drawn."""
    g, n_rows, n_features = np.random.default_rng(7), 90, 19
    X = g.integers(-16, 17, (n_rows, n_features)) / 16 * (g.random((n_rows, n_features)) < 0.4)
    X = (X != 0) * 1.0 if layout == "one-hot" else X
    y = (
        g.integers(0, 2, n_rows) * 1.0
        if task == "classification"
        else g.integers(-9, 10, n_rows) / 4
    )
    rate = (0.2 if layout == "one-hot" else 0.4) * (1.0 if task == "regression" else 4.0)
    config = make_config(
        k=70 if "wide" in layout else 8, dtype=dtype, task=task, cap_steps=cap_steps,
        learning_rate=rate if cap_steps else 0.02, reg_w0=0.02, reg_w=0.05, reg_V=0.1,
        learning_rate_decay=0.1, epochs=10, shuffle=True,
    )  # fmt: skip
    rows = X if layout == "dense" else to_csr(X, one_hot=layout == "one-hot")
    done = fit(config, make_dataset(rows, y, 20))
    assert (0 < done.capped < 1) == cap_steps
    kept = done.parameters
    numbers = [done.train_losses, done.validation_losses, [kept.w0], kept.w, kept.V.ravel()]
    return hashlib.sha256(np.concatenate(numbers).tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_gives_the_model_that_is_written_down(
    layout: str, task: str, dtype: str
) -> None:
    found = [digest_of(layout, dtype, task, cap_steps) for cap_steps in (False, True)]
    assert " ".join(found) == written_down(MODELS)[f"{layout} {task} {dtype}"]
