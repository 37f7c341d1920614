"""Changed bytes of every kind of file: 200 of each here, 2,000 in `make soak`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_changed_bytes_never_end_in_a_traceback():
    cases = "2000" if os.environ.get("FMEXP_SOAK") else "200"
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.fuzz", cases], capture_output=True, text=True,
        cwd=Path(__file__).parents[2], check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    assert done.stdout.count(f": {cases} cases") == 6
