"""Where a study is kept: Optuna's journal file by default, or a database."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import logging
import os
import random
import re
import threading
import time
import warnings
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from fmexp.errors import FmexpError, MissingPackageError, StoreError, UserError
from fmexp.record import safe_files
from fmexp.record.locate import sqlite_path
from fmexp.record.passwords import without_password

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optuna.storages import BaseStorage

JOURNAL = "optuna.journal"
_FIRST_BYTES = b'{"op_code":'
_PATIENCE_SECONDS = 10.0
_ALLOWED = (
    "null (the file optuna.journal), journal:///path/to/file, a path that ends in .journal, "
    "sqlite:///study.db, postgresql://user@host/database or grpc://host:port (Optuna's proxy)"
)
_TABLES_LOCK = 0x666D657870
"""Key of the advisory lock of PostgreSQL under which Optuna's tables are made."""

_log = logging.getLogger("fmexp")
_PROXY = re.compile(r"grpc://([\w.-]+):(\d{1,5})")
_POSTGRES = {"postgresql+psycopg": "psycopg", "postgresql+psycopg2": "psycopg2"}


def locate_storage(url: str | None, folder: Path, workers: int = 1) -> str:
    """The storage's URL, absolute, so that it means the same to a worker elsewhere.

    Args:
        url: `hydra.sweeper.storage`; null is the journal in `folder`.
        folder: what a relative path starts from.
        workers: how many will use it.

    Raises:
        UserError: no study can be kept there, or none of so many workers.
    """
    _refuse_several_workers(url, workers)
    if url is None:
        return f"journal://{folder.resolve() / JOURNAL}"
    scheme, _, rest = url.partition("://")
    if scheme in ("postgres", "postgresql"):
        return f"postgresql+psycopg://{rest}"
    if scheme in _POSTGRES or (scheme == "grpc" and _PROXY.fullmatch(url)):
        return url
    path = _path(url)
    if path is None:
        raise UserError(
            f"hydra.sweeper.storage: no study can be kept in {without_password(url)!r}; "
            f"expected {_ALLOWED}"
        )
    absolute = (folder / path).parent.resolve() / path.name  # a link is for the lock to refuse
    if absolute.is_dir() or not absolute.parent.is_dir():
        wrong = "is a folder" if absolute.is_dir() else f"has no folder {absolute.parent}; make it"
        raise UserError(f"hydra.sweeper.storage: {url!r} names a file, but {absolute} {wrong}")
    return f"{'sqlite:///' if scheme == 'sqlite' else 'journal://'}{absolute}"


def open_storage(
    url: str | None, folder: Path, patience: float = 0.0, opening: float = 0.0
) -> BaseStorage:
    """An Optuna storage; made where there is none, also by several at once.

    Args:
        url: `hydra.sweeper.storage`.
        folder: what a relative path starts from.
        patience: seconds for which each call waits for a database that is away.
        opening: the same for opening it.

    Raises:
        UserError: no study can be kept there; the file cannot be written, or is something else.
        MissingPackageError: the database's driver is not installed.
        StoreError: the database does not answer.
    """
    located = locate_storage(url, folder)
    if located.startswith("journal://"):
        return _open_journal(Path(located.removeprefix("journal://")))
    if located.startswith("grpc:"):
        storage = _open_proxy(located, max(opening, 1.0))
    else:
        storage = _open_database(located, opening)
    if not patience or located.startswith("sqlite"):
        return storage
    from fmexp.sweep.patient_storage import PatientStorage

    return PatientStorage(storage, located, patience)  # type: ignore[abstract] # made at import


