"""Reads runs back from the store; writes only where a method says so, makes no store."""

from __future__ import annotations

import difflib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fmexp.errors import UserError
from fmexp.record.locate import sqlite_path
from fmexp.record.mlflow_errors import check_database, in_store_errors
from fmexp.record.passwords import without_password

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

LATEST = "latest"
_NEWEST_DESC = ["attributes.start_time DESC"]
_LOOKED_AT = 1000
_SHORTEST_PREFIX = 4
_SAME = ("fmexp.data_digest", "fmexp.split_digest", "fmexp.weight_digest")
_TARGET = "fmexp.target"


@dataclass(frozen=True)
class StoredRun:
    """What MLflow has of one run, without curves and artifacts.

    Attributes:
        started: milliseconds since the epoch.
        metrics: the last value of each.
        source: where its data came from: an absolute path, or how they were generated.
        n_rows: rows of these data, all parts together; 0 where that is not known.
    """

    run_id: str
    name: str
    experiment_id: str
    status: str
    started: int
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, float]
    source: str = ""
    n_rows: int = 0

    @property
    def parent_id(self) -> str | None:
        """Id of the sweep that it is a trial of."""
        return self.tags.get("mlflow.parentRunId")

    @property
    def outcome(self) -> str:
        """How it ended; "" while it lasts."""
        return self.tags.get("fmexp.outcome", "")

    @property
    def is_sweep(self) -> bool:
        """Whether it is the parent of trials."""
        return self.tags.get("fmexp.kind") == "sweep"

    def __str__(self) -> str:
        return f"{self.name} ({self.run_id[:8]})"


