"""Tables as binary columns on disk: read from text once, mapped into memory ever after."""

from __future__ import annotations

import fcntl
import json
import logging
import shutil
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from fmexp.data import budget, files
from fmexp.data.features import CSR
from fmexp.data.growing import Growing, InFile, mapped
from fmexp.data.table import Column, Table, Text, digest
from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from fmexp.data.features import Features

_log = logging.getLogger(__name__)

VERSION = 2
"""Of the layout; another one is built anew."""

SMALLEST = 8 << 20
"""Bytes of the sources from which a cache is worth it."""

ABOUT = "about.json"

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
        about = read_about(folder)
        assert about is not None
        columns: dict[str, Column] = {}
        for i, (name, kind) in enumerate(about["columns"]):
            if kind == "text":
                names = json.loads((folder / f"{i}.json").read_text(encoding="utf-8"))
                columns[name] = Text(mapped(folder / f"{i}.bin", np.int32), names)
            else:
                columns[name] = mapped(folder / f"{i}.bin", np.float64)
        self.folder, self.is_new = folder, is_new
        rows = read_rows(folder, "block", about["n_features"])
        self.table = Table(columns, rows, about["left_out"])
        self.data_digest: str = about["data_digest"]
        self.columns_digest: str = about["columns_digest"]

    def discard(self) -> None:
        """Remove the folder, and `.fmexp/cache` above it where nothing else is in it."""
        shutil.rmtree(self.folder)
        _remove_empty([self.folder.parent, self.folder.parent.parent])


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
    """
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
        made.mkdir()
        with (made / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield made
            _put_in_place(made, folder)
            (folder / LOCK).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"the cache {folder} cannot be written: {error}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
        _remove_empty(made_by_us)


def _remove_empty(folders: list[Path]) -> None:
    """Remove those that are there and have nothing in them, the innermost first."""
    for folder in folders:
        if folder.exists() and not any(folder.iterdir()):
            folder.rmdir()


def write_about(folder: Path, about: dict[str, Any]) -> None:
    """Say what is in a folder; written last."""
    text = json.dumps(about | {"version": VERSION}, ensure_ascii=False)
    (folder / ABOUT).write_text(text, encoding="utf-8")


def read_about(folder: Path) -> dict[str, Any] | None:
    """What is in a folder, None where it is not there or not of this version."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return about if isinstance(about, dict) and about.get("version") == VERSION else None


class GrowingRows:
    """Feature rows that grow; see `Growing`.

    Entries that are all 1 so far are kept without values.
    """

    def __init__(self, make: Callable[[str, type[np.generic]], Growing]) -> None:
        self._make = make
        self._indptr, self._indices = make("indptr", np.int64), make("indices", np.int32)
        self._indptr.append(np.zeros(1, np.int64))
        self._values: Growing | None = None
        self._n_entries = self._n_features = 0

    def append(self, rows: Features) -> None:
        """Add rows at the end."""
        assert isinstance(rows, CSR)
        if rows.values is not None and self._values is None:
            self._values = self._make("values", np.float64)
            for start in range(0, self._n_entries, 1 << 20):
                self._values.append(np.ones(min(1 << 20, self._n_entries - start)))
        if self._values is not None:
            ones = rows.values is None
            self._values.append(np.ones(len(rows.indices)) if ones else rows.values)  # type: ignore[arg-type]
        self._indptr.append(rows.indptr[1:] - rows.indptr[0] + self._n_entries)
        self._indices.append(rows.indices)
        self._n_entries += len(rows.indices)
        self._n_features = max(self._n_features, rows.n_features)

    def finish(self) -> CSR:
        """All rows; nothing can be added after that."""
        values = None if self._values is None else self._values.finish()
        return CSR(self._indptr.finish(), self._indices.finish(), values, self._n_features)


class GrowingTable:
    """Dense feature rows that grow; see `Growing`."""

    def __init__(self, make: Callable[[str, type[np.generic]], Growing], n_features: int) -> None:
        self._cells, self._n_features = make("dense", np.float64), n_features

    def append(self, rows: Features) -> None:
        """Add rows at the end."""
        assert not isinstance(rows, CSR)
        self._cells.append(rows.ravel())

    def finish(self) -> np.ndarray:
        """All rows; nothing can be added after that."""
        return self._cells.finish().reshape(-1, self._n_features)


def in_folder(folder: Path, prefix: str) -> Callable[[str, type[np.generic]], Growing]:
    """Makes arrays that grow in files `prefix-name.bin`."""
    return lambda name, dtype: InFile(folder / f"{prefix}-{name}.bin", dtype)


def read_rows(folder: Path, prefix: str, n_features: int) -> CSR | None:
    """The rows that `GrowingRows(in_folder(folder, prefix))` wrote, None where there are none."""
    if not (folder / f"{prefix}-indptr.bin").exists():
        return None
    values = folder / f"{prefix}-values.bin"
    return CSR(
        mapped(folder / f"{prefix}-indptr.bin", np.int64),
        mapped(folder / f"{prefix}-indices.bin", np.int32),
        mapped(values, np.float64) if values.exists() else None,
        n_features,
    )


def _write(folder: Path, tables: Iterable[Table], about: dict[str, Any]) -> None:
    """Write all batches of a table, then what they are: `about`, and what is seen of them."""
    columns: dict[str, tuple[Growing, list[str] | None]] = {}
    block = None
    n_rows = left_out = 0
    for table in tables:
        for name, column in table.columns.items():
            if name not in columns:
                dtype = np.int32 if isinstance(column, Text) else np.float64
                names = column.names if isinstance(column, Text) else None
                columns[name] = InFile(folder / f"{len(columns)}.bin", dtype), names
            columns[name][0].append(column.codes if isinstance(column, Text) else column)
        if table.block is not None:
            block = block or GrowingRows(in_folder(folder, "block"))
            block.append(table.block)
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
    rows = block.finish() if block else None
    kinds = [[name, "number" if names is None else "text"] for name, (_, names) in columns.items()]
    about |= {
        "columns": kinds,
        "left_out": left_out,
        "columns_digest": Table(finished, rows).digest(),
    }
    write_about(folder, about | {"n_features": rows.n_features if rows else 0})


def _put_in_place(made: Path, folder: Path) -> None:
    """Rename, over an older folder; other processes may do the same at the same time."""
    for _ in range(10):
        try:
            made.rename(folder)
        except OSError:  # there is one already
            if read_about(folder) == read_about(made):
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
