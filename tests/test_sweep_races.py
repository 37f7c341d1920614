"""However many workers race, the total is exact and no point is trained twice."""

from __future__ import annotations

import optuna
import pytest
from optuna import Study

from fmexp.record.tracker import Outcome
from fmexp.sweep.space import Dimension, Space
from fmexp.sweep.storage import open_storage
from fmexp.sweep.study import Worker, reclaim
from tests.sweep_support import FAST, SOAK, left_in

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
        *COMMON, "model.k=range(2,19)", "training.learning_rate=0.01", "hydra/sweeper/sampler=grid",
        "hydra.sweeper.n_trials=40", "hydra.sweeper.n_jobs=4",
    )  # fmt: skip
    assert "space exhausted: 17 of 40" in printed
    assert "training.learning_rate: not swept" in printed
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


def test_a_trial_given_up_before_it_chose_its_point_does_not_end_its_worker(tmp_path):
    """A worker that was stopped between asking and choosing finds its trial finished."""
    study = optuna.create_study(storage=open_storage(None, tmp_path))
    space = Space([Dimension("x", "float", 0.0, 1.0)])
    stolen = []

    def ask():
        trial = Study.ask(study)
        if not stolen:
            stolen.append(trial.number)
            assert reclaim(study, space, trial.number)
        return trial

    class Done:
        outcome, value, reason = Outcome.COMPLETED, 1.0, ""

        def settle(self, accepted):
            assert accepted

    study.ask = ask
    worker = Worker(study, space, lambda *_: Done(), "me", 2, 0.2, False, lambda: "")
    assert worker.work() == "done"
    assert [t.user_attrs.get("mark") for t in study.trials] == ["lost", None, None]
