"""`python -m fmexp` is the same as `fmexp`."""

from fmexp.cli import entry

entry()
