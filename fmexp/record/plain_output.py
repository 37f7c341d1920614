"""What a command prints or logs: no password, nothing that a terminal would obey, any encoding.

Names of runs, columns and labels, and what servers answer, come from elsewhere. So every text goes
through here on its way to the screen, instead of each place that prints thinking of it.
"""

from __future__ import annotations

import contextlib
import re
import sys
from typing import TYPE_CHECKING, Any, TextIO

from fmexp.record.passwords import without_password

if TYPE_CHECKING:
    from collections.abc import Iterator

REDRAW = "\r\x1b[K"
"""Begins a line that is drawn again in place: our own progress lines."""

_CONTROL = re.compile(
    r"\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
    r"|[\u200e\u200f\u2028-\u202e\u2066-\u2069]"  # these turn the direction of writing
)


def plain(text: str) -> str:
    r"""A text with passwords hidden and control characters in a form that can be read.

    >>> plain("run \x1b[2J of postgresql://me:secret@host")
    'run \\x1b[2J of postgresql://me:***@host'
    """
    if text.startswith(REDRAW):
        return REDRAW + plain(text.removeprefix(REDRAW))
    shown = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)
    return without_password(shown)


class PlainStream:
    """A text stream that shows `plain` texts; for the rest the stream that it stands for."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lost: OSError | None = None

    def write(self, text: str) -> int:
        """Write a text; what the terminal's encoding lacks is written as an escape."""
        text = plain(text)
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding or "ascii"
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except OSError as error:
            self._lost = error
            raise
        return len(text)

    def flush(self) -> None:
        """Raises OSError also when a write failed before: argparse swallows that."""
        if self._lost is not None:
            raise self._lost
        self._stream.flush()

    def writelines(self, lines: list[str]) -> None:
        """Write each of them."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def plain_output() -> Iterator[None]:
    """Within the block everything that is printed is plain."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (PlainStream(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
