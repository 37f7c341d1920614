"""Whoever comes from the notebook gets its figures back, read from MLflow and predictions.csv."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("store_folder")

PRINTED_ROWS = [0, 1, 2, 3, 4, 95, 96, 97, 98]
NUMPY_PREDICTIONS = [
    0.605124, 0.527338, 0.815019, 0.584716, 0.523286, 0.555199, 0.420619, 0.478358, 0.125237,
]  # fmt: skip
NUMPY_TARGETS = [
    0.374540, 0.950714, 0.731994, 0.598658, 0.156019, 0.493796, 0.522733, 0.427541, 0.025419,
]  # fmt: skip
TORCH_PREDICTIONS = [
    0.237655, -0.170638, 0.360829, -0.080337, -0.057512, -0.286557, -0.001467, -0.337158, -0.181565,
]  # fmt: skip
TORCH_TARGETS = [
    0.101067, -1.309492, -0.410358, 0.468094, -0.234628, -0.014565, -0.748688, -0.384403, 0.143502,
]  # fmt: skip


def _record(fmexp, tmp_path):
    """The last train/mse, the params, and the rows of predictions.csv of the only run."""
    (run,) = fmexp.runs()
    assert run.info.status == "FINISHED"
    assert not [name for name in run.data.metrics if name.startswith(("val/", "best/"))]
    folder = Path(fmexp.store.download_artifacts(run.info.run_id, "", str(tmp_path)))
    with (folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    return run.data.metrics["train/mse"], run.data.params, rows


def _printed(rows, column):
    return [float(rows[number][column]) for number in PRINTED_ROWS]


def test_numpy_figures(fmexp, tmp_path):
    fmexp("run", "+experiment=notebook_numpy")
    mse, params, rows = _record(fmexp, tmp_path)
    assert params["training.epochs"] == "1000"
    assert 100 * mse == pytest.approx(7.250213, abs=1e-6)
    assert _printed(rows, "y_pred") == pytest.approx(NUMPY_PREDICTIONS, abs=2e-6)
    assert _printed(rows, "y") == pytest.approx(NUMPY_TARGETS, abs=1e-6)
    assert [float(rows[0][str(column)]) for column in range(1, 9)] == [3, 4, 2, 4, 4, 1, 2, 2]
    assert {row["part"] for row in rows} == {"train"}


def test_numpy_first_epochs(fmexp):
    fmexp("run", "+experiment=notebook_numpy", "training.epochs=3")
    (run,) = fmexp.runs()
    history = fmexp.store.get_metric_history(run.info.run_id, "train/mse")
    sums = [100 * point.value for point in sorted(history, key=lambda point: point.step)]
    assert sums == pytest.approx([209.92221, 35.086483, 25.781191], rel=1e-6)


def test_torch_figures(fmexp, tmp_path):
    printed = fmexp("run", "+experiment=notebook_torch")
    assert "V starts at zero" in printed or "model.init_stdev=0" in printed
    mse, _, rows = _record(fmexp, tmp_path)
    assert mse == pytest.approx(0.98362356, abs=3e-7)  # float32, a mean of 100 squares
    assert _printed(rows, "y_pred") == pytest.approx(TORCH_PREDICTIONS, abs=2e-6)
    # torch's normal draws differ in the last float32 digits from one CPU type to another
    assert _printed(rows, "y") == pytest.approx(TORCH_TARGETS, abs=2e-6)
