"""The MLflow store as it is written: loaded by the recorder process alone."""

from __future__ import annotations

import fcntl
import json
import os
import re
import sqlite3
import time
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
# MLflow's own retries double a create_run whose answer was lost; the recorder retries instead.
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
    ErrorCode,
)

from fmexp.errors import StoreError
from fmexp.record import safe_files
from fmexp.record.bulk_insert import Tables
from fmexp.record.locate import sqlite_path
from fmexp.record.mlflow_errors import check_database, refuses
from fmexp.record.passwords import without_password
from fmexp.record.tracker import STATUS, Outcome, RunExistsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from fmexp.record.tracker import Content, RunStart

RUN_KEY_TAG = "fmexp.run_key"
CANDIDATE_TAG = "fmexp.candidate"
_NAMES = 100  # params, and tags, in one log_batch
_POINTS = 800  # so that all three together stay below 1000
_POINTS_AGAIN = 100  # MLflow before 3.10 refuses longer batches with points that are there
_LONGEST_PARAM = 6000
_LONGEST_WAIT_SECONDS = 30.0
_LONGEST_TAG = 8000
_RACE = re.compile("IntegrityError|UniqueViolation")
"""In the message when another process wrote the same row between MLflow's look and its write."""


class Store:
    """One experiment of one MLflow store. All but `create` can be repeated without harm."""

    def __init__(self, uri: str, experiment: str, folder: Path) -> None:
        """Open the store, made (with its tables) where it is not there yet.

        Args:
            uri: absolute tracking URI.
            experiment: name; made where it is not there yet.
            folder: holds the lock that keeps two processes from making the tables at once; a
                sqlite file has the lock beside it instead.

        Raises:
            StoreError: another process holds the lock and does not go on.
        """
        database = sqlite_path(uri)
        makes_tables = database is None or not _has_tables(database)
        with _locked((database.parent if database else folder) / ".fmexp", alone=makes_tables):
            check_database(uri)
            self._client = MlflowClient(uri, registry_uri=uri)
            self.experiment_id = self._get_or_create(experiment)
        location = self._client.get_experiment(self.experiment_id).artifact_location
        if database and location.startswith(("http:", "https:", "ftp:", "sftp:")):
            raise StoreError(
                f"the experiment {experiment!r} of {database} would send its artifacts to "
                f"{without_password(location)}: a database file has no such server; choose another "
                "tracking.experiment, or another store"
            )
        self._tables = Tables(self._client, self.experiment_id, location)
        self.shown = without_password(uri)

    def find(self, key: str) -> str | None:
        """The id of the run with our unique tag."""
        found = self._client.search_runs(
            [self.experiment_id],
            f"tags.`{RUN_KEY_TAG}` = '{key}'",
            run_view_type=ViewType.ALL,
            max_results=1,
        )
        return found[0].info.run_id if found else None

    @property
    def ids_follow_keys(self) -> bool:
        """Whether a run's id is made from its key, so that none can be there twice."""
        return self._tables.usable

    def make_candidate(self, key: str, owner: str, start: RunStart, started: int) -> str:
        """Make a run that may become the one of a key: `find` does not find it; its id.

        One that this owner made is found again, as the answer to the first call may be lost.
        """
        mine = [run_id for run_id, maker in self.candidates(key).items() if maker == owner]
        if mine:
            return mine[0]
        tags = _all_tags(key, start, {CANDIDATE_TAG: f"{key} {owner}"}, None)
        del tags[RUN_KEY_TAG]
        made = self._client.create_run(
            self.experiment_id, start_time=started, run_name=start.name, tags=tags
        )
        run_id: str = made.info.run_id
        return run_id

    def candidates(self, key: str) -> dict[str, str]:
        """The owners of a key's candidates, by run id."""
        found = self._client.search_runs(
            [self.experiment_id], f"tags.`{CANDIDATE_TAG}` LIKE '{key} %'"
        )
        return {r.info.run_id: r.data.tags[CANDIDATE_TAG].rpartition(" ")[2] for r in found}

    def elect(self, run_id: str, key: str) -> bool:
        """Make a candidate the run of its key; False where this store does not have it."""
        try:
            self._client.set_tag(run_id, RUN_KEY_TAG, key)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise
            return False
        return True

    def remove_candidates(self, key: str, owner: str = "") -> None:
        """Delete the candidates of a key that were not elected: they hold nothing.

        Args:
            key: theirs.
            owner: only this owner's.
        """
        elected = self.find(key)
        for run_id, maker in self.candidates(key).items():
            if run_id != elected and owner in ("", maker):
                with suppress(MlflowException):  # somebody else has
                    self._client.delete_run(run_id)

    def children(self, parent_id: str) -> dict[str, tuple[str, str]]:
        """Id and status of each run under a parent, by key."""
        found, token = {}, None
        while True:
            page = self._client.search_runs(
                [self.experiment_id],
                f"tags.`mlflow.parentRunId` = '{parent_id}'",
                run_view_type=ViewType.ALL,
                page_token=token,
            )
            for run in page:
                key = run.data.tags.get(RUN_KEY_TAG, "")
                found[key] = (run.info.run_id, run.info.status)
            token = page.token
            if not token:
                return found

    def close_running(self, parent: str, keys: list[str]) -> list[str]:
        """End the runs of these keys, under `parent` or itself, that are RUNNING; their ids."""
        parent_id = self.find(parent)
        if parent_id is None:
            return []
        below = self.children(parent_id).items()
        found = {k: run_id for k, (run_id, status) in below if status == "RUNNING" and k in keys}
        if parent in keys and self.is_live(parent_id):
            found[parent] = parent_id
        now = time.time_ns() // 1_000_000
        for run_id in found.values():
            tags = {"fmexp.outcome": str(Outcome.INTERRUPTED), "fmexp.reason": "it had no owner"}
            self.log(run_id, tags=tags)
            self.terminate(run_id, Outcome.INTERRUPTED, now)
        return sorted(found.values())

    def ended(self, key: str) -> dict[str, str]:
        """The tags of a run that has ended; none of another."""
        run_id = self.find(key)
        run = self._client.get_run(run_id) if run_id else None
        return dict(run.data.tags) if run and run.info.status != "RUNNING" else {}

    def reopen(self, run_id: str) -> None:
        """Let a run that had ended go on, even one that was deleted."""
        if self._client.get_run(run_id).info.lifecycle_stage != "active":
            self._client.restore_run(run_id)
        self._client.update_run(run_id, status="RUNNING")

    def is_live(self, run_id: str) -> bool:
        """Whether the run is RUNNING and nobody deleted it: only then is it ours to write to."""
        info = self._client.get_run(run_id).info
        return bool(info.status == "RUNNING" and info.lifecycle_stage == "active")

    def create(
        self,
        key: str,
        start: RunStart,
        more_tags: dict[str, str],
        started: int,
        parent_id: str | None,
        content: Content | None = None,
    ) -> tuple[str, bool]:
        """Make the run with all tags. Not repeatable: ask `find` first where it may be there.

        Args:
            key: its unique name.
            start: gives name, tags and, with `content`, params.
            more_tags: beside those.
            started: milliseconds.
            parent_id: run id of its parent, if it has one.
            content: all else that there is, written with it where this store lets us.

        Returns:
            Its id, and whether the content was written.

        Raises:
            RunExistsError: it is there, and this store can tell.
        """
        tags = _all_tags(key, start, more_tags, parent_id)
        params = _cut_all(start.params, _LONGEST_PARAM) if content else {}
        try:
            run_id = self._tables.insert(key, start.name, started, tags, params, content)
        except MlflowException:
            if self.find(key):  # a key makes an id, and an id is there once
                raise RunExistsError(key) from None
            raise
        if run_id:
            return run_id, content is not None
        made = self._client.create_run(
            self.experiment_id, start_time=started, run_name=start.name, tags=tags
        )
        return made.info.run_id, False

    def log(
        self,
        run_id: str,
        params: dict[str, str] | None = None,
        points: Iterable[tuple[str, int, int, float]] = (),
        tags: dict[str, str] | None = None,
    ) -> None:
        """Add params, points (name, step, time in milliseconds, value) and tags."""
        metrics = [Metric(name, value, time, step) for name, step, time, value in points]
        all_params = [Param(*item) for item in _cut_all(params or {}, _LONGEST_PARAM).items()]
        all_tags = [RunTag(*item) for item in _cut_all(tags or {}, _LONGEST_TAG).items()]
        while metrics or all_params or all_tags:  # as few calls as MLflow's limits allow
            points_of_batch = metrics[:_POINTS]
            rest = all_params[:_NAMES], all_tags[:_NAMES]
            try:
                _raced(self._client.log_batch, run_id, points_of_batch, *rest)
            except MlflowException as error:
                if not _RACE.search(str(error)) or len(points_of_batch) <= _POINTS_AGAIN:
                    raise
                for start in range(0, len(points_of_batch), _POINTS_AGAIN):
                    some = points_of_batch[start : start + _POINTS_AGAIN]
                    _raced(self._client.log_batch, run_id, some, *rest)
            metrics, all_params, all_tags = (
                metrics[_POINTS:], all_params[_NAMES:], all_tags[_NAMES:],
            )  # fmt: skip

    def log_params_once(self, run_id: str, params: dict[str, str]) -> None:
        """Add params to a run that may have them, where they may have other values: they stay."""
        try:
            self.log(run_id, params)
        except MlflowException as error:
            if not self.refuses(error):
                raise

    def log_dataset(self, run_id: str, dataset: dict[str, str]) -> None:
        """Log the dataset input."""
        _raced(self._client.log_inputs, run_id, [_dataset_input(dataset)])

    def log_artifacts(self, run_id: str, folder: Path) -> None:
        """Copy everything in the folder to the run's artifacts."""
        if folder.is_dir() and any(folder.iterdir()):
            self._client.log_artifacts(run_id, str(folder))

    def terminate(self, run_id: str, outcome: Outcome, ended: int) -> None:
        """Close the run; `ended` in milliseconds."""
        self._client.set_terminated(run_id, STATUS[outcome], ended)

    @staticmethod
    def refuses(error: Exception) -> bool:
        """Whether sending the same again cannot succeed."""
        return (
            isinstance(error, MlflowException) and refuses(error) and not _RACE.search(str(error))
        )

    def _get_or_create(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                created: str = self._client.create_experiment(name)
                return created
            except MlflowException as error:
                if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                    raise
                found = self._client.get_experiment_by_name(name)  # somebody was faster
        assert found is not None
        if found.lifecycle_stage != "active":
            raise StoreError(
                f"the experiment {name!r} was deleted; restore it (mlflow experiments restore "
                f"--experiment-id {found.experiment_id}) or choose another tracking.experiment"
            )
        experiment_id: str = found.experiment_id
        return experiment_id


def summary(uri: str) -> str:
    """How many experiments a store has, and which of its runs are still RUNNING."""
    check_database(uri)
    client = MlflowClient(uri, registry_uri=uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    running = client.search_runs(experiments, "attributes.status = 'RUNNING'", max_results=1000)
    names = [f"{run.info.run_name} ({run.info.run_id})" for run in running[:5]]
    return "; ".join([f"{len(experiments)} experiments, {len(running)} runs RUNNING", *names])


def _raced(call: Callable[..., object], *arguments: object) -> None:
    """Call, and again where somebody else has just written the same: now MLflow sees it."""
    try:
        call(*arguments)
    except MlflowException as error:
        if not _RACE.search(str(error)):
            raise
        call(*arguments)


def _has_tables(database: Path) -> bool:
    """Whether they are made, or being made."""
    try:
        with closing(
            sqlite3.connect(f"{database.as_uri()}?mode=ro", timeout=0, uri=True)
        ) as opened:
            opened.execute("select 1 from alembic_version")
    except sqlite3.Error as error:
        return "locked" in str(error)  # by one that writes to them, and may be stopped
    return True


@contextmanager
def _locked(folder: Path, alone: bool) -> Iterator[None]:
    """Hold the folder's lock, alone or with others; a stopped one of them blocks nobody then."""
    folder.mkdir(exist_ok=True)
    lock = folder / "store.lock"
    descriptor = safe_files.open_lock(lock)
    try:
        until = time.monotonic() + _LONGEST_WAIT_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise StoreError(
                        f"{lock} is held by a process that does not go on (stopped?)"
                    ) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _all_tags(
    key: str, start: RunStart, more: dict[str, str], parent_id: str | None
) -> dict[str, str]:
    tags = {**start.tags, **more, RUN_KEY_TAG: key}
    if parent_id:
        tags["mlflow.parentRunId"] = parent_id
    elif start.parent:
        tags["fmexp.parent_key"] = start.parent
    return _cut_all(tags, _LONGEST_TAG)


def _dataset_input(dataset: dict[str, str]) -> DatasetInput:
    """MLflow's own digest reads the first 10,000 entries only, so ours is given.

    Keys: name, digest, source; all others make the profile.
    """
    profile = {k: v for k, v in dataset.items() if k not in ("name", "digest", "source")}
    return DatasetInput(
        Dataset(
            name=dataset["name"],
            digest=dataset["digest"][:36],  # as long as MLflow's column
            source_type="local",
            source=json.dumps({"uri": dataset.get("source", "")}),
            profile=json.dumps(profile),
        ),
        [InputTag("mlflow.data.context", "training")],
    )


def _cut_all(texts: dict[str, str], longest: int) -> dict[str, str]:
    """MLflow refuses longer texts: those end in "..." instead."""
    return {
        name: text if len(text) <= longest else text[: longest - 3] + "..."
        for name, text in texts.items()
    }
