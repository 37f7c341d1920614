"""Trains at a point of the space and records it as a child run."""

from __future__ import annotations

import shutil
import statistics
import traceback
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from fmexp.experiment import artifacts, one_run
from fmexp.experiment.trial_plan import held_out_objectives
from fmexp.record.passwords import without_password
from fmexp.record.tracker import Outcome, RunStart
from fmexp.training.fitting import fit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fmexp.config.schema import Config
    from fmexp.data.dataset import Dataset
    from fmexp.experiment.trial_plan import DataCache, Plan
    from fmexp.record.tracker import Run, Tracker
    from fmexp.sweep.space import Point
    from fmexp.sweep.study import Reporter
    from fmexp.training.fitting import Fit

OBJECTIVE = "fmexp.objective"
"""Tag: the value that the study was told."""

CURVE_POINTS = 320
"""Points of a child's curve: as many as MLflow's UI asks for."""

LARGEST_MODEL = 1_000_000
"""Bytes of `model/` that a trial keeps when it was not the best so far."""


class Evaluated:
    """See `fmexp.sweep.study.Evaluated`."""

    memo: dict[str, Any] | None = None

    def __init__(self, run: Run, outcome: Outcome, value: float | None, reason: str) -> None:
        self.outcome, self.value, self.reason = outcome, value, reason
        self._run = run

    def settle(self, accepted: bool) -> None:
        """See `fmexp.sweep.study.Evaluated`."""
        self._run.settle(accepted)


@dataclass(frozen=True)
class Evaluator:
    """Trains and records trials; threads may share it.

    Attributes:
        plan: what all trials share.
        data: loaded once.
        tracker: where the children go.
        worker: id of the worker's lease.
        study: where a provisional end is judged should we die (storage and name).
        is_best: whether a value is better than all that the study has.
        should_stop: whether the user wants to stop.
    """

    plan: Plan
    data: DataCache
    tracker: Tracker
    worker: str
    study: dict[str, str]
    is_best: Callable[[float], bool]
    should_stop: Callable[[], str]

    def __call__(self, number: int, point: Point, report: Reporter) -> Evaluated:
        """Train at `point`, once per seed; the child's end is on disk when this returns."""
        start = self.start(number, point)
        try:
            config, record = self.plan.at(point)
            data = self.data.get(config)
            start = self.describe(start, config, record, data)
        except Exception as error:  # noqa: BLE001 -- no trial ends the sweep
            return self._fail(self.tracker.start_run(start), error)
        run = self.tracker.start_run(start)
        try:
            fits = self._train(config, data, run, report)
            return self._finish(run, config, record, data, fits)
        except KeyboardInterrupt:
            return self._close(run, Outcome.INTERRUPTED, "interrupted")
        except Exception as error:  # noqa: BLE001 -- a trial that fails is a result
            return self._fail(run, error)

    def start(self, number: int, point: Point) -> RunStart:
        """The child run as it begins, as far as trial and point say it."""
        return RunStart(
            name=f"{number}: {in_words(point)}",
            params={key: str(value) for key, value in point.items()},
            tags={
                "fmexp.trial": str(number),
                "fmexp.worker": self.worker,
                "fmexp.sweep": self.study["name"],
            },
            parent=self.plan.sweep_key,
            key=self.plan.child_key(number),
            study=self.study | {"trial": str(number)},
        )

    @staticmethod
    def describe(
        start: RunStart, config: Config, record: dict[str, Any], data: Dataset
    ) -> RunStart:
        """The same with all that the configuration says."""
        whole = one_run.describe(config, record, data)
        return replace(
            start, params=whole.params, tags=whole.tags | start.tags, dataset=whole.dataset
        )

    def _train(
        self, config: Config, data: Dataset, run: Run, report: Reporter
    ) -> list[tuple[Config, Fit]]:
        """A fit per seed; the first that does not complete is the last."""
        fits: list[tuple[Config, Fit]] = []
        for i in range(self.plan.seeds):
            seeded = replace(config, seed=config.seed + i)

            def watch(
                epoch: int, train_loss: float, validation_loss: float | None, first: bool = i == 0
            ) -> Outcome | None:
                if self.should_stop():
                    return Outcome.INTERRUPTED
                if not first or epoch == config.training.epochs:  # whole: nothing left to save
                    return None
                seen = train_loss if validation_loss is None else validation_loss
                # the pruner takes a larger value for a better one where the objective rises
                seen = seen if self.plan.direction == "minimize" else -seen
                return Outcome.PRUNED if report.should_stop(epoch, seen) else None

            logged = self.plan.seeds == 1
            fitted = fit(seeded, data, one_run.logging(config, run, watch) if logged else watch)
            fits.append((seeded, fitted))
            if fitted.outcome is not Outcome.COMPLETED:
                break
        return fits

    def _finish(
        self,
        run: Run,
        config: Config,
        record: dict[str, Any],
        data: Dataset,
        fits: list[tuple[Config, Fit]],
    ) -> Evaluated:
        last = fits[-1][1]
        if self.plan.seeds > 1:
            _log_means(run, config, [fitted for _, fitted in fits])
        metrics = means([self._metrics(each, data, fitted) for each, fitted in fits])
        value = None
        if last.outcome is Outcome.COMPLETED:
            losses = means([one_run.last_losses(config, fitted) for _, fitted in fits])
            value = (metrics | losses)[self.plan.objective]
        best = f"best/val_{config.loss}"
        if len(fits) > 1 and best in metrics:
            each = [fit.best_validation for _, fit in fits if fit.best_validation is not None]
            metrics[f"{best}_stdev"] = statistics.stdev(each)
        memo = self._write(run, config, record, data, fits, value)
        note = one_run.closing_tags(config, data, last)
        ended = self._close(run, last.outcome, last.reason, value, metrics, note)
        ended.memo = memo
        return ended

    def _metrics(self, config: Config, data: Dataset, fitted: Fit) -> dict[str, float]:
        """A fit's last numbers; those that take predictions only where one is the objective."""
        found = one_run.final_metrics(config, fitted)
        if self.plan.objective in held_out_objectives(config):
            found |= one_run.held_out_metrics(config, data, fitted)
        return found

    def _write(
        self,
        run: Run,
        config: Config,
        record: dict[str, Any],
        data: Dataset,
        fits: list[tuple[Config, Fit]],
        value: float | None,
    ) -> dict[str, Any] | None:
        """Everything for the best so far, so for the winner; else the model, if it is small.

        Returns what the winner's picture is drawn from when the sweep ends.
        """
        if run.folder is None:
            return None
        seeded, best = min(fits, key=_best_validation)
        memo = None
        if value is not None and self.is_best(value):
            artifacts.write_all(run.folder, seeded, record | {"seed": seeded.seed}, data, best)
            memo = asdict(artifacts.Picture.of(config.loss, best, CURVE_POINTS))
        elif best.parameters is not None:
            artifacts.write_model(run.folder / "model", seeded, data, best.parameters)
            if (
                sum(file.stat().st_size for file in (run.folder / "model").iterdir())
                > LARGEST_MODEL
            ):
                shutil.rmtree(run.folder / "model")
        if len(fits) > 1:
            artifacts.write_curves(
                run.folder / "curve.csv", config.loss, {c.seed: fitted for c, fitted in fits}
            )
        return memo

    def _fail(self, run: Run, error: Exception) -> Evaluated:
        if run.folder is not None:
            words = without_password("".join(traceback.format_exception(error)))
            (run.folder / "traceback.txt").write_text(words, encoding="utf-8")
        return self._close(run, Outcome.FAILED, f"{type(error).__name__}: {error}")

    def _close(
        self,
        run: Run,
        outcome: Outcome,
        reason: str,
        value: float | None = None,
        metrics: dict[str, float] | None = None,
        tags: dict[str, str] | None = None,
    ) -> Evaluated:
        objective = {} if value is None else {OBJECTIVE: repr(value)}
        run.finish(outcome, reason, metrics, (tags or {}) | objective, provisional=True)
        return Evaluated(run, outcome, value, reason)


