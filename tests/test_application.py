"""Any Hydra application under hydra/sweeper=fmexp: what its function returns, logs and raises."""

from __future__ import annotations

import os
import sys
from dataclasses import make_dataclass

import numpy as np
import optuna
import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext, RunMode
from omegaconf import OmegaConf, open_dict

import fmexp
from fmexp.application.jobs import HydraJobs
from fmexp.sweep import task
from tests.application_support import CONFIG, Application
from tests.sweep_support import left_in

pytestmark = pytest.mark.usefixtures("hydra_restore_singletons")


@pytest.fixture
def app(tmp_path, monkeypatch):
    return Application(tmp_path, monkeypatch, CONFIG)


def square(cfg):
    return (cfg.x - 0.3) ** 2


def test_a_number_is_the_objective_and_the_sweep_goes_on_where_it_ended(app, tmp_path):
    assert len(app.sweep(square, "x=interval(0,1)", "hydra.sweeper.n_trials=4")) == 4
    runs = app.sweep(square, "x=interval(0,1)", "hydra.sweeper.n_trials=6")
    assert runs.keys() == {4, 5}
    left = left_in(tmp_path)
    assert left.trials[0].params == {"x": 1.0}  # as composed
    assert [t.value for t in left.counted] == [(t.params["x"] - 0.3) ** 2 for t in left.counted]
    assert runs[5].metrics["objective"] == left.trials[5].value
    assert app.parent.metrics["trials/completed"] == 6


def test_a_grid_is_walked_in_hydras_order_and_job_numbers_are_the_trials(app):
    seen = []

    def function(cfg):
        seen.append((HydraConfig.get().job.num, cfg.model.k, cfg.x, cfg.y))
        return np.float32(cfg.x)

    app.sweep(function, "model=a,b", "x=2,1")
    assert seen == [(0, 1, 2, 2), (1, 1, 1, 1), (2, 2, 2, 2), (3, 2, 1, 1)]


def test_a_dictionary_gives_all_metrics_and_the_named_one_ranks(app, tmp_path):
    def function(cfg):
        return {"auc": cfg.x, "seconds": 2}

    named = ("hydra.sweeper.objective=auc", "hydra.sweeper.direction=maximize")
    runs = app.sweep(function, "x=0.1,0.5", *named)
    assert runs[1].metrics == {"auc": 0.5, "seconds": 2.0, "objective": 0.5}
    assert app.parent.links["fmexp.winner"] == runs[1].key
    best = OmegaConf.load(tmp_path / "jobs" / "optimization_results.yaml")
    assert best == {"name": "fmexp", "best_params": {"x": 0.5}, "best_value": 0.5}


def test_a_structured_configuration_keeps_its_class_wherever_that_was_made(app):
    part = make_dataclass("Part", [("size", int, 1)])
    ConfigStore.instance().store(group="part", name="one", node=part)
    runs = app.sweep(lambda cfg: float(OmegaConf.get_type(cfg.part) is part), "+part=one", "x=1,2")
    assert [runs[n].outcome for n in range(2)] == ["completed"] * 2
    assert runs[1].metrics["objective"] == 1.0


def test_a_choice_may_refer_to_other_values(app, monkeypatch):
    monkeypatch.setenv("PLACE", "here")
    runs = app.sweep(lambda cfg: len(cfg.name), "name='${oc.env:PLACE}/a',b")
    assert [runs[n].metrics["objective"] for n in range(2)] == [6, 1]


@pytest.mark.parametrize(("value", "words"), [
    (None, "the function returned None; a sweep needs a number"),
    ("good", "a metric must be a number, got objective='good'"),
    ({"a": 1.0, "b": 2.0}, "the function returned a, b: set hydra.sweeper.objective to the one"),
])  # fmt: skip
def test_a_value_that_is_no_objective_fails_the_trial_in_words(app, value, words):
    run = app.sweep(lambda _: value, "x=1", code=1)[0]
    assert run.outcome == "failed"
    assert words in run.reason


def test_each_way_to_end_is_recorded_and_the_other_trials_go_on(app):
    def function(cfg):
        if cfg.x == 1:
            raise ValueError("of the application")
        if cfg.x == 2:
            sys.exit(3)
        if cfg.x == 3:
            raise optuna.TrialPruned("said so")
        return float("nan") if cfg.x == 4 else 0.5

    runs = app.sweep(function, "x=1,2,3,4,5", "hydra.sweeper.max_failure_rate=1")
    assert [runs[n].outcome for n in range(5)] == [
        "failed", "failed", "pruned", "diverged", "completed"
    ]  # fmt: skip
    assert runs[0].reason == "ValueError: of the application"
    assert "in function" in (runs[0].folder / "traceback.txt").read_text()
    assert "sys.exit(3)" in runs[1].reason
    assert runs[3].reason == "objective is nan"


def curve(cfg):
    trial = fmexp.current_trial()
    for step in range(1, 9):
        trial.log(step, {"loss": np.float64(cfg.x / step), "other": float("inf")})
        if trial.should_prune():
            return None
    return cfg.x


def test_a_function_that_logs_is_pruned_by_its_objective(app, monkeypatch):
    monkeypatch.setattr(task, "REPORT_SHARE", 1e9)  # each step is reported, however short
    median = ("hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=1",
              "hydra.sweeper.pruner.n_warmup_steps=2", "hydra.sweeper.objective=loss")  # fmt: skip
    runs = app.sweep(curve, "x=1,9,0.5", *median)
    assert runs[0].points["loss"] == [(step, 1 / step) for step in range(1, 9)]
    assert "other" not in runs[0].points
    assert (runs[1].outcome, runs[1].reason) == ("pruned", "loss was 4.5 at step 2")
    assert runs[2].outcome == "completed"


