"""Build the wheel and run it outside the checkout: command found, conf found, default run done.

The wheel goes into a new virtual environment that borrows the dependencies of this one (a path
file, so that this one's editable installation of the checkout is not borrowed with them).
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="fmexp-wheel-") as scratch:
        folder = Path(scratch)
        run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT)
        venv.create(folder / "venv")
        python = folder / "venv" / "bin" / "python"
        site = output(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
        (Path(site) / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
        wheel = next(folder.glob("fmexp-*.whl"))
        run(sys.executable, "-m", "pip", "-q", "--python", python, "install", "--no-deps", wheel)
        where = output(python, "-c", "import fmexp; print(fmexp.__file__)", cwd=folder)
        assert Path(where).is_relative_to(folder), where
        command = folder / "venv" / "bin" / "fmexp"
        assert "model:" in output(command, "run", "--cfg", "job", cwd=folder)
        print(output(command, "run", cwd=folder))
        assert (folder / "mlflow.db").exists()
    print(f"{wheel.name}: runs outside the checkout")


def run(*command: object, cwd: Path | None = None) -> None:
    subprocess.run(list(map(str, command)), cwd=cwd, check=True)


def output(*command: object, cwd: Path | None = None) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout.strip()


if __name__ == "__main__":
    main()
