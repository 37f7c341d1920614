"""`fmexp reproduce`: train again from the record alone, and say how like it comes out."""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from fmexp.analysis import stored_run
from fmexp.config.schema import STARTS, config_hash
from fmexp.errors import UserError
from fmexp.experiment import console
from fmexp.model import Model
from fmexp.record.environment import environment_tags
from fmexp.record.queries import StoredRuns
from fmexp.record.tracker import Outcome
from fmexp.training.fitting import fit

if TYPE_CHECKING:
    from pathlib import Path

    from fmexp.config.schema import Config
    from fmexp.data.dataset import Dataset
    from fmexp.record.queries import StoredRun
    from fmexp.training.fitting import Fit

CLOSE = 0.01
"""A relative difference up to this is "within"; what is further off is "different"."""

_EXPLAINS = ("version", "python", "numpy", "numba", "llvmlite", "torch", "cpu")
_STOPPED = (Outcome.PRUNED, Outcome.INTERRUPTED)

Losses = dict[tuple[int, int, str], float]
"""A loss by seed, epoch and name (train/mse, val/mse, ...)."""


@dataclass(frozen=True)
class Verdict:
    """How like the record a second training came out; `words` for the user."""

    kind: Literal["identical", "within", "different", "not possible"]
    words: str

    @property
    def exit_code(self) -> int:
        """0 only for identical."""
        return 0 if self.kind == "identical" else 1


def reproduce(run: str, uri: str, folder: Path, data_file: Path | None = None) -> int:
    """Print the verdict on a run; the exit code.

    Args:
        run: id, beginning of an id, name or `latest`.
        uri: absolute tracking URI.
        folder: where data are looked for that are not where they were.
        data_file: where the data are.

    Raises:
        UserError: there is no such run, or it has not ended.
        StoreError: the store does not answer.
    """
    with StoredRuns(uri) as records:
        record = records.find_trained(run)
        if not record.outcome:
            raise UserError(f"{record} has not ended (it is {record.status})")
        verdict = judge(records, record, folder, data_file)
    print(f"{record}: {verdict.kind}\n{verdict.words}")
    return verdict.exit_code


def judge(
    records: StoredRuns, record: StoredRun, folder: Path, data_file: Path | None = None
) -> Verdict:
    """Train again and compare curves and parameters, bit by bit."""
    try:
        config = stored_run.read_config(records, record)
        expected = recorded_losses(records, record, config)
        data = stored_run.load_data(config, record, data_file, folder)
        if config.model.start not in STARTS:
            raise UserError(
                f"it started from the model of {config.model.start} (model.start), which its "
                "record does not hold"
            )
        fits = _train_again(config, data, record, expected)
    except UserError as error:
        return Verdict("not possible", str(error))
    lines = _suspicions(records, record)
    for seed, fitted in fits.items():
        if fitted.outcome != record.outcome and record.outcome not in _STOPPED:
            outcomes = f"it ended {record.outcome} then, {fitted.outcome} now (seed {seed})"
            return Verdict("different", "\n".join([outcomes, *lines]))
    losses = _losses(config, fits)
    same_model = _same_parameters(records, record, config, data, fits)
    return _compare(expected, losses, same_model, lines)


def recorded_losses(records: StoredRuns, record: StoredRun, config: Config) -> Losses:
    """Every epoch's losses from curve.csv, else the points that MLflow has.

    Raises:
        UserError: a run that is a mean over seeds kept no curve.csv.
    """
    names = (f"train/{config.loss}", f"val/{config.loss}")
    if records.has_artifact(record, "curve.csv"):
        with records.artifact(record, "curve.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {
            (int(row.get("seed", config.seed)), int(row["epoch"]), name): float(row[name])
            for row in rows
            for name in names
            if name in row
        }
    if f"best/val_{config.loss}_stdev" in record.metrics:
        raise UserError(f"{record} is a mean over seeds, and has no curve.csv with each of them")
    return {
        (config.seed, step, name): value
        for name in names
        for step, value in records.curve(record, name)
    }


