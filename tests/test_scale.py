"""docs/scale.md leads through all of it: each of its commands, in order, with real servers."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.sweep_support import SOAK
from tests.test_docs import ROOT, blocks

PAGE = "docs/scale.md"
AS_POSTGRES = """#!/bin/sh
chown -f postgres . admin.password
exec setpriv --reuid postgres --regid postgres --clear-groups {program} "$@"
"""
"""PostgreSQL's programs refuse root, who runs the tests in a container."""


@pytest.fixture
def desk() -> Iterator[Path]:
    """An empty folder that others may enter, and HOME; what runs there is ended afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="fmexp-scale-"))
    folder.chmod(0o755)
    yield folder
    for name, number in (("mlflow.pid", signal.SIGTERM), ("pg/postmaster.pid", signal.SIGINT)):
        with suppress(OSError, IndexError, ProcessLookupError):  # not started, or ended
            os.kill(int((folder / name).read_text().split()[0]), number)
    shutil.rmtree(folder, ignore_errors=True)


def commands(language: str) -> list[str]:
    """The commands of the page's blocks of a language."""
    shown = "".join(blocks(PAGE, language))
    return re.findall(r"^\$ (.*)", shown, re.MULTILINE)


def postgresql_for_root(folder: Path) -> str:
    """Programs of PostgreSQL's on the PATH: where root runs this, they run as postgres."""
    found = shutil.which("pg_config")
    if found is None:
        pytest.skip("no PostgreSQL server on this machine")
    programs = subprocess.run([found, "--bindir"], capture_output=True, text=True, check=True)
    path = f"{programs.stdout.strip()}:{os.environ['PATH']}"
    if not shutil.which("initdb", path=path):
        pytest.skip("PostgreSQL's server is not installed, only its client")
    (folder / "bin").mkdir()
    for name in ("initdb", "pg_ctl", "openssl") if os.geteuid() == 0 else ():
        program = folder / "bin" / name
        program.write_text(AS_POSTGRES.format(program=shutil.which(name, path=path)))
        program.chmod(0o755)
    return f"{folder}/bin:{path}"


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def follow(typed: list[str], folder: Path, path: str, **environment: str) -> str:
    """Type the commands into one shell; what they print, each after a line with itself."""
    lines = ["set -e -o pipefail", "trap 'echo $! > mlflow.pid' EXIT"]
    for command in typed:
        lines += [f"cat <<'@@'\n$ {command}\n@@", command]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "FMEXP_", "PG"))}
    done = subprocess.run(
        ["bash"], input="\n".join(lines), cwd=folder, text=True, check=False, timeout=400,
        env=kept | {"PATH": f"{Path(sys.executable).parent}:{path}", "HOME": str(folder),
                    "PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_QUIET": "1"} | environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_page_leads_from_a_laptop_to_a_cluster(desk, nodes):
    path = postgresql_for_root(desk)
    ports = {"5433": free_port(), "5000": free_port()}
    typed = [re.sub("5433|5000", lambda m: ports[m.group()], each) for each in commands("console")]
    printed = follow(typed, desk, path, **nodes)
    print(printed)
    assert printed.count("done; 8 of 8 trials: 8 completed") == 2
    assert "done; 16 of 16 trials: 16 completed" in printed
    for host in "12":
        log = (desk / f"array-{host}.log").read_text()
        assert "done; 12 of 12 trials: 12 completed" in log
    assert "Traceback" not in printed


@pytest.mark.skipif(not SOAK, reason="installs an environment, which takes minutes: make soak")
def test_the_set_of_versions_that_goes_with_ray_does_a_sweep(desk):
    typed = [c.replace("install fmexp", f"install {ROOT}") for c in commands("sh")]
    try:
        own = {"PIP_NO_INDEX": "0", "PIP_NO_DEPS": "0", "HOME": os.environ["HOME"]}
        printed = follow(typed, desk, os.environ["PATH"], **own)
    finally:
        subprocess.run([desk / "ray" / "bin" / "ray", "stop"], check=False)
    assert "done; 8 of 8 trials: 8 completed" in printed
