"""A sweep as a user meets it: the command, what it prints, and what it leaves."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import numpy as np
import optuna
import pytest

from fmexp.analysis.predict import Request, predict_file
from tests.conftest import Command
from tests.sweep_support import FAST, assert_in_agreement, left_in, repeated, study_in


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    """12 trials, the same again, then 40; what was left after each, and what was printed."""
    fmexp = Command(tmp_path_factory.mktemp("sweeps"))
    printed, left = [], []
    for n in (12, 12, 40):
        printed.append(fmexp("run", "-m", *FAST, f"hydra.sweeper.n_trials={n}"))
        left.append(left_in(fmexp.folder))
    return fmexp, printed, left


def test_the_same_command_twice_leaves_twelve_children_and_forty_adds_twenty_eight(sweeps):
    for left, n in zip(sweeps[2], (12, 12, 40), strict=True):
        assert len(left.children) == len(left.counted) == n
        assert left.parent.status == "FINISHED"
        assert_in_agreement(left)
    assert len(set(sweeps[2][2].points)) == 40


def test_every_child_has_its_curve(sweeps):
    left = sweeps[2][2]
    assert left.outcomes == {"completed": 40}
    for run in left.children.values():
        assert [step for step, _ in run.metrics["train/mse"]] == list(range(1, 21))
        assert min(x for _, x in run.metrics["val/mse"]) == run.metrics["best/val_mse"][0][1]
        assert (run.artifacts / "model").is_dir()


def test_the_first_trial_is_the_configuration_as_composed(sweeps):
    assert sweeps[2][0].children[0].params["model.k"] == "8"
    assert sweeps[2][0].trials[0].params["training.learning_rate"] == 0.03


def test_the_winner_has_the_full_set_and_the_parent_links_it(sweeps):
    _, _, (_, _, left) = sweeps
    best = min(left.counted, key=lambda t: t.value)
    winner = left.children[best.number]
    assert left.parent.tags["fmexp.winner"] == winner.run_id
    assert winner.run_id in left.parent.tags["mlflow.note.content"]
    full = {"config.yaml", "model", "curve.csv", "curve.png", "predictions.csv"}
    assert {p.name for p in winner.artifacts.iterdir()} == full
    assert {p.name for p in left.parent.artifacts.iterdir()} == {"config.yaml", "space.json"}
    drawn = [n for n, run in left.children.items() if (run.artifacts / "curve.png").exists()]
    assert set(drawn) == {min(each.counted, key=lambda t: t.value).number for each in sweeps[2]}
    curve = dict(left.parent.metrics["best/val_mse"])
    assert sorted(curve) == list(range(1, 41))
    assert curve[40] == best.value


def test_the_screen_says_what_won_and_how_to_go_on(sweeps):
    _, (first, again, more), _ = sweeps
    assert "12 of 12 trials: 12 completed" in first
    assert "behind" in first
    assert f"run -m {' '.join(FAST)} hydra.sweeper.n_trials=24" in first
    assert "12 of 12 trials: 12 completed" in again
    assert "40 of 40 trials" in more


def test_plain_optuna_opens_the_study(sweeps):
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(f"{sweeps[0].folder}/optuna.journal")
    )
    (name,) = optuna.get_all_study_names(storage)
    study = optuna.load_study(study_name=name, storage=storage)
    assert study.best_value == min(t.value for t in study.trials)
    assert study.best_params.keys() == {"model.k", "training.learning_rate"}


def test_a_changed_sweep_starts_anew_and_says_what_differs(sweeps):
    fmexp = sweeps[0]
    printed = fmexp("run", "-m", *FAST, "model.init_stdev=0.02", "hydra.sweeper.n_trials=1",
                    "tracking=none")  # fmt: skip
    assert "model.init_stdev (0.1 there, 0.02 here)" in printed


def make_tables(folder: Path) -> float:
    """10,000 rows to sweep on and 2,000 more, whose target needs two categories together.

    Returns the variance of the target in the 2,000: the error of predicting the mean.
    """
    dice, rows = np.random.default_rng(3), 12_000
    shops, items = dice.integers(0, 20, rows), dice.integers(0, 30, rows)
    a, b = dice.normal(size=(20, 2)), dice.normal(size=(30, 2))
    sales = 5 + (a[shops] * b[items]).sum(axis=1) + 0.3 * dice.normal(size=rows)
    lines = [f"shop{a},{b},{y:.4f}\n" for a, b, y in zip(shops, items, sales, strict=True)]
    (folder / "sales.csv").write_text("shop,item,sales\n" + "".join(lines[:10_000]))
    (folder / "more.csv").write_text("shop,item,sales\n" + "".join(lines[10_000:]))
    return float(sales[10_000:].var())


@pytest.mark.usefixtures("store_folder")
@repeated
def test_a_users_table_is_searched_over_both_backends_and_the_winner_beats_the_mean(
    fmexp, repetition
):
    variance = make_tables(fmexp.folder)
    n_jobs = 1 if repetition else 2  # in processes, and in one
    printed = fmexp(
        "run", "-m", "data=csv", "data.path=sales.csv", "data.target=sales",
        "backend=choice(numpy_sgd,torch_adam)", "model.k=choice(4,8)", "training.epochs=10",
        "training.learning_rate=tag(log,interval(0.003,0.1))",
        "backend.batch_size=choice(256,1024)",
        "hydra.sweeper.conditions={backend.batch_size:'backend=torch_adam'}",
        "hydra.sweeper.n_trials=6", f"hydra.sweeper.n_jobs={n_jobs}",
    )  # fmt: skip
    assert "categorical: item" in printed  # its numbers are taken for ids, and that is said
    left = left_in(fmexp.folder)
    assert len(left.counted) == 6
    assert_in_agreement(left)
    backends = {run.params["backend"] for run in left.children.values()}
    assert backends == {"numpy_sgd", "torch_adam"}
    for trial in left.counted:
        rules = trial.params["backend"] == "torch_adam"
        assert ("backend.batch_size" in trial.params) == (rules and trial.number > 0)
    winner = next(r for r in left.runs if r.run_id == left.parent.tags["fmexp.winner"])
    request = Request(str(fmexp.folder / "more.csv"), fmexp.folder / "out")
    predict_file(str(winner.artifacts), "", request)
    with (fmexp.folder / "out").open() as out, (fmexp.folder / "more.csv").open() as more:
        pairs = list(zip(csv.DictReader(out), csv.DictReader(more), strict=True))
    error = np.mean([(float(a["y_pred"]) - float(b["sales"])) ** 2 for a, b in pairs])
    assert error < 0.5 * variance


def test_random_points_are_those_of_one_sitting(fmexp, tmp_path):
    seed = random.Random(5).randrange(1000)
    common = ("run", "-m", *FAST, "tracking=none", "hydra/sweeper/sampler=random",
              f"hydra.sweeper.sampler.seed={seed}")  # fmt: skip
    for n in (4, 9):
        fmexp(*common, f"hydra.sweeper.n_trials={n}")
    two = left_in(fmexp.folder).points
    one = Command(tmp_path / "one")
    one.folder.mkdir()
    one(*common, "hydra.sweeper.n_trials=9")
    assert left_in(one.folder).points == two
    assert len(set(two)) == len(study_in(fmexp.folder).trials) == 9
