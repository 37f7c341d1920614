"""One configuration: data, backend, fit, record."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fmexp.config import meaning
from fmexp.config.schema import MlflowConfig, config_hash, flatten
from fmexp.data.features import CHUNK_ROWS
from fmexp.experiment import artifacts
from fmexp.model import Model
from fmexp.record import environment
from fmexp.record.passwords import without_password
from fmexp.record.tracker import Outcome, RunStart
from fmexp.training import metrics
from fmexp.training.fitting import fit

if TYPE_CHECKING:
    from collections.abc import Callable

    from fmexp.config.schema import Config
    from fmexp.data.dataset import Dataset, Part
    from fmexp.fm import Parameters
    from fmexp.record.tracker import Run, Tracker
    from fmexp.training.fitting import Fit, Watch

BASELINE = "fmexp.baseline"
"""Tag: the loss of always predicting the training mean, on the validation part if there is one."""


@dataclass(frozen=True)
class Result:
    """A finished run: its key and name in the record, what training gave, the final metrics."""

    key: str
    name: str
    fit: Fit
    metrics: dict[str, float]


def run(
    config: Config,
    config_tree: dict[str, Any],
    data: Dataset,
    tracker: Tracker,
    watch: Watch,
    parameters: Parameters | None = None,
) -> Result:
    """Train once and leave the record.

    Args:
        config: what to train.
        config_tree: the same as a tree that may be written down.
        data: the rows.
        tracker: where the record goes.
        watch: called after each epoch; may stop training.
        parameters: where to start; None for what `model.start` says.
    """
    start = describe(config, config_tree, data)
    tracked = tracker.start_run(start)
    try:
        fitted = fit(config, data, with_logging(config, tracked.log, watch), parameters)
        if tracked.folder is not None:
            artifacts.write_all(tracked.folder, config, config_tree, data, fitted)
            if fitted.epochs:
                picture = artifacts.Picture.of(config.loss, fitted)
                artifacts.draw_curve(tracked.folder / "curve.png", picture)
    except KeyboardInterrupt:
        tracked.finish(Outcome.INTERRUPTED, "interrupted before training ended")
        raise
    except Exception as error:
        _keep_traceback(tracked)
        tracked.finish(Outcome.FAILED, f"{type(error).__name__}: {error}")
        raise
    note = closing_tags(config, data, fitted)
    found = final_metrics(config, fitted) | held_out_metrics(config, data, fitted)
    tracked.finish(fitted.outcome, fitted.reason, found, note)
    return Result(tracked.key, start.name, fitted, found)


def describe(config: Config, config_tree: dict[str, Any], data: Dataset) -> RunStart:
    """What is known of a run before its first epoch."""
    leaves = flatten({key: value for key, value in config_tree.items() if key != "tracking"})
    tags = environment.environment_tags() | {
        "fmexp.config_hash": config_hash(config_tree),
        "fmexp.data_digest": data.data_digest,
        "fmexp.columns_digest": data.columns_digest,
        "fmexp.split_digest": data.split_digest,
        "fmexp.target": data.encoder.target_name,
        "mlflow.source.name": "fmexp run",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": environment.user(),
    }
    if data.test is not None:
        tags["fmexp.test_digest"] = data.test_digest
    if data.weight_digest:
        tags["fmexp.weight_digest"] = data.weight_digest
    given = config.tracking if isinstance(config.tracking, MlflowConfig) else None
    return RunStart(
        name=(given and given.run_name) or default_name(config),
        params={key: str(value) for key, value in leaves.items()},
        tags=tags | (given.tags if given else {}),
        dataset={
            "name": data_name(config),
            "digest": data.data_digest,
            "source": data.source,
            "rows": str(sum(len(part.rows) for part in parts(data).values())),
            "features": str(len(data.encoder.feature_names)),
        },
    )


def default_name(config: Config) -> str:
    """A run name, what differs first: MLflow's lists cut long ones."""
    model = f"k{config.model.k}"
    if not meaning.reason("training.learning_rate", config.backend.name):
        model += f"-lr{config.training.learning_rate:g}"
    return "-".join([data_name(config), model, config.backend.name])


def data_name(config: Config) -> str:
    """What data are called in names: of a file its name and target, of other data theirs."""
    of_file = [Path(getattr(config.data, "path", "")).stem, getattr(config.data, "target", None)]
    words = [word for word in dict.fromkeys(of_file) if word and re.fullmatch(r"[\w.-]+", word)]
    return "-".join(words or [config.data.name])


