"""A whole run straight into MLflow's tables: one transaction, a tenth of what its API takes.

Only where it comes to the same (a test compares every table): MLflow's own SQL store, tables with
just the columns known here, names that its API would take. For anything else, and for a run that
is not over, the API is used.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlflow.entities import SourceType
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.tracking.dbmodels import models
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.uri import append_to_uri_path
from sqlalchemy import insert

if TYPE_CHECKING:
    from pathlib import Path

_KNOWN = {
    "SqlRun": "run_uuid name source_type source_name entry_point_name user_id status start_time "
    "end_time deleted_time source_version lifecycle_stage artifact_uri experiment_id",
    "SqlTag": "key value run_uuid",
    "SqlParam": "key value run_uuid",
    "SqlMetric": "key value timestamp step is_nan run_uuid",
    "SqlLatestMetric": "key value timestamp step is_nan run_uuid",
}
_PLAIN = re.compile(r"[\w-][\w. -]*(/[\w-][\w. -]*)*")
_LONGEST_NAME = 250
_LONGEST_URI = 200


@dataclass
class WholeRun:
    """All that there is to write of a run.

    Attributes:
        key: unique; the run's id follows from it, so that a second attempt is the same run.
        status: MLflow's.
        started, ended: milliseconds; `ended` None while something is to be added by the API.
        points: (name, step, time in milliseconds, finite value).
        artifacts: a folder to copy, if there is one.
    """

    key: str
    name: str
    status: str
    started: int
    ended: int | None
    tags: dict[str, str]
    params: dict[str, str]
    points: list[tuple[str, int, int, float]] = field(default_factory=list)
    artifacts: Path | None = None


class Tables:
    """Those of one experiment's store."""

    def __init__(self, store: Any, experiment_id: str, artifact_location: str) -> None:
        self._store = store
        self._experiment_id = experiment_id
        self._location = artifact_location
        self._usable = type(store) is SqlAlchemyStore and all(
            {c.name for c in getattr(models, model).__table__.columns} == set(columns.split())
            for model, columns in _KNOWN.items()
        )

    def insert(self, run: WholeRun) -> str:
        """Write it; returns its id, "" when that is a case for MLflow's API."""
        run_id = uuid.uuid5(uuid.NAMESPACE_OID, run.key).hex
        uri = append_to_uri_path(self._location, run_id, SqlAlchemyStore.ARTIFACTS_FOLDER_NAME)
        names = {*run.tags, *run.params, *(point[0] for point in run.points)}
        if not (
            self._usable
            and all(_PLAIN.fullmatch(name) and len(name) <= _LONGEST_NAME for name in names)
            and "mlflow.runName" not in names
            and len(run.name) <= _LONGEST_NAME
            and len(uri) <= _LONGEST_URI
        ):
            return ""
        if run.artifacts and run.artifacts.is_dir() and any(run.artifacts.iterdir()):
            get_artifact_repository(uri).log_artifacts(str(run.artifacts))
        row = {
            "run_uuid": run_id,
            "name": run.name,
            "source_type": SourceType.to_string(SourceType.UNKNOWN),
            "source_name": "",
            "entry_point_name": "",
            "user_id": run.tags.get("mlflow.user", "unknown"),
            "status": run.status,
            "start_time": run.started,
            "end_time": run.ended,
            "source_version": "",
            "lifecycle_stage": "active",
            "artifact_uri": uri,
            "experiment_id": int(self._experiment_id),
        }
        points = [
            {"key": name, "step": step, "timestamp": time, "value": value, "is_nan": False}
            for name, step, time, value in dict.fromkeys(run.points)
        ]
        points.sort(key=lambda p: (p["step"], p["timestamp"], p["value"]))  # the last is the latest
        latest = {point["key"]: point for point in points}
        tags = run.tags | {"mlflow.runName": run.name}
        with self._store.ManagedSessionMaker(read_only=False) as session:
            for model, rows in (
                (models.SqlRun, [row]),
                (models.SqlTag, [{"key": k, "value": v} for k, v in tags.items()]),
                (models.SqlParam, [{"key": k, "value": v} for k, v in run.params.items()]),
                (models.SqlMetric, points),
                (models.SqlLatestMetric, list(latest.values())),
            ):
                if rows:
                    table = insert(model.__table__)
                    session.execute(table, [each | {"run_uuid": run_id} for each in rows])
        return run_id
