"""`fmexp score`: the error on the test part, which no choice has seen; each look is noted."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import numpy as np

from fmexp.analysis import significance, stored_run
from fmexp.analysis.evaluation import row_errors
from fmexp.errors import DataError
from fmexp.record.queries import StoredRuns
from fmexp.training import metrics

if TYPE_CHECKING:
    from pathlib import Path

    from fmexp.data.dataset import Dataset
    from fmexp.model import Model
    from fmexp.record.queries import StoredRun

SCORED = "fmexp.scored"
"""Tag of a run whose test part was looked at: when, one time after the other."""


def score(run: str, uri: str, folder: Path, data_file: Path | None = None) -> int:
    """Print the error on the test part and note it on the run; the exit code.

    Args:
        run: id, beginning of an id, name or `latest`; a sweep stands for its winner.
        uri: absolute tracking URI.
        folder: where data are looked for that are not where they were.
        data_file: where the data are.

    Raises:
        UserError: no such run, no model, or its data are not to be found.
        StoreError: the store does not answer.
    """
    with StoredRuns(uri) as records:
        record = records.find_trained(run)
        config = stored_run.read_config(records, record)
        model = stored_run.load_model(records, record)
        data = stored_run.load_data(config, record, data_file, folder)
        if data.test is None:
            raise DataError(f"{record} kept no test part (split.test=0)")
        earlier = _looks(records, record)
        errors = row_errors(model, data, data.test)
        nothing, weights = np.zeros_like(errors), data.test.row_weights
        level = significance.difference(nothing, errors, weights=weights)
        measures = {f"test/{name}": x for name, x in _measures(model, data).items()}
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        mine = [when for each, when in earlier if each.run_id == record.run_id]
        records.note(record, {SCORED: " ".join([*mine, now])}, measures)
    print(_report(record, config.loss, level, measures, earlier))
    return 0


def _measures(model: Model, data: Dataset) -> dict[str, float]:
    """Every measure of the task, in the target's own units."""
    assert data.test is not None
    weights = data.test.row_weights
    features = model.encoder.features(data.table.take(data.test.rows))
    predicted, stdev = model.predict_features_with_stdev(features)
    if model.task == "classification":
        return metrics.classification(data.test.target, predicted, weights)
    y = data.encoder.decode_target(data.test.target)
    of_intervals = metrics.intervals(y, predicted, stdev, weights)
    return metrics.regression(y, predicted, weights) | of_intervals


def _looks(records: StoredRuns, record: StoredRun) -> list[tuple[StoredRun, str]]:
    """Every earlier look at these test rows: the run that was scored, and when."""
    return [
        (each, when)
        for each in records.on_same_test_rows(record)
        for when in each.tags.get(SCORED, "").split()
    ]


def _report(
    record: StoredRun,
    loss: str,
    level: significance.Difference,
    measures: dict[str, float],
    earlier: list[tuple[StoredRun, str]],
) -> str:
    mean, width = significance.rounded(level.mean, level.half_width)
    others = ", ".join(f"{k} {x:.6g}" for k, x in measures.items() if k != f"test/{loss}")
    lines = [
        f"{record}: test/{loss} {mean} ± {width} on {level.rows:,} rows (95 %)",
        f"also {others}",
    ]
    best = record.metrics.get(f"best/val_{loss}")
    if best is not None:
        lines.append(f"its best/val_{loss}, by which it was chosen, was {best:.6g}")
    if not earlier:
        lines.append("These rows were looked at for the first time.")
        return "\n".join(lines)
    models = len({each.run_id for each, _ in earlier} | {record.run_id})
    when = min(when for _, when in earlier)
    times = "once" if len(earlier) == 1 else f"{len(earlier)} times"
    lines.append(
        f"These rows were looked at {times} before (first {when}; {models} models in all): "
        "a model chosen by what they say is no longer judged by rows it never saw."
    )
    return "\n".join(lines)
