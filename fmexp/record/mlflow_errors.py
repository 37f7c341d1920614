"""What MLflow and the libraries below it raise: in words, and whether waiting helps; all here."""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fmexp.errors import FmexpError, StoreError
from fmexp.record.passwords import without_password
from fmexp.record.patience import waiting

if TYPE_CHECKING:
    from collections.abc import Iterator

_PERMANENT = {"INVALID_PARAMETER_VALUE", "PERMISSION_DENIED", "UNAUTHENTICATED", "BAD_REQUEST",
              "CUSTOMER_UNAUTHORIZED", "ENDPOINT_NOT_FOUND"}  # fmt: skip
_HOPELESS = re.compile(
    "not a database|malformed|out-of-date database schema|can't locate revision|no such table"
    "|authentication failed|access denied|does not exist|error code 40[134]"
    "|can't load plugin|could not parse|no such module",
    re.IGNORECASE,
)
"""In messages of errors that are the same again however long one waits."""


def refuses(error: BaseException) -> bool:
    """Whether MLflow says that what it was asked for is not to be had."""
    return getattr(error, "error_code", None) in _PERMANENT


def is_hopeless(error: BaseException) -> bool:
    """Whether the same will fail again: no permission, a damaged or newer database, no driver."""
    return any(
        refuses(each)
        or isinstance(each, FmexpError | ImportError)
        or _HOPELESS.search(str(each)) is not None
        for each in _chain(error)
    )


def in_words(error: BaseException) -> str:
    """What is at the bottom of an exception, on one line without passwords."""
    *_, root = _chain(error)
    line = (str(root).strip().splitlines() or [""])[0]
    return without_password(f"{type(root).__name__}: {line[:300]}")


@contextmanager
def in_store_errors(store: str, what: str) -> Iterator[None]:
    """Waits for a store no longer than the patience; its errors become StoreErrors.

    Args:
        store: its address as it may be shown.
        what: what failed if something does, such as "cannot be read".

    Raises:
        StoreError: whatever MLflow, a driver or a server makes of it.
    """
    logger = logging.getLogger("mlflow.store.db.utils")  # it logs the traceback of what it raises
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with waiting(store):
            yield
    except FmexpError:
        raise
    except Exception as error:  # MLflow hands on whatever a driver or a server makes it meet
        words = f"the store {store} {what}: {in_words(error)}; `fmexp doctor` says more"
        raise StoreError(words) from error
    finally:
        logger.setLevel(level)


def check_database(uri: str) -> None:
    """Connect once where the store is a database server: MLflow itself would try for five minutes.

    Raises:
        SQLAlchemyError: it does not answer; ImportError: its driver is not installed.
    """
    if not uri.startswith(("postgresql", "mysql", "mssql")):
        return
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.pool.NullPool)
    engine.connect().close()


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from, to the bottom."""
    each: BaseException | None = error
    while each is not None:
        yield each
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
