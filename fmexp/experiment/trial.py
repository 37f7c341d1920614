"""One trial of a sweep: a Factorization Machine trained at a point of the space."""

from __future__ import annotations

import shutil
import statistics
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from fmexp.backends.base import load_backend
from fmexp.experiment import artifacts, one_run
from fmexp.experiment.objectives import held_out_objectives
from fmexp.experiment.trial_plan import DataCache, TrialPlan, check_data
from fmexp.record.tracker import Outcome
from fmexp.sweep.task import Evaluation
from fmexp.training.fitting import fit

if TYPE_CHECKING:
    from pathlib import Path

    from fmexp.config.schema import Config
    from fmexp.data.dataset import Dataset
    from fmexp.sweep.space import Point
    from fmexp.sweep.task import Reporter
    from fmexp.training.fitting import Fit

LARGEST_MODEL = 1_000_000
"""Bytes of `model/` that a trial keeps when it was not the best so far."""

PICTURE_POINTS = 320


@dataclass(frozen=True)
class Trained:
    """What a trial trained: a fit for each seed, the first that did not complete being the last.

    Attributes:
        config: of the first seed.
        config_tree: the same as a tree that may be written down.
        data: the rows.
        fits: by seed.
    """

    config: Config
    config_tree: dict[str, Any]
    data: Dataset
    fits: dict[int, Fit]

    @property
    def last(self) -> Fit:
        """The last fit, whose outcome is the trial's."""
        return next(reversed(self.fits.values()))

    @property
    def best_seed(self) -> int:
        """The seed of the fit with the lowest validation loss."""
        return min(self.fits, key=lambda seed: _best_validation(self.fits[seed]))


