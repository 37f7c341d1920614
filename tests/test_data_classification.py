"""Labels end to end: two names in a CSV, both backends, and the metrics that belong to them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from fmexp import fm, model
from fmexp.data.learn import Learning
from fmexp.data.memory import from_table
from fmexp.experiment.one_run import held_out_metrics
from fmexp.training import metrics
from fmexp.training.fitting import fit
from tests.data_support import PARTS, lines
from tests.training_fakes import make_config


def two_names(n_rows: int = 400) -> dict[str, Any]:
    draw = np.random.default_rng(0)
    user, a = draw.integers(6, size=n_rows), draw.normal(size=n_rows)
    says_yes = a * (user - 2.5) + 0.3 * draw.normal(size=n_rows) > 0
    return {"user": list(map(str, user)), "a": a, "y": np.where(says_yes, "yes", "no").tolist()}


@pytest.mark.parametrize("backend", ["numpy_sgd", "torch_adam"])
def test_an_interaction_is_learned_from_two_names(backend: str) -> None:
    data = from_table(two_names(), "y", PARTS, Learning("classification"), categorical=["user"])
    config = make_config(backend, task="classification", epochs=60, learning_rate=0.05)
    fitted = fit(config, data)
    kept = model.Model.of(config, data, fitted.parameters)
    assert data.validation is not None
    found = metrics.classification(
        data.validation.target, kept.predict_features(data.validation.features)
    )
    assert found["logloss"] == pytest.approx(fitted.best_validation, rel=1e-4)
    assert found["auc"] > 0.95
    assert found["accuracy"] > 0.85
    assert fitted.baseline > 2 * found["logloss"]


@pytest.mark.usefixtures("store_folder")
def test_the_record_has_the_metrics_of_its_task(fmexp: Any) -> None:
    table = two_names(200)
    rows = [f"{u},{a},{y}" for u, a, y in zip(*table.values(), strict=True)]
    (fmexp.folder / "t.csv").write_bytes(lines("user,a,y", *rows))
    keys = ["data=csv", "data.path=t.csv", "data.target=y", "training.epochs=5"]
    said = fmexp("run", *keys, "task=classification")
    assert "categorical: user (6 integers that repeat" in said
    assert re.search(r"accuracy 0\.\d+", said)
    assert re.search(r"AUC 0\.\d+", said)
    (run,) = fmexp.runs()
    assert run.info.run_name == "t-y-k8-lr0.03-numpy_sgd"
    assert {"best/val_logloss", "best/val_auc", "best/val_accuracy"} <= run.data.metrics.keys()


def test_a_regression_has_rmse_and_mae_of_the_kept_model() -> None:
    data = from_table(two_names() | {"y": np.arange(400) % 7}, "y", PARTS, Learning())
    config = make_config(epochs=3)
    fitted = fit(config, data)
    found = held_out_metrics(config, data, fitted)
    assert set(found) == {"best/val_rmse", "best/val_mae", "best/val_r2"}
    assert fitted.best_validation is not None
    assert found["best/val_rmse"] == pytest.approx(fitted.best_validation**0.5)


def test_scores_of_labels_are_probabilities() -> None:
    scores = np.array([-800.0, -1.0, 0.0, 800.0])
    assert fm.predictions("classification", scores).tolist() == pytest.approx(
        [0, 1 / (1 + np.e), 0.5, 1]
    )