def draw_winner(folder: Path, memo: dict[str, Any]) -> None:
    """The winner's curve.png, from the memo of its evaluation."""
    artifacts.draw_curve(folder / "curve.png", artifacts.Picture(**memo))


def in_words(point: Point) -> str:
    """A point in few words, for names and tables: the keys' last parts."""
    shown = (
        f"{key.rpartition('.')[2]}={f'{x:.4g}' if isinstance(x, float) else x}"
        for key, x in point.items()
    )
    return " ".join(shown) or "as composed"


def means(each: list[dict[str, float]]) -> dict[str, float]:
    """The metrics that all have, averaged.

    >>> means([{"a": 1.0, "b": 2.0}, {"a": 3.0}])
    {'a': 2.0}
    """
    common = [name for name in each[0] if all(name in metrics for metrics in each)]
    return {name: statistics.fmean(metrics[name] for metrics in each) for name in common}


def _best_validation(fitted: tuple[Config, Fit]) -> float:
    """The lowest validation loss; infinite where training diverged before any."""
    best = fitted[1].best_validation
    return float("inf") if best is None else best


def _log_means(run: Run, config: Config, fits: list[Fit]) -> None:
    """The curves, averaged over the seeds, as far as all of them go."""
    for i in range(min(fitted.epochs for fitted in fits)):
        point = {f"train/{config.loss}": statistics.fmean(f.train_losses[i] for f in fits)}
        if all(len(f.validation_losses) > i for f in fits):
            point[f"val/{config.loss}"] = statistics.fmean(f.validation_losses[i] for f in fits)
        run.log(i + 1, point)
