"""A backend of another package, tests/my_fm: installed, it works like one of fmexp's own."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from fmexp.cli.parser import main
from fmexp.config import outside
from tests.record_support import stored

PACKAGE = Path(__file__).resolve().parent / "my_fm"
MINE = ("backend=mine", "training.learning_rate=0.1", "training.epochs=20")


def install(site: Path, entry: str = "") -> None:
    """What pip would lay down of it but the code, which stays where it is."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    points = project["entry-points"][outside.GROUP]
    info = site / "my_fm-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-fm\nVersion: 1.0\n")
    lines = [f"{name} = {entry or value}" for name, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{outside.GROUP}]", *lines]))


@pytest.fixture
def installed(tmp_path, monkeypatch):
    install(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.syspath_prepend(str(PACKAGE))
    outside.outside.cache_clear()
    yield
    outside.outside.cache_clear()


def test_the_package_has_less_than_sixty_lines():
    files = [path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".toml", ".yaml")]
    assert len(files) == 3
    lines = [line for path in files for line in path.read_text().splitlines() if line.strip()]
    assert len(lines) < 60


def test_it_runs_is_reproduced_and_predicts(installed, store_folder, monkeypatch, capsys):
    monkeypatch.chdir(store_folder)
    assert main(["run", *MINE, "backend.momentum=0.7"]) == 0
    assert "% less" in capsys.readouterr().out  # than predicting the mean
    (run,) = stored(Path("mlflow.db"))
    assert run.params["backend"] == "mine"
    assert run.params["backend.momentum"] == "0.7"
    assert main(["reproduce", "latest"]) == 0
    diabetes = Path(outside.__file__).parent.parent / "data" / "diabetes.csv"
    assert main(["predict", "latest", "--data", str(diabetes), "--out", "out.csv"]) == 0
    assert len(Path("out.csv").read_text().splitlines()) == 443


def test_it_is_swept_beside_ours(installed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    swept = ("backend=mine,numpy_sgd", "training.learning_rate=0.03,0.1", "tracking=none")
    assert main(["run", "-m", *swept, "training.epochs=5"]) == 0
    assert "4 of 4 trials: 4 completed" in capsys.readouterr().out


def test_mistakes_in_its_keys_are_told_as_ours(installed, refused):
    assert "backend.momentum must be a number" in refused("run", *MINE, "backend.momentum=7")
    assert "backend.speed is not a key" in refused("run", *MINE, "backend.speed=1")


def test_a_package_that_cannot_be_imported_is_named(tmp_path, monkeypatch, refused):
    install(tmp_path / "site", "my_fm.nothing")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.syspath_prepend(str(PACKAGE))
    outside.outside.cache_clear()
    try:
        assert "backend=mine of the package my-fm cannot be loaded" in refused("run", *MINE)
    finally:
        outside.outside.cache_clear()
