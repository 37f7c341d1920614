"""Make docs/images/*.png: the pages that `fmexp ui` prints the addresses of, and a report.

    .venv/bin/python docs/screenshots.py

Runs the tutorial's sweep in a temporary folder and photographs with headless Chromium. Needs
`chromium`, and Pillow (which comes with matplotlib) to make the pictures small.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from itertools import takewhile
from pathlib import Path

from PIL import Image

IMAGES = Path(__file__).resolve().parent / "images"
PORT = "5087"
FMEXP = [sys.executable, "-m", "fmexp"]
TUTORIAL = Path(__file__).resolve().parent / "tutorial.md"
PAGES = {
    "the newest sweep": ("sweep.png", 1500, 1000),
    "its trials' curves": ("curves.png", 2400, 2000),
    "its best 5 compared": ("compared.png", 1700, 1000),
}
MOST_BYTES = 200_000


def main() -> None:
    """Train, serve, photograph."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no chromium on this machine: apt-get install chromium")
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (script,) = re.findall(r"```python\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)
        (sweep,) = re.findall(r"^\$ fmexp (run -m .*)$", TUTORIAL.read_text(), re.MULTILINE)
        subprocess.run([sys.executable, "-c", script], cwd=folder, check=True)
        subprocess.run([*FMEXP, *sweep.split()], cwd=folder, check=True)
        subprocess.run([*FMEXP, "report", "latest", "--out", "r.html"], cwd=folder, check=True)
        photograph(chromium, (folder / "r.html").as_uri(), "report.png", 1100, 2000, folder)
        ui = subprocess.Popen(
            [*FMEXP, "ui", "--port", PORT], cwd=folder, stdout=subprocess.PIPE, text=True
        )
        try:
            for line in takewhile(lambda line: "Ctrl-C" not in line, ui.stdout):
                found = re.match(r"  (.*?) +(http://\S+)$", line)
                if found and found[1] in PAGES:
                    photograph(chromium, found[2], *PAGES[found[1]], folder)
        finally:
            ui.terminate()
            ui.communicate()


def photograph(
    chromium: str, address: str, name: str, width: int, height: int, folder: Path
) -> None:
    """One page as docs/images/`name`, at most MOST_BYTES large."""
    target = IMAGES / name
    subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--hide-scrollbars", f"--user-data-dir={folder / 'profile'}",
            f"--window-size={width},{height}", "--virtual-time-budget=60000",
            f"--screenshot={target}", address,
        ],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    Image.open(target).convert("RGB").quantize(64).save(target, optimize=True)
    size = target.stat().st_size
    print(f"{target}: {size:,} bytes")
    assert size < MOST_BYTES, f"{name} has {size:,} bytes"


if __name__ == "__main__":
    main()
