"""The compared runs with their error on each held-out row, from stored models or trained again."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field, replace
from string import ascii_uppercase
from typing import TYPE_CHECKING

import numpy as np

from fmexp.analysis import significance, stored_run
from fmexp.analysis.compare.choose import loss_of
from fmexp.analysis.evaluation import row_errors
from fmexp.errors import DataError, UserError
from fmexp.model import Model
from fmexp.training.fitting import fit

if TYPE_CHECKING:
    from pathlib import Path

    from fmexp.config.schema import Config
    from fmexp.data.dataset import Dataset
    from fmexp.record.queries import StoredRun, StoredRuns


@dataclass(frozen=True)
class Candidate:
    """One of the compared runs.

    Attributes:
        letter: what it is called on the screen.
        models: by seed: its own, and those of runs that differ in nothing but the seed.
        errors: of each held-out row, by seed; empty where they cannot be known.
        row_weights: of these rows; None: all the same.
    """

    letter: str
    record: StoredRun
    models: dict[int, Model] = field(default_factory=dict)
    errors: dict[int, np.ndarray] = field(default_factory=dict)
    row_weights: np.ndarray | None = None


def with_errors(
    records: StoredRuns, runs: list[StoredRun], data_file: Path | None, folder: Path
) -> tuple[list[Candidate], str]:
    """Candidates with their errors; or without, and why."""
    plain = [Candidate(ascii_uppercase[i], record) for i, record in enumerate(runs)]
    try:
        alike = records.on_same_data(runs[0])
        loaded: dict[str, Dataset] = {}  # runs may use other columns of the same file
        candidates = []
        for each in plain:
            config = stored_run.read_config(records, each.record)
            key = str((config.data, config.task))
            if key not in loaded:
                loaded[key] = stored_run.load_data(config, each.record, data_file, folder)
            data = loaded[key]
            if data.validation is None:
                raise DataError("these runs held no rows out (split.validation=0)")
            models = _models(records, each.record, alike, data)
            errors = {s: row_errors(model, data, data.validation) for s, model in models.items()}
            weights = data.validation.row_weights
            candidates.append(replace(each, models=models, errors=errors, row_weights=weights))
    except UserError as error:
        return plain, str(error)
    return candidates, ""


def judge(a: Candidate, b: Candidate, choices: int) -> significance.Difference | None:
    """A against B over the seeds that both have; None where errors are not known."""
    if not a.errors or not b.errors:
        return None
    seeds = sorted(a.errors.keys() & b.errors.keys())
    if seeds:
        errors = [np.stack([each.errors[seed] for seed in seeds]) for each in (a, b)]
    else:  # each by a seed of its own
        errors = [next(iter(each.errors.values())) for each in (a, b)]
    return significance.difference(errors[0], errors[1], choices, a.row_weights)


def _models(
    records: StoredRuns, record: StoredRun, alike: list[StoredRun], data: Dataset
) -> dict[int, Model]:
    config = stored_run.read_config(records, record)
    seeds = _seeds_of_trial(records, record)
    if seeds:  # a trial that is a mean over seeds keeps the model of one of them
        return {seed: _train(replace(config, seed=seed), data) for seed in seeds}
    duplicates = {config.seed: record}
    for other in alike:
        if _same_but_seed(other, record):
            duplicates.setdefault(int(other.params["seed"]), other)
    return {seed: _model(records, duplicate, data) for seed, duplicate in duplicates.items()}


def _model(records: StoredRuns, record: StoredRun, data: Dataset) -> Model:
    """The stored model, or one trained again where none was kept."""
    if records.has_artifact(record, "model"):
        return stored_run.load_model(records, record)
    return _train(stored_run.read_config(records, record), data)


def _train(config: Config, data: Dataset) -> Model:
    fitted = fit(config, data)
    if fitted.parameters is None:
        raise DataError(f"training again gives no model: {fitted.reason}")
    return Model.of(config, data, fitted.parameters)


def _same_but_seed(a: StoredRun, b: StoredRun) -> bool:
    """Whether a is a finished run of its own that differs from b in its seed at most."""
    same = {**a.params, "seed": ""} == {**b.params, "seed": ""}
    return same and "seed" in a.params and a.outcome == "completed" and a.parent_id == b.parent_id


def _seeds_of_trial(records: StoredRuns, record: StoredRun) -> list[int]:
    """The seeds of a trial that was trained with several; [] for every other run."""
    if f"best/val_{loss_of(record)}_stdev" not in record.metrics:
        return []
    with records.artifact(record, "curve.csv").open(newline="") as file:
        return sorted({int(row["seed"]) for row in csv.DictReader(file)})
