"""MLflow's errors as ours: the one place where they are translated for the user."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from fmexp.errors import StoreError
from fmexp.record.passwords import without_password

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST = 300


@contextmanager
def in_store_errors(what: str) -> Iterator[None]:
    """Raises StoreError for whatever MLflow or the connection refuses within the block.

    Args:
        what: begins the message, such as "the store sqlite:///mlflow.db cannot be read".
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        reason = without_password(line[:_MOST])
        raise StoreError(f"{what}: {reason}; `fmexp doctor` says more") from error
