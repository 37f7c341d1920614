"""Tables as binary columns on disk: read from text once, mapped into memory ever after."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fmexp.data import budget, files
from fmexp.data.features import CSR
from fmexp.data.growing import GrowingArray, GrowingFeatures, mapped, read_features
from fmexp.data.table import Column, Table, Text, digest, stack
from fmexp.errors import DataError
from fmexp.record import safe_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_log = logging.getLogger(__name__)

VERSION = 5
"""Of the layout; another one is built anew."""

SMALLEST = 8 << 20
"""Bytes of the sources from which a cache is worth it."""

HOME = Path(".fmexp", "cache")
"""Under the working directory; can be removed at any time."""

ABOUT, FILES = "about.json", "files.json"
"""What is in a folder; and of each of its files what shows that it is the one that was written."""

LOCK = "lock"
"""In a folder that is being written: held by the process that writes it."""


class CachedTable:
    """A table whose columns are mapped from a folder.

    Attributes:
        folder: holds `about.json` and a file for each column; more may be kept beside them.
        table: the columns.
        data_digest: of the files that it was read from, as `files.digest`.
        columns_digest: of the whole table, as `Table.digest`.
        is_new: whether it was made just now.
    """

    def __init__(self, folder: Path, is_new: bool) -> None:
        about = about_of(folder)
        columns: dict[str, Column] = {}
        for i, (name, kind) in enumerate(about["columns"]):
            if kind == "text":
                names = json.loads((folder / f"{i}.json").read_text(encoding="utf-8"))
                columns[name] = Text(mapped(folder / f"{i}.bin", np.int32), names)
            else:
                columns[name] = mapped(folder / f"{i}.bin", np.float64)
        self.folder, self.is_new = folder, is_new
        block = read_features(folder, "block", about["n_features"])
        assert block is None or isinstance(block, CSR)
        self.table = Table(columns, block, about["left_out"])
        self.data_digest: str = about["data_digest"]
        self.columns_digest: str = about["columns_digest"]

    def discard(self) -> None:
        """Remove the folder, and `.fmexp/cache` above it where nothing else is in it."""
        shutil.rmtree(self.folder)
        _remove_empty([self.folder.parent, self.folder.parent.parent])


def read_table(
    found: list[Path], asked: Any, batches: Callable[[], Iterable[Table]]
) -> tuple[Table, str, CachedTable | None]:
    """All rows of files: in memory, or mapped from the cache where the files are large.

    Args:
        found: the files.
        asked: what else decides the table (columns, kinds, delimiter, ...), as JSON knows it.
        batches: reads the table, some rows at a time.

    Returns:
        The table, the hash of the files, and the table's place in the cache where it has one.

    Raises:
        DataError: what `batches` raises, there are no rows, or the disk is full.
    """
    if sum(file.stat().st_size for file in found) >= SMALLEST:
        cached = table_in_files(found, asked, batches, HOME)
        return cached.table, cached.data_digest, cached
    tables = list(batches())
    if not any(map(len, tables)):
        raise DataError(f"{found[0]} holds no rows" + (" with a target" if tables else ""))
    return stack(tables), files.digest(found), None


def table_in_files(
    sources: list[Path], asked: Any, read: Callable[[], Iterable[Table]], home: Path
) -> CachedTable:
    """The table that `read` gives, from the cache where the sources have not changed since.

    Args:
        sources: the files that the table is read from.
        asked: what else decides the table (columns, kinds, delimiter, ...), as JSON knows it.
        read: reads the table, batch by batch.
        home: the folder that holds all caches.

    Raises:
        DataError: what `read` raises, or the disk is full; nothing is left behind then.
        UserError: `home` leads elsewhere.
    """
    safe_files.check_work_folder(Path())
    paths = [str(source.resolve()) for source in sources]
    key = digest([json.dumps([VERSION, paths, asked], sort_keys=True).encode()])
    folder = home / f"{sources[0].stem}-{key[:16]}"
    state = [[s.stat().st_size, s.stat().st_mtime_ns] for s in sources]
    about = read_about(folder)
    is_new = about is None or about["sources"] != state
    if is_new:
        n_bytes = sum(size for size, _ in state)
        if n_bytes > budget.STATED:
            _log.warning("reading %s once into %s", budget.size(n_bytes), home)
        with new_folder(folder) as made:
            _write(made, read(), {"sources": state, "data_digest": files.digest(sources)})
    return CachedTable(folder, is_new)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder that takes its name only when all of it is written, in the place of an older one.

    Raises:
        DataError: it cannot be written.
    """
    home = folder.parent
    made_by_us = [parent for parent in (home, *home.parents) if not parent.exists()]
    made = home / f".{folder.name}.{uuid.uuid4().hex}"
    try:
        home.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(home)
        with _locked(made):
            yield made
            _put_in_place(made, folder)
            (folder / LOCK).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"the cache {folder} cannot be written: {error}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
        _remove_empty(made_by_us)


