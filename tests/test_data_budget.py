"""Memory is stated before it is taken."""

from __future__ import annotations

import logging
from pathlib import Path

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


def group(root: Path, name: str, files: dict[str, str]) -> None:
    folder = root / "sys/fs/cgroup" / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (folder / file).write_text(text + "\n")


V1 = {"memory.usage_in_bytes": "300", "memory.stat": "cache 9\ntotal_inactive_file 100"}
V2 = {"memory.current": "300", "memory.stat": "anon 9\ninactive_file 100"}


@pytest.mark.parametrize(
    ("said", "groups", "left"),
    [
        ("0::/a/b", {"a/b": V2 | {"memory.max": "1000"}}, 800),
        ("0::/a/b", {"a/b": V2 | {"memory.max": "max"}, "a": V2 | {"memory.max": "700"}}, 500),
        ("0::/a", {"unified/a": V2 | {"memory.max": "900"}}, 700),
        ("4:cpu,memory:/a/b", {"memory/a": V1 | {"memory.limit_in_bytes": "600"}}, 400),
        ("4:memory:/a\n0::/", {"memory/a": V1 | {"memory.limit_in_bytes": "2000"}}, 1800),
        ("4:memory:/docker/1f", {"memory": V1 | {"memory.limit_in_bytes": "500"}}, 300),
        ("3:cpu:/a\nodd\n0::/", {"memory/a": V1 | {"memory.limit_in_bytes": "1"}}, np.inf),
    ],
)
def test_a_control_group_and_those_above_it_leave_what_the_least_does(
    said: str, groups: dict[str, dict[str, str]], left: float, tmp_path: Path
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(said + "\n")
    for name, files in groups.items():
        group(tmp_path, name, files)
    assert budget.left_of_container(tmp_path) == left
