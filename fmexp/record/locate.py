"""Which store the runs go to, and why that one; never opens it, never imports MLflow."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fmexp.errors import UserError
from fmexp.record.passwords import no_password, without_password

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_URI = "sqlite:///mlflow.db"
_SERVERS = ("http", "https", "databricks")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_ALLOWED = (
    "sqlite:///mlflow.db (a file), http://host:5000 (an MLflow server), "
    "or a postgresql, mysql or mssql URI"
)


@dataclass(frozen=True)
class StoreChoice:
    """A tracking URI.

    Attributes:
        uri: absolute: it means the same from every working directory. May hold a password.
        why: where it came from, in words for the screen.
    """

    uri: str
    why: str

    @property
    def shown(self) -> str:
        """The URI without its password."""
        return without_password(self.uri)


def locate_store(
    command_line: str | None,
    config: str | None,
    environ: Mapping[str, str],
    folder: Path | None = None,
    key: str = "tracking.uri",
) -> StoreChoice:
    """The store by precedence: command line, MLFLOW_TRACKING_URI, config, ./mlflow.db.

    The last is MLflow's own default, so that a plain `mlflow ui` in the folder shows the runs.

    Args:
        command_line: `key` as an override; None when not given.
        config: `key` of the composed config.
        environ: the process environment.
        folder: what a relative sqlite path starts from; the working directory by default.
        key: name of the key, for messages.

    Raises:
        UserError: the URI cannot work: unknown kind, a plain folder, no such directory.
    """
    candidates = (
        (command_line, f"{key} on the command line"),
        (environ.get("MLFLOW_TRACKING_URI"), "the environment variable MLFLOW_TRACKING_URI"),
        (config, f"{key} in the configuration"),
    )
    for uri, why in candidates:
        if uri:
            return StoreChoice(_checked(uri, why, folder or Path.cwd(), key), why)
    why = "the default, mlflow.db in the working directory"
    return StoreChoice(_checked(DEFAULT_URI, why, folder or Path.cwd(), key), why)


def is_below(url: str, folder: Path) -> bool:
    """Whether a study's located storage is a file below a folder; commands elsewhere share others.

    >>> [is_below(url, Path("/a")) for url in ("journal:///a/b", "journal:///ab", "http://a")]
    [True, False, False]
    """
    return url.startswith((f"journal://{folder}/", f"sqlite:///{folder}/"))


def as_option(uri: str, environ: Mapping[str, str], folder: Path) -> str:
    """What a command needs to find a store again: "" or ` --uri ...`, as a shell takes it.

    Without a password, which the environment may hold.

    >>> as_option("sqlite:////a b/mlflow.db", {}, Path("/a b"))
    ''
    >>> as_option("http://me:secret@host:5000/?a&b", {}, Path("/"))
    " --uri 'http://me@host:5000/?a&b'"
    """
    shown = no_password(uri)
    if uri == f"sqlite:///{folder / 'mlflow.db'}":
        return ""
    if shown != uri and environ.get("MLFLOW_TRACKING_URI", "").rstrip("/") == uri:
        return ""
    return f" --uri {shlex.quote(shown)}"


def sqlite_path(uri: str) -> Path | None:
    """The database file of a sqlite URI; None for every other kind of store."""
    scheme, _, rest = uri.partition(":///")
    return Path(rest.partition("?")[0]) if scheme.split("+")[0] == "sqlite" and rest else None


def _checked(uri: str, why: str, folder: Path, key: str) -> str:
    """`uri`, absolute; raises UserError where it cannot work."""
    scheme = urlsplit(uri).scheme.split("+")[0]
    if scheme == "sqlite":
        return _checked_sqlite(uri, why, folder, key)
    if scheme in _DATABASES or scheme in _SERVERS or uri == "databricks":
        return uri.rstrip("/")
    shown = without_password(uri)
    if scheme in ("", "file"):
        raise UserError(
            f"{why}: {shown!r} is a folder, and MLflow no longer writes its runs as plain files; "
            f"expected {_ALLOWED}; {_no_record(key)}"
        )
    raise UserError(f"{why}: MLflow knows no store {shown!r}; expected {_ALLOWED}")


def _checked_sqlite(uri: str, why: str, folder: Path, key: str) -> str:
    path = sqlite_path(uri)
    if path is None or path.name in ("", ":memory:"):
        raise UserError(f"{why}: {uri!r} names no file; expected sqlite:///mlflow.db")
    absolute = folder / path
    if not absolute.parent.is_dir():
        raise UserError(f"{why}: the folder {absolute.parent} of {uri!r} does not exist; make it")
    misread = sorted(set("?#%") & set(str(absolute)))
    if misread:
        raise UserError(
            f"{why}: {absolute}: {' and '.join(misread)} in the name of a folder or file a "
            "database address cannot hold; name another file, as in "
            f"{key}=sqlite:////home/me/mlflow.db, or {_no_record(key)}"
        )
    if absolute.is_dir() or (absolute.exists() and not _is_sqlite(absolute)):
        raise UserError(
            f"{why}: {absolute} is not a sqlite database; name another file, or move it away"
        )
    return uri.replace(str(path), str(absolute), 1)


def _no_record(key: str) -> str:
    return f"to record nothing: {key.rpartition('.')[0].replace('.', '/')}=none"


def _is_sqlite(path: Path) -> bool:
    """Whether the file is empty (a database to be) or starts as sqlite's do."""
    try:
        with path.open("rb") as file:
            return file.read(16) in (b"", b"SQLite format 3\x00")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; check its permissions") from None