def parts(data: Dataset) -> dict[str, Any]:
    """The parts that exist, by name."""
    named = {"train": data.train, "validation": data.validation, "test": data.test}
    return {name: part for name, part in named.items() if part is not None}


def final_metrics(config: Config, fitted: Fit) -> dict[str, float]:
    """The numbers that a finished run is compared by; all finite."""
    found = {"time/fit_seconds": fitted.fit_seconds}
    if fitted.best_epoch is not None and fitted.best_validation is not None:
        found["best/epoch"] = fitted.best_epoch
        found[f"best/val_{config.loss}"] = fitted.best_validation
    return found


def held_out_metrics(config: Config, data: Dataset, fitted: Fit) -> dict[str, float]:
    """Further metrics of the kept model on the validation part: best/val_rmse, best/val_auc, ...

    Of the model as it is kept (with model.clip). Nothing for a part of more than CHUNK_ROWS rows:
    ranking all of them would take memory that training does not.
    """
    part = data.validation
    if part is None or fitted.parameters is None or len(part.target) > CHUNK_ROWS:
        return {}
    model = Model.of(config, data, fitted.parameters)
    predicted = model.predict_features_with_stdev(part.features)
    found = _measures(config, data, part, *predicted)
    return {f"best/val_{name}": x for name, x in found.items() if name != config.loss}


def held_out_names(config: Config, data: Dataset) -> list[str]:
    """The names of `held_out_metrics`, known before anything is trained."""
    part = data.validation
    if part is None or len(part.target) > CHUNK_ROWS:
        return []
    half = np.full(len(part.target), 0.5)
    stdev = half if config.backend.name == "gibbs" else None
    found = _measures(config, data, part, half, stdev)
    return [f"best/val_{name}" for name in found if name != config.loss]


def _measures(
    config: Config,
    data: Dataset,
    part: Part,
    predicted: np.ndarray,
    stdev: np.ndarray | None,
) -> dict[str, float]:
    """All metrics of the task on a part."""
    weights = part.row_weights
    if config.task == "classification":
        return metrics.classification(part.target, predicted, weights)
    y = data.encoder.decode_target(part.target)
    of_intervals = metrics.intervals(y, predicted, stdev, weights)
    return metrics.regression(y, predicted, weights) | of_intervals


def last_losses(config: Config, fitted: Fit) -> dict[str, float]:
    """The losses of the last epoch, under the names of their curves."""
    curves = {"train": fitted.train_losses, "val": fitted.validation_losses}
    return {f"{part}/{config.loss}": curve[-1] for part, curve in curves.items() if curve}


def closing_tags(config: Config, data: Dataset, fitted: Fit) -> dict[str, str]:
    """What is said of a run at its end: its note, and the loss of predicting the mean."""
    note = {"mlflow.note.content": in_words(config, data, fitted)}
    return note | {BASELINE: repr(fitted.baseline)}


def in_words(config: Config, data: Dataset, fitted: Fit) -> str:
    """What the run was and how it ended, for the top of its page."""
    sizes = ", ".join(f"{len(part.rows):,} {name}" for name, part in parts(data).items())
    model = (
        f"A Factorization Machine with k = {config.model.k}, trained by {config.backend.name} on "
        f"{data.name} ({sizes} rows; {len(data.encoder.feature_names):,} features)."
    )
    lines = [model, f"Outcome: {fitted.outcome}. {fitted.reason}".strip()]
    if data.weight_digest:
        lines.append(f"Rows are weighted by {getattr(config.data, 'weight', '')}.")
    if fitted.best_epoch is not None:
        lines.append(
            f"Lowest val/{config.loss} {fitted.best_validation:.6g} at epoch {fitted.best_epoch} "
            f"of {fitted.epochs}; predicting the training mean gives {fitted.baseline:.6g}."
        )
    return "\n\n".join(lines)


def with_logging(
    config: Config, log: Callable[[int, dict[str, float]], None], watch: Watch
) -> Watch:
    """`watch`, with every epoch's losses logged before it."""
    train_name, validation_name = f"train/{config.loss}", f"val/{config.loss}"

    def log_and_watch(
        epoch: int, train_loss: float, validation_loss: float | None
    ) -> Outcome | None:
        point = {train_name: train_loss}
        if validation_loss is not None:
            point[validation_name] = validation_loss
        log(epoch, point)
        return watch(epoch, train_loss, validation_loss)

    return log_and_watch


def _keep_traceback(tracked: Run) -> None:
    if tracked.folder is not None:
        words = without_password(traceback.format_exc())
        (tracked.folder / "traceback.txt").write_text(words, encoding="utf-8")
