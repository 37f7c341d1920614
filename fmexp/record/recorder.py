"""The recorder process: watches the spool and hands it to MLflow; a kill of it loses nothing.

It obeys only its stdin. The first line is its order: a JSON list of the folder, the store's URI,
how many seconds to wait for a store that does not answer, and the owner. After that a byte means
that there is something new, the end that nothing more will come. Signals to the trainer's terminal
do not stop it. It answers on stdout in JSON lines:
{"ready": experiment id}, {"run": key, "id": run id} (it is whole), {"made": key, "id": run id} (a
sweep's own, which has begun), {"mended": run id} (a dead trainer's),
{"trouble": text} (it goes on trying), {"note": text} (something to know) and, before it exits with
GAVE_UP, {"lost": text}.
With "" for the owner it sends what dead trainers left for this store, and ends. What is meant for
another store is not sent: whoever can write to the folder could name any.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import select
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from fmexp.errors import FmexpError
from fmexp.record import safe_files, spool
from fmexp.record.mlflow_errors import in_words, is_hopeless
from fmexp.record.passwords import without_password
from fmexp.record.plain_output import PlainStream
from fmexp.record.sender import ParentUnknownError, Sender

if TYPE_CHECKING:
    from fmexp.record.mlflow_store import Store

GAVE_UP = 3
_POLL_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 5.0
_ORPHAN_PAUSE_SECONDS = 1.0
_TROUBLE_SECONDS = 10.0
"""How long trouble must last before it is said; at the end the tracker says what is lost."""

_PARENT_SECONDS = 60.0
"""How long a parent may take to show in the store before that is said."""


class Recorder:
    """Sends one living owner's runs, and at its start and end what dead ones left."""

    def __init__(self, folder: Path, uri: str, patience: float, answers: int) -> None:
        self._folder, self._uri = folder, uri
        self._spool = folder / spool.SPOOL
        self._patience = patience
        self._answers = answers
        self._stores: dict[str, Store] = {}
        self._ended_at = 0.0
        self._pause = 0.0
        self._trouble = ""
        self._trouble_since = 0.0
        self._orphan_since = 0.0
        self._mended = False

    def attend(self, owner: Path) -> int:
        """Send the owner's runs until it has ended and all are sent; the exit code."""
        lock = safe_files.open_lock(owner / spool.RECORDER_LOCK)
        fcntl.flock(lock, fcntl.LOCK_EX)
        sender: Sender | None = None
        while True:
            ended = self._ended_at > 0
            try:
                sender = sender or self._open(owner, wait_for_parents=True)
                trouble = self._send(sender, ended)
            except Exception as error:  # noqa: BLE001 -- whatever it is, the spool keeps the runs
                trouble = f"the store cannot be used: {_in_words(error)}"
                if ended and is_hopeless(error):
                    return self._give_up(trouble)
            if ended and not trouble and sender is not None and sender.holds_back:
                self.mend(wait=True)  # a sweep's winner may be what a killed command left
                sender.wait_for_links = False
                continue
            if ended and not trouble:
                break
            if ended and time.monotonic() - self._ended_at > self._patience:
                return self._give_up(trouble)
            if not trouble and not self._mended:
                self.mend(wait=False)
            self._listen(trouble and f"{trouble}; the record waits in {owner}")
        if sender and sender.refused:
            return self._give_up(without_password("; ".join(sender.refused.values())))
        if not spool.runs(owner):  # what is not settled stays until its sweep goes on
            spool.remove(owner)
        return 0

    def mend(self, wait: bool) -> None:
        """Send what dead owners left for our store; `wait` for a recorder that is still at it."""
        self._mended = True
        until = (self._ended_at or time.monotonic()) + self._patience * wait
        busy = [o for o in spool.owners(self._spool) if self._is_left(o)]
        while busy := [owner for owner in busy if not self._mend(owner, wait)]:
            if time.monotonic() >= until:
                break
            time.sleep(0.05)

    def _is_left(self, owner: Path) -> bool:
        """Whether a dead command left this for our store (or nothing at all)."""
        try:
            target = spool.destination(owner)
            return not spool.lives(owner) and (
                not spool.runs(owner) if target is None else target.is_of(self._uri)
            )
        except (FmexpError, OSError):
            return False  # `fmexp doctor` tells of it

    def _mend(self, owner: Path, tells_orphans: bool) -> bool:
        """Send a dead owner's runs; False when somebody else is about to."""
        try:
            lock = spool.try_lock(owner / spool.RECORDER_LOCK)
        except FileNotFoundError:
            return True  # somebody else has
        if lock is None:
            return False
        try:
            if spool.runs(owner):
                self._mend_runs(self._open(owner), tells_orphans)
            if not spool.runs(owner):
                spool.remove(owner)
        except Exception as error:  # noqa: BLE001 -- a dead trainer's store must not stop our own
            self._say(trouble=f"{owner} cannot be sent: {_in_words(error)}")
        finally:
            os.close(lock)
        return True

    def _mend_runs(self, sender: Sender, tells_orphans: bool) -> None:
        for key, result in sender.send(last=True):
            if isinstance(result, str):
                self._say(mended=result)
            elif tells_orphans or not isinstance(result, ParentUnknownError):
                self._say(trouble=f"the run {key} cannot be sent: {_in_words(result)}")
        self._say_left_out(sender)

    def _say_left_out(self, sender: Sender) -> None:
        if sender.left_out:
            names = ", ".join(sender.left_out)
            self._say(note=f"artifacts that are no plain files and were left out: {names}")
            sender.left_out.clear()

    def _open(self, owner: Path, wait_for_parents: bool = False) -> Sender:
        """A sender to where the owner's runs go; one connection for all that go there."""
        from fmexp.record.mlflow_store import Store

        target = spool.destination(owner)
        assert target is not None, f"{owner} has runs and no destination"
        name = target.experiment
        if name not in self._stores:
            self._stores[name] = Store(self._uri, name, self._folder)
            self._say(ready=self._stores[name].experiment_id, owner=owner.name)
        return Sender(owner, self._stores[name], target.thin_to, wait_for_parents)

    def _send(self, sender: Sender, last: bool) -> str:
        """Send what is new; what went wrong and may go right later, "" when nothing did."""
        trouble, orphaned = "", False
        for key, result in sender.send(last):
            if isinstance(result, str):
                self._say(run=key, id=result)
            elif key not in sender.refused:
                orphaned = isinstance(result, ParentUnknownError)
                trouble = f"the run {key} cannot be sent: {_in_words(result)}"
        while sender.made:
            key, run_id = sender.made.popitem()
            self._say(made=key, id=run_id)
        self._say_left_out(sender)
        self._orphan_since = (self._orphan_since or time.monotonic()) if orphaned else 0.0
        return trouble

    def _listen(self, trouble: str) -> None:
        """Wait for news, or a little while after trouble; notice that the owner has ended."""
        now = time.monotonic()
        self._trouble_since = (self._trouble_since or now) if trouble else 0.0
        is_young = now - self._trouble_since < _TROUBLE_SECONDS
        is_young |= 0 < now - self._orphan_since < _PARENT_SECONDS
        if trouble and trouble != self._trouble and not is_young and not self._ended_at:
            self._say(trouble=trouble)
            self._trouble = trouble
        if not trouble:
            self._trouble = ""
        longest = _ORPHAN_PAUSE_SECONDS if self._orphan_since else _LONGEST_PAUSE_SECONDS
        self._pause = min(2 * self._pause + 0.25, longest) if trouble else 0.0
        time.sleep(self._pause)
        news = not self._ended_at and select.select([0], [], [], _POLL_SECONDS)[0]
        if news and not os.read(0, 1 << 16):
            self._ended_at = time.monotonic()

    def _give_up(self, trouble: str) -> int:
        self._say(lost=trouble)
        return GAVE_UP

    def _say(self, **answer: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # nobody listens any more: carry on
            os.write(self._answers, (json.dumps(answer) + "\n").encode())


def _in_words(error: Exception) -> str:
    """An exception on one line; its traceback goes to the log."""
    traceback.print_exception(error)
    if isinstance(error, ParentUnknownError):
        return f"its sweep's own run {error} is not in the store; the sweep's command makes it"
    return in_words(error)


def load_mlflow() -> None:
    """MLflow as mlflow-skinny, without what recording has no use for: a third of the time."""
    left_out = ("fastapi", "matplotlib", "pandas", "pyarrow", "scipy", "sklearn")
    for package in left_out:
        sys.modules[package] = None  # type: ignore[assignment] # as if it were not installed
    server = ModuleType("fastapi")  # of which MLflow's client needs a name
    server.HTTPException = Exception  # type: ignore[attr-defined]
    sys.modules["fastapi"] = server
    import fmexp.record.mlflow_store  # noqa: F401

    for package in left_out:
        del sys.modules[package]


def main() -> None:
    """Be a recorder until there is nothing more to send."""
    sys.stderr = PlainStream(sys.stderr)  # what MLflow logs, too
    gc.set_threshold(100_000)  # what MLflow makes stays: no looking for garbage in it
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    answers = os.dup(1)
    os.dup2(2, 1)  # what MLflow prints must not be taken for an answer
    load_mlflow()  # its seconds pass while the order is on its way
    order = b""
    while not order.endswith(b"\n"):
        order += os.read(0, 1) or sys.exit()  # the trainer is gone
    folder, uri, patience, owner = json.loads(order)
    os.chdir(folder)
    if owner:
        log = os.open(Path(owner) / "recorder.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
    recorder = Recorder(Path(folder), uri, patience, answers)
    for gone in (Path(folder) / spool.SPOOL).glob(".gone-*"):
        shutil.rmtree(gone, ignore_errors=True)
    code = recorder.attend(Path(owner)) if owner else 0
    recorder.mend(wait=True)
    sys.stderr.flush()
    os._exit(code)  # the interpreter's own way out costs half a second after MLflow


if __name__ == "__main__":
    main()
