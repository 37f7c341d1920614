"""A study's database that may go away and come back: every call waits for it."""

from __future__ import annotations

import abc
import logging
import random
import re
import threading
import time
from typing import TYPE_CHECKING, Any

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage

from fmexp.record.passwords import without_password

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
"""Seconds between attempts, drawn up to twice as long each time; well below a lease's length."""

_TELL_AFTER, _TELL_AGAIN = 3.0, 60.0
"""Seconds of an outage after which it is told, and told again."""

_AWAY = re.compile("08|57P0[1-4]|53300|40001|40P01")
"""SQLSTATEs of what passes by itself: no connection, a server that stops or starts or has too many
clients, a deadlock or a conflict of two transactions."""

_AWAY_BEHIND = re.compile("OperationalError|InterfaceError|PendingRollbackError|during the commit")
"""What a proxy says where the database behind it is away."""

_log = logging.getLogger("fmexp")


class PatientStorage(BaseStorage):
    """Calls another storage, again and again while its database is away.

    A call whose answer was lost may have been carried out: it is made again all the same. That
    changes nothing for what sets a value; a trial may be created twice (see `Worker`), and who
    finishes a trial twice is told so by Optuna.

    Attributes:
        should_stop: asked while waiting; whether to give up at once.
    """

    def __init__(self, inner: BaseStorage, url: str, seconds: float) -> None:
        """Wrap a storage.

        Args:
            inner: the storage.
            url: where its database is, to be told.
            seconds: how long an outage may last; then calls raise what the last one raised.
        """
        self.should_stop: Callable[[], bool] = lambda: False
        self._inner, self._url, self._seconds = inner, without_password(url), seconds
        self._lock = threading.Lock()
        self._away_since: float | None = None
        self._tell_at = 0.0

    def _call(self, name: str, *args: Any, **options: Any) -> Any:
        pause = _FIRST_PAUSE
        while True:
            try:
                answer = getattr(self._inner, name)(*args, **options)
            except Exception as error:
                cause = lost_connection(error)
                if cause is None or not self._may_wait(cause):
                    raise
            else:
                self._is_there()
                return answer
            time.sleep(random.uniform(0.5, 1) * pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _may_wait(self, cause: str) -> bool:
        """Whether the outage may go on; it is told once a minute, however many threads wait."""
        now = time.monotonic()
        with self._lock:
            if self._away_since is None:
                self._away_since, self._tell_at = now, now + _TELL_AFTER
            left = self._away_since + self._seconds - now
            if left <= 0 or self.should_stop():
                return False
            if now >= self._tell_at:
                self._tell_at = now + _TELL_AGAIN
                _log.warning(
                    "the study's storage %s does not answer (%s); waiting for it, %.0f s more "
                    "(hydra.sweeper.patience)", self._url, cause, left,
                )  # fmt: skip
        return True

    def _is_there(self) -> None:
        if self._away_since is None:
            return
        with self._lock:
            since, self._away_since = self._away_since, None
            if since is not None and self._tell_at > since + _TELL_AFTER:
                _log.warning("the study's storage %s is back", self._url)


def stop_waiting_when(storage: BaseStorage, asked: Callable[[], bool]) -> None:
    """Have calls that wait for a database give up as soon as the user wants to stop."""
    if isinstance(storage, PatientStorage):
        storage.should_stop = asked


def lost_connection(error: BaseException) -> str | None:
    """What happened to the connection, in words; None where waiting does not help."""
    from sqlalchemy.exc import DBAPIError, PendingRollbackError

    if callable(status := getattr(error, "code", None)):  # a grpc.RpcError
        said = str(getattr(error, "details", str)())
        return said if status().name == "UNAVAILABLE" or _AWAY_BEHIND.search(said) else None
    found = error.__cause__ if isinstance(error, StorageInternalError) else error
    if isinstance(found, PendingRollbackError):
        return "the connection was lost"
    if not isinstance(found, DBAPIError) or found.orig is None:
        return None
    kind = type(found.orig).__name__
    state = getattr(found.orig, "sqlstate", None) or getattr(found.orig, "pgcode", None)
    passes = _AWAY.match(state) if state else kind in ("OperationalError", "InterfaceError")
    if not passes and not found.connection_invalidated:
        return None
    return (str(found.orig).strip().splitlines() or [kind])[0]


def _patient(name: str) -> Callable[..., Any]:
    def call(self: PatientStorage, *args: Any, **options: Any) -> Any:
        return self._call(name, *args, **options)

    return call


for _name in [each for each in vars(BaseStorage) if not each.startswith("_")]:
    setattr(PatientStorage, _name, _patient(_name))
abc.update_abstractmethods(PatientStorage)  # type: ignore[type-abstract] # as yet
