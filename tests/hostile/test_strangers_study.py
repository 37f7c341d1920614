"""A study that somebody else has written to: its attributes run nothing and read nothing."""

from __future__ import annotations

import io
import json
import os
import pickle
from pathlib import Path

import numpy as np
import optuna
import pytest

from fmexp.cli.parser import main
from fmexp.sweep.election import is_auxiliary
from fmexp.sweep.space import OUTSIDE
from fmexp.sweep.storage import open_storage

SWEEP = ["run", "-m", "tracking=none", "training.epochs=1", "model.k=range(2,40)",
         "training.learning_rate=interval(0.001,0.1)"]  # fmt: skip
CMAES = ["hydra/sweeper/sampler=cmaes", "hydra.sweeper.sampler.n_startup_trials=1"]


class _Command:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch it-ran",)


def plant(journal: Path, operation: dict[str, object], before_end_of: int = 0) -> None:
    """Write an operation into a journal, before the one that ends a trial."""
    lines = journal.read_text().splitlines()
    ends = [{"op_code": 6, "trial_id": before_end_of, "state": 1}.items() <= json.loads(x).items()
            for x in lines]  # fmt: skip
    line = json.dumps({"worker_id": "x", **operation}, separators=(",", ":"))
    lines.insert(ends.index(True), line)
    journal.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("state", [_Command(), 3])
def test_the_state_of_cmaes_in_a_study_runs_nothing(state, here, capsys):
    pytest.importorskip("cmaes")
    assert main([*SWEEP, *CMAES, "hydra.sweeper.n_trials=2"]) == 0
    pieces = {"cma:optimizer:0": pickle.dumps(state).hex()}
    plant(here / "optuna.journal", {"op_code": 9, "trial_id": 0, "system_attr": pieces})
    assert main([*SWEEP, *CMAES, "hydra.sweeper.n_trials=3"]) == 2
    assert "trial 0 of the study holds no state of CMA-ES" in capsys.readouterr().err
    assert not (here / "it-ran").exists()


@pytest.mark.parametrize("protocol", [4, 5])
def test_the_state_of_cmaes_is_read_as_each_python_writes_it(protocol):
    cmaes = pytest.importorskip("cmaes")
    from fmexp.sweep.cmaes_state import _checked, _Numbers

    state = cmaes.CMA(mean=np.zeros(2), sigma=1.0, bounds=np.array([[-1.0, 1.0]] * 2))
    state.tell([(state.ask(), float(i)) for i in range(state.population_size)])
    text = pickle.dumps(state, protocol)
    assert _checked(_Numbers(io.BytesIO(text)).load()).generation == 1


def test_a_value_of_a_study_cannot_ask_for_the_environment(here, monkeypatch, capsys):
    """What a value was resolved to would stand in the trial's reason, which the study keeps."""
    monkeypatch.setenv("TOKEN", "s3cr3t")
    sweep = ["run", "-m", "tracking=none", "training.epochs=1", "model.k=2,3"]
    assert main([*sweep, "hydra.sweeper.n_trials=1"]) == 0
    journal = here / "optuna.journal"
    text = journal.read_text()
    assert '\\"choices\\": [2, 3]' in text
    asks = '\\"choices\\": [2, \\"${oc.env:TOKEN}\\"]'
    journal.write_text(text.replace('\\"choices\\": [2, 3]', asks))
    assert main([*sweep, "hydra.sweeper.n_trials=2"]) == 2
    printed = capsys.readouterr()
    assert "s3cr3t" not in printed.out + printed.err + journal.read_text()
    assert "holds another space than it says it does" in printed.err


@pytest.mark.parametrize("how", ["as Optuna does", "as fmexp does"])
def test_an_enqueued_value_cannot_ask_for_the_environment(how, here, monkeypatch, capsys):
    monkeypatch.setenv("TOKEN", "s3cr3t")
    sweep = ["run", "-m", "tracking=none", "training.epochs=1", "model.k=2,3,4"]
    assert main([*sweep, "hydra.sweeper.n_trials=1"]) == 0
    storage = open_storage(f"journal://{here}/optuna.journal", here)
    names = [name for name in optuna.get_all_study_names(storage) if not is_auxiliary(name)]
    study, asks = optuna.load_study(study_name=names[0], storage=storage), "${oc.env:TOKEN}"
    inside = how == "as Optuna does"
    study.enqueue_trial(
        {"model.k": asks} if inside else {}, {} if inside else {OUTSIDE: {"model.k": asks}}
    )
    assert main([*sweep, "hydra.sweeper.n_trials=3", "hydra.sweeper.max_failure_rate=1"]) == 0
    printed = capsys.readouterr()
    assert "s3cr3t" not in printed.out + printed.err + (here / "optuna.journal").read_text()
    assert ("is dropped" if inside else "cannot call a resolver") in printed.out + printed.err


def test_what_a_choice_stands_for_is_not_taken_from_a_study(here, monkeypatch, capsys):
    monkeypatch.setenv("TOKEN", "s3cr3t")
    sweep = ["run", "-m", "tracking=none", "training.epochs=1", "backend=numpy_sgd,gibbs"]
    assert main([*sweep, "hydra.sweeper.n_trials=1"]) == 0
    journal = here / "optuna.journal"
    text = journal.read_text()
    assert '"burn_in":null' in text
    journal.write_text(text.replace('"burn_in":null', '"burn_in":"${oc.env:TOKEN}"'))
    assert main([*sweep, "hydra.sweeper.n_trials=2"]) == 0
    printed = capsys.readouterr()
    assert "s3cr3t" not in printed.out + printed.err + journal.read_text()
