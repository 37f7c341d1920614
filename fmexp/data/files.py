"""The files behind data.path: one, a glob, or a folder; each checked before it is opened."""

from __future__ import annotations

import glob
import gzip
import hashlib
import io
import stat
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from fmexp.data import workbook
from fmexp.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

DAMAGED = (EOFError, OSError, zlib.error)
"""What reading a broken or unreadable file raises."""

HEAD = 1 << 16
"""Bytes that are looked at to find out what a file is."""


def find(path: str, key: str = "data.path") -> list[Path]:
    """The regular, readable, non-empty files that a path, glob or folder stands for, sorted.

    Args:
        path: the words.
        key: what gives them, for messages.

    Raises:
        DataError: there is none, or one of them cannot be read.
    """
    try:
        found = _candidates(path)
        for file in found:
            _check(file, key)
    except (OSError, ValueError, RuntimeError) as error:  # a zero byte; ~ of nobody
        why = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{key}={path} cannot be read: {why}") from None
    if not found:
        raise DataError(f"{key}={path} holds no file: give a file, a folder of files or a glob")
    return found


def _candidates(path: str) -> list[Path]:
    given = Path(path).expanduser()
    if given.is_dir():
        found = sorted(p for p in given.iterdir() if not p.name.startswith((".", "_")))
        return [p for p in found if not p.is_dir()]
    if given.exists() or not glob.has_magic(path):
        return [given]
    found = sorted(map(Path, glob.glob(str(given), recursive=True)))  # noqa: PTH207 - ** and ~
    return [p for p in found if not p.is_dir()]


def _check(file: Path, key: str) -> None:
    try:
        about = file.stat()
    except FileNotFoundError:
        near = sorted(p.name for p in file.parent.glob(f"*{file.suffix}"))[:5]
        there = f"; beside it lie {', '.join(near)}" if near and file.suffix else ""
        raise DataError(f"{key}: {file} does not exist{there}") from None
    except OSError as error:
        raise DataError(f"{key}: {file} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(about.st_mode):
        raise DataError(f"{key}: {file} must be a regular file (no pipe, socket or device)")
    try:
        file.open("rb").close()
    except OSError as error:
        raise DataError(f"{key}: {file} cannot be read: {error.strerror}") from None
    if about.st_size == 0:
        raise DataError(f"{file} is empty: a header and rows were expected")


def open_bytes(file: Path) -> IO[bytes]:
    """The file's bytes, unpacked where it is gzipped; of a workbook its sheet as text."""
    if _is_gzipped(file):
        return cast("IO[bytes]", gzip.open(file))
    if workbook.is_workbook(file):
        return io.BytesIO(workbook.text_of(file))
    return file.open("rb")


def unpacked_size(file: Path) -> int:
    """Bytes of the file; for a gzipped one what text usually unpacks to."""
    if workbook.is_workbook(file):
        return len(workbook.text_of(file))
    return file.stat().st_size * (4 if _is_gzipped(file) else 1)


def _is_gzipped(file: Path) -> bool:
    with file.open("rb") as raw:
        return raw.read(2) == b"\x1f\x8b"


def chunks(file: Path, size: int = 1 << 17) -> Iterator[bytes]:
    """The bytes of `open_bytes`, chunk by chunk.

    Raises:
        DataError: a gzipped file is cut short or damaged.
    """
    with open_bytes(file) as opened:
        try:
            while chunk := opened.read(size):
                yield chunk
        except DAMAGED as error:
            raise _damaged(file, error) from None


def _damaged(file: Path, error: Exception) -> DataError:
    return DataError(f"{file}: the gzipped file is damaged or cut short ({error})")


def digest(found: list[Path]) -> str:
    """A hash of every byte of these files, unpacked; 32 hexadecimal digits.

    Of SHA-256, since CPUs have instructions for it: about a twentieth of the time of reading.
    """
    of_files = hashlib.sha256()
    for file in found:
        with open_bytes(file) as opened:
            try:
                of_files.update(hashlib.file_digest(opened, "sha256").digest())  # type: ignore[arg-type]
            except DAMAGED as error:
                raise _damaged(file, error) from None
    return of_files.hexdigest()[:32]


def head(file: Path) -> bytes:
    """The first bytes, unpacked."""
    return next(chunks(file, HEAD), b"")


def head_of_text(file: Path) -> bytes:
    """The first bytes of delimited or libsvm text, unpacked.

    Raises:
        DataError: the file is Parquet, HTML, JSON, an archive, or binary.
    """
    start = head(file)
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    kinds = {
        "Parquet (use data=parquet)": start.startswith(b"PAR1"),
        "a zip archive and no workbook (unpack it)": start.startswith(b"PK\x03\x04"),
        "an HTML page (a download that went wrong?)": text.startswith((b"<!doctype", b"<html")),
        "JSON (save it as CSV or Parquet)": text.startswith((b"{", b"[{", b"[[")),
        "empty": not text,
    }
    utf_16 = start.startswith((b"\xff\xfe", b"\xfe\xff"))
    kinds["binary"] = b"\0" in start and not utf_16
    for kind, matches in kinds.items():
        if matches:
            raise DataError(f"{file}: expected a table as text, this file is {kind}")
    return start
