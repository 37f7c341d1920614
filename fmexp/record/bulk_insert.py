"""A whole run straight into MLflow's tables: one transaction, a tenth of what its API takes.

This reaches into MLflow. So it is used only where it is known to come to the same: MLflow's own SQL
store at a revision of its schema of which a test has compared every table, and names that its API
would take. For anything else, and for a run that is not over, the API is used.
"""

from __future__ import annotations

import inspect
import re
import uuid
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, text
from sqlalchemy.exc import SQLAlchemyError

from fmexp.record.tracker import STATUS

try:
    from mlflow.entities import SourceType
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.store.tracking.dbmodels import models
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.utils.uri import append_to_uri_path
except ImportError:  # another MLflow than those of _REVISIONS
    SqlAlchemyStore = None

if TYPE_CHECKING:
    from fmexp.record.tracker import Content

_REVISIONS = frozenset({"dc11669786a5"})  # MLflow 3.17
"""Revisions of MLflow's schema of which tests/test_record_bulk_insert.py compares every table."""

_PLAIN = re.compile(r"[\w-][\w. -]*(/[\w-][\w. -]*)*")
_LONGEST_NAME = 250
_LONGEST_URI = 200


class Tables:
    """Those of one experiment's store.

    Attributes:
        usable: whether they are as we know them.
    """

    def __init__(self, client: Any, experiment_id: str, artifact_location: str) -> None:
        self._store: Any = getattr(getattr(client, "_tracking_client", None), "store", None)
        self._experiment_id = experiment_id
        self._location = artifact_location
        self.usable = _is_known(self._store)

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
        if not self.usable:
            return ""
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
            all(_PLAIN.fullmatch(name) and len(name) <= _LONGEST_NAME for name in names)
            and "mlflow.runName" not in names
            and len(run_name) <= _LONGEST_NAME
            and len(uri) <= _LONGEST_URI
        )


def _is_known(store: Any) -> bool:
    """Whether we know how this store's tables and sessions are."""
    if SqlAlchemyStore is None or type(store) is not SqlAlchemyStore:
        return False
    try:
        with store.engine.connect() as connection:
            revision = connection.execute(text("select version_num from alembic_version")).scalar()
        sessions = inspect.signature(store.ManagedSessionMaker).parameters
    except (AttributeError, SQLAlchemyError):
        return False
    return revision in _REVISIONS and "read_only" in sessions


def _in_order(points: list[tuple[str, int, int, float]]) -> list[dict[str, Any]]:
    """Their rows, each once; the last of a name is its latest."""
    metrics = [
        {"key": name, "step": step, "timestamp": time, "value": value, "is_nan": False}
        for name, step, time, value in dict.fromkeys(points)
    ]
    return sorted(metrics, key=lambda row: (row["step"], row["timestamp"], row["value"]))


def _pairs(texts: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in texts.items()]
