"""`fmexp refit`: a run's configuration once more, on all rows, to its best epoch."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from fmexp.cli.parser import main
from fmexp.cli.refit import REFIT_OF, _on_all_rows
from fmexp.config.compose import compose, parse_arguments
from fmexp.data.loading import load
from fmexp.errors import UserError
from fmexp.model import load as load_model
from fmexp.record.queries import StoredRuns
from fmexp.training.fitting import fit
from tests.record_support import uri_of
from tests.recorded_support import record


@pytest.fixture
def folder(store_folder, monkeypatch):
    monkeypatch.chdir(store_folder)
    return store_folder


def test_it_is_the_run_on_all_rows_with_the_best_number_of_epochs(folder, capsys):
    ran = record(folder, first=["model.k=3", "training.early_stopping.patience=5"])
    assert main(["refit", "first", "--uri", uri_of(folder)]) == 0
    assert "nothing was held out" in capsys.readouterr().out
    with StoredRuns(uri_of(folder)) as records:
        first, again = records.find(ran["first"]), records.find("refit of first")
        model = records.artifact(again, "model") / "parameters.npz"
        saved = np.load(model)["V"]
    assert again.tags[REFIT_OF] == first.run_id
    best = round(first.metrics["best/epoch"])
    words = ["model.k=3", "split.validation=0", "split.test=0", f"training.epochs={best}"]
    config = compose(parse_arguments(words)).config
    expected = fit(config, load(config.data, config.split, config.task)).parameters
    assert (saved == expected.V).all()
    assert again.n_rows == 442


def test_a_sampler_is_refitted_with_all_its_sweeps(folder):
    ran = record(folder, sampled=["backend=gibbs", "training.epochs=6", "model.k=2"])
    assert main(["refit", "sampled", "--uri", uri_of(folder)]) == 0
    with StoredRuns(uri_of(folder)) as records:
        again = records.find("refit of sampled")
        model = load_model(records.artifact(again, "model"))
    assert again.tags[REFIT_OF] == ran["sampled"]
    assert len(model.parameters) == 5  # the burn-in is the first of six


def test_what_held_nothing_out_has_no_best_epoch(folder, refused):
    record(folder, all=["split.validation=0", "training.epochs=2"])
    words = refused("refit", "all", "--uri", uri_of(folder))
    assert "held no rows out to judge epochs by" in words


def test_parts_that_a_column_decides_are_not_joined(folder):
    run = SimpleNamespace(metrics={"best/epoch": 3.0})
    with pytest.raises(UserError, match=r"has its parts from split\.by=column:part"):
        _on_all_rows({"split": {"by": "column:part"}, "training": {}}, run)