def _train_again(
    config: Config, data: Dataset, record: StoredRun, expected: Losses
) -> dict[int, Fit]:
    """A fit for each seed; a run that was stopped is stopped after the same epoch."""
    last: dict[int, int] = {}
    for seed, epoch, _ in expected:
        last[seed] = max(epoch, last.get(seed, 0))
    fits = {}
    for seed in last or {config.seed: 0}:
        progress = console.Progress(config)

        def watch(
            epoch: int, train_loss: float, validation_loss: float | None, seed: int = seed
        ) -> Outcome | None:
            progress.show(epoch, train_loss, validation_loss)  # noqa: B023 -- used at once
            is_over = record.outcome in _STOPPED and epoch == last.get(seed)
            return Outcome.INTERRUPTED if is_over else None

        fits[seed] = fit(replace(config, seed=seed), data, watch)
        progress.clear()
    return fits


def _losses(config: Config, fits: dict[int, Fit]) -> Losses:
    return {
        (seed, epoch, f"{part}/{config.loss}"): value
        for seed, fitted in fits.items()
        for part, curve in (("train", fitted.train_losses), ("val", fitted.validation_losses))
        for epoch, value in enumerate(curve, start=1)
    }


def _same_parameters(
    records: StoredRuns, record: StoredRun, config: Config, data: Dataset, fits: dict[int, Fit]
) -> bool:
    """Whether the kept model, if there is one, is that of one of the fits, bit by bit."""
    if not records.has_artifact(record, "model"):
        return True
    model = stored_run.load_model(records, record)
    return any(
        fitted.parameters is not None
        and _same_model(model, Model.of(config, data, fitted.parameters))
        for fitted in fits.values()
    )


def _same_model(a: Model, b: Model) -> bool:
    same = all(
        np.array_equal(x, y)
        for x, y in (
            (a.parameters.w0, b.parameters.w0),
            (a.parameters.w, b.parameters.w),
            (a.parameters.V, b.parameters.V),
        )
    )
    return same and a.encoder.to_json() == b.encoder.to_json()


def _compare(expected: Losses, losses: Losses, same_model: bool, lines: list[str]) -> Verdict:
    """The verdict on two sets of losses; `lines` may explain a difference."""
    epochs = {seed: max(e for s, e, _ in expected if s == seed) for seed, _, _ in expected}
    ours = {seed: max(e for s, e, _ in losses if s == seed) for seed, _, _ in losses}
    if epochs != ours:
        text = f"{sum(epochs.values())} epochs then, {sum(ours.values())} now"
        return Verdict("different", "\n".join([text, *lines]))
    off = {key: _relative(value, losses[key]) for key, value in expected.items() if key in losses}
    differing = sorted((key for key, x in off.items() if x > 0), key=lambda key: key[1])
    if not differing and same_model:
        return Verdict("identical", f"bit for bit: all {len(expected)} losses, and the model")
    if not differing:
        return Verdict("different", "\n".join(["all losses are equal, the model is not", *lines]))
    _, epoch, name = differing[0]
    worst = max(off.values())
    text = f"the losses agree within {worst:.2g} of their size; the first that differs is "
    text += (
        f"{name} of epoch {epoch} ({expected[differing[0]]!r} then, {losses[differing[0]]!r} now)"
    )
    return Verdict("within" if worst <= CLOSE else "different", "\n".join([text, *lines]))


def _relative(a: float, b: float) -> float:
    return abs(a - b) / max(abs(a), abs(b)) if a != b else 0.0


def _suspicions(records: StoredRuns, record: StoredRun) -> list[str]:
    """What may explain a difference: another configuration, version or CPU than at the time."""
    reasons = []
    noted = record.tags.get("fmexp.config_hash")
    if noted != config_hash(stored_run.read_tree(records, record)):
        reasons.append("the configuration is not the one that the run noted (fmexp.config_hash)")
    now = environment_tags()
    for name in _EXPLAINS:
        tag = f"fmexp.{name}"
        then, here = record.tags.get(tag, "none"), now.get(tag, "none")
        if then != here:
            reasons.append(f"{name} was {then}, is {here}: may explain a difference")
    if "cuda" in record.params.get("backend.device", ""):
        reasons.append("a GPU adds up in any order: identical is not to be expected")
    return reasons
