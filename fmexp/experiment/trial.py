"""Trains at a point of the space and records it as a child run."""

from __future__ import annotations

import copy
import json
import shutil
import statistics
import threading
import traceback
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from fmexp.config.checks import parse
from fmexp.config.compose import resolve
from fmexp.data.loading import load
from fmexp.errors import ConfigError, DataError
from fmexp.experiment import artifacts, one_run
from fmexp.record.tracker import Outcome, RunStart
from fmexp.training.fitting import fit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fmexp.config.schema import Config
    from fmexp.data.dataset import Dataset
    from fmexp.record.tracker import Run, Tracker
    from fmexp.sweep.space import Point, Space
    from fmexp.sweep.study import Reporter
    from fmexp.training.fitting import Fit

Direction = Literal["minimize", "maximize"]

OBJECTIVE = "fmexp.objective"
"""Tag: the value that the study was told."""

CURVE_POINTS = 320
"""Points of a child's curve: as many as MLflow's UI asks for."""

LARGEST_MODEL = 1_000_000
"""Bytes of `model/` that a trial keeps when it was not the best so far."""


@dataclass(frozen=True)
class Plan:
    """What all trials of a study share, frozen with it: nothing of it is read again.

    Attributes:
        record: the configuration as composed, environment references kept.
        variants: of each swept config group, what each choice puts under the group's key.
        objective: metric by which trials are ranked.
        direction: minimize or maximize, as the objective asks.
        seeds: trainings per point.
        sweep_key: key of the parent run; the children's begin with it.
        digests: of the data and of the split, as they were when the study was made.
    """

    record: dict[str, Any]
    variants: dict[str, dict[str, Any]]
    objective: str
    direction: Direction
    seeds: int
    sweep_key: str
    digests: tuple[str, str]

    @property
    def backends(self) -> set[str]:
        """The backends that trials can have."""
        return set(self.variants.get("backend") or [self.record["backend"]["name"]])

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON knows it."""
        return asdict(self)

    def child_key(self, number: int) -> str:
        """The run key of trial `number`."""
        return f"{self.sweep_key}-{number:06d}"

    def at(self, point: Point) -> tuple[Config, dict[str, Any]]:
        """The configuration at a point, checked, and as a tree that may be written down.

        Raises:
            ConfigError: a value of the point cannot be.
        """
        tree = copy.deepcopy(self.record)
        for key in sorted(point, key=lambda key: key not in self.variants):  # groups first
            if key in self.variants:
                tree[key] = copy.deepcopy(self.variants[key][str(point[key])])
            else:
                _set(tree, key.split("."), point[key])
        return parse(resolve(tree)), tree


class DataCache:
    """Each data set of a sweep once, for all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded: dict[str, Dataset] = {}

    @classmethod
    def of(cls, config: Config, data: Dataset) -> DataCache:
        """A cache that has the data set of this configuration already."""
        cache = cls()
        cache._loaded[_data_key(config)] = data
        return cache

    def get(self, config: Config) -> Dataset:
        """The data set that a configuration asks for."""
        key = _data_key(config)
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = load(config.data, config.split, config.task)
            return self._loaded[key]


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
        note = {"mlflow.note.content": one_run.in_words(config, data, last)}
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
            words = "".join(traceback.format_exception(error))
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


def objectives(config: Config) -> list[str]:
    """Every metric that trials can be ranked by; the first is the default."""
    loss = config.loss
    fixed = [f"best/val_{loss}", f"val/{loss}", f"train/{loss}", "time/fit_seconds"]
    return fixed + held_out_objectives(config)


def held_out_objectives(config: Config) -> list[str]:
    """Metrics of the kept model's predictions on the validation part."""
    names = ("rmse", "mae", "r2") if config.task == "regression" else ("accuracy", "auc")
    return [f"best/val_{name}" for name in names]


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


def check_space(plan: Plan, space: Space, points: list[Point]) -> None:
    """Refuse a space or points with values that the configuration cannot take.

    Raises:
        ConfigError: what is wrong with each, one line each.
    """
    probes = [
        ({d.condition.key: d.condition.value} if d.condition else {}) | {d.key: probe}
        for d in space.dimensions
        for probe in d.probes
    ]
    mistakes: dict[str, None] = {}
    for point in [*probes, *points]:
        try:
            plan.at(point)
        except ConfigError as error:
            mistakes |= dict.fromkeys(str(error).splitlines())
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def check_data(plan: Plan, data: DataCache) -> None:
    """Refuse to go on with other rows than those for which the study was made.

    Raises:
        DataError: they have changed.
    """
    config, _ = plan.at({})
    loaded = data.get(config)
    if [loaded.data_digest, loaded.split_digest] != list(plan.digests):
        raise DataError(
            f"the data ({loaded.source}) have changed since this sweep began; run the command "
            "again: it will start a new study on the new rows"
        )


def _data_key(config: Config) -> str:
    return json.dumps([asdict(config.data), asdict(config.split), config.task])


def _set(tree: dict[str, Any], path: list[str], value: object) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = value
