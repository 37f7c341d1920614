"""What trials are ranked by: any metric, in its own direction, averaged over the seeds."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from fmexp.analysis.compare.choose import choose
from fmexp.analysis.report.sweep import read
from fmexp.config.compose import compose, parse_arguments
from fmexp.experiment import trial
from fmexp.experiment.trial import TrainingTask
from fmexp.experiment.trial_plan import DataCache, TrialPlan
from fmexp.model import load as load_model
from fmexp.record.queries import StoredRun
from fmexp.record.tracker import Outcome
from fmexp.sweep.space import Dimension, Space
from fmexp.sweep.view import View
from fmexp.training.fitting import fit
from tests.sweep_support import FAST, study_in, sweep_here, sweep_in

SPACE = Space([Dimension("model.k", "int", 2, 64, 1)])


def evaluate(folder, seeds=1, objective="best/val_mse", should_prune=lambda *_: False):
    """What one trial of FAST came to."""
    composed = compose(parse_arguments([*FAST, "tracking=none"]))
    direction = "maximize" if objective.endswith("r2") else "minimize"
    plan = TrialPlan(composed.config_tree, {}, objective, direction, seeds, ("", ""))
    reporter = SimpleNamespace(
        folder=folder, describe=lambda *_: None, log=lambda *_: None, is_best=lambda _: True,
        should_stop=lambda: False, should_prune=should_prune,
    )  # fmt: skip
    return TrainingTask(plan, DataCache()).evaluate({}, reporter)


def losing(losses):
    """A fit whose lowest validation loss is that of its seed."""

    def spoiled(config, *rest):
        fitted = fit(config, *rest)
        object.__setattr__(fitted, "best_validation", losses[config.seed])
        return fitted

    return spoiled


@pytest.mark.parametrize(("losses", "best"), [([4.0, 0.0, 2.0], 1), ([1.0, 3.0, 2.0], 0)])
def test_the_best_seeds_model_is_kept_and_a_loss_of_zero_is_a_loss(
    tmp_path, monkeypatch, losses, best
):
    monkeypatch.setattr(trial, "fit", losing(losses))
    ended = evaluate(tmp_path, seeds=3)
    mean = sum(losses) / 3
    assert ended.value == ended.metrics["best/val_mse"] == pytest.approx(mean)
    stdev = math.sqrt(sum((x - mean) ** 2 for x in losses) / 2)
    assert ended.metrics["best/val_mse_stdev"] == pytest.approx(stdev)
    config = compose(parse_arguments([*FAST, f"seed={best}"])).config
    data = DataCache().get(config)
    expected = fit(config, data).parameters
    assert load_model(tmp_path / "model").parameters.w0 == expected.w0


def test_a_pruner_is_told_larger_values_for_better_ones_where_the_objective_rises(tmp_path):
    told = []
    evaluate(tmp_path, 1, "best/val_r2", lambda _, value: told.append(value))
    assert told
    assert all(value < 0 for value in told)


@pytest.mark.parametrize(
    ("task", "objective"),
    [("regression", "val/r2"), ("classification", "val/auc"), ("classification", "val/accuracy")],
)
def test_what_rises_is_searched_for_its_highest(tmp_path, monkeypatch, capsys, task, objective):
    rates = "training.learning_rate=0.0001,0.003,0.01"
    printed = sweep_here(tmp_path, monkeypatch, capsys, f"task={task}", rates,
                         f"hydra.sweeper.objective={objective}")  # fmt: skip
    study = study_in(tmp_path)
    assert study.direction.name == "MAXIMIZE"
    values = {t.number: t.value for t in study.trials}
    assert len(values) == 3
    assert all(0 < value <= 1 for value in values.values())
    first_row = printed.partition(objective.replace("val/", "best/val_"))[2].splitlines()[1]
    assert values[int(first_row.split()[0])] == max(values.values())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["hydra.sweeper.direction=maximize"], "would look for the worst best/val_mse"),
        (["hydra.sweeper.direction=minimize", "hydra.sweeper.objective=val/r2"], "worst"),
        (["hydra.sweeper.objective=val/auc"], "must be one of best/val_mse, val/mse"),
        (["seed=1,2,3"], "hydra.sweeper.seeds=3"),
        (["split.seed=1,2"], "split.seed cannot be swept"),
        (["model.k=choice(null,20)"], "without it null can be: model.k=null,20"),
    ],
)
def test_a_search_for_the_wrong_thing_is_refused(tmp_path, refused, wrong, words):
    assert words in refused("run", "-m", *FAST, *wrong)
    assert list(tmp_path.iterdir()) == []


def trial_record(number: int, value: float, loss: float) -> StoredRun:
    tags = {"fmexp.trial": str(number), "fmexp.outcome": "completed", "fmexp.objective": str(value),
            "mlflow.parentRunId": "S"}  # fmt: skip
    params = {"model.k": str(number + 2)}
    return StoredRun(f"t{number}", f"t{number}", "1", "FINISHED", number, params, tags,
                  {"best/val_mse": loss})  # fmt: skip


class SweptStore:
    """A sweep of three trials; by its objective the order is t1, t2, t0, by the loss t0, t2, t1."""

    def __init__(self, folder, direction):
        sign = -1 if direction == "maximize" else 1
        self._folder = folder
        self._trials = [trial_record(n, sign * x, loss)
                        for n, x, loss in ((0, 3, 0.1), (1, 1, 0.3), (2, 2, 0.2))]  # fmt: skip
        tags = {"fmexp.kind": "sweep", "fmexp.direction": direction, "fmexp.objective_name": "o"}
        self._sweep = StoredRun("S", "S", "1", "FINISHED", 0, {}, tags, {})

    def find_sweep(self, _):
        return self._sweep

    def children(self, _):
        return self._trials

    def artifact(self, *_):
        (self._folder / "space.json").write_text(SPACE.to_json())
        return self._folder / "space.json"


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_compare_and_report_rank_by_the_sweeps_objective_in_its_direction(tmp_path, direction):
    store = SweptStore(tmp_path, direction)
    chosen = choose(store, [], "S", 2).records
    assert [record.name for record in chosen] == ["t1", "t0", "t2"]  # the best, the first, the next
    sweep = read(store, "S")
    assert [t.number for t in sweep.best] == [1, 2, 0]
    assert sweep.study().direction.name.lower() == direction
    assert sweep.study().best_trial.number == 1


def test_a_trial_that_diverged_has_no_rank(tmp_path):
    store = SweptStore(tmp_path, "minimize")
    store._trials[1].tags["fmexp.outcome"] = str(Outcome.DIVERGED)
    assert [t.number for t in read(store, "S").best] == [2, 0]


def test_the_loss_of_a_classifiers_curves_is_not_read_off_the_objective(tmp_path):
    store = SweptStore(tmp_path, "maximize")
    store._sweep.params["task"] = "classification"
    assert read(store, "S").curve == "val/logloss"


def test_the_parents_curve_is_the_best_so_far_in_the_objectives_direction(tmp_path, monkeypatch,
                                                                          capsys):  # fmt: skip
    sweep_here(tmp_path, monkeypatch, capsys, "training.learning_rate=0.0001,0.003",
               "hydra.sweeper.objective=val/r2")  # fmt: skip
    study = sweep_in(tmp_path)
    values = [t.value for t in study.trials()]
    best = None
    for value in values:
        best = study.better(best, value)
    assert best == study.winner().value == max(values) != min(values)
    assert [t.value for t in study.ranking()] == sorted(values, reverse=True)
    view = View(study)
    view.look()
    assert view.is_best(2.0)
    assert not view.is_best(min(values))
