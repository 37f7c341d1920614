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

from fmexp.cli.run import RUN_HELP
from fmexp.config.schema import Config
from tests import plain_environment

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(
    path for folder in (".", "docs", "examples") for path in (ROOT / folder).glob("*.md")
)
DIABETES = ROOT / "fmexp" / "data" / "diabetes.csv"
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


def test_all_that_the_architecture_names_is_where_it_says() -> None:
    """`data/csv.batches` is a name of fmexp/data/csv.py; `sweep/launch` and `fm` are modules."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    named = re.findall(r"`([a-z_]+(?:/[a-z_]+)+)((?:\.\w+)*)`", text)
    assert len(named) > 60
    for path, name in named:
        if name == ".py":
            assert any((folder / f"{path}.py").is_file() for folder in (ROOT / "fmexp", ROOT)), path
        elif path.partition("/")[0] not in ("conf", "tests"):
            pkgutil.resolve_name(f"fmexp.{path.replace('/', '.')}:{name[1:]}")


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
    conf = ROOT / "hydra_plugins" / "fmexp_sweeper" / "conf" / "hydra" / "sweeper"
    options = OmegaConf.load(conf / "fmexp_base.yaml")
    for option in options.keys() - {"_target_", "defaults"}:
        assert f"`{option}`" in text or f"hydra.sweeper.{option}" in text, option


def blocks(document: str, language: str = "") -> list[str]:
    """What stands between the fences of a document."""
    text = (ROOT / document).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def sessions(document: str) -> list[tuple[str, list[str]]]:
    """The commands of a document's console blocks, each with the lines shown under it."""
    found: list[tuple[str, list[str]]] = []
    for block in blocks(document, "console"):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif line and line != "...":
                found[-1][1].append(line)
    return found


@pytest.fixture(scope="session")
def after_make_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment without PyTorch and the extras, as `make run` leaves it."""
    return plain_environment.make(tmp_path_factory.mktemp("plain") / "environment")


def run(command: str, folder: Path, programs: Path | None = None, code: int = 0) -> str:
    """What a command typed into a shell prints; it must end with this code.

    Args:
        command: may use pipes.
        folder: where it runs.
        programs: first on the PATH; this environment's by default.
        code: the exit code.
    """
    programs = programs or Path(sys.executable).parent
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "FMEXP_"))}
    done = subprocess.run(
        command, shell=True, cwd=folder, text=True, check=False,
        env=kept | {"PATH": f"{programs}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == code, f"{command}\n{done.stdout}"
    return done.stdout


def first_hour(readme: str) -> list[str]:
    """The commands, without their comments."""
    (found,) = [block for block in blocks(readme) if "fmexp ui" in block and "-m" in block]
    return [line.partition(" #")[0].strip() for line in found.splitlines()]


def test_the_readme_shows_what_the_default_run_prints(tmp_path: Path) -> None:
    (quality,) = re.findall("^quality .*", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert quality in run("fmexp run tracking=none", tmp_path).splitlines()


def test_the_commands_of_the_first_hour_work(tmp_path: Path, after_make_run: Path) -> None:
    english = first_hour("README.md")
    assert len(english) >= 10
    commands = [*english, *(c for c in first_hour("README.zh-CN.md") if c not in english)]
    shutil.copy(DIABETES, tmp_path / "new.csv")
    header, *rows = (tmp_path / "new.csv").read_text().splitlines()
    renamed = ",".join([*header.split(",")[:-1], "price"])
    (tmp_path / "table.csv").write_text("\n".join([renamed, *rows]))
    for command in commands:
        if not command.startswith("fmexp ui"):
            run(command, tmp_path, None if "torch" in command else after_make_run)


def test_the_commands_of_help_work_after_make_run(tmp_path: Path, after_make_run: Path) -> None:
    examples = re.findall(r"^  (fmexp run .*?)(?:   |$)", RUN_HELP, re.MULTILINE)
    assert len(examples) >= 8
    shutil.copy(DIABETES, tmp_path / "table.csv")
    for command in examples:
        if "torch" not in command:
            command = command.replace("data.target=price", "data.target=progression")
            run(f"{command} tracking=none", tmp_path, after_make_run)


def masked(line: str) -> str:
    return " ".join(CHANGING.sub("*", line).split())


def test_the_tutorial_goes_as_it_says(tmp_path: Path, after_make_run: Path) -> None:
    (script,) = blocks("docs/tutorial.md", "python")
    (tmp_path / "make_table.py").write_text(script)
    commands = sessions("docs/tutorial.md")
    assert len(commands) >= 10
    for command, shown in commands:
        output = run(command, tmp_path, after_make_run)
        printed = [masked(line) for line in output.splitlines()]
        for line in shown:
            assert masked(line) in printed, f"{command}\nprinted:\n{output}"


STUDY = re.compile(r"planted-[0-9a-f]{10}")


def test_what_the_page_on_sweeps_shows_works(tmp_path: Path) -> None:
    shown = "".join(blocks("docs/sweeps.md"))
    inline = re.findall(r"`(fmexp run -m [^`]*=[^`]*)`", (ROOT / "docs/sweeps.md").read_text())
    commands = [*re.findall("^fmexp .*", shown, re.MULTILINE), *inline]
    assert len(commands) >= 4
    printed = "".join(run(command, tmp_path) for command in commands)
    (script,) = blocks("docs/sweeps.md", "python")
    name = STUDY.search(printed).group()  # it follows from every key, so from each new one
    script = STUDY.sub(name, script) + "assert len(study.trials) == 12"
    (tmp_path / "script.py").write_text(script)
    run("python script.py", tmp_path)


def test_what_the_page_on_reports_shows_works(tmp_path: Path, after_make_run: Path) -> None:
    run("fmexp run", tmp_path, after_make_run)
    exported = next(block for block in blocks("docs/reports.md") if "--register" in block)
    run(exported.splitlines()[0], tmp_path, after_make_run)
    (script,) = blocks("docs/reports.md", "python")
    rows = f"import pandas\ntable = pandas.read_csv({str(DIABETES)!r})\n"
    rows += "X, y = table.drop(columns='progression').to_numpy(), table['progression']\n"
    (tmp_path / "script.py").write_text(rows + script)
    run("python script.py", tmp_path, after_make_run)


def test_what_the_page_on_data_shows_works(tmp_path: Path) -> None:
    (script,) = blocks("docs/data.md", "python")
    rows = "import numpy as np\nX, y = np.ones((9, 2)), np.arange(9) % 2\n"
    rows += "frame = {'price': np.arange(9.0), 'shop': list('abcabcabc')}\n"
    (tmp_path / "script.py").write_text(rows + script)
    run("python script.py", tmp_path)
    (message,) = [block for block in blocks("docs/data.md") if "cannot be used" in block]
    bad = ["1,2,abc,4", "1,2", "1,2,3,1e400"]
    lines = ["user,item,x,rating", *["1,2,3,4"] * 1000, *bad]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    command = "fmexp run data=csv data.path=table.csv data.target=rating"
    assert run(command, tmp_path, code=2) == message
