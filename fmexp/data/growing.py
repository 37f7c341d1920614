"""Arrays and feature rows that grow by appending: in memory, or in files mapped when complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fmexp.data.features import CSR, Features, chunks
from fmexp.data.related import Block, FeatureRows, Related
from fmexp.data.table import as_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class GrowingArray:
    """A one-dimensional array of one dtype.

    Args:
        dtype: of its elements.
        path: a file that it is written to as it comes, so that it takes no memory of its own;
            None for memory.
    """

    def __init__(self, dtype: type[np.generic], path: Path | None = None) -> None:
        self._dtype, self._path = np.dtype(dtype), path
        self._pieces: list[np.ndarray] = []
        if path is not None:
            path.touch()

    def append(self, more: np.ndarray) -> None:
        """Add elements, shape (n,), at the end."""
        more = np.asarray(more, self._dtype)
        if self._path is None:
            self._pieces.append(more)
            return
        with self._path.open("ab") as file:
            file.write(as_bytes(more))

    def finish(self) -> np.ndarray:
        """All elements; nothing can be added after that."""
        if self._path is not None:
            return mapped(self._path, self._dtype)
        if len(self._pieces) == 1:
            return self._pieces[0]
        return np.concatenate([np.empty(0, self._dtype), *self._pieces])


class GrowingFeatures:
    """Feature rows: dense, or CSR. Entries that are all 1 so far are kept without values.

    Args:
        folder: where `read_features` finds them; None for memory.
        prefix: of the files' names.
    """

    def __init__(self, folder: Path | None, prefix: str) -> None:
        self._folder, self._prefix = folder, prefix
        self._arrays: dict[str, GrowingArray] = {}
        self._n_entries = self._n_features = 0
        self._runs: list[tuple[int, Features]] = []

    def append(self, rows: FeatureRows) -> None:
        """Add rows, shape (n_rows, n_features), at the end; all dense, all CSR, or all related.

        What related rows share is kept in memory, and taken from the first of them.
        """
        if isinstance(rows, Related):
            self._runs = self._runs or [(block.first, block.rows) for block in rows.blocks]
            for i, block in enumerate(rows.blocks):
                self._array(f"keys{i}", np.int32).append(block.keys)
            rows = rows.own
        self._n_features = max(self._n_features, rows.shape[1])
        if not isinstance(rows, CSR):
            self._array("dense", np.float64).append(rows.ravel())
            return
        if rows.values is not None and "values" not in self._arrays:
            for some in chunks(self._n_entries):
                self._array("values", np.float64).append(np.ones(some.stop - some.start))
        if "indptr" not in self._arrays:
            self._array("indptr", np.int64).append(np.zeros(1, np.int64))
        if rows.values is not None or "values" in self._arrays:
            self._array("values", np.float64).append(rows.values_or_ones())
        self._array("indptr", np.int64).append(rows.indptr[1:] - rows.indptr[0] + self._n_entries)
        self._array("indices", np.int32).append(rows.indices)
        self._n_entries += len(rows.indices)

    def finish(self) -> FeatureRows | None:
        """All rows, None if none was added; nothing can be added after that."""
        found = {name: array.finish() for name, array in self._arrays.items()}
        return _features(found, self._n_features, self._runs)

    def _array(self, name: str, dtype: type[np.generic]) -> GrowingArray:
        if name not in self._arrays:
            path = self._folder and self._folder / f"{self._prefix}-{name}.bin"
            self._arrays[name] = GrowingArray(dtype, path)
        return self._arrays[name]


def read_features(
    folder: Path, prefix: str, n_features: int, runs: Sequence[tuple[int, Features]] = ()
) -> FeatureRows | None:
    """The rows that `GrowingFeatures(folder, prefix)` wrote, None where there are none.

    Args:
        folder: as there.
        prefix: as there.
        n_features: of all rows.
        runs: of related rows each run's first feature, and what they share of it.
    """
    kinds = {"dense": np.float64, "indptr": np.int64, "indices": np.int32, "values": np.float64}
    kinds |= {f"keys{i}": np.int32 for i in range(len(runs))}
    paths = {name: folder / f"{prefix}-{name}.bin" for name in kinds}
    found = {n: mapped(path, np.dtype(kinds[n])) for n, path in paths.items() if path.exists()}
    return _features(found, n_features, runs)


def _features(
    arrays: dict[str, np.ndarray], n_features: int, runs: Sequence[tuple[int, Features]]
) -> FeatureRows | None:
    if "dense" in arrays:
        return arrays["dense"].reshape(-1, n_features)
    if "indptr" not in arrays:
        return None
    own = CSR(arrays["indptr"], arrays["indices"], arrays.get("values"), n_features)
    blocks = [Block(first, rows, arrays[f"keys{i}"]) for i, (first, rows) in enumerate(runs)]
    return Related(own, tuple(blocks)) if blocks else own


def mapped(path: Path, dtype: np.dtype[np.generic] | type[np.generic]) -> np.ndarray:
    """The array in a file, read when it is looked at; shape (n,).

    Writing to it would change this process's copy only. It is not marked as read-only since Numba
    would compile its kernels once more for arrays that are.
    """
    if path.stat().st_size == 0:
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, mode="c"))
