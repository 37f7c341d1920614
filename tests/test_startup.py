"""Nothing heavy is imported before it is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("hydra", "numpy", "mlflow", "torch", "numba", "optuna", "pandas", "pyarrow", "matplotlib")
NAMES = ("run", "ui", "doctor", "data", "predict", "compare", "reproduce", "score",
         "export", "report", "refit")  # fmt: skip
COMMANDS = [[], *([name] for name in NAMES)]


def _loaded_after(code: str, cwd) -> set[str]:
    ask = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{ask}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=cwd,
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_loads_nothing_heavy(command, tmp_path):
    code = f"""
from fmexp.cli.parser import main
try: main({[*command, "--help"]!r})
except SystemExit as end: assert not end.code
"""
    assert not _loaded_after(code, tmp_path) & set(HEAVY)


def test_the_training_process_never_loads_mlflow(tmp_path):
    code = "from fmexp.cli.parser import main; assert main(['run', 'training.epochs=3']) == 0"
    loaded = _loaded_after(code, tmp_path)
    assert "numba" in loaded
    assert not loaded & {"mlflow", "torch", "pandas", "optuna", "sklearn", "pyarrow"}
