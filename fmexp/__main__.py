"""`python -m fmexp` is the same as `fmexp`."""

import sys

from fmexp.cli.parser import entry

sys.exit(entry())
