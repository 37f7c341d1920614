"""What a command shows while it works and when it is done."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from fmexp import fm
from fmexp.record.environment import program
from fmexp.record.tracker import Outcome
from fmexp.training.stability import largest_columns, scale_advice

if TYPE_CHECKING:
    from fmexp.config.schema import Config
    from fmexp.data.dataset import Dataset
    from fmexp.experiment.one_run import Result
    from fmexp.record.tracker import Delivery
    from fmexp.training.fitting import Fit

REDRAW_SECONDS = 0.1

CAPPED_SHARE = 0.01
"""Share of the last epoch's steps that may be capped without a word."""


class Progress:
    """One line with the epoch, a bar and the errors; silent when stderr is not a terminal."""

    def __init__(self, config: Config) -> None:
        self.epochs, self.loss = config.training.epochs, config.loss
        self.shown = sys.stderr.isatty()
        self.next = 0.0

    def show(self, epoch: int, train: float, validation: float | None) -> None:
        """Draw the line anew, at most ten times a second."""
        if not self.shown or (time.monotonic() < self.next and epoch < self.epochs):
            return
        self.next = time.monotonic() + REDRAW_SECONDS
        done = 20 * epoch // self.epochs
        bar = "█" * done + "·" * (20 - done)
        errors = f"train/{self.loss} {train:.6g}"
        if validation is not None:
            errors += f"  val/{self.loss} {validation:.6g}"
        sys.stderr.write(f"\r\x1b[Kepoch {epoch:,}/{self.epochs:,} {bar} {errors}")
        sys.stderr.flush()

    def wait(self) -> None:
        """Say that the store is waited for."""
        if self.shown:
            sys.stderr.write("\r\x1b[Ksending the record ...")
            sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self.shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def outcome(config: Config, data: Dataset, result: Result) -> str:
    """How training ended, and its quality beside that of predicting the mean."""
    rows = {
        "outcome": f"{result.fit.outcome}. {result.fit.reason}".rstrip(". ") + ".",
        "quality": _quality(config, result.fit) + _measures(result.metrics),
        "interval": _intervals(result.metrics),
        "perhaps": _advice(result.fit),
        "capped": _capped(config, data, result.fit),
        "noise": f"the true model has {data.noise_floor:.6g}" if data.noise_floor else "",
    }
    return _rows(rows)


def record(
    config: Config, data: Dataset, result: Result, delivery: Delivery, seconds: float
) -> str:
    """Time, and where the record is; `seconds` is the command's time."""
    rows = {
        "time": f"{_span(result.fit.fit_seconds)} s of training, {_span(seconds)} s in all",
    }
    if delivery.run_ids:
        rows |= {
            "run": f"{result.name}  (id {delivery.run_ids[result.key]})",
            "record": f"{delivery.store}, experiment {config.tracking.experiment}",  # type: ignore[union-attr]
            "rows": _some_predictions(config, data),
            "see it": f"{program()} ui{delivery.option}",
        }
    return _rows(rows)


def _rows(rows: dict[str, str]) -> str:
    return "\n".join(f"{name:<8} {text}" for name, text in rows.items() if text)


def _some_predictions(config: Config, data: Dataset) -> str:
    """Which rows predictions.csv holds, where it does not hold all."""
    n_rows = len(data.train.rows) + (len(data.validation.rows) if data.validation else 0)
    most = config.tracking.prediction_rows  # type: ignore[union-attr]
    if n_rows <= most:
        return ""
    return f"predictions.csv holds {most:,} of {n_rows:,} (tracking.prediction_rows)"


def _quality(config: Config, fit: Fit) -> str:
    if fit.epochs == 0:
        return ""
    if fit.best_epoch is None or fit.best_validation is None:
        loss = fit.train_losses[-1]
        rmse = f", RMSE {loss**0.5:.4g}" if config.loss == "mse" else ""
        return (
            f"train/{config.loss} {loss:.6g}{rmse} in epoch {fit.epochs:,} "
            f"(predicting the mean: {fit.baseline:.6g}); nothing was held out"
        )
    share = 100 * (1 - fit.best_validation / fit.baseline) if fit.baseline else 0.0
    compared = f"{abs(share):.0f} % {'less' if share >= 0 else 'more'}"
    return (
        f"val/{config.loss} {fit.best_validation:.6g} at epoch {fit.best_epoch:,} of "
        f"{fit.epochs:,} (predicting the mean: {fit.baseline:.6g}; {compared})"
    )


def _measures(metrics: dict[str, float]) -> str:
    """The errors on the validation part in the target's own units, or how often a class is right.

    >>> _measures({"best/val_rmse": 52.545, "best/val_mae": 43.2, "best/val_r2": 0.546})
    '; RMSE 52.55, R2 0.546'
    """
    names = {"rmse": "RMSE", "r2": "R2", "accuracy": "accuracy", "auc": "AUC"}
    keys = {f"best/val_{key}": name for key, name in names.items()}
    shown = [f"{name} {metrics[key]:.4g}" for key, name in keys.items() if key in metrics]
    return f"; {', '.join(shown)}" if shown else ""


def _intervals(metrics: dict[str, float]) -> str:
    """How often the 90 % intervals held a target of the validation part."""
    share = metrics.get("best/val_coverage_90")
    return "" if share is None else f"those of 90 % hold {100 * share:.1f} % of the validation part"


def _advice(fit: Fit) -> str:
    if fit.outcome is not Outcome.COMPLETED or not 1 < fit.epochs == fit.best_epoch:
        return ""
    if isinstance(fit.parameters, fm.Samples):  # their last epoch is the best by definition
        return ""
    more = f"training.epochs={2 * fit.epochs} or a larger training.learning_rate"
    return f"it was still getting better in its last epoch: try {more}"


def _capped(config: Config, data: Dataset, fit: Fit) -> str:
    """That the rate is above what more than CAPPED_SHARE of the rows bear."""
    if fit.capped <= CAPPED_SHARE:
        return ""
    return (
        f"{100 * fit.capped:.0f} % of the last epoch's steps, where training.learning_rate="
        f"{config.training.learning_rate:g} would overshoot: a smaller one may do better. "
        f"{largest_columns(data)}{scale_advice(config)}"
    )


def _span(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds >= 1 else f"{seconds:.2g}"
