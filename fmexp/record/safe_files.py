"""Files in a folder that somebody else may have prepared: no link is followed, nothing emptied."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from fmexp.errors import UserError

WORK_FOLDER = ".fmexp"
NUMBA_CONFIG = ".numba_config.yaml"


def open_plain(path: Path, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """A descriptor of a plain file, never of a link, pipe or device.

    Args:
        path: the file.
        flags: as of `os.open`; O_TRUNC is no business of this function.
        mode: permissions of a file that is made.

    Raises:
        UserError: the path is something else.
        OSError: as `os.open`; FileNotFoundError where nothing is there.
    """
    assert not flags & os.O_TRUNC
    try:
        # O_NONBLOCK: the open of a pipe would wait for its other end
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR):
            raise _refused(path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _refused(path)
    return descriptor


def open_lock(path: Path) -> int:
    """A descriptor of a lock file, made where there is none; what is in it stays."""
    return open_plain(path, os.O_RDWR | os.O_CREAT)


def read_plain(path: Path) -> bytes:
    """The content of a plain file; raises as `open_plain` does."""
    with os.fdopen(open_plain(path), "rb") as file:
        return file.read()


def is_own_folder(path: Path) -> bool:
    """Whether this is a folder (no link to one) that belongs to the user of this process."""
    try:
        about = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid()


def check_work_folder(folder: Path) -> None:
    """Refuse to work where `.fmexp` would lead elsewhere, or Numba would be told what to load.

    Raises:
        UserError: `folder`/.fmexp, the spool or the cache in it, is there and is no folder; or
            there is a configuration of Numba, which can name a cache of compiled code that is
            then run.
    """
    if (folder / NUMBA_CONFIG).exists():
        raise UserError(
            f"{folder / NUMBA_CONFIG} could make Numba run code that lies in this folder; remove "
            "it, and set what you need as environment variables (NUMBA_...)"
        )
    home = folder / WORK_FOLDER
    for path in (home, home / "spool", home / "cache"):
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise UserError(
                f"{path} must be a folder of its own, and is {_kind(path)}; move it away: fmexp "
                "makes it anew"
            )


def remove_special(folder: Path) -> list[str]:
    """Take out of a folder, at any depth, what is not a plain file or folder; their names.

    A file with a second name elsewhere (a hard link) counts: its content may be another's.
    """
    removed = []
    if folder.is_symlink():
        folder.unlink()
        return [folder.name]
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(place, name)
            about = path.lstat()
            is_file = stat.S_ISREG(about.st_mode) and about.st_nlink == 1
            if not is_file and not stat.S_ISDIR(about.st_mode):
                path.unlink()
                removed.append(str(path.relative_to(folder)))
    return sorted(removed)


def _refused(path: Path) -> UserError:
    return UserError(f"{path} must be a plain file, and is {_kind(path)}; move it away")


def _kind(path: Path) -> str:
    mode = path.lstat().st_mode
    kinds = ((stat.S_ISLNK, "a link"), (stat.S_ISDIR, "a folder"), (stat.S_ISREG, "a file"))
    return next((name for test, name in kinds if test(mode)), "a pipe, socket or device")
