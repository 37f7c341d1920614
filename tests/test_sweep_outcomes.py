"""How trials and sweeps end: diverged, failed, pruned, interrupted, refused, out of time."""

from __future__ import annotations

import csv
import math
import os
import signal

import pytest
from optuna.trial import TrialState

from fmexp.experiment import trial
from fmexp.training.fitting import fit
from tests.sweep_support import (
    FAST,
    SLOW,
    has_begun,
    left_in,
    recorded_here,
    repeated,
    sweep_here,
    thrice,
    until,
)

QUIET = ("run", "-m", *FAST, "tracking=none")


def test_seeds_are_averaged_and_a_diverged_trial_has_its_reason(tmp_path, monkeypatch, capsys):
    printed, parent, children = recorded_here(
        tmp_path, monkeypatch, capsys, "training.cap_steps=false", "hydra.sweeper.n_trials=3",
        "hydra.sweeper.seeds=3", "model.k=tag(log,int(interval(2,64)))",
        "training.learning_rate=tag(log,interval(0.003,0.03))",
        "hydra.sweeper.enqueue=[{training.learning_rate: 5.0, model.k: 4}]",
    )  # fmt: skip
    assert left_in(tmp_path).outcomes == {"completed": 2, "diverged": 1}
    outcomes = {number: run.outcome for number, run in children.items()}
    assert outcomes == {0: "completed", 1: "diverged", 2: "completed"}
    assert parent.metrics == {"trials/completed": 2, "trials/diverged": 1}
    assert "learning_rate=5" in children[1].reason
    assert "diverged e.g. trial 1" in printed
    every = [x for run in children.values() for points in run.points.values() for _, x in points]
    assert all(math.isfinite(x) and abs(x) < 1e300 for x in every)
    assert_means_of_three_seeds(children[0])


def assert_means_of_three_seeds(run) -> None:
    """The run's curve is the mean of the three in curve.csv, the objective that of their bests."""
    with (run.folder / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    curves = {seed: [float(r["val/mse"]) for r in rows if r["seed"] == seed] for seed in "012"}
    assert [len(curve) for curve in curves.values()] == [20] * 3
    means = [sum(at) / 3 for at in zip(*curves.values(), strict=True)]
    assert [x for _, x in run.points["val/mse"]] == pytest.approx(means)
    bests = [min(curve) for curve in curves.values()]
    assert run.metrics["best/val_mse"] == pytest.approx(sum(bests) / 3)
    assert run.metrics["best/val_mse_stdev"] > 0


def broken(config, *rest):
    """Training that raises where k = 5."""
    if config.model.k == 5:
        raise RuntimeError("k = 5 does not work")
    return fit(config, *rest)


FIVE = ("hydra.sweeper.enqueue=[{model.k: 5}]", "hydra.sweeper.n_trials=4")


def test_an_exception_is_a_result(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trial, "fit", broken)
    printed, _, children = recorded_here(
        tmp_path, monkeypatch, capsys, *FIVE, "hydra.sweeper.max_failure_rate=0.5"
    )
    assert "failed e.g. trial 1: RuntimeError: k = 5 does not work" in printed
    assert left_in(tmp_path).outcomes == {"completed": 3, "failed": 1}
    assert children[1].outcome == "failed"
    assert "Traceback" in (children[1].folder / "traceback.txt").read_text()
    assert children[1].reason == "RuntimeError: k = 5 does not work"
    assert all(run.accepted for run in children.values())


def test_too_many_exceptions_end_the_sweep_and_a_higher_rate_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trial, "fit", broken)
    rate = "hydra.sweeper.max_failure_rate={}".format
    printed = sweep_here(tmp_path, monkeypatch, capsys, *FIVE, rate(0.2), code=1)
    assert "too many failures" in printed
    sweep_here(tmp_path, monkeypatch, capsys, *FIVE, rate(0.5))
    assert left_in(tmp_path).outcomes == {"completed": 3, "failed": 1}


def prune(fmexp, backend, epochs, jobs, commands):
    """Sweep with a pruner, and see that it has pruned those that were hopeless."""
    sweep = (
        "run", "-m", "data=planted", "tracking=none", f"backend={backend}",
        f"training.epochs={epochs}", f"hydra.sweeper.n_jobs={jobs}",
        "training.learning_rate=tag(log,interval(1e-6,1e-2))", "model.k=4",
        "hydra/sweeper/sampler=random", "hydra/sweeper/pruner=median",
        "hydra.sweeper.pruner.n_startup_trials=2", "hydra.sweeper.n_trials=10",
    )  # fmt: skip
    started = [fmexp.start(*sweep) for _ in range(commands)]
    ended = [(command.communicate(timeout=240), command.returncode) for command in started]
    assert [code for _, code in ended] == [0] * commands, ended
    left = left_in(fmexp.folder)
    assert len(left.counted) == 10
    pruned = [t for t in left.trials if t.state is TrialState.PRUNED]
    assert pruned
    assert all(1 <= t.last_step < epochs for t in pruned)
    best = min((t for t in left.trials if t.state is TrialState.COMPLETE), key=lambda t: t.value)
    assert best.params["training.learning_rate"] > max(
        min(t.params["training.learning_rate"] for t in pruned), 1e-6
    )


