"""Sends one owner's runs from the spool to the store, so that sending again changes nothing.

A run is found again by its unique tag, times of points are fixed in the spool, and a run that is
no longer RUNNING in the store is left alone: it is whole, or somebody else has closed it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from fmexp.record import events, safe_files, spool
from fmexp.record.locate import is_below
from fmexp.record.tracker import Content, Outcome, RunExistsError, RunStart

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fmexp.record.mlflow_store import Store

KILLED = "its process ended without closing the run (killed, or it crashed)"
MENDED = "Made from the study: the run itself never reached this store, nor did its curve."
_YOUNG_MILLISECONDS = 2000
"""A run that ends within this is sent in one go, when it has ended."""


class ParentUnknownError(Exception):
    """The parent run is not in the store yet."""


@dataclass
class _Sending:
    """What is known of a run that is not whole in the store."""

    folder: Path
    reader: events.RunReader
    run_id: str = ""
    is_logged: bool = False
    """Whether it was made with all that belongs to it but a dataset."""
    candidate: str = ""
    """Made by us, but perhaps not elected."""


class Sender:
    """Sends the runs of one owner, whose recorder lock the caller holds.

    Attributes:
        refused: runs that the store will never take as they are, and why.
        left_out: artifacts that are links, pipes or the like and were not sent.
        made: run ids of sweeps' own runs that were begun since this was last emptied.
        wait_for_links: whether a run is held back while another that its end links to lies in the
            spool of somebody else, who may be dead.
        holds_back: whether one was, in the last `send`.
    """

    def __init__(self, owner: Path, store: Store, thin_to: int, wait_for_parents: bool) -> None:
        self.owner = owner
        self._store = store
        self._thin_to = thin_to
        self._wait_for_parents = wait_for_parents
        self._open: dict[str, _Sending] = {}
        self._parents: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.left_out: list[str] = []
        self.made: dict[str, str] = {}
        self.wait_for_links = wait_for_parents
        self.holds_back = False

    def send(self, last: bool) -> Iterator[tuple[str, str | Exception]]:
        """Send what is new.

        Args:
            last: nothing more will be written, so runs without an end were interrupted.

        Yields:
            (key, run id) of each run that is whole in the store now; it leaves the spool when the
            caller asks for the next. (key, exception) of each that could not be sent.
        """
        self.holds_back = False
        later: list[Path] = []  # a run that links to others comes after them
        for folder in chain(spool.runs(self.owner), later):
            if folder.name in self.refused:
                continue
            if folder.name not in self._open:
                self._open[folder.name] = _Sending(folder, events.RunReader(folder))
            sending = self._open[folder.name]
            try:
                news = sending.reader.advance()
                if folder not in later and self._links_wait(sending):
                    later.append(folder)
                    continue
                whole = self._send(sending, news, last)
            except Exception as error:  # noqa: BLE001 -- one run must not stop the others
                if self._store.refuses(error) or isinstance(error, events.UnreadableError):
                    self.refused[folder.name] = f"{folder.name}: {error}"
                yield folder.name, error
                continue
            if whole:
                if sending.run_id:
                    yield folder.name, sending.run_id
                spool.remove(folder)
                del self._open[folder.name]

    def _send(self, run: _Sending, news: bool, last: bool) -> bool:
        """Whether the run is whole in the store now."""
        record = run.reader.record
        if record is None:
            return last
        if last and record.end is None:
            ended = events.last_written(run.folder)
            record.end = events.End(Outcome.INTERRUPTED, KILLED, {}, {}, ended)
        if record.end is None or record.end.provisional:
            age = events.milliseconds() - record.started
            if not last and (record.start.reopens or age > _YOUNG_MILLISECONDS):
                self._show(run, record, news)
            return False
        killed = record.end.reason == KILLED
        if killed and record.start.reopens and (self._goes_on(run) or self._is_undecided(run)):
            return True
        # somebody else may have closed it, or sent it in our place
        look = killed or record.end.reason == events.REFUSED or not self._wait_for_parents
        if _only_closes(record.start) and not self._store.ids_follow_keys:
            run.run_id = run.run_id or self._store.find(run.folder.name) or ""
            if not run.run_id:
                return True
        fresh = self._find_or_create(run, record, look)  # others' runs may need it as their parent
        if killed and not fresh and not self._store.is_live(run.run_id):
            return True
        if self.wait_for_links and self._links_lie_elsewhere(record.end):
            self.holds_back = True
            return False
        if fresh or record.start.reopens or self._store.is_live(run.run_id):
            self._mend_children(run, record.end)
            self._send_whole(run, record, record.end, fresh)
            if self._is_elected(record):
                self._store.remove_candidates(run.folder.name)  # of commands that died
            self.left_out += safe_files.remove_special(run.folder / spool.ATTACHED)
            for files in (run.folder / spool.ATTACHED).glob("*"):
                if other := self._store.find(files.name):
                    self._store.log_artifacts(other, files)
        return True

    def _is_undecided(self, run: _Sending) -> bool:
        """Whether it was never known which run of the store this is: then others will make it."""
        record = run.reader.record
        if not record or not self._is_elected(record) or record.confirmed:
            return False
        if self._store.find(run.folder.name):
            return False
        self._store.remove_candidates(run.folder.name, self.owner.name)
        return True

    def _is_elected(self, record: events.RunRecord) -> bool:
        """Whether the run must be confirmed before it is written to."""
        return record.start.elected and not self._store.ids_follow_keys

    def _goes_on(self, run: _Sending) -> bool:
        """Whether another owner has taken this run up."""
        return spool.waits(self.owner.parent, run.folder.name, but=self.owner)

    def _mend_children(self, run: _Sending, end: events.End) -> None:
        """Make the store say of a sweep's trials what the study says: close them, make them.

        Runs that wait in a spool are left to their recorder.
        """
        if not end.children:
            return
        stored = self._store.children(run.run_id)
        for key, child in end.children.items():
            run_id, status = stored.get(key, ("", ""))
            wanted = status == "RUNNING" or (child["is_wanted"] and not run_id)
            if not wanted or spool.waits(self.owner.parent, key):
                continue
            tags = child["tags"] | {"fmexp.outcome": child["outcome"]}
            tags |= {"fmexp.reason": child["reason"]} if child["reason"] else {}
            if not run_id:
                start = RunStart(child["name"], {}, {})
                run_id, _ = self._store.create(key, start, {}, child["started"], run.run_id)
                tags["mlflow.note.content"] = MENDED
            points = [(name, 0, child["ended"], x) for name, x in child["metrics"].items()]
            self._store.log(run_id, {} if status else child["params"], points, tags)
            self._store.terminate(run_id, Outcome(child["outcome"]), child["ended"])

    def _show(self, run: _Sending, record: events.RunRecord, news: bool) -> None:
        """Let a run be watched while it lasts: its params, and the newest point of each curve."""
        # a trial may have been given up, and its run closed, while we were stopped
        fresh = self._find_or_create(run, record, look=record.start.study is not None)
        params = record.start.params if fresh else {}
        points = [(name, *curve.last()) for name, curve in record.curves.items()]
        if not (fresh or news):
            return
        is_live = fresh or self._store.is_live(run.run_id)
        if not is_live and record.start.reopens:  # closed for a command that died, and not for us
            self._store.reopen(run.run_id)
            is_live = True
        if is_live:
            self._store.log(run.run_id, params, points)

    def _send_whole(
        self, run: _Sending, record: events.RunRecord, end: events.End, fresh: bool
    ) -> None:
        start = record.start
        tags = ({} if fresh else _end_tags(record)) | self._linked(end)
        self.left_out += safe_files.remove_special(run.folder / "artifacts")
        if not run.is_logged:
            params = start.params
            if start.reopens and not fresh:
                self._store.log_params_once(run.run_id, params)
                params = {}
            self._store.log(run.run_id, params, self._points(record, end), tags)
            if end.reason != KILLED:  # a killed trainer may have left half a file
                self._store.log_artifacts(run.run_id, run.folder / "artifacts")
        dataset = _kept_dataset(run, start)
        if dataset:
            self._store.log_dataset(run.run_id, dataset)
        if dataset or not run.is_logged:
            self._store.terminate(run.run_id, end.outcome, end.time)

    def _points(
        self, record: events.RunRecord, end: events.End
    ) -> list[tuple[str, int, int, float]]:
        """All curves, thinned, and the last metrics."""
        points = [
            (name, *point)
            for name, curve in record.curves.items()
            for point in curve.thinned(self._thin_to)
        ]
        return points + [(name, 0, end.time, value) for name, value in end.metrics.items()]

    def _find_or_create(self, run: _Sending, record: events.RunRecord, look: bool = False) -> bool:
        """Make sure that the run is in the store; True when it was made just now.

        A search is only paid for where it may find one; `look` says that it may.
        """
        if run.run_id:
            return False
        if self._is_elected(record):
            self._elect(run, record)
            return False
        if record.start.reopens:  # of several commands in this folder one makes it
            with spool.locked(self.owner.parent / ".sweeps.lock"):
                return self._look_and_create(run, record, look)
        return self._look_and_create(run, record, look)

    def _look_and_create(self, run: _Sending, record: events.RunRecord, look: bool) -> bool:
        tried = run.folder / "tried"
        look = look or tried.exists() or record.start.may_exist
        found = self._store.find(run.folder.name) if look else None
        if found:
            self._take_up(run, record, found)
            return False
        parent = record.start.parent
        parent_id = self._parent_id(parent, self._is_shared(record.start)) if parent else None
        os.close(safe_files.open_lock(tried))
        try:
            run.run_id, run.is_logged = self._store.create(
                run.folder.name,
                record.start,
                _end_tags(record),
                record.started,
                parent_id,
                self._content(run, record),
            )
        except RunExistsError:  # another command on the same sweep was faster
            return self._look_and_create(run, record, look=True)
        if record.start.reopens:
            self.made[run.folder.name] = run.run_id
        return True

    def _take_up(self, run: _Sending, record: events.RunRecord, run_id: str) -> None:
        """Go on with a run that is in the store."""
        run.run_id = run_id
        if not record.start.reopens:
            return
        self.made[run.folder.name] = run_id
        if record.end is None or record.end.reason != KILLED:
            self._store.reopen(run_id)
            self._store.log_params_once(run_id, record.start.params)

    def _elect(self, run: _Sending, record: events.RunRecord) -> None:
        """Find or make the run that other machines may want to make, too.

        Their commands agree on one through the study, and ours confirms it. Nothing is written to
        a candidate before that: where another is elected, ours is empty, and goes.

        Raises:
            ParentUnknownError: none is elected yet.
        """
        key = run.folder.name
        found = self._store.find(key)
        if not found and record.confirmed and self._store.elect(record.confirmed, key):
            found = record.confirmed
        if found:
            self._take_up(run, record, found)
            if run.candidate:
                self._store.remove_candidates(key, self.owner.name)
            return
        if not run.candidate and spool.lives(self.owner):
            start, began = record.start, record.started
            run.candidate = self._store.make_candidate(key, self.owner.name, start, began)
            self.made[key] = run.candidate
        raise ParentUnknownError(key)

    def _content(self, run: _Sending, record: events.RunRecord) -> Content | None:
        """All that there is of a run that has ended; None when more is to be known first."""
        end = record.end
        if end is None or end.provisional or end.reason == KILLED or end.links or end.children:
            return None
        self.left_out += safe_files.remove_special(run.folder / "artifacts")
        return Content(
            self._points(record, end),
            run.folder / "artifacts",
            None if _kept_dataset(run, record.start) else (end.outcome, end.time),
        )

    def _linked(self, end: events.End) -> dict[str, str]:
        """The end's links as tags, and its tags with `{tag}` replaced by that run's page."""
        tags: dict[str, str] = {}
        for tag, key in end.links.items():
            run_id = self._store.find(key)
            page = f"#/experiments/{self._store.experiment_id}/runs/{run_id}" if run_id else "#"
            tags |= {tag: run_id} if run_id else {}
            for name, text in end.tags.items():
                tags[name] = tags.get(name, text).replace(f"{{{tag}}}", page)
        return tags

    def _links_wait(self, run: _Sending) -> bool:
        """Whether the run's end links to a run that is still to be sent."""
        end = run.reader.record.end if run.reader.record else None
        keys = chain(end.links.values(), end.children) if end else ()
        return any((self.owner / key).exists() for key in keys)

    def _links_lie_elsewhere(self, end: events.End) -> bool:
        """Whether a run that this end links to waits in the spool of another owner."""
        others = (spool.waits(self.owner.parent, key, but=self.owner) for key in end.links.values())
        return any(others)

    def _parent_id(self, key: str, shared: bool) -> str:
        """The parent's id; "" when there is no such run and nobody is left to make it.

        Args:
            key: the parent's.
            shared: whether commands elsewhere may make it.
        """
        if key not in self._parents:
            ours = self._open.get(key)
            if ours and ours.reader.record:
                self._find_or_create(ours, ours.reader.record)
            found = ours.run_id if ours else self._store.find(key)
            waits = self._wait_for_parents or spool.waits(self.owner.parent, key)
            if not found and (waits or (shared and not self._store.ids_follow_keys)):
                raise ParentUnknownError(key)
            self._parents[key] = found or ""
        return self._parents[key]

    def _is_shared(self, start: RunStart) -> bool:
        """Whether a trial's study lies elsewhere, so that commands elsewhere may work on it."""
        storage = (start.study or {}).get("storage", "")
        folder = self.owner.parents[len(spool.SPOOL.parts)]
        return bool(storage) and not is_below(storage, folder)


def _only_closes(start: RunStart) -> bool:
    """Whether the run is another worker's, which died: it is closed where it is there."""
    return start.may_exist and not start.reopens


def _kept_dataset(run: _Sending, start: RunStart) -> dict[str, str] | None:
    """The dataset to record: of a sweep's trials only of those that were the best so far.

    The others' data are their parent's, and to say so takes longer than all the rest of a trial.
    """
    is_full = start.study is None or (run.folder / "artifacts" / "config.yaml").exists()
    return start.dataset if is_full else None


def _end_tags(record: events.RunRecord) -> dict[str, str]:
    """The tags that say how a run ended; none while it lasts."""
    if record.end is None or record.end.provisional:
        return {}
    reason = {"fmexp.reason": record.end.reason} if record.end.reason else {}
    return {**record.end.tags, "fmexp.outcome": record.end.outcome.value, **reason}
