"""Kernels on several threads: pieces of one range side by side, ranges one after the other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from fmexp.data.features import SMALL_CHUNK_ROWS, chunks

if TYPE_CHECKING:
    from collections.abc import Callable

    from fmexp.backends.gibbs_columns import Piece, Ranges


class SideBySide:
    """Some threads. A kernel's first arguments are where its piece begins and ends.

    Attributes:
        several: whether there are more than one.
    """

    def __init__(self, threads: int) -> None:
        self.several = threads > 1
        self._pool = ThreadPoolExecutor(threads) if self.several else None

    def over_ranges(self, kernel: Callable[..., Any], ranges: Ranges, *arguments: Any) -> None:
        """Have a kernel work on each range in turn."""
        for pieces in ranges:
            self.over(kernel, pieces, *arguments)

    def over_rows(self, kernel: Callable[..., Any], n_rows: int, *arguments: Any) -> list[Any]:
        """Have a kernel work on all rows, piece by piece; what it returns, in their order."""
        pieces = [(some.start, some.stop) for some in chunks(n_rows, SMALL_CHUNK_ROWS)]
        return self.over(kernel, pieces, *arguments)

    def over(self, kernel: Callable[..., Any], pieces: list[Piece], *arguments: Any) -> list[Any]:
        """Have a kernel work on each piece; what it returns, in their order."""
        if self._pool is None or len(pieces) == 1:
            return [kernel(*piece, *arguments) for piece in pieces]
        return list(self._pool.map(lambda piece: kernel(*piece, *arguments), pieces))