@dataclass(frozen=True)
class TrainingTask:
    """Trains at points; see `fmexp.sweep.task.Task`.

    Attributes:
        plan: what all trials share.
        data: loaded once, for all threads.
    """

    plan: TrialPlan
    data: DataCache

    @classmethod
    def of(cls, settings: dict[str, Any], data: DataCache) -> Self:
        """The task with the settings that a study keeps, ready to train.

        Raises:
            DataError: the rows are others than those for which the study was made.
        """
        plan = TrialPlan(**settings)
        check_data(plan, data)
        for backend in plan.backends:
            load_backend(backend)  # before a trial's clock runs
        return cls(plan, data)

    def evaluate(self, point: Point, reporter: Reporter) -> Evaluation:
        """Train at `point`, once per seed."""
        config, config_tree = self.plan.at(point)
        data = self.data.get(config)
        start = one_run.describe(config, config_tree, data)
        reporter.describe(start.params, start.tags, start.dataset)
        trained = Trained(config, config_tree, data, self._train(config, data, reporter))
        metrics = self._metrics(trained)
        last, value = trained.last, None
        if last.outcome is Outcome.COMPLETED:
            losses = means([one_run.last_losses(config, each) for each in trained.fits.values()])
            value = (metrics | losses)[self.plan.objective]
        memo = self._write(trained, reporter, value)
        tags = one_run.closing_tags(config, data, last)
        return Evaluation(last.outcome, value, last.reason, metrics, tags, memo)

    def complete(self, memo: dict[str, Any], folder: Path) -> None:
        """Draw the winner's curve.png."""
        artifacts.draw_curve(folder / "curve.png", artifacts.Picture(**memo))

    def _train(self, config: Config, data: Dataset, reporter: Reporter) -> dict[int, Fit]:
        """A fit per seed; the first that does not complete is the last."""
        fits: dict[int, Fit] = {}
        for seed in range(config.seed, config.seed + self.plan.seeds):
            seeded = replace(config, seed=seed)

            def watch(
                epoch: int,
                train_loss: float,
                validation_loss: float | None,
                first: bool = seed == config.seed,
            ) -> Outcome | None:
                if reporter.should_stop():
                    return Outcome.INTERRUPTED
                if not first or epoch == config.training.epochs:  # whole: nothing left to save
                    return None
                seen = train_loss if validation_loss is None else validation_loss
                # the pruner takes a larger value for a better one where the objective rises
                seen = seen if self.plan.direction == "minimize" else -seen
                return Outcome.PRUNED if reporter.should_prune(epoch, seen) else None

            logged = self.plan.seeds == 1
            whole_watch = one_run.with_logging(config, reporter.log, watch) if logged else watch
            fits[seed] = fit(seeded, data, whole_watch)
            if fits[seed].outcome is not Outcome.COMPLETED:
                break
        if self.plan.seeds > 1:
            _log_means(reporter, config, list(fits.values()))
        return fits

    def _metrics(self, trained: Trained) -> dict[str, float]:
        """The last numbers, averaged over the seeds, with the spread of the best losses."""
        config, fits = trained.config, trained.fits
        each = [one_run.final_metrics(config, fitted) for fitted in fits.values()]
        if self.plan.objective in held_out_objectives(config):  # these take predictions
            held_out = [
                one_run.held_out_metrics(replace(config, seed=seed), trained.data, fitted)
                for seed, fitted in fits.items()
            ]
            each = [a | b for a, b in zip(each, held_out, strict=True)]
        metrics, best = means(each), f"best/val_{config.loss}"
        if len(fits) > 1 and best in metrics:
            bests = [x for f in fits.values() if (x := f.best_validation) is not None]
            metrics[f"{best}_stdev"] = statistics.stdev(bests)
        return metrics

    def _write(
        self, trained: Trained, reporter: Reporter, value: float | None
    ) -> dict[str, Any] | None:
        """Everything for the best so far, so for the winner; else the model, if it is small.

        Returns what the winner's picture is drawn from when the sweep ends.
        """
        folder, seed, loss = reporter.folder, trained.best_seed, trained.config.loss
        if folder is None:
            return None
        config, best, memo = replace(trained.config, seed=seed), trained.fits[seed], None
        if value is not None and reporter.is_best(value):
            config_tree = trained.config_tree | {"seed": seed}
            artifacts.write_all(folder, config, config_tree, trained.data, best)
            memo = asdict(artifacts.Picture.of(loss, best, PICTURE_POINTS))
        elif best.parameters is not None:
            artifacts.write_model(folder / "model", config, trained.data, best.parameters)
            if sum(x.stat().st_size for x in (folder / "model").iterdir()) > LARGEST_MODEL:
                shutil.rmtree(folder / "model")
        if len(trained.fits) > 1:
            artifacts.write_curves(folder / "curve.csv", loss, trained.fits)
        return memo


def open_task(settings: dict[str, Any]) -> TrainingTask:
    """The task in a worker process of its own, which loads the data.

    Raises:
        DataError: the rows are others than those for which the study was made.
    """
    return TrainingTask.of(settings, DataCache())


def means(each: list[dict[str, float]]) -> dict[str, float]:
    """The metrics that all have, averaged.

    >>> means([{"a": 1.0, "b": 2.0}, {"a": 3.0}])
    {'a': 2.0}
    """
    common = [name for name in each[0] if all(name in metrics for metrics in each)]
    return {name: statistics.fmean(metrics[name] for metrics in each) for name in common}


def _best_validation(fitted: Fit) -> float:
    """The lowest validation loss; infinite where training diverged before any."""
    return float("inf") if fitted.best_validation is None else fitted.best_validation


def _log_means(reporter: Reporter, config: Config, fits: list[Fit]) -> None:
    """The curves, averaged over the seeds, as far as all of them go."""
    for i in range(min(fitted.epochs for fitted in fits)):
        point = {f"train/{config.loss}": statistics.fmean(f.train_losses[i] for f in fits)}
        if all(len(f.validation_losses) > i for f in fits):
            point[f"val/{config.loss}"] = statistics.fmean(f.validation_losses[i] for f in fits)
        reporter.log(i + 1, point)
