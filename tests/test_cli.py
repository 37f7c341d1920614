"""The command line's own words: Hydra's flags, completion, lines to paste, a store that is dead."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from fmexp import __version__
from fmexp.cli.parser import main
from fmexp.config.compose import compose, parse_arguments
from fmexp.experiment.search import command_line
from fmexp.record import spool_tracker

RUN = ("run", "training.epochs=2", "tracking=none")


@pytest.fixture
def said(tmp_path, monkeypatch, capsys):
    """A command in this process and an empty folder; returns what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)

    def said(*arguments: str, code: int = 0) -> str:
        assert main(list(arguments)) == code
        return capsys.readouterr().out

    return said


def test_the_quality_of_numbers_has_rmse_and_r2_and_that_of_classes_accuracy_and_auc(said):
    assert "; RMSE " in said(*RUN)
    assert ", R2 " in said(*RUN)
    assert ", RMSE " in said(*RUN, "split.validation=0", "split.test=0")
    rows = "".join(f"{i % 7},{int(i % 7 > 2)}\n" for i in range(50))
    Path("table.csv").write_text(f"a,y\n{rows}")
    words = said(*RUN, "data=csv", "data.path=table.csv", "data.target=y", "task=classification")
    assert "; accuracy " in words
    assert ", AUC " in words


def test_the_experiments_name_comes_from_the_environment_unless_the_command_line_says(monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    assert compose(parse_arguments([])).config.tracking.experiment == "theirs"
    assert compose(parse_arguments([])).config_tree["tracking"]["experiment"] == "theirs"
    given = compose(parse_arguments(["tracking.experiment=mine"]))
    assert given.config.tracking.experiment == "mine"
    assert compose(parse_arguments(["tracking=none"])).config.tracking.name == "none"


def test_a_configuration_of_ones_own_is_found_by_its_name(said, tmp_path):
    (tmp_path / "own" / "data").mkdir(parents=True)
    (tmp_path / "own" / "mine.yaml").write_text("defaults: [config, _self_]\nmodel: {k: 3}\n")
    flags = ("--config-dir", "own", "--config-name", "mine")
    assert "  k: 3\n" in said("run", *flags, "--cfg", "job")
    assert "outcome  completed" in said(*RUN, *flags)


def test_the_configuration_is_shown_with_what_must_be_given(said, refused):
    assert "  path: ???\n" in said("run", "--cfg", "job", "data=csv")
    assert said("run", "--cfg", "job", "--package", "model", "model.k=3").startswith("k: 3\n")
    assert "model.kk is not a key" in refused("run", "--cfg", "job", "data=csv", "model.kk=1")


@pytest.mark.parametrize(
    "override", ["hydra.run.dir=x", "hydra.output_subdir=x", "hydra/job_logging=default"]
)
def test_a_key_of_hydras_without_effect_is_refused(refused, override):
    assert f"{override} has no effect" in refused("run", override, "tracking=none")
    assert f"{override} has no effect" in refused("run", "-m", override, "tracking=none")


def test_a_launcher_that_is_not_installed_names_what_installs_it(refused):
    words = refused("run", "-m", "hydra/launcher=ray", "tracking=none")
    assert "hydra/launcher=ray is not installed: pip install hydra-ray-launcher" in words


def test_the_version_is_that_of_fmexp(said):
    assert said("run", "--version") == f"fmexp {__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("fmexp co", "compare"),
        ("fmexp run backend=t", "backend=torch_adam"),
        ("fmexp run -m data=csv data.p", "data.path="),
        ("fmexp predict latest --data new", "new.csv"),
        ("fmexp run nonsense(", ""),
    ],
)
def test_tab_completes(said, monkeypatch, tmp_path, shell, line, offered):
    (tmp_path / "new.csv").touch()
    monkeypatch.setenv("COMP_LINE", line)
    try:
        assert said("-sc", f"query={shell}").split() == [offered][: bool(offered)]
    except SystemExit:
        assert not offered


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_a_real_shell_completes(tmp_path, shell):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    scripts = {
        "bash": 'eval "$(fmexp run -sc install=bash)"; COMP_LINE="fmexp run backend=t"; '
        'COMP_CWORD=2; hydra_bash_completion; echo "${COMPREPLY[@]}"',
        "fish": "fmexp run -sc install=fish | source; complete -C 'fmexp run backend=t'",
    }
    folder = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run([shell, "-c", scripts[shell]], env=environment, cwd=tmp_path,
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout.split() == ["backend=torch_adam"]


@pytest.mark.usefixtures("store_folder")
def test_the_lines_to_paste_name_a_store_elsewhere(fmexp, tmp_path):
    fmexp.use_made_store()
    (tmp_path / "a b").mkdir()
    (tmp_path / "mlflow.db").rename(tmp_path / "a b" / "it's.db")
    uri = f"sqlite:///{tmp_path}/a b/it's.db"
    fmexp.made_store = None
    for words in (["training.epochs=1"], ["-m", "model.k=2,3", "training.epochs=1"]):
        printed = fmexp("run", f"tracking.uri='{uri.replace(chr(39), chr(92) + chr(39))}'", *words)
        (line,) = [line for line in printed.splitlines() if line.startswith("see it")]
        assert shlex.split(line)[-2:] == ["--uri", uri]
    (line,) = [line for line in printed.splitlines() if line.startswith("compare")]
    command = shlex.split(line)
    assert "best/val_mse" in fmexp(*command[command.index("compare", 1) :])


def test_a_command_to_go_on_with_holds_no_password():
    arguments = parse_arguments(
        ["-m", "tracking.uri=postgresql://me:secret@host/db", "model.k=2,3"]
    )
    words = command_line(arguments)
    assert words[2:] == ["tracking.uri=postgresql://me@host/db", "model.k=2,3"]


def test_how_it_ended_comes_before_one_message_on_a_store_that_is_dead(
    tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    hurried = partial(spool_tracker.open_tracker, patience_seconds=1.0)
    monkeypatch.setattr(spool_tracker, "open_tracker", hurried)
    assert main(["run", "training.epochs=1", "tracking.uri=http://127.0.0.1:9"]) == 1
    printed = capfd.readouterr()
    assert printed.out.startswith("outcome  completed.\nquality  val/mse")
    (message,) = printed.err.splitlines()
    assert "http://127.0.0.1:9 has not taken the record" in message
    assert "fmexp doctor" in message
