"""A whole run straight into MLflow's tables: one transaction, a tenth of what its API takes.

Only where it comes to the same (a test compares every table): MLflow's own SQL store, tables with
just the columns known here, names that its API would take. For anything else, and for a run that
is not over, the API is used.
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any

from mlflow.entities import SourceType
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.tracking.dbmodels import models
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.uri import append_to_uri_path
from sqlalchemy import insert

from fmexp.record.tracker import STATUS

if TYPE_CHECKING:
    from fmexp.record.tracker import Content

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

    def insert(
        self,
        key: str,
        run_name: str,
        started: int,
        tags: dict[str, str],
        params: dict[str, str],
        content: Content | None,
    ) -> str:
        """Write a run, which began at `started` (milliseconds); without content it is RUNNING.

        Its id follows from the unique key, so that a second attempt is the same run.

        Returns:
            Its id; "" when that is a case for MLflow's API.
        """
        run_id = uuid.uuid5(uuid.NAMESPACE_OID, key).hex
        uri = append_to_uri_path(self._location, run_id, SqlAlchemyStore.ARTIFACTS_FOLDER_NAME)
        points = content.points if content else []
        names = {*tags, *params, *(point[0] for point in points)}
        if not self._would_take(run_name, uri, names):
            return ""
        if content and content.artifacts.is_dir() and any(content.artifacts.iterdir()):
            get_artifact_repository(uri).log_artifacts(str(content.artifacts))
        status, ended = "RUNNING", None
        if content and content.ended:
            status, ended = STATUS[content.ended[0]], content.ended[1]
        row = {
            "run_uuid": run_id,
            "name": run_name,
            "source_type": SourceType.to_string(SourceType.UNKNOWN),
            "source_name": "",
            "entry_point_name": "",
            "user_id": tags.get("mlflow.user", "unknown"),
            "status": status,
            "start_time": started,
            "end_time": ended,
            "source_version": "",
            "lifecycle_stage": "active",
            "artifact_uri": uri,
            "experiment_id": int(self._experiment_id),
        }
        metrics = _in_order(points)
        latest = {metric["key"]: metric for metric in metrics}
        with self._store.ManagedSessionMaker(read_only=False) as session:
            for model, rows in (
                (models.SqlRun, [row]),
                (models.SqlTag, _pairs(tags | {"mlflow.runName": run_name})),
                (models.SqlParam, _pairs(params)),
                (models.SqlMetric, metrics),
                (models.SqlLatestMetric, list(latest.values())),
            ):
                if rows:
                    table = insert(model.__table__)
                    session.execute(table, [each | {"run_uuid": run_id} for each in rows])
        return run_id

    def _would_take(self, run_name: str, uri: str, names: set[str]) -> bool:
        """Whether the API would, as they are."""
        return (
            self._usable
            and all(_PLAIN.fullmatch(name) and len(name) <= _LONGEST_NAME for name in names)
            and "mlflow.runName" not in names
            and len(run_name) <= _LONGEST_NAME
            and len(uri) <= _LONGEST_URI
        )


def _in_order(points: list[tuple[str, int, int, float]]) -> list[dict[str, Any]]:
    """Their rows, each once; the last of a name is its latest."""
    metrics = [
        {"key": name, "step": step, "timestamp": time, "value": value, "is_nan": False}
        for name, step, time, value in dict.fromkeys(points)
    ]
    return sorted(metrics, key=lambda row: (row["step"], row["timestamp"], row["value"]))


def _pairs(texts: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in texts.items()]
