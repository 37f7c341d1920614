"""Ctrl-C and SIGTERM: stop at the next epoch, keep what was learned.

SIGTERM ends a command within ten seconds, and so does Ctrl-C a sweep of `fmexp run`.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


LEAVING_SECONDS = 3.0
"""How long a command that the user has stopped waits for others: jobs, the recorder."""

GRACE_SECONDS = 8.0
"""What a command has after SIGTERM to end by itself."""

_urgent = {int(signal.SIGTERM)}
"""Signals after which it has no longer."""


class Stop:
    """Whether the user has asked to stop; true after the first signal."""

    def __init__(self) -> None:
        self.asked = False

    def __bool__(self) -> bool:
        return self.asked


@contextmanager
def stop_on_signals(patient: tuple[int, ...] = (), in_time: bool = False) -> Iterator[Stop]:
    """While open, the first SIGINT or SIGTERM sets the flag, a second one interrupts at once.

    In another thread than the main one nothing sets it.

    Args:
        patient: signals that set the flag however often they come: a scheduler repeats them, and
            kills whoever does not end in time.
        in_time: whether Ctrl-C, too, is to end a command within ten seconds, see `end_on_sigterm`:
            of a sweep, whose workers may be lost in a database that does not answer.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # only there are signals heard
        yield stop
        return

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if stop.asked and number not in patient:
            raise KeyboardInterrupt
        stop.asked = True

    heard = {signal.SIGINT, signal.SIGTERM, *patient}
    before = {number: signal.signal(number, handle) for number in heard}
    if in_time:
        _urgent.add(signal.SIGINT)
    try:
        yield stop
    finally:
        _urgent.discard(signal.SIGINT)
        for number, handler in before.items():
            signal.signal(number, handler)


def sigterm_is_ctrl_c() -> None:
    """Outside training, SIGTERM ends the command as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def end_on_sigterm() -> None:
    """From now on SIGTERM ends this process within ten seconds, wherever its main thread is.

    Python's signal handlers wait until the main thread is back from an epoch's compiled loop, an
    import or an allocation. So a thread of its own listens, leaves the command GRACE_SECONDS to end
    by itself, then closes the runs that are open and ends the process. The recorder is another
    process: it goes on, and sends what the spool has.
    """
    listens, hears = os.pipe()
    os.set_blocking(hears, False)
    signal.set_wakeup_fd(hears, warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=(listens,), name="fmexp-sigterm", daemon=True).start()


def _listen(listens: int) -> None:
    while not (heard := _urgent.intersection(os.read(listens, 64))):
        pass
    time.sleep(GRACE_SECONDS)
    os.write(2, b"fmexp: terminated in mid-work; what was recorded until now is in the spool\n")
    closing = threading.Thread(target=_close_runs, daemon=True)
    closing.start()
    closing.join(1.0)
    os._exit(128 + heard.pop())


def _close_runs() -> None:
    from fmexp.record.spool_tracker import interrupt_open_runs

    interrupt_open_runs("terminated in mid-epoch: the model was not kept")
