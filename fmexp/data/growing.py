"""Arrays that grow by appending: in memory, or in a file that is mapped when it is complete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from fmexp.data.table import as_bytes

if TYPE_CHECKING:
    from pathlib import Path


class Growing(Protocol):
    """A one-dimensional array of one dtype that grows."""

    def append(self, more: np.ndarray) -> None:
        """Add elements at the end."""
        ...

    def finish(self) -> np.ndarray:
        """The whole array; nothing can be added after that."""
        ...


class InMemory:
    """Kept as pieces, joined at the end."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self._pieces: list[np.ndarray] = [np.empty(0, dtype)]

    def append(self, more: np.ndarray) -> None:
        """See `Growing`."""
        self._pieces.append(np.asarray(more, self._pieces[0].dtype))

    def finish(self) -> np.ndarray:
        """See `Growing`."""
        return self._pieces[1] if len(self._pieces) == 2 else np.concatenate(self._pieces)


class InFile:
    """Written to a file as it comes, so that it takes no memory of its own."""

    def __init__(self, path: Path, dtype: type[np.generic]) -> None:
        self._path, self._dtype = path, np.dtype(dtype)
        path.touch()

    def append(self, more: np.ndarray) -> None:
        """See `Growing`."""
        with self._path.open("ab") as file:
            file.write(as_bytes(np.asarray(more, self._dtype)))

    def finish(self) -> np.ndarray:
        """See `Growing`."""
        return mapped(self._path, self._dtype)


def mapped(path: Path, dtype: np.dtype[np.generic] | type[np.generic]) -> np.ndarray:
    """The array in a file, read when it is looked at; shape (n,).

    Writing to it would change this process's copy only. It is not marked as read-only since Numba
    would compile its kernels once more for arrays that are.
    """
    if path.stat().st_size == 0:
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, mode="c"))
