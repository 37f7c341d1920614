"""`python -m fmexp` is the same as `fmexp`."""

import sys

from fmexp.cli import entry

sys.exit(entry())
