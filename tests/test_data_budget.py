"""Memory is stated before it is taken."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from fmexp.config.schema import GaussianConfig, PlantedConfig
from fmexp.data import budget
from fmexp.data.learn import Learning
from fmexp.data.loading import load
from fmexp.data.memory import from_arrays
from fmexp.errors import DataError
from tests.data_support import PARTS


@pytest.mark.parametrize(
    "config",
    [
        GaussianConfig("gaussian", True, 10**9, 1000, 0),
        PlantedConfig("planted", True, 10**9, 1000, 0, 4, 0.5, 0),
        PlantedConfig("planted", True, 10**9, 1000, 50, 4, 0.5, 0),
    ],
)
def test_more_rows_than_memory_holds_are_refused_at_once(config: GaussianConfig) -> None:
    with pytest.raises(DataError, match=r"need about .* GB of memory, .* are available: generate"):
        load(config, PARTS, "regression")


def test_encoded_rows_are_stated_and_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    X = np.ones((1000, 50)) + np.random.default_rng(0).normal(size=(1000, 50))
    monkeypatch.setattr(budget, "STATED", 300_000)
    with caplog.at_level(logging.WARNING):
        from_arrays(X, X[:, 0], PARTS, Learning())
    assert caplog.messages == ["the encoded rows take about 400.0 kB of memory"]
    monkeypatch.setattr(budget, "available", lambda: 350_000.0)
    with pytest.raises(DataError, match=r"need about 400.0 kB of memory, 350.0 kB are available"):
        from_arrays(X, X[:, 0], PARTS, Learning())


def test_a_small_table_is_not_worth_a_line(caplog: pytest.LogCaptureFixture) -> None:
    load(GaussianConfig("gaussian", True, 1000, 10, 0), PARTS, "regression")
    assert caplog.messages == []
    assert budget.available() > 10e6
