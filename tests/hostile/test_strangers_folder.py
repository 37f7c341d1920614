"""A working folder that somebody else has prepared: nothing of it runs, nothing is sent for it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import fmexp
from fmexp.cli import ui
from fmexp.cli.parser import main
from fmexp.data import cache
from fmexp.errors import UserError
from fmexp.record.environment import environment_tags
from tests.hostile.support import plant_run
from tests.test_ui import free_port


def test_a_planted_run_is_not_sent_to_the_address_that_came_with_it(fmexp):
    theirs = fmexp.folder / "theirs.db"
    run = plant_run(fmexp.folder, f"sqlite:///{theirs}")
    fmexp("run", "training.epochs=2")
    fmexp("predict", "latest", "--data", "missing.csv", code=2)
    assert not theirs.exists()
    listed = fmexp("doctor", code=1)
    assert f"for another store, sqlite:///{theirs}" in listed
    assert f"fmexp doctor --uri sqlite:///{theirs}" in listed
    assert run.exists()
    assert "sent now" in fmexp("doctor", "--uri", f"sqlite:///{theirs}")
    assert not run.exists()


def test_links_among_planted_artifacts_are_not_followed(store_folder, fmexp):
    secret = fmexp.folder / "id_rsa"
    secret.write_text("PRIVATE KEY")
    run = plant_run(fmexp.folder, f"sqlite:///{fmexp.folder}/mlflow.db")
    (run / "artifacts" / "model").mkdir()
    (run / "artifacts" / "model" / "weights").write_text("kept")
    (run / "artifacts" / "key").symlink_to(secret)
    (run / "artifacts" / "hard").hardlink_to(secret)
    (run / "artifacts" / "home").symlink_to(fmexp.folder)
    os.mkfifo(run / "artifacts" / "pipe")
    printed = fmexp("doctor")
    sent = {p.name for p in (fmexp.folder / "mlruns").rglob("*") if p.is_file()}
    assert sent == {"weights"}
    assert "are no plain files and were left out: hard, home, key, pipe" in printed


@pytest.mark.parametrize("planted", ["link", "other"])
def test_a_spool_that_is_a_link_or_of_another_owner_is_left_alone(
    planted, here, store_folder, monkeypatch, capsys
):
    elsewhere = here / "elsewhere"
    elsewhere.mkdir()
    run = plant_run(elsewhere, f"sqlite:///{here}/mlflow.db")
    spool = here / ".fmexp" / "spool"
    spool.parent.mkdir(exist_ok=True)
    if planted == "link":
        spool.mkdir()
        (spool / run.parent.name).symlink_to(run.parent)
    else:
        run.parent.parent.rename(spool)
        monkeypatch.setattr("os.geteuid", lambda: 12345)
    assert main(["doctor"]) == 1
    assert f"{run.parent.name} is no folder of yours and is left alone" in capsys.readouterr().out


def test_a_work_folder_that_is_a_link_or_a_file_is_refused(here, refused):
    (here / "home").mkdir()
    (here / ".fmexp").symlink_to(here / "home")
    assert ".fmexp must be a folder of its own, and is a link" in refused(
        "run", "training.epochs=1"
    )
    assert list((here / "home").iterdir()) == []
    (here / ".fmexp").unlink()
    (here / ".fmexp").write_text("")
    assert ".fmexp must be a folder of its own, and is a file" in refused("doctor")


TABLE = ["run", "data=libsvm", "data.path=t.libsvm", "tracking=none", "training.epochs=1"]


@pytest.fixture
def large_table(here, monkeypatch):
    """One that is kept in the cache."""
    monkeypatch.setattr(cache, "SMALLEST", 0)
    rows = [f"{i % 7} {1 + i % 5}:1 {6 + i % 3}:0.5\n" for i in range(300)]
    (here / "t.libsvm").write_text("".join(rows))


def test_a_cache_that_is_a_link_takes_nothing_away_where_it_leads(here, large_table, refused):
    for name in (".config/lock", ".config/mail", ".mozilla.old/mail"):
        (here / "home" / name).parent.mkdir(exist_ok=True, parents=True)
        (here / "home" / name).write_text("precious")
    (here / ".fmexp").mkdir()
    (here / ".fmexp" / "cache").symlink_to(here / "home")
    assert "cache must be a folder of its own, and is a link" in refused(*TABLE)
    with pytest.raises(UserError, match="is a link"):
        fmexp.run(*TABLE[1:])
    assert sum(path.is_file() for path in (here / "home").rglob("*")) == 3


@pytest.mark.parametrize("how", ["changed", "unpacked", "other owner", "nothing said"])
def test_a_cache_that_others_made_is_not_used(how, here, large_table, monkeypatch, capsys):
    assert main(TABLE) == 0
    said = capsys.readouterr().out
    (folder,) = (here / ".fmexp" / "cache").iterdir()
    indices = folder / "block-indices.bin"
    indices.write_bytes(np.full(600, 10**6 * (how != "other owner"), np.int32).tobytes())
    if how == "unpacked":
        shutil.copytree(folder, here / "copy")
        shutil.rmtree(folder)
        (here / "copy").rename(folder)
    elif how == "other owner":
        cache.write_about(folder, json.loads((folder / cache.ABOUT).read_text()))
        monkeypatch.setattr("os.geteuid", lambda: 12345)
    elif how == "nothing said":
        (folder / cache.FILES).write_text("null")
    assert main(TABLE) == 0
    assert quality(capsys.readouterr().out) == quality(said)


def quality(printed: str) -> str:
    return next(line for line in printed.splitlines() if line.startswith("quality"))


@pytest.mark.parametrize("lock", [".fmexp/spool/.lock", ".fmexp/store.lock"])
def test_a_lock_that_is_a_link_is_neither_followed_nor_emptied(lock, fmexp):
    precious = fmexp.folder / "precious"
    precious.write_text("precious")
    (fmexp.folder / lock).parent.mkdir(parents=True)
    (fmexp.folder / lock).symlink_to(precious)
    sweep = ["-m", "hydra.sweeper.n_trials=1"]
    printed = fmexp("run", "training.epochs=1", *sweep, code=2 if "store" not in lock else 1)
    assert f"{Path(lock).name} must be a plain file, and is a link" in printed
    assert precious.read_text() == "precious"


def test_only_what_begins_as_a_journal_of_optuna_is_repaired(here, capsys):
    sweep = ["run", "-m", "tracking=none", "training.epochs=1"]
    (here / "optuna.journal").write_text("a letter\nwithout its last newline")
    assert main(sweep) == 2
    assert "optuna.journal is not a journal of Optuna" in capsys.readouterr().err
    assert (here / "optuna.journal").read_text() == "a letter\nwithout its last newline"
    (here / "optuna.journal").rename(here / "letter")
    (here / "optuna.journal").symlink_to(here / "letter")
    assert main(sweep) == 2
    assert "and is a link" in capsys.readouterr().err
    assert (here / "letter").read_text() == "a letter\nwithout its last newline"


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=folder,
                   check=True, capture_output=True)  # fmt: skip


@pytest.fixture
def repository(here: Path) -> Path:
    git(here, "init")
    (here / "file.txt").write_text("1")
    git(here, "add", "file.txt")
    git(here, "commit", "-m", "first")
    environment_tags.cache_clear()
    yield here
    environment_tags.cache_clear()


def tags_of_a_run(repository: Path) -> dict[str, str]:
    assert main(["run", "tracking=none", "training.epochs=1"]) == 0
    return environment_tags()


@pytest.mark.parametrize("text", ["1", "2"])
def test_a_repository_says_whether_it_is_dirty(text, repository):
    (repository / "file.txt").write_text(text)
    tags = tags_of_a_run(repository)
    assert len(tags["mlflow.source.git.commit"]) == 40
    assert tags["fmexp.git_dirty"] == ("true" if text == "2" else "false")


def test_no_program_of_a_repository_is_run(repository):
    spy = repository / "spy"
    spy.write_text("#!/bin/sh\necho ran >> ../ran\necho ran >> ran\ncat\n")
    spy.chmod(0o755)
    (repository / ".git" / "hooks" / "post-index-change").symlink_to(spy)
    (repository / ".gitattributes").write_text("* filter=spy diff=spy\n")
    for key in ("core.fsmonitor", "filter.spy.clean", "filter.spy.process", "diff.spy.textconv",
                "diff.external", "core.sshCommand", "core.pager"):  # fmt: skip
        git(repository, "config", key, str(spy))
    (repository / "file.txt").write_text("2")
    assert tags_of_a_run(repository)["fmexp.git_dirty"] == "unknown"
    assert not (repository / "ran").exists()


def test_fmexp_ui_runs_no_module_of_the_folder(here, store_folder, monkeypatch):
    for name in ("uvicorn", "mlflow", "fastapi", "sqlalchemy", "alembic", "sitecustomize"):
        (here / f"{name}.py").write_text("open('ran', 'w').close()")

    def leave(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ui, "prepare", leave)  # the server is up then
    assert main(["ui", "--port", str(free_port())]) == 130
    assert not (here / "ran").exists()


def test_a_numba_configuration_of_the_folder_is_refused(here, fmexp):
    (here / ".numba_config.yaml").write_text("cache_dir: theirs\n")
    assert ".numba_config.yaml" in fmexp("run", "tracking=none", code=2)
    assert not (here / "theirs").exists()


def test_a_matplotlibrc_of_the_folder_changes_no_picture(here, fmexp):
    (here / "matplotlibrc").write_text("text.usetex: True\n")
    fmexp("run", "training.epochs=2")


class _Command:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch it-ran",)


JOBS = ["run", "-m", "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5", "model.k=2,3",
        "hydra.sweeper.n_jobs=1", "tracking=none", "training.epochs=1"]  # fmt: skip


def test_what_a_folder_says_that_jobs_returned_is_not_where_it_is_looked_for(here):
    """Submitit reads a job's result from a folder of its number, which can be guessed.

    It waits for a job of this machine, which writes over what was there; one that is killed before
    does not.
    """
    pytest.importorskip("submitit")
    planted = pickle.dumps(("success", _Command()))
    for number in range(os.getpid() + 1, os.getpid() + 2000):
        folder = here / ".fmexp" / "hydra" / ".submitit" / str(number)
        folder.mkdir(parents=True)
        result = folder / f"{number}_0_result.pkl"
        result.write_bytes(planted)
    assert main(JOBS) == 0
    assert not (here / "it-ran").exists()
    home = here / ".fmexp" / "hydra" / ".submitit"
    assert {path.read_bytes() for path in home.glob("*/*_result.pkl")} == {planted}
    assert len(list(home.glob("*/*/*_result.pkl"))) == 1


@pytest.mark.parametrize("link", ["hydra", "hydra/.submitit"])
def test_a_folder_for_jobs_that_leads_elsewhere_is_refused(link, here, capsys):
    pytest.importorskip("submitit")
    (here / "theirs").mkdir()
    (here / ".fmexp" / link).parent.mkdir(parents=True)
    (here / ".fmexp" / link).symlink_to(here / "theirs")
    assert main(JOBS) == 2
    assert f"{link} must be a folder of your own" in capsys.readouterr().err
    assert list((here / "theirs").iterdir()) == []
