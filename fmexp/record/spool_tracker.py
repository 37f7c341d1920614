"""The trainer's side of tracking: writes the spool and looks after the recorder process.

Loads neither MLflow nor NumPy; the recorder is started first of all, even before it is known what
it shall record, and MLflow's seconds pass beside the training instead of before it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import IO, TYPE_CHECKING, Any

from fmexp.errors import StoreError, UserError
from fmexp.record import events, spool
from fmexp.record.locate import as_option
from fmexp.record.passwords import without_password, without_passwords
from fmexp.record.patience import patience
from fmexp.record.tracker import Delivery, Outcome, nothing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fmexp.record.tracker import Run, RunStart, Tracker

_FLUSH_SECONDS = 3.0
_STARTS = 4
_MARGIN = 3.0
"""Seconds after which a recorder that should have given up is ended."""
_WRITTEN = ("name", "params", "tags", "dataset", "study")
_NAME = re.compile(r"[\w\-. /:]{1,250}")

_log = logging.getLogger("fmexp")


def open_tracker(
    uri: str,
    experiment: str,
    folder: Path,
    thin_to: int = 10_000,
    patience_seconds: float | None = None,
) -> Tracker:
    """Start a recorder and return at once; to be called before anything slow.

    While a run lasts, its newest points are sent every few seconds; at its end each curve is sent
    whole up to `thin_to` points, a longer one evenly thinned, first and last kept.

    Args:
        uri: absolute tracking URI (`locate_store` gives one).
        experiment: MLflow experiment; made where it is not there yet.
        folder: the spool lies in `folder`/.fmexp; the recorder works there.
        thin_to: most points of a finished curve, at least 2.
        patience_seconds: how long `close` waits for a store that does not answer; None for what
            FMEXP_PATIENCE says.

    Raises:
        StoreError: `folder` cannot be written.
    """
    seconds = patience() if patience_seconds is None else patience_seconds
    return _SpoolTracker(folder.resolve(), uri, experiment, thin_to, seconds)


_open_runs: set[_SpooledRun] = set()
_ahead: list[subprocess.Popen[str]] = []


def start_recorder_ahead() -> None:
    """Start the recorder of the tracker that is opened next: MLflow takes seconds to load."""
    _ahead.append(_start_process(subprocess.DEVNULL))


def dismiss_recorder() -> None:
    """End a recorder that was started ahead and has nothing to record."""
    while _ahead:
        with _ahead.pop() as process:
            process.kill()


@dataclass(frozen=True)
class Drained:
    """What `drain` did: run ids that are whole in their store now, what went wrong, and notes."""

    run_ids: tuple[str, ...] = ()
    troubles: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def drain(folder: Path, uri: str, patience_seconds: float | None = None) -> Drained:
    """Send what killed commands left under `folder` for the store `uri`, and only for that one.

    Starts a process only if there is any.
    """
    folder = folder.resolve()
    found = spool.survey(folder)
    troubles = found.unreadable
    left = [run for run in found.runs if run.state not in ("open", "finished")]
    if not any(run.destination.is_of(uri) for run in left):
        return Drained(troubles=tuple(troubles))
    seconds = patience() if patience_seconds is None else patience_seconds
    done = _start_process(subprocess.PIPE)
    try:
        out, err = done.communicate(_order(folder, uri, seconds), seconds + _MARGIN)
    except subprocess.TimeoutExpired:  # it is lost in a call of MLflow's
        done.kill()
        out, err = done.communicate()
        err = f"no answer within {seconds:g} s"
    answers = [json.loads(line) for line in out.splitlines()]
    troubles += [a["trouble"] for a in answers if "trouble" in a]
    if done.returncode and not troubles:
        troubles = [f"the recorder failed: {_last_line(err)}"]
    mended, notes = (tuple(a[kind] for a in answers if kind in a) for kind in ("mended", "note"))
    return Drained(mended, tuple(troubles), notes)


class _SpoolTracker:
    def __init__(
        self, folder: Path, uri: str, experiment: str, thin_to: int, patience: float
    ) -> None:
        assert thin_to >= 2, thin_to
        self._folder, self._uri, self._patience = folder, uri, patience
        self._owner, self._owner_lock = spool.become_owner(
            folder, spool.Destination(without_password(uri), experiment, thin_to)
        )
        self._lock = threading.RLock()
        self._closing = False
        self._delivery: Delivery | None = None
        self._lost = ""
        self._heard_at = 0.0
        self._experiment_id = ""
        self._run_ids: dict[str, str] = {}
        self._made: dict[str, str] = {}
        self._recorder = self._start_recorder()
        self._listener = threading.Thread(target=self._listen, name="fmexp-recorder", daemon=True)
        self._listener.start()

    def start_run(self, start: RunStart) -> Run:
        for kind, names in (("param", start.params), ("tag", start.tags)):
            for name in names:
                if not _NAME.fullmatch(name):
                    raise UserError(
                        f"the {kind} {name!r} cannot be stored: MLflow allows 1 to 250 letters, "
                        "digits and _ - . : / or spaces"
                    )
        written = {name: without_passwords(getattr(start, name)) for name in _WRITTEN}
        start = replace(start, **written)  # type: ignore[arg-type]
        return _SpooledRun(
            self, events.EventWriter(self._owner, start.key or spool.new_key(), start)
        )

    def run_id(self, key: str) -> str:
        return self._made.get(key, "")

    def wake(self) -> None:
        """Tell the recorder that there is something new."""
        with self._lock:
            if self._recorder.stdin and not self._recorder.stdin.closed:
                # it has enough to wake up for, or it is being replaced
                with contextlib.suppress(BlockingIOError, BrokenPipeError):
                    os.write(self._recorder.stdin.fileno(), b"\n")

    def close(self, meanwhile: Callable[[], None] = nothing, seconds: float = inf) -> Delivery:
        if self._delivery is None:
            with self._lock:
                self._closing = True
                self._end_of_news()
            self._wait_for_recorder(meanwhile, seconds)
            os.close(self._owner_lock)
            self._delivery = Delivery(
                without_password(self._uri),
                self._run_ids,
                self._experiment_id,
                as_option(self._uri, os.environ, self._folder),
            )
        if self._lost:
            raise StoreError(
                f"the store {self._delivery.store} has not taken the record: {self._lost}. "
                f"Nothing is lost: it waits in {self._owner}, and the next fmexp command in "
                f"{self._folder} sends it; `fmexp doctor` shows what waits"
            )
        return self._delivery

    def _wait_for_recorder(self, meanwhile: Callable[[], None], seconds: float) -> None:
        """Until it has sent everything, or given up; end one that makes no progress any more."""
        self._heard_at = began = time.monotonic()
        try:
            while self._listener.is_alive():
                if time.monotonic() - began > seconds:
                    _log.warning("the record waits in %s, still being sent, in the background; "
                                 "`fmexp doctor` in %s says what is left",
                                 self._owner, self._folder)  # fmt: skip
                    return
                self._listener.join(0.1)
                meanwhile()
                silent = time.monotonic() - self._heard_at
                if silent > self._patience + _MARGIN and not self._lost:
                    self._lost = f"it has not answered within {self._patience:g} s"
                    self._recorder.kill()  # lost in a call of MLflow's; the spool has everything
        except KeyboardInterrupt:
            _log.warning("interrupted: the record waits in %s; `fmexp doctor` in %s sends it",
                         self._owner, self._folder)  # fmt: skip
            raise
        if not self._owner.exists():
            self._lost = ""  # all of ours was sent; what it was at was left by others

    def _start_recorder(self) -> subprocess.Popen[str]:
        with (self._owner / "recorder.log").open("a") as log:
            process = _ahead.pop() if _ahead else _start_process(log)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # dead already: it is started again
            order = _order(self._folder, self._uri, self._patience, self._owner)
            os.write(process.stdin.fileno(), order.encode())
        os.set_blocking(process.stdin.fileno(), False)  # training never waits for the recorder
        return process

    def _listen(self) -> None:
        """Hear the recorder's answers; start it again when it dies."""
        for attempt in range(_STARTS):
            recorder = self._recorder
            assert recorder.stdout is not None
            with recorder.stdout:
                for line in recorder.stdout:
                    if line.endswith("\n"):
                        self._hear(json.loads(line))
            if recorder.wait() == 0 or self._lost:
                return
            if attempt < _STARTS - 1:
                with self._lock:
                    self._end_of_news()
                    self._recorder = self._start_recorder()
                    if self._closing:
                        self._end_of_news()
        log = (self._owner / "recorder.log").read_text(errors="replace")
        self._lost = f"its recorder died {_STARTS} times ({_last_line(log)})"

    def _hear(self, answer: dict[str, str]) -> None:
        self._heard_at = time.monotonic()
        if "run" in answer:
            self._run_ids[answer["run"]] = answer["id"]
        elif "made" in answer:
            self._made[answer["made"]] = answer["id"]
        elif answer.get("owner") == self._owner.name:
            self._experiment_id = answer["ready"]
        elif "lost" in answer:
            self._lost = answer["lost"]
        for kind in ("trouble", "note"):
            if kind in answer:
                _log.warning("%s", answer[kind])

    def _end_of_news(self) -> None:
        if self._recorder.stdin:
            self._recorder.stdin.close()


