"""However many workers race, the total is exact and no point is trained twice."""

from __future__ import annotations

from types import SimpleNamespace

import optuna
import pytest
from optuna import Study

from fmexp.record.tracker import NULL_TRACKER, Outcome
from fmexp.sweep.space import Dimension, Space
from fmexp.sweep.study import SweepStudy
from fmexp.sweep.task import Evaluation
from fmexp.sweep.trial_status import outcome_of
from fmexp.sweep.worker import Limits, Worker
from tests.sweep_support import FAST, SOAK, left_in, make_study

RACES = 20 if SOAK else 3
COMMON = ("run", "-m", "data=planted", "training.epochs=5", "tracking=none")


@pytest.mark.parametrize("race", range(RACES))
def test_four_commands_at_once_do_one_sweep_exactly(fmexp, race):
    narrow = ("model.k=range(2,8)", "training.learning_rate=choice(0.001,0.003,0.01,0.02)")
    sampler = ("hydra/sweeper/sampler=random", f"hydra.sweeper.sampler.seed={race}")
    commands = [
        fmexp.start(*COMMON, *narrow, *sampler, "hydra.sweeper.n_trials=12") for _ in range(4)
    ]
    outputs = [command.communicate(timeout=240) for command in commands]
    assert [command.returncode for command in commands] == [0] * 4, outputs
    assert all("12 of 12 trials: 12 completed" in out for out, _ in outputs)
    left = left_in(fmexp.folder)
    assert len(left.counted) == len(set(left.points)) == 12
    assert left.running == []


def test_four_threads_share_one_grid(fmexp):
    printed = fmexp(
        *COMMON, "model.k=range(2,19)", "hydra/sweeper/sampler=grid", "hydra.sweeper.n_trials=40",
        "hydra.sweeper.n_jobs=4",
    )  # fmt: skip
    assert "all 17 points of the space were tried; 17 of 17 trials: 17 completed" in printed
    left = left_in(fmexp.folder)
    assert sorted(t.params["model.k"] for t in left.counted) == list(range(2, 19))


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_another_launchers_jobs_are_workers(fmexp, launcher):
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    fmexp.env["PYTHONWARNINGS"] = "ignore"
    fmexp(
        *COMMON, f"hydra/launcher={launcher}", "hydra.sweeper.n_trials=8", "hydra.sweeper.n_jobs=2"
    )
    left = left_in(fmexp.folder)
    assert len(left.counted) == len(set(left.points)) == 8
    assert left.outcomes == {"completed": 8}


def test_several_workers_on_one_sqlite_file_are_refused(tmp_path, refused):
    file = "hydra.sweeper.storage=sqlite:///s.db"
    printed = refused("run", "-m", *FAST, file, "hydra.sweeper.n_jobs=2")
    assert "journal" in printed
    assert "PostgreSQL" in printed
    assert list(tmp_path.iterdir()) == []


NOT_YET = Space([Dimension("x", "float", 0.0, 1.0)])


class Easy:
    """A task that is done at once."""

    def evaluate(self, point, reporter):  # noqa: ARG002
        return Evaluation(Outcome.COMPLETED, 1.0)


def run_worker(study, n_trials):
    """A worker in this thread; why it ended, and the mark of each trial."""
    lease = SimpleNamespace(id="me", seconds=30.0)
    worker = Worker(study, Easy(), NULL_TRACKER, lease, Limits(n_trials), lambda: "")
    return worker.run(), [t.user_attrs.get("mark") for t in study.trials()]


def test_a_trial_given_up_before_it_chose_its_point_does_not_end_its_worker(tmp_path):
    """A worker that was stopped between asking and choosing finds its trial finished."""
    study, stolen = make_study(NOT_YET, tmp_path), []

    def drawing(trial, prunes):
        if not stolen:
            stolen.append(trial.number)
            assert study.give_up(trial.number)
        return SweepStudy.drawing(study, trial, prunes)

    study.drawing = drawing
    assert run_worker(study, 2) == ("done", ["lost", None, None])


def test_a_point_that_has_cost_three_workers_fails_and_the_others_are_tried():
    study, poison, tried = make_study(NOT_YET), {"x": 0.25}, []
    NOT_YET.enqueue(study.optuna, poison)
    for number in range(3):
        (trial,) = (t for t in study.trials() if t.state.name == "WAITING")
        study.ask("dead", [trial])
        assert study.give_up(number)
    task = SimpleNamespace(evaluate=lambda point, _: tried.append(point) or Easy().evaluate(0, 0))
    lease, limits = SimpleNamespace(id="me", seconds=30.0), Limits(3, most_losses=3)
    assert Worker(study, task, NULL_TRACKER, lease, limits, lambda: "").run() == "done"
    assert poison not in tried
    outcomes = [outcome_of(t) for t in study.counted()]
    assert outcomes == ["failed", "completed", "completed"]
    assert "it has cost 3 workers" in study.counted()[0].user_attrs["reason"]


def test_of_two_that_ask_for_the_last_trial_the_later_one_drops_it():
    """Between the worker's look at the total and its asking another one asks."""
    study = make_study(NOT_YET)

    def ask(worker, waiting):
        study.space.suggest(Study.ask(study.optuna))  # the other one's, which runs
        SweepStudy.ask(study, worker, waiting)

    study.ask = ask
    assert run_worker(study, 1) == ("done", [None, "discard"])


def test_a_trial_made_twice_because_its_answer_was_lost_counts_once():
    """A database that is away when it should answer makes the call be made again."""
    study, twice = make_study(NOT_YET), []

    def ask(worker, waiting):
        SweepStudy.ask(study, worker, waiting)
        if not twice:
            twice.append(True)
            SweepStudy.ask(study, worker, waiting)

    study.ask = ask
    assert run_worker(study, 3) == ("done", ["discard", None, None, None])


class Stubborn(optuna.samplers.RandomSampler):
    """Draws the first choice whatever is known."""

    def sample_independent(self, *given):
        return given[-1].choices[0]


def test_a_space_of_five_ends_when_all_five_were_tried_whatever_the_sampler_draws():
    study = make_study(Space([Dimension("x", "choice", choices=(1, 2, 3, 4, 5))]))
    study.optuna.sampler = Stubborn()
    assert run_worker(study, 9)[0] == "exhausted"
    assert [t.params["x"] for t in study.counted()] == [1, 2, 3, 4, 5]
