"""Tables for tests: written, and loaded with every key at its default."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fmexp.config.schema import CsvConfig, LibsvmConfig, ParquetConfig, SplitConfig
from fmexp.config.shipped import shipped
from fmexp.data.loading import load

if TYPE_CHECKING:
    from pathlib import Path

    from fmexp.data.dataset import Dataset

WHOLE = SplitConfig(0, 0, None, 0)
PARTS = SplitConfig(0.2, 0.2, None, 0)


def load_csv(
    path: Path,
    split: SplitConfig = WHOLE,
    task: str = "regression",
    *,
    shared: bool = False,
    **keys: Any,
) -> Dataset:
    tree = shipped(data="csv")["data"] | {"path": str(path), "target": "y"} | keys
    return load(CsvConfig(**tree), split, task, shared=shared)


def load_libsvm(path: Path, split: SplitConfig = WHOLE) -> Dataset:
    return load(LibsvmConfig("libsvm", True, str(path)), split, "regression")


def load_parquet(path: Path, split: SplitConfig = WHOLE, **keys: Any) -> Dataset:
    tree = shipped(data="parquet")["data"] | {"path": str(path), "target": "y"} | keys
    return load(ParquetConfig(**tree), split, "regression")


def lines(*rows: str) -> bytes:
    return ("\n".join(rows) + "\n").encode()