def interrupt_open_runs(reason: str) -> None:
    """End all runs of this process that are open; it is about to be ended itself."""
    for run in list(_open_runs):
        run.finish(Outcome.INTERRUPTED, reason)


class _SpooledRun:
    def __init__(self, tracker: _SpoolTracker, writer: events.EventWriter) -> None:
        self.key = writer.key
        self.folder: Path | None = writer.artifacts
        self._tracker = tracker
        self._writer = writer
        self._points: list[events.Point] = []
        self._flush_at = time.time() + _FLUSH_SECONDS
        self._ended = False
        _open_runs.add(self)

    def log(self, step: int, metrics: dict[str, float], at: float | None = None) -> None:
        _check_finite(metrics)
        now = time.time()
        self._points.append((step, int((at or now) * 1000), metrics.copy()))
        if now >= self._flush_at:
            points, self._points = self._points, []
            self._writer.points(points)
            self._flush_at = now + _FLUSH_SECONDS
            self._tracker.wake()

    def finish(
        self,
        outcome: Outcome,
        reason: str = "",
        metrics: dict[str, float] | None = None,
        tags: dict[str, str] | None = None,
        links: dict[str, str] | None = None,
        provisional: bool = False,
        children: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        _check_finite(metrics or {})
        if self._ended:
            return  # the first one counts: a Ctrl-C may come while it is at work
        now = events.milliseconds()
        end = events.End(
            outcome,
            without_password(reason),
            metrics or {},
            without_passwords(tags or {}),  # type: ignore[arg-type]
            now,
            links or {},
            provisional,
            without_passwords(children or {}),  # type: ignore[arg-type]
        )
        self._writer.end(self._points, end)
        self._ended = True
        _open_runs.discard(self)
        if not provisional:
            self._tracker.wake()

    def confirm(self, run_id: str) -> None:
        self._writer.confirm(run_id)
        self._tracker.wake()

    def attach(self, key: str) -> Path | None:
        folder = self._writer.artifacts.with_name(spool.ATTACHED) / key
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def settle(self, accepted: bool) -> None:
        self._writer.settle(accepted)
        self._tracker.wake()


def _check_finite(metrics: dict[str, float]) -> None:
    for name, value in metrics.items():
        if not isfinite(value):
            raise AssertionError(f"{name}={value} must not be logged: end the run as diverged")


def _start_process(log: IO[str] | int) -> subprocess.Popen[str]:
    """A recorder that loads MLflow and waits for its order; -P: no module of the folder's."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "fmexp.record.recorder"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
        start_new_session=True, text=True,
    )  # fmt: skip


def _order(folder: Path, uri: str, patience: float, owner: Path | None = None) -> str:
    return json.dumps([str(folder), uri, patience, str(owner or "")]) + "\n"


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]
