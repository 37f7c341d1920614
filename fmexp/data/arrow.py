"""pyarrow at our edge: its errors as DataErrors, its columns as NumPy arrays."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from fmexp.data.files import DAMAGED
from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def in_data_errors(
    what: str, explain: Callable[[Exception], None] = lambda _: None
) -> Iterator[None]:
    """Raises DataError for whatever pyarrow meets within the block in a damaged or odd file.

    Args:
        what: how the message begins: which file, and what was expected of it.
        explain: is asked first, and raises a DataError of its own where it knows line and column.
    """
    import pyarrow as pa

    try:
        yield
    except (DataError, MemoryError):  # pyarrow's is one, too
        raise
    except (
        pa.ArrowException, *DAMAGED, ValueError, KeyError, TypeError, OverflowError
    ) as error:  # fmt: skip
        explain(error)
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"{what}: {line}") from error


def arrow_values(array: Any, dtype: type = np.float64) -> np.ndarray:
    """The numbers of a pyarrow array of that type, NaN where missing; read-only.

    Its own `to_numpy` does the same, but imports pandas for it, which takes a third of a second.
    """
    n, start = len(array), array.offset
    validity, data = array.buffers()
    if not n:
        return np.empty(0, dtype)
    values: np.ndarray = np.frombuffer(data, dtype, n, start * np.dtype(dtype).itemsize)
    if array.null_count:
        present = np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little")
        values = np.where(present[start : start + n], values, np.nan)
    return values