class StoredRuns:
    """The runs of one store."""

    def __init__(self, uri: str) -> None:
        """Open the store that is there.

        Args:
            uri: absolute tracking URI.

        Raises:
            UserError: there is no such sqlite file.
            StoreError: the store does not answer.
        """
        self.shown = without_password(uri)
        database = sqlite_path(uri)
        if database and not database.exists():
            raise UserError(f"there is no store {database} yet; `fmexp run` makes it")
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        from mlflow import MlflowClient

        self._downloads: tempfile.TemporaryDirectory[str] | None = None
        with self._answering():
            check_database(uri)
            self._client = MlflowClient(uri, registry_uri=uri)
            self._experiments = [e.experiment_id for e in self._client.search_experiments()]

    def find(self, name: str) -> StoredRun:
        """The run with this id, beginning of an id, run name, or study name; or the latest.

        A number that is none of these is that trial of the newest sweep.

        `latest` is the newest that is no trial: a sweep counts as one run.

        Raises:
            UserError: there is none, or several; the nearest names are told.
        """
        if name == LATEST:
            return self._latest()
        found = (
            self._by_id(name)
            or self._called(name)
            or self._called(f"sweep {name}")
            or self._trial_of_newest_sweep(name)
        )
        if len(found) == 1:
            return found[0]
        if found:
            several = ", ".join(f"{r.run_id[:12]} ({r.outcome or r.status})" for r in found[:8])
            raise UserError(
                f"{len(found)} runs are called {name!r}: say which by its id: {several}"
            )
        raise UserError(f"no run {name!r} in {self.shown}; {self._nearest(name)}")

    def find_trained(self, name: str) -> StoredRun:
        """As `find`, but for a sweep its winner.

        Raises:
            UserError: also for a sweep that has no winner yet.
        """
        found = self.find(name)
        if "fmexp.winner" in found.tags:
            return self.find(found.tags["fmexp.winner"])
        if found.is_sweep:
            raise UserError(f"the sweep {found} has no winner yet; name one of its trials")
        return found

    def find_sweep(self, name: str) -> StoredRun:
        """The sweep of this name or id; `latest` is the newest sweep; a trial stands for its sweep.

        Raises:
            UserError: there is none.
        """
        newest = self._search("tags.`fmexp.kind` = 'sweep'", most=1) if name == LATEST else []
        found = newest[0] if newest else self.find(name)
        if found.parent_id:
            found = self.find(found.parent_id)
        if not found.is_sweep:
            raise UserError(f"{found} is a single run, no sweep; `fmexp run -m` makes sweeps")
        return found

    def children(self, record: StoredRun) -> list[StoredRun]:
        """The trials of a sweep, in the order in which they began."""
        trials = self._search(f"tags.`mlflow.parentRunId` = '{record.run_id}'", most=10**9)
        return sorted(trials, key=lambda trial: (trial.started, trial.name))

    def on_same_data(self, record: StoredRun) -> list[StoredRun]:
        """All runs with losses of the same rows, split alike, newest first; itself among them."""
        data, split = (record.tags.get(f"fmexp.{d}_digest", "") for d in ("data", "split"))
        found = self._search(
            f"tags.`fmexp.data_digest` = '{data}' and tags.`fmexp.split_digest` = '{split}'",
            most=10**9,
        )
        return [each for each in found if not unlike(each, record)]

    def on_same_test_rows(self, record: StoredRun) -> list[StoredRun]:
        """All runs with the same test rows and targets, newest first; itself among them."""
        digest = record.tags.get("fmexp.test_digest", "")
        return self._search(f"tags.`fmexp.test_digest` = '{digest}'", most=10**9)

    def curve(self, record: StoredRun, metric: str) -> list[tuple[int, float]]:
        """(step, value) of a metric, by step; [] where the run has no such metric."""
        with self._answering():
            history = self._client.get_metric_history(record.run_id, metric)
        return sorted((point.step, point.value) for point in history)

    def artifact(self, record: StoredRun, path: str) -> Path:
        """A local copy of an artifact (a file or a folder), or where a local store keeps it.

        Raises:
            UserError: the run has no such artifact.
        """
        if not self.has_artifact(record, path):
            raise UserError(
                f"the run {record} has no {path}"
                + (f": it ended {record.outcome}" if record.outcome != "completed" else "")
            )
        if self._downloads is None:
            self._downloads = tempfile.TemporaryDirectory(prefix="fmexp-")
        target = Path(self._downloads.name, record.run_id)
        target.mkdir(exist_ok=True)
        with self._answering():
            return Path(self._client.download_artifacts(record.run_id, path, str(target)))

    def has_artifact(self, record: StoredRun, path: str) -> bool:
        """Whether the run has this file or folder."""
        parent = str(Path(path).parent)
        with self._answering():
            listed = self._client.list_artifacts(record.run_id, None if parent == "." else parent)
        return any(entry.path == path for entry in listed)

    def note(self, record: StoredRun, tags: dict[str, str], metrics: dict[str, float]) -> None:
        """Write tags and metrics to a run that has ended."""
        with self._answering():
            for name, value in metrics.items():
                self._client.log_metric(record.run_id, name, value)
            for name, text in tags.items():
                self._client.set_tag(record.run_id, name, text)

    def attach(self, record: StoredRun, file: Path) -> None:
        """Add a file to the artifacts of a run that has ended."""
        with self._answering():
            self._client.log_artifact(record.run_id, str(file))

    def close(self) -> None:
        """Remove downloaded copies."""
        if self._downloads is not None:
            self._downloads.cleanup()
            self._downloads = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _latest(self) -> StoredRun:
        for record in self._search():
            if record.parent_id is None:
                return record
        raise UserError(f"{self.shown} has no run yet; `fmexp run` makes one")

    def _by_id(self, name: str) -> list[StoredRun]:
        """Runs whose id is, or begins with, `name`."""
        if len(name) < _SHORTEST_PREFIX or not name.isalnum():
            return []
        return self._search(f"attributes.run_id LIKE '{name}%'")

    def _trial_of_newest_sweep(self, number: str) -> list[StoredRun]:
        """The trial of this number, as the table at a sweep's end has it."""
        sweeps = self._search("tags.`fmexp.kind` = 'sweep'", most=1) if number.isdecimal() else []
        return [t for s in sweeps for t in self.children(s) if t.tags.get("fmexp.trial") == number]

    def _called(self, name: str) -> list[StoredRun]:
        """Runs of this name."""
        wanted = "" if "'" in name else f"attributes.run_name = '{name}'"
        return [record for record in self._search(wanted) if record.name == name]

    def _search(self, wanted: str = "", most: int = _LOOKED_AT) -> list[StoredRun]:
        """Runs that are not deleted, newest first, at most `most`."""
        found: list[StoredRun] = []
        token: str | None = None
        while self._experiments and len(found) < most:
            with self._answering():
                page = self._client.search_runs(
                    self._experiments,
                    wanted,
                    max_results=min(_LOOKED_AT, most - len(found)),
                    order_by=_NEWEST_DESC,
                    page_token=token,
                )
            found += map(_record, page)
            token = page.token
            if not token:
                break
        return sorted(found, key=_age)

    def _nearest(self, name: str) -> str:
        newest = self._search()
        if not newest:
            return "it has no run yet; `fmexp run` makes one"
        near = difflib.get_close_matches(name, [record.name for record in newest], n=3, cutoff=0.5)
        if near:
            return f"did you mean {' or '.join(dict.fromkeys(near))}?"
        return f"the newest are {', '.join(str(record) for record in newest[:5])}"

    def _answering(self) -> AbstractContextManager[None]:
        """Translates what a store that does not answer raises."""
        return in_store_errors(self.shown, "cannot be read")


def _age(record: StoredRun) -> tuple[int, list[int]]:
    """Sorts the newest first; our keys know more of the time than the millisecond of the start."""
    return -record.started, [-ord(c) for c in record.tags.get("fmexp.run_key", "")]


def _record(run: Any) -> StoredRun:
    info, data = run.info, run.data
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return StoredRun(
        run_id=info.run_id,
        name=info.run_name or "",
        experiment_id=info.experiment_id,
        status=info.status,
        started=info.start_time,
        params=dict(data.params),
        tags=dict(data.tags),
        metrics=dict(data.metrics),
        source=_in_json(inputs[0].dataset.source, "uri") if inputs else "",
        n_rows=int(_in_json(inputs[0].dataset.profile, "rows") or 0) if inputs else 0,
    )


def _in_json(text: str, key: str) -> str:
    """A value in the JSON that MLflow keeps as a dataset's source or profile; "" without one."""
    try:
        return str(json.loads(text).get(key, ""))
    except (TypeError, ValueError, AttributeError):
        return ""


def unlike(a: StoredRun, b: StoredRun) -> list[str]:
    """The tags that tell why losses of two runs cannot be compared: other rows, weights, target."""
    found = [tag for tag in _SAME if a.tags.get(tag) != b.tags.get(tag)]
    targets = {each.tags[_TARGET] for each in (a, b) if _TARGET in each.tags}  # not in older runs
    return found + [_TARGET] * (len(targets) > 1)
