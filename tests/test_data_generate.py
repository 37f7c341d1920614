"""The shipped and the generated tables."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from fmexp.config.schema import (
    DiabetesConfig,
    NotebookConfig,
    NotebookTorchConfig,
    PlantedConfig,
    SplitConfig,
)
from fmexp.data import synthetic
from fmexp.data.features import CSR
from fmexp.data.loading import load
from fmexp.data.table import Text
from fmexp.errors import MissingPackageError

WHOLE = SplitConfig(0, 0, None, 0)
PARTS = SplitConfig(0.2, 0.2, None, 0)


def planted(**changes: object) -> PlantedConfig:
    keys = {"rows": 4000, "columns": 12, "fields": 0, "k": 3, "noise": 0.5, "seed": 0}
    return PlantedConfig("planted", True, **(keys | changes))  # type: ignore[arg-type]


def test_diabetes_is_scikit_learns_table() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    data = load(DiabetesConfig("diabetes", False), WHOLE, "regression")
    theirs = datasets.load_diabetes(scaled=False)
    assert (data.train.features == theirs.data).all()
    assert (data.train.target == theirs.target).all()


def test_loading_diabetes_imports_nothing_heavy() -> None:
    code = """
import sys
from fmexp.config.schema import DiabetesConfig, SplitConfig
from fmexp.data.loading import load
load(DiabetesConfig("diabetes", True), SplitConfig(0.2, 0.2, None, 0), "regression")
print(*{"pyarrow", "pandas", "sklearn", "torch", "numba", "mlflow", "hydra"} & sys.modules.keys())
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""


def test_notebook_rows_are_the_printed_ones() -> None:
    config = NotebookConfig("notebook", False, 100, 8, 0, 5, 42)
    data = load(config, WHOLE, "regression")
    assert data.train.features[0].tolist() == [3, 4, 2, 4, 4, 1, 2, 2]
    printed = [0.374540, 0.950714, 0.731994, 0.598658, 0.156019]
    np.testing.assert_allclose(data.train.target[:5], printed, atol=5e-7)
    assert list(data.raw(np.array([0]))) == ["1", "2", "3", "4", "5", "6", "7", "8"]
    assert (data.validation, data.test) == (None, None)


def test_notebook_torch_rows_are_the_printed_ones() -> None:
    torch = pytest.importorskip("torch")
    config = NotebookTorchConfig("notebook_torch", False, 100, 10, 42)
    data = load(config, WHOLE, "regression")
    torch.manual_seed(42)
    X, y = torch.randn(100, 10), torch.randn(100)
    assert (data.train.features == X.numpy()).all()
    assert (data.train.target == y.numpy()).all()


def test_notebook_torch_without_torch_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'fmexp\[torch\]'"):
        synthetic.notebook_torch(NotebookTorchConfig("notebook_torch", False, 9, 2, 0))


@pytest.mark.parametrize("fields", [0, 4])
def test_planted_scores_are_those_of_a_factorization_machine(fields: int) -> None:
    table, floor = synthetic.planted(planted(fields=fields, noise=0), "regression")
    columns = [table.columns[name] for name in table.columns if name != "y"]
    if fields:
        columns = [(c.codes == j) * 1.0 for c in columns for j in range(len(c.names))]
    X, y = np.stack(columns, axis=1), table.columns["y"]
    pairs = [X[:, i] * X[:, j] for i in range(12) for j in range(i)]
    design = np.column_stack([X, *pairs])
    fitted = design @ np.linalg.lstsq(design, y, rcond=None)[0]
    assert floor == 0
    np.testing.assert_allclose(fitted, y, atol=1e-9)


def test_planted_noise_has_the_deviation_that_was_asked_for() -> None:
    loud, floor = synthetic.planted(planted(noise=0.7), "regression")
    silent, _ = synthetic.planted(planted(noise=0), "regression")
    noise = loud.columns["y"] - silent.columns["y"]
    assert floor == pytest.approx(0.49)
    assert noise.std() == pytest.approx(0.7, rel=0.05)


def test_planted_labels_have_the_probabilities_that_its_floor_says() -> None:
    silent, _ = synthetic.planted(planted(rows=20_000, noise=0), "regression")
    labels, floor = synthetic.planted(planted(rows=20_000, noise=0.5), "classification")
    p = 1 / (1 + np.exp(-silent.columns["y"] / 0.5))
    y = labels.columns["y"]
    loss = -np.mean(y * np.log(p) + (1 - y) * np.log1p(-p))
    assert floor == pytest.approx(loss, rel=0.03)


def test_planted_fields_are_one_hot_rows_without_values() -> None:
    data = load(planted(columns=23, fields=5), PARTS, "regression")
    features = data.train.features
    assert isinstance(features, CSR)
    assert features.values is None
    assert features.shape == (2400, 23)
    assert (np.diff(features.indptr) == 5).all()
    assert all(isinstance(c, Text) for name, c in data.table.columns.items() if name != "y")


@pytest.mark.parametrize("name", ["gaussian", "planted", "notebook"])
def test_the_same_seed_gives_the_same_digest_and_another_does_not(name: str) -> None:
    from fmexp.config.schema import GaussianConfig

    def digest(seed: int) -> str:
        made = {
            "gaussian": GaussianConfig("gaussian", True, 50, 3, seed),
            "planted": planted(seed=seed, rows=50),
            "notebook": NotebookConfig("notebook", True, 50, 3, 0, 5, seed),
        }[name]
        return load(made, PARTS, "regression").data_digest

    assert digest(1) == digest(1) != digest(2)
