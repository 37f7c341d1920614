"""Ctrl-C and SIGTERM: stop at the next epoch, keep what was learned."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


class Stop:
    """Whether the user has asked to stop; true after the first signal."""

    def __init__(self) -> None:
        self.asked = False

    def __bool__(self) -> bool:
        return self.asked


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """While open, the first SIGINT or SIGTERM sets the flag, a second one interrupts at once."""
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def sigterm_is_ctrl_c() -> None:
    """Outside training, SIGTERM ends the command as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
