"""`python -m fmexp` is the same as `fmexp`."""

import sys

from fmexp.cli import main

sys.exit(main())
