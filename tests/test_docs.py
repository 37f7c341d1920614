"""The documents: their links lead somewhere, they name every key, and what they show is so."""

from __future__ import annotations

import os
import pkgutil
import re
import shutil
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from fmexp.config import Config

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
CHANGING = re.compile(
    r"[0-9a-f]{32}|\([0-9a-f]{8}\)|-[0-9a-f]{10}\b|\d[\d.]* (s|MB)\b|\d+\.\d{9,}|(?<= )/\S*|:///\S*"
)
"""Ids, times, folders, last digits: what another machine or another day prints otherwise."""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        assert target.startswith("https://") or (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_functions_that_are_named_are_there(document: Path) -> None:
    for name in re.findall(r"`(fmexp(?:\.[A-Za-z_]+)+)`", document.read_text()):
        if not name.endswith(("_digest", "_hash")):  # tags of a run
            pkgutil.resolve_name(name)


def keys(kind: Any, prefix: str = "") -> set[str]:
    """Every dotted key that a configuration can have; a group's `name` is the group itself."""
    found = set()
    for field in fields(kind):
        hint = get_type_hints(kind)[field.name]
        for each in [hint, *get_args(hint)]:
            if is_dataclass(each):
                found |= keys(each, f"{prefix}{field.name}.")
        if not any(is_dataclass(each) for each in [hint, *get_args(hint)]):
            found.add(prefix[:-1] if field.name == "name" else f"{prefix}{field.name}")
    return found


def test_every_key_of_the_configuration_is_documented_and_no_other() -> None:
    lines = (ROOT / "docs" / "configuration.md").read_text().splitlines()
    first_cells = "".join(line.split("|")[1] for line in lines if line.startswith("| `"))
    assert set(re.findall(r"`([\w.]+)`", first_cells)) == keys(Config)


def test_every_option_of_a_sweep_is_documented() -> None:
    from omegaconf import OmegaConf

    text = (ROOT / "docs" / "sweeps.md").read_text()
    options = OmegaConf.load(ROOT / "conf" / "hydra" / "sweeper" / "fmexp.yaml")
    for option in options.keys() - {"_target_", "defaults"}:
        assert f"`{option}`" in text or f"hydra.sweeper.{option}" in text, option


def sessions(document: Path) -> list[tuple[str, list[str]]]:
    """The commands of a document's console blocks, each with the lines shown under it."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", document.read_text(), re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif line and line != "...":
                found[-1][1].append(line)
    return found


def run(command: str, folder: Path) -> str:
    """What a command typed into a shell prints; it must succeed."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "FMEXP_"))}
    done = subprocess.run(
        command, shell=True, cwd=folder, text=True, check=False,
        env=kept | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


def first_hour(readme: str) -> list[str]:
    """The ten commands, without their comments."""
    blocks = re.findall(r"```\n(.*?)```", (ROOT / readme).read_text(), re.DOTALL)
    (found,) = [block for block in blocks if "fmexp ui" in block and "-m" in block]
    return [line.partition(" #")[0].strip() for line in found.splitlines()]


def test_the_commands_of_the_first_hour_work(tmp_path: Path) -> None:
    english = first_hour("README.md")
    assert len(english) == 10
    commands = [*english, *(c for c in first_hour("README.zh-CN.md") if c not in english)]
    shutil.copy(ROOT / "fmexp" / "data" / "diabetes.csv", tmp_path / "new.csv")
    header, *rows = (tmp_path / "new.csv").read_text().splitlines()
    renamed = ",".join([*header.split(",")[:-1], "price"])
    (tmp_path / "table.csv").write_text("\n".join([renamed, *rows]))
    for command in commands:
        if not command.startswith("fmexp ui"):
            run(command, tmp_path)


def masked(line: str) -> str:
    return " ".join(CHANGING.sub("*", line).split())


def test_the_tutorial_goes_as_it_says(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "tutorial.md").read_text()
    script = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert script
    (tmp_path / "make_table.py").write_text(script[1])
    commands = sessions(ROOT / "docs" / "tutorial.md")
    assert len(commands) >= 10
    for command, shown in commands:
        output = run(command, tmp_path)
        printed = [masked(line) for line in output.splitlines()]
        for line in shown:
            assert masked(line) in printed, f"{command}\nprinted:\n{output}"