@contextlib.contextmanager
def answering(url: str) -> Iterator[None]:
    """Say in words what a storage does that was there and is lost.

    Raises:
        StoreError: it does not answer any more.
    """
    from optuna.exceptions import StorageInternalError

    losses: tuple[type[Exception], ...] = (StorageInternalError, OSError)
    if url.startswith("grpc:"):
        from grpc import RpcError

        losses += (RpcError,)
    elif not url.startswith("journal://"):
        from sqlalchemy.exc import SQLAlchemyError

        losses += (SQLAlchemyError,)
    try:
        yield
    except losses as error:
        cause = (str(error.__cause__ or error).strip().splitlines() or [""])[0]
        raise StoreError(
            f"the study's storage {without_password(url)} was lost: {cause}. What had ended is on "
            "disk: when the storage is back, the same command goes on from there"
        ) from error


def _refuse_several_workers(url: str | None, workers: int) -> None:
    """Several workers on one sqlite file run into each other's locks, and enqueued trials twice.

    Raises:
        UserError: the storage is sqlite and there is more than one worker.
    """
    if workers > 1 and url is not None and url.startswith("sqlite"):
        raise UserError(
            f"hydra.sweeper.n_jobs={workers} does not go with {url}: several workers on one sqlite "
            "file do the same trial twice; leave hydra.sweeper.storage out (Optuna's journal file, "
            "made for this), or use PostgreSQL (postgresql://user@host/database)"
        )


class JournalLock:
    """What Optuna holds while it appends to a journal: a `flock`, which goes with its process.

    A process killed in mid-append leaves a line without its end, on to which the next append would
    be glued, and the whole file would be unreadable. So whoever takes the lock cuts such a line
    off first and keeps it aside.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._held = threading.local()  # a descriptor per acquire: threads share no flock

    def acquire(self) -> bool:
        """Wait for the lock; the journal then ends with a whole line."""
        descriptor = safe_files.open_plain(self._journal, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._wait_for(descriptor)
            _check_journal(descriptor, self._journal)
            _cut_torn_line(descriptor, self._journal)
        except BaseException:
            os.close(descriptor)
            raise
        self._held.descriptor = descriptor
        return True

    def release(self) -> None:
        """Let the next one in."""
        os.close(self._held.descriptor)

    def _wait_for(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held = (
                f"{self._journal} is being written by a process that does not go on (stopped with "
                "Ctrl-Z?); this one waits until that goes on, or is killed"
            )
            warning = threading.Timer(_PATIENCE_SECONDS, _log.warning, [held])
            warning.daemon = True
            warning.start()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            finally:
                warning.cancel()


def _check_journal(descriptor: int, journal: Path) -> None:
    """Refuse to touch a file that does not begin as Optuna's journals do.

    Raises:
        UserError: it is something else.
    """
    start = os.pread(descriptor, len(_FIRST_BYTES), 0)
    if start != _FIRST_BYTES[: len(start)]:
        raise UserError(
            f"hydra.sweeper.storage: {journal} is not a journal of Optuna (it begins with "
            f"{start!r}); move it away, or name another file"
        )


def is_torn(journal: Path) -> bool:
    """Whether a journal ends in a line without its newline."""
    with os.fdopen(safe_files.open_plain(journal), "rb") as file:
        end = file.seek(0, os.SEEK_END)
        return end > 0 and os.pread(file.fileno(), 1, end - 1) != b"\n"


def _cut_torn_line(descriptor: int, journal: Path) -> None:
    """Move a last line without its newline into a file of its own, `<journal>.torn-<time>`."""
    end = os.fstat(descriptor).st_size
    if end == 0 or os.pread(descriptor, 1, end - 1) == b"\n":
        return
    whole = _end_of_whole_lines(descriptor, end)
    aside = journal.with_name(f"{journal.name}.torn-{time.time_ns()}")
    with aside.open("xb") as file:
        file.write(os.pread(descriptor, end - whole, whole))
    os.ftruncate(descriptor, whole)


def _end_of_whole_lines(descriptor: int, end: int, block: int = 1 << 16) -> int:
    """The offset after the last newline before `end`."""
    while end > 0:
        start = max(0, end - block)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _open_journal(path: Path) -> BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    lock = JournalLock(path)
    try:
        lock.acquire()  # cuts a torn line off before anyone reads
        lock.release()
        with path.open("rb") as file:  # of a bad last line Optuna complains after the next one
            for line in deque(file, maxlen=1):
                json.loads(line)
        backend = JournalFileBackend(str(path), lock)  # type: ignore[arg-type] # its base is private
        return JournalStorage(backend)
    except OSError as error:
        raise UserError(
            f"hydra.sweeper.storage: {path} cannot be written ({error.strerror}); work in a folder "
            "that you may write to, or name another file"
        ) from error
    except FmexpError:
        raise
    except Exception as error:  # Optuna reads each line with whatever errors it happens to raise
        raise UserError(
            f"hydra.sweeper.storage: {path} is not a journal of Optuna ({type(error).__name__}: "
            f"{error}); move it away, or name another file"
        ) from error


def _open_proxy(url: str, patience: float) -> BaseStorage:
    """Optuna's proxy: a server between many workers and their database."""
    if importlib.util.find_spec("grpc") is None:
        raise MissingPackageError(
            f"hydra.sweeper.storage={url} needs grpcio: pip install 'fmexp[grpc]'"
        )
    from optuna.exceptions import ExperimentalWarning
    from optuna.storages import GrpcStorageProxy

    host, port = _PROXY.fullmatch(url).groups()  # type: ignore[union-attr] # it was located
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        proxy = GrpcStorageProxy(host=host, port=int(port))
    try:
        proxy.wait_server_ready(timeout=patience)
    except ConnectionError as error:
        raise StoreError(
            f"the study's storage {url} does not answer; does optuna.storages."
            "run_grpc_proxy_server run there?"
        ) from error
    return proxy


