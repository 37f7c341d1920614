"""How long a command waits for a store: FMEXP_PATIENCE seconds (60), for all its waits together.

A server may answer a byte a second, and a damaged database may loop: what a library calls its
timeout is then never over. So the wait ends by an alarm, or by the end of the process that waits.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

from fmexp.errors import StoreError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE = "FMEXP_PATIENCE"
_DEFAULT = 60.0
_MARGIN = 3.0
"""Seconds after which a wait that no alarm could interrupt ends the process."""

_waited = 0.0


class _Over(BaseException):  # not an Exception: libraries must not try again
    """The patience is over."""


def patience() -> float:
    """Seconds that a command waits for a store in all.

    Raises:
        UserError: FMEXP_PATIENCE is no number of seconds.
    """
    text = os.environ.get(VARIABLE, "")
    try:
        seconds = float(text or _DEFAULT)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e6:
        raise UserError(f"{VARIABLE} must be a number of seconds, got {text!r}")
    return seconds


def begin() -> None:
    """A new command begins: nothing was waited for yet."""
    global _waited
    _waited = 0.0


def left() -> float:
    """Seconds of patience that this command has left, at least a tenth."""
    return max(0.1, patience() - _waited)


@contextlib.contextmanager
def waiting(store: str) -> Iterator[None]:
    """A wait for a store, which ends when the patience is over.

    Args:
        store: its address as it may be shown.

    Raises:
        StoreError: it is.
    """
    global _waited
    seconds, began = left(), time.monotonic()
    words = (
        f"the store {store} has not answered within {patience():g} s ({VARIABLE}); is it up, and "
        "does it answer others? `fmexp doctor` says more"
    )
    hard = threading.Timer(seconds + _MARGIN, _end_process, [words])
    hard.daemon = True
    hard.start()
    try:
        with _alarm(seconds):
            yield
    except _Over:
        raise StoreError(words) from None
    finally:
        hard.cancel()
        _waited += time.monotonic() - began


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raises _Over in the block after so many seconds; only the main thread can be interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: object) -> None:
        raise _Over

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _end_process(words: str) -> None:
    """For a library that is lost in its own code, where no alarm is heard."""
    os.write(2, f"fmexp: {words}\n".encode())
    os._exit(1)