@repeated
@pytest.mark.parametrize(("jobs", "commands"), [(2, 1), (1, 3)], ids=["threads", "processes"])
def test_hopeless_trials_are_pruned_from_threads_and_processes(fmexp, jobs, commands):
    prune(fmexp, "numpy_sgd", 3000, jobs, commands)


def test_three_worker_processes_of_a_command_prune(fmexp):
    prune(fmexp, "torch_adam", 400, 3, 1)


@thrice
def test_ctrl_c_ends_at_the_next_epoch_and_prints_the_command_that_goes_on(fmexp, store_folder):
    sweep = ("run", "-m", *SLOW, "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=2")
    command = fmexp.start(*sweep, start_new_session=True)
    until(lambda: has_begun(fmexp.folder, 2))
    os.killpg(command.pid, signal.SIGINT)
    out, err = command.communicate(timeout=120)
    assert command.returncode == 130, err
    assert " ".join(sweep) in out
    left = left_in(fmexp.folder)
    assert left.counted == left.running == []
    assert {run.tags["fmexp.outcome"] for run in left.runs} == {"interrupted"}
    assert {run.status for run in left.runs} == {"KILLED"}
    waiting = [t for t in left.trials if t.state is TrialState.WAITING]
    assert {t.user_attrs["retry_of"] for t in waiting if t.user_attrs} == {0, 1}


@pytest.mark.parametrize(
    "how",
    [
        ["hydra.sweeper.n_jobs=2"],
        ["hydra/launcher=joblib"],
        ["hydra.sweeper.n_jobs=2", "backend=torch_adam", "training.epochs=400"],
    ],
    ids=["threads", "launched", "processes"],
)
def test_an_edited_file_changes_nothing_of_a_sweep_that_runs(fmexp, how):
    file = fmexp.folder / "conf" / "experiment" / "mine.yaml"
    file.parent.mkdir(parents=True)
    text = "# @package _global_\ntraining: {{epochs: 3000, learning_rate_decay: {}}}\n"
    file.write_text(text.format(0.125))
    sweep = ("run", "-m", "--config-dir=conf", "experiment=mine", "data=planted",
             "hydra.sweeper.n_trials=3", *how)  # fmt: skip
    fmexp.use_made_store()
    command = fmexp.start(*sweep)
    until(lambda: has_begun(fmexp.folder))
    file.write_text(text.format(7))
    out, err = command.communicate(timeout=240)
    assert command.returncode == 0, out + err
    left = left_in(fmexp.folder)
    assert len(left.counted) == 3
    assert {run.params["training.learning_rate_decay"] for run in left.runs} == {"0.125"}


def test_a_timeout_ends_the_command_well(fmexp):
    printed = fmexp(*QUIET, "hydra.sweeper.timeout=5", "hydra.sweeper.n_trials=100000")
    assert "stopped after 5 s" in printed
    assert left_in(fmexp.folder).running == []


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(fmexp):
    printed = fmexp("run", "-m", *FAST, "training.learning_rate=0.01", "hydra.sweeper.n_trials=2",
                    "hydra.sweeper.dry_run=true")  # fmt: skip
    assert "2 trials of about" in printed
    assert "training.learning_rate: not swept" in printed
    assert list(fmexp.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["hydra.sweeper.n_trails=3", "hydra.sweeper.n_jobs=0"], ["n_trials", "n_jobs"]),
        (["model.k=choice(2,-1)", "hydra.sweeper.direction=down"], ["direction"]),
        (["model.k=choice(2,-1)"], ["model.k", "-1"]),
        (["hydra.sweeper.enqueue=[{model.k: -3}]"], ["model.k", "-3"]),
        (["hydra/sweeper/sampler=grid"], ["learning_rate", "choice"]),
        (["split.validation=0"], ["validation"]),
        (["data=choice(planted,diabetes)"], ["data", "swept"]),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_is_written(
    tmp_path, refused, wrong, words
):
    printed = refused("run", "-m", *FAST, *wrong)
    assert all(word in printed for word in words)
    assert list(tmp_path.iterdir()) == []


def test_sweeps_without_m_are_told_to_add_it(tmp_path, refused):
    assert refused("run", "model.k=2,4", "hydra.sweeper.n_trials=3").count("-m") >= 2
    assert list(tmp_path.iterdir()) == []


def test_hydras_own_sweeper_leaves_plain_runs(fmexp, store_folder):
    fmexp("run", "-m", *FAST, "model.k=2,4", "hydra/sweeper=basic")
    runs = fmexp.runs()
    assert [run.data.params["model.k"] for run in runs] == ["2", "4"]
    assert all("mlflow.parentRunId" not in run.data.tags for run in runs)
    assert not (fmexp.folder / "multirun.yaml").exists()