def _open_database(url: str, patience: float) -> BaseStorage:
    driver = _POSTGRES.get(url.partition("://")[0])
    if driver and importlib.util.find_spec(driver) is None:
        package = "psycopg[binary]" if driver == "psycopg" else driver
        raise MissingPackageError(
            f"hydra.sweeper.storage={without_password(url)} needs {driver}: pip install '{package}'"
        )
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return _connect(url, patience)
    except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        if url.startswith("sqlite"):
            raise UserError(
                f"hydra.sweeper.storage: {url} cannot hold a study ({cause}); move it away, or "
                "name another file"
            ) from error
        raise StoreError(
            f"the study's storage {without_password(url)} cannot be opened: {cause}; is it "
            "running, and are address, user and database right?"
        ) from error


def _connect(url: str, patience: float) -> BaseStorage:
    """The storage; where the server is away it is waited for."""
    from fmexp.sweep.patient_storage import lost_connection

    since = float("inf")  # an attempt itself may take long
    while True:
        try:
            return _make_tables(url)
        except Exception as error:
            since = min(since, time.monotonic())
            if time.monotonic() - since >= patience or not lost_connection(error):
                raise
        time.sleep(random.uniform(0.5, 2))


def _make_tables(url: str) -> BaseStorage:
    """The storage, with its tables, which only one of several at a time makes.

    Optuna does not lock: all but the first that make them would fail. A session that holds
    PostgreSQL's advisory lock and dies gives it back. `alembic_version` is made last.
    """
    from optuna.storages import RDBStorage, get_storage
    from sqlalchemy import NullPool, create_engine, text

    if url.startswith("sqlite"):
        return get_storage(RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}}))
    with create_engine(url, poolclass=NullPool).connect() as session:
        if session.scalar(text("select to_regclass('alembic_version')")) is None:
            session.execute(text("select pg_advisory_lock(:key)"), {"key": _TABLES_LOCK})
        return get_storage(RDBStorage(url))


def _path(url: str) -> Path | None:
    """The file that a URL names; None where it names none."""
    if url.startswith("journal:///"):
        return Path(url.removeprefix("journal://"))
    if url.startswith("sqlite:///"):
        path = sqlite_path(url)
        return path if path is not None and path.name not in ("", ":memory:") else None
    return Path(url) if "://" not in url and url.endswith(".journal") else None
