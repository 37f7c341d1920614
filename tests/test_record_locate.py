"""Which store: the precedence, and what cannot work is said at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from fmexp.errors import UserError
from fmexp.record.locate import locate_store
from fmexp.record.passwords import without_password

ENV = {"MLFLOW_TRACKING_URI": "http://from-env:5000"}


@pytest.mark.parametrize(
    ("command_line", "config", "environ", "uri", "why"),
    [
        ("http://cli:1", "http://config:1", ENV, "http://cli:1", "command line"),
        (None, "http://config:1", ENV, "http://from-env:5000", "MLFLOW_TRACKING_URI"),
        (None, "http://config:1", {}, "http://config:1", "configuration"),
        (None, "http://config:1/", {"MLFLOW_TRACKING_URI": ""}, "http://config:1", "config"),
        (None, None, {}, "sqlite:///{folder}/mlflow.db", "default"),
        (None, "sqlite:///other.db", {}, "sqlite:///{folder}/other.db", "configuration"),
        ("sqlite:////{folder}/x.db", None, {}, "sqlite:////{folder}/x.db", "command line"),
        ("postgresql+psycopg://me:pw@h/db", None, {}, "postgresql+psycopg://me:pw@h/db", "line"),
    ],
)
def test_the_command_line_comes_before_the_environment_before_the_config(
    tmp_path: Path, command_line: str, config: str, environ: dict[str, str], uri: str, why: str
) -> None:
    folder = str(tmp_path).lstrip("/")
    at = lambda text: text and text.replace("{folder}", folder)  # noqa: E731
    choice = locate_store(at(command_line), config, environ, tmp_path)
    assert choice.uri.replace("////", "///") == at(uri).replace("////", "///").replace(
        f"sqlite:///{folder}", f"sqlite:///{folder}"
    )
    assert why in choice.why


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("mlruns", "is a folder.*sqlite:///mlflow.db"),
        ("file:///data/mlruns", "is a folder.*sqlite:///mlflow.db"),
        ("./some/where", "is a folder"),
        ("ftp://host/x", "knows no store.*http://host:5000"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///no/such/folder/mlflow.db", "does not exist"),
        ("sqlite:///notes.txt", "not a sqlite database"),
        ("sqlite:///folder", "not a sqlite database"),
    ],
)
def test_what_cannot_work_is_said_with_what_can(tmp_path: Path, uri: str, message: str) -> None:
    (tmp_path / "notes.txt").write_text("these are notes, not a database")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=message) as error:
        locate_store(None, uri, {}, tmp_path)
    assert "tracking.uri in the configuration" in str(error.value)


def test_a_password_is_never_shown() -> None:
    uri = "postgresql://me:s3:cr@t@host:5432/runs"
    assert "s3" not in without_password(uri)
    assert "cr@t" not in without_password(uri)
    assert without_password("http://host:5000/a:b@c") == "http://host:5000/a:b@c"
    assert without_password("sqlite:////a/b:c@d/m.db") == "sqlite:////a/b:c@d/m.db"
