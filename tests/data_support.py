"""Tables for tests: written, and loaded with every key at its default."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fmexp.config.schema import CsvConfig, LibsvmConfig, ParquetConfig, SplitConfig
from fmexp.data.loading import load

if TYPE_CHECKING:
    from pathlib import Path

    from fmexp.data.dataset import Dataset

WHOLE = SplitConfig(0, 0, None, 0)
PARTS = SplitConfig(0.2, 0.2, None, 0)


COLUMNS = {"standardize": True, "target": "y", "categorical": None, "numeric": None, "drop": [],
           "dates": None, "min_count": 1, "missing": "error",
           "missing_target": "error"}  # fmt: skip
TEXT = {"delimiter": None, "encoding": "utf-8", "quoting": True, "names": None}


def load_csv(
    path: Path, split: SplitConfig = WHOLE, task: str = "regression", **keys: Any
) -> Dataset:
    return load(CsvConfig(name="csv", path=str(path), **(COLUMNS | TEXT | keys)), split, task)


def load_libsvm(path: Path, split: SplitConfig = WHOLE) -> Dataset:
    return load(LibsvmConfig("libsvm", True, str(path)), split, "regression")


def load_parquet(path: Path, split: SplitConfig = WHOLE, **keys: Any) -> Dataset:
    config = ParquetConfig(name="parquet", path=str(path), **(COLUMNS | keys))
    return load(config, split, "regression")


def lines(*rows: str) -> bytes:
    return ("\n".join(rows) + "\n").encode()