def test_a_curve_that_leaves_the_numbers_stops_its_trial(app):
    def function(cfg):
        trial = fmexp.current_trial()
        for step in range(1, 9):
            trial.log(step, {"loss": float("nan") if step == 3 else 1.0})
            if trial.should_prune():
                return 0.0
        return 1.0

    run = app.sweep(function, "x=1", code=1)[0]
    assert (run.outcome, run.reason) == ("diverged", "loss was nan at step 3")


def test_files_go_with_the_trial(app, tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "a.txt").write_text("a")

    def function(cfg):
        fmexp.current_trial().artifact(tmp_path / "made")
        fmexp.current_trial().artifact(tmp_path / "made" / "a.txt")
        return 1.0

    run = app.sweep(function, "x=1")[0]
    assert (run.folder / "made" / "a.txt").read_text() == "a"
    assert (run.folder / "a.txt").exists()


@pytest.mark.parametrize("path", [".", "..", "/dev/zero", "pipe"])
def test_what_is_no_file_and_no_folder_of_its_own_is_no_artifact(path, app, tmp_path):
    os.mkfifo(tmp_path / "pipe")

    def keeps(cfg):
        fmexp.current_trial().artifact(path)

    runs = app.sweep(keeps, "x=1,2", "hydra.sweeper.max_failure_rate=1", code=1)
    assert "trial.artifact: expected a file, or a folder of its own" in runs[0].reason


def test_links_in_a_folder_are_not_kept_with_it(app, tmp_path):
    (tmp_path / "made" / "sub").mkdir(parents=True)
    (tmp_path / "made" / "a.txt").write_text("a")
    (tmp_path / "made" / "sub" / "root").symlink_to("/")
    (tmp_path / "made" / "key").symlink_to(tmp_path / "made" / "a.txt")

    def keeps(cfg):
        fmexp.current_trial().artifact("made")
        return cfg.x

    runs = app.sweep(keeps, "x=1")
    assert sorted(p.name for p in runs[0].folder.rglob("*")) == ["a.txt", "made", "sub"]


def test_outside_a_sweep_a_trial_keeps_nothing():
    trial = fmexp.current_trial()
    trial.log(1, {"loss": float("nan")})
    assert trial.number is None
    assert not trial.should_prune()


def test_params_are_the_leaves_of_the_jobs_configuration(app):
    runs = app.sweep(square, "+new.key=3", "model=a,b", "x=2")
    assert runs[1].start.params == {
        "model.name": "b", "model.k": "2", "x": "2", "y": "2", "name": "b", "new.key": "3"
    }  # fmt: skip


def test_a_copy_with_keys_set_is_what_hydra_would_compose(app):
    swept = ["model=a,b", "x=interval(0,1)", "+z=1,'a b'", "+deep.key=true,null", "y=4"]
    with app.hydra():
        itself = GlobalHydra.instance().hydra
        config = itself.compose_config("config", swept, RunMode.MULTIRUN)
        jobs = HydraJobs(HydraContext(itself.config_loader, None), config, square, swept)
        for number, (model, x, z, deep) in enumerate(
            [("a", 0.5, 1, True), ("b", 1e-7, "a b", None), ("a", 0.25, "a b", None)]
        ):
            point = {"model": model, "x": x, "z": z, "deep.key": deep}
            lines = list(jobs.overrides(point).values())
            theirs = itself.config_loader.load_sweep_config(config, lines)
            with open_dict(theirs):
                theirs.hydra.job.id, theirs.hydra.job.num = str(number), number
            ours = jobs.compose(point, number)
            assert OmegaConf.to_container(ours) == OmegaConf.to_container(theirs)


@pytest.mark.parametrize(("overrides", "words"), [
    (["model=a,c"], "model must be one of a, b, got c"),
    (["lr=1,2"], "Could not override 'lr'; To append to your config use +lr=1"),
    (["x=1,2", "hydra.sweeper.seeds=2"], "hydra.sweeper.seeds is for `fmexp run`"),
    (["x=1,2", "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials must be"),
    (["x=1,2", "hydra/sweeper/tracking=mlflow", "hydra.sweeper.tracking.uri=none"],
     "to record nothing: hydra/sweeper/tracking=none"),
    (["x=1,2", "hydra.sweeper.tracking=null"], "got None; choose with hydra/sweeper/tra"),
    (["x=1,2", "hydra.sweeper.sampler=random"], "choose with hydra/sweeper/sampler=..."),
])  # fmt: skip
def test_a_mistake_is_told_before_anything_is_written(app, tmp_path, capsys, overrides, words):
    app.sweep(square, *overrides, code=2)
    assert words in capsys.readouterr().err
    assert {x.name for x in tmp_path.iterdir()} <= {"conf", "records"}


def test_what_hosts_cannot_reach_is_named_by_the_keys_of_an_application(app, capsys):
    app.sweep(square, "x=1,2", "hydra.sweeper.shared=true", "hydra/sweeper/tracking=mlflow", code=2)
    said = capsys.readouterr().err
    assert "so give hydra.sweeper.tracking.uri=http://host:5000" in said
    assert "or hydra/sweeper/tracking=none" in said
