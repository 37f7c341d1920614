"""Run the fast tests with the lowest and with the highest versions of all that fmexp needs.

The lowest are the floors of pyproject.toml, on the oldest Python; the highest are what pip takes
within its bounds, on each newer Python that is installed. Not green yet: docs/log.md.
`python tests/check_compat.py [lowest | highest] [arguments of pytest]`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".compat"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OLDEST, *NEWER = ("3.11", "3.12", "3.13", "3.14")
OF_THAT_TIME = ["pyparsing<3.3"]
"""What the lowest versions of others need of yet others, and do not say."""
NO_WHEEL = {"torch"}
"""PyPI has only the CUDA build: gigabytes."""


def lowest() -> list[str]:
    """Each declared dependency at its floor, those of the extras included."""
    extras = PROJECT["optional-dependencies"]
    users = [extra for extra in extras if extra not in ("dev", "bench", *NO_WHEEL)]
    declared = [*PROJECT["dependencies"], *(line for extra in users for line in extras[extra])]
    return [line.split(",")[0].replace(">=", "==").replace("[binary]", "") for line in declared]


def interpreter(version: str) -> str | None:
    """The Python of that version: on the PATH, or pyenv's."""
    pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for candidate in (f"python{version}", *map(str, reversed(pyenv))):
        try:
            subprocess.run([candidate, "-c", ""], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return candidate
    return None


def check(python: str, name: str, constraints: list[str], arguments: list[str]) -> None:
    """Install into an environment of that name, and test in it."""
    made = FOLDER / name
    programs = made / "bin"
    if not made.exists():
        subprocess.run([python, "-m", "venv", made], check=True)
    (made / "constraints.txt").write_text("\n".join(constraints))
    install = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--upgrade"]
    command = [programs / "python", *install, "-c", made / "constraints.txt", "-e", f"{ROOT}[dev]"]
    subprocess.run(command, check=True)
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "NUMBA_CACHE_DIR": str(made / "numba"),  # its files are of one version
    }
    command = [programs / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    subprocess.run(command, check=True, cwd=ROOT, env=environment)


def main() -> None:
    which, arguments = sys.argv[1:2], sys.argv[2:]
    if which not in (["lowest"], ["highest"]):
        which, arguments = ["lowest", "highest"], sys.argv[1:]
    if "lowest" in which:
        python = interpreter(OLDEST)
        assert python, f"no Python {OLDEST} here"
        check(python, "lowest", [*lowest(), *OF_THAT_TIME], arguments)
    for version in NEWER if "highest" in which else ():
        if python := interpreter(version):
            check(python, f"highest-{version}", [], arguments)


if __name__ == "__main__":
    main()