@contextmanager
def _locked(made: Path) -> Iterator[None]:
    """Make a folder and hold its lock; again where another took it for abandoned before that."""
    while True:
        made.mkdir()
        with (made / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (made / LOCK).exists():
                yield
                return


def _remove_empty(folders: list[Path]) -> None:
    """Remove those that are there and have nothing in them, the innermost first."""
    for folder in folders:
        if folder.exists() and not any(folder.iterdir()):
            folder.rmdir()


def write_about(folder: Path, about: dict[str, Any]) -> None:
    """Say what is in a folder; written last."""
    text = json.dumps(about | {"version": VERSION}, ensure_ascii=False)
    (folder / ABOUT).write_text(text, encoding="utf-8")
    (folder / FILES).write_text(json.dumps(_files(folder)), encoding="utf-8")


def read_about(folder: Path) -> dict[str, Any] | None:
    """What is in a folder that was there before.

    None where it is not there, not of this version, or not as this user wrote it on this machine:
    a folder that was unpacked, or that others have changed, could name features and texts that
    are not there, and what computes on them does not look.
    """
    try:
        written = json.loads((folder / FILES).read_text(encoding="utf-8"))
        if written is None or written != _files(folder):
            return None
        about = about_of(folder)
    except (OSError, ValueError, RecursionError):
        return None
    return about if isinstance(about, dict) and about.get("version") == VERSION else None


def about_of(folder: Path) -> Any:
    """What is in a folder that `read_about` knows, or that was written just now."""
    return json.loads((folder / ABOUT).read_text(encoding="utf-8"))


def _files(folder: Path) -> dict[str, list[int]] | None:
    """Inode and time of the last change of each file: nobody can choose that time.

    None where one is not this user's.
    """
    paths = [path for path in folder.iterdir() if path.name not in (FILES, LOCK)]
    found = {path.name: path.lstat() for path in paths if path.is_symlink() or not path.is_dir()}
    if any(each.st_uid != os.geteuid() for each in found.values()):
        return None
    return {name: [each.st_ino, each.st_ctime_ns] for name, each in found.items()}


def _write(folder: Path, tables: Iterable[Table], about: dict[str, Any]) -> None:
    """Write all batches of a table, then what they are: `about`, and what is seen of them."""
    columns: dict[str, tuple[GrowingArray, list[str] | None]] = {}
    growing = GrowingFeatures(folder, "block")
    n_rows = left_out = 0
    for table in tables:
        for name, column in table.columns.items():
            if name not in columns:
                dtype = np.int32 if isinstance(column, Text) else np.float64
                names = column.names if isinstance(column, Text) else None
                columns[name] = GrowingArray(dtype, folder / f"{len(columns)}.bin"), names
            columns[name][0].append(column.codes if isinstance(column, Text) else column)
        if table.block is not None:
            growing.append(table.block)
        n_rows, left_out = n_rows + len(table), left_out + table.left_out
    if n_rows == 0:
        raise DataError("there are no rows" + (" with a target" if left_out else ""))
    finished: dict[str, Column] = {}
    for i, (name, (numbers, names)) in enumerate(columns.items()):
        array = numbers.finish()
        finished[name] = array if names is None else Text(array, names)
        if names is not None:
            text = json.dumps(names, ensure_ascii=False)
            (folder / f"{i}.json").write_text(text, encoding="utf-8")
    block = growing.finish()
    assert block is None or isinstance(block, CSR)
    kinds = [[name, "number" if names is None else "text"] for name, (_, names) in columns.items()]
    about |= {
        "columns": kinds,
        "left_out": left_out,
        "columns_digest": Table(finished, block).digest(),
    }
    write_about(folder, about | {"n_features": block.n_features if block else 0})


def _put_in_place(made: Path, folder: Path) -> None:
    """Rename, over an older folder; other processes may do the same at the same time."""
    for _ in range(10):
        try:
            made.rename(folder)
        except OSError:  # there is one already
            if read_about(folder) == about_of(made):
                return  # the same, and another process may be reading it
            old = made.with_name(f"{made.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            try:
                folder.rename(old)
            except FileNotFoundError:
                continue
            shutil.rmtree(old, ignore_errors=True)
        else:
            return
    raise DataError(f"the cache {folder} cannot be put in place: remove it")


def _remove_abandoned(home: Path) -> None:
    """Remove what a killed process, of whatever host, has left half-written.

    The lock is a `flock`, which goes with the process that holds it.
    """
    for left in home.glob(".*"):
        if left.suffix == ".old":
            shutil.rmtree(left, ignore_errors=True)
            continue
        try:
            with (left / LOCK).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
        except OSError:  # it is being written, or this moment put in place
            continue
