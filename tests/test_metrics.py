"""Metrics against their definitions, counted out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fmexp.training import metrics


def test_errors_of_regression_are_in_the_targets_units() -> None:
    found = metrics.regression(np.array([0.0, 0.0, 0.0, 0.0]), np.array([3.0, -3.0, 1.0, -1.0]))
    assert found == {"mse": 5.0, "rmse": math.sqrt(5), "mae": 2.0}
    y = np.array([1.0, 2.0, 3.0, 4.0])
    assert metrics.regression(y, y + 1)["r2"] == pytest.approx(1 - 1 / 1.25)
    assert metrics.regression(y, np.full(4, 2.5))["r2"] == 0


def test_auc_counts_pairs_and_a_tie_as_half() -> None:
    stream = np.random.default_rng(0)
    y, score = (stream.random(60) < 0.3) * 1.0, stream.integers(6, size=60) / 5
    pairs = [(a > b) + (a == b) / 2 for a in score[y == 1] for b in score[y == 0]]
    assert metrics.auc(y, score) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_log_loss_is_the_mean_surprise_and_stays_finite() -> None:
    y, p = np.array([1.0, 0.0, 1.0]), np.array([0.5, 0.25, 1.0])
    assert metrics.log_losses(y, p).mean() == pytest.approx(-(math.log(0.5) + math.log(0.75)) / 3)
    assert math.isfinite(metrics.log_losses(np.array([1.0]), np.array([0.0]))[0])


def test_auc_is_left_out_where_one_label_is_all_there_is() -> None:
    found = metrics.classification(np.ones(3), np.array([0.9, 0.4, 0.5]))
    assert set(found) == {"logloss", "accuracy"}
    assert found["accuracy"] == pytest.approx(2 / 3)
