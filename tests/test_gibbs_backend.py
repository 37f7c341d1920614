"""`backend=gibbs` from the command line to the stored model: one predictive distribution."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from fmexp import fm, model
from fmexp.analysis.stored_run import from_params
from fmexp.backends import gibbs
from fmexp.backends.gibbs_prior import prior_scales
from fmexp.cli.parser import main
from fmexp.config.checks import parse
from fmexp.config.compose import compose, parse_arguments
from fmexp.config.schema import GibbsConfig
from fmexp.data.learn import Learning
from fmexp.data.loading import load
from fmexp.data.memory import from_arrays, from_table
from fmexp.errors import DataError
from fmexp.estimators import FMClassifier, FMRegressor
from fmexp.experiment import one_run
from fmexp.training.fitting import fit
from tests.data_support import WHOLE
from tests.training_fakes import make_config, make_dataset, random_rows, to_csr

PLANTED = ["backend=gibbs", "data=planted", "data.rows=600", "data.columns=30", "data.fields=3",
           "data.k=2", "model.k=3", "training.epochs=30"]  # fmt: skip


def composed(*overrides: str):
    return compose(parse_arguments([*PLANTED, *overrides]))


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_curve_record_and_stored_model_say_the_same_of_held_out_rows(tmp_path, task):
    config = composed(f"task={task}", "backend.kept=7").config
    data = load(config.data, config.split, config.task)
    done = fit(config, data)
    model.Model.of(config, data, done.parameters).save(tmp_path)
    said = model.load(tmp_path).predict_features(data.validation.features)
    y = data.validation.target
    if task == "regression":
        expected = np.mean((said - data.encoder.decode_target(y)) ** 2)
    else:
        expected = -np.mean(np.log(np.where(y == 1, said, 1 - said)))
    assert done.best_validation == pytest.approx(expected, rel=1e-9)
    assert done.validation_losses[-1] == done.best_validation < done.baseline
    assert len(done.parameters) == 7


def test_the_last_epoch_is_the_best_and_nothing_is_gone_back_to():
    X, g = random_rows(80, 4), np.random.default_rng(0)
    done = fit(make_config("gibbs", epochs=12), make_dataset(X, g.normal(size=80), 20))
    assert done.best_epoch == 12
    assert done.best_validation == done.validation_losses[-1] > min(done.validation_losses)
    assert done.parameters.V.shape == (10, 4, 3)  # 12 sweeps without the first 2
    assert done.parameters.V.dtype == np.float32


@pytest.mark.parametrize("density", [1.0, 0.3])
def test_the_priors_scales_give_linear_part_and_pairs_the_targets_variance(density):
    X, g, zeros = random_rows(3000, 12, density=density), np.random.default_rng(0), np.zeros(12)
    w_scale, V_scale = prior_scales(X, 4)
    assert (w_scale, V_scale) == pytest.approx(prior_scales(to_csr(X), 4))
    drawn = [(g.normal(0, w_scale, 12), g.normal(0, V_scale, (12, 4))) for _ in range(300)]
    linear = [fm.scores(fm.Parameters(0.0, w, np.zeros((12, 4))), X) for w, _ in drawn]
    pairs = [fm.scores(fm.Parameters(0.0, zeros, V), X) for _, V in drawn]
    assert (np.var(linear), np.var(pairs)) == pytest.approx((1.0, 1.0), rel=0.1)
    assert prior_scales(np.eye(3), 4) == pytest.approx((1.0, 1.0))  # no pairs


def test_only_sweeps_after_the_burn_in_are_kept_and_evenly():
    assert sorted(gibbs.kept_sweeps(50, 10, 64)) == list(range(11, 51))
    assert sorted(gibbs.kept_sweeps(110, 10, 4)) == [35, 60, 85, 110]
    assert gibbs.kept_sweeps(3, 10, 4) == frozenset()


def test_the_mean_over_samples_is_better_than_a_sample():
    config = composed().config
    data = load(config.data, config.split, config.task)
    done = fit(config, data)
    one = replace(config, backend=replace(config.backend, kept=1))
    assert done.best_validation < 0.9 * fit(one, data).best_validation


def test_early_stopping_counts_from_the_end_of_the_burn_in():
    stopping = [f"training.early_stopping.{x}" for x in ("patience=2", "min_delta=0.99")]
    config = composed(*stopping, "backend.burn_in=20").config  # no gain is large enough
    done = fit(config, load(config.data, config.split, config.task))
    assert "stopped early" in done.reason
    assert done.epochs == 23
    assert len(done.parameters) == 3


def test_a_run_that_is_stopped_in_its_burn_in_keeps_its_state():
    config = composed("backend.burn_in=20").config
    data = load(config.data, config.split, config.task)
    done = fit(config, data, lambda epoch, *_: "interrupted" if epoch == 3 else None)
    assert len(done.parameters) == 1
    assert done.best_validation == done.validation_losses[-1]


def test_intervals_hold_the_targets_that_they_say():
    config = composed("data.rows=4000").config
    data = load(config.data, config.split, config.task)
    found = one_run.held_out_metrics(config, data, fit(config, data))
    assert found["best/val_coverage_90"] == pytest.approx(0.9, abs=0.03)  # 800 rows: 0.011
    assert set(found) == set(one_run.held_out_names(config, data))
    rmse = found["best/val_rmse"]
    assert found["best/val_nll"] == pytest.approx(0.5 + np.log(rmse * (2 * np.pi) ** 0.5), abs=0.1)


def test_columns_have_priors_of_their_own():
    table = {"a": list("xyxyxyxyxy"), "b": list("pqrpqrpqrp"), "c": np.arange(10.0)}
    table |= {"d": np.arange(10.0) ** 2, "y": np.arange(10.0)}
    found = from_table(table, "y", WHOLE, Learning(), categorical=["a", "b"])
    assert found.train.groups.tolist() == [0, 0, 1, 1, 2, 2, 2]
    block = from_arrays(csr_matrix(np.eye(10)), table["y"], WHOLE, Learning())
    assert block.train.groups.tolist() == [0] * 10


KEYS = ("learning_rate=0.1", "learning_rate_decay=0", "reg_w0=0", "reg_w=1", "reg_V=1",
        "shuffle=true", "average_from=3", "cap_steps=true")  # fmt: skip
KEYS = ("model.init_stdev=0.1", *(f"training.{key}" for key in KEYS))


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_has_no_meaning_is_refused_with_the_reason(refused, key):
    said = refused("run", "backend=gibbs", "tracking=none", key)
    assert f"{key.partition('=')[0]} has no meaning with backend=gibbs: " in said


def test_a_burn_in_of_all_sweeps_is_refused(refused):
    said = refused("run", "backend=gibbs", "tracking=none", "backend.burn_in=50")
    assert "backend.burn_in must be below training.epochs" in said


def test_the_record_leaves_out_what_has_no_meaning_and_can_be_read_back():
    made = composed()
    assert sorted(made.config_tree["training"]) == ["early_stopping", "epochs"]
    leaves = one_run.flatten(made.config_tree)
    params = {key: str(value) for key, value in leaves.items() if "tracking" not in key}
    again = parse(from_params(params))
    assert replace(again, tracking=made.config.tracking) == made.config
    assert one_run.default_name(made.config) == "planted-k3-gibbs"


def test_the_default_space_is_k_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "-m", "backend=gibbs", "tracking=none", "hydra.sweeper.dry_run=true"]) == 0
    said = capsys.readouterr().out
    assert "model.k  whole 2 to 64" in said
    assert "training.learning_rate: not swept, no meaning with backend=gibbs" in said


def test_where_backends_are_swept_a_key_exists_where_it_means_something(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    space = ["backend=choice(gibbs,numpy_sgd)", "training.learning_rate=choice(0.01,0.02)"]
    space += ["hydra/sweeper/sampler=grid", "tracking=none", "hydra.sweeper.n_trials=10"]
    assert main(["run", "-m", *PLANTED[1:], *space]) == 0
    said = capsys.readouterr().out
    assert "only with backend!=gibbs" in said
    assert "3 completed" in said  # gibbs, and numpy_sgd at two rates


def test_to_sweep_what_has_no_meaning_is_refused(refused):
    said = refused("run", "-m", "backend=gibbs", "training.learning_rate=choice(0.1,0.2)")
    assert "training.learning_rate has no meaning with backend=gibbs" in said


def test_predict_gives_a_standard_deviation_beside_each_prediction(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    g = np.random.default_rng(0)
    rows = [f"{g.choice(['a', 'b', 'c'])},{g.normal():.4f}" for _ in range(60)]
    Path("new.csv").write_text("colour,size\n" + "\n".join(rows))
    Path("old.csv").write_text(
        "colour,size,y\n" + "\n".join(f"{row},{g.normal():.4f}" for row in rows)
    )
    config = compose(parse_arguments(["backend=gibbs", "data=csv", "data.path=old.csv"])).config
    data = load(config.data, config.split, config.task)
    model.Model.of(config, data, fit(config, data).parameters).save(Path("model"))
    assert main(["predict", "model", "--data", "new.csv", "--out", "out.csv"]) == 0
    with Path("out.csv").open() as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == ["y_pred", "y_stdev"]
    stdev = np.array([float(row["y_stdev"]) for row in found])
    assert ((stdev > 0.7) & (stdev < 1.6)).all()  # the noise has 1
    expected = model.load(Path("model")).predict_with_stdev("new.csv")[1]
    np.testing.assert_allclose(stdev, expected)


def test_estimators_say_how_sure_they_are_and_refuse_what_has_no_meaning():
    g = np.random.default_rng(1)
    X = g.normal(size=(400, 3))
    y = 2 * X[:, 0] * X[:, 1] + 0.3 * g.normal(size=400)
    found = FMRegressor(backend="gibbs", k=2, epochs=200).fit(X[:300], y[:300])
    mean, stdev = found.predict(X[300:], return_std=True)
    assert np.abs(y[300:] - mean).mean() < 0.35
    assert 0.8 < (np.abs(y[300:] - mean) < 1.645 * stdev).mean() <= 0.97
    assert (mean == found.predict(X[300:])).all()
    probability = FMClassifier(backend="gibbs", k=2).fit(X, y > 0).predict_proba(X)[:, 1]
    assert ((probability > 0.5) == (y > 0)).mean() > 0.85
    with pytest.raises(ValueError, match=r"reg_V has no meaning with backend=gibbs"):
        FMRegressor(backend="gibbs", reg_V=0.5).fit(X, y)
    with pytest.raises(ValueError, match="return_std needs"):
        FMRegressor().fit(X, y).predict(X, return_std=True)


@pytest.mark.parametrize(("said", "expected"), [("3", 3), ("", None), ("0", None), ("x", None)])
def test_threads_follow_the_setting_then_the_environment_then_the_machine(
    monkeypatch, said, expected
):
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    cores = gibbs.threads(GibbsConfig("gibbs", None, 64, None))
    assert cores == expected or (expected is None and cores >= 1)
    assert gibbs.threads(GibbsConfig("gibbs", None, 64, 5)) == 5


def test_samples_that_will_be_large_are_announced_or_refused_before_training(caplog):
    gibbs._claim(100, 64, 1_000_000, 8)
    assert "64 samples take about 2.3 GB of memory" in caplog.text
    caplog.clear()
    gibbs._claim(100, 64, 100_000, 8)
    assert not caplog.text
    with pytest.raises(DataError, match=r"row sums of backend=gibbs need about .* lower model\.k"):
        gibbs._claim(10**12, 64, 10, 8)


def test_a_further_run_starts_from_the_last_sample():
    two, single = np.arange(2), np.float32
    w, V = np.outer(two, np.ones(3)), np.multiply.outer(two, np.ones((3, 2)))
    drawn = fm.Samples(single(two), single(w), single(V), single(two))
    last = drawn.at(-1)
    assert (last.w0, last.w[0], last.V[0, 0], last.k, len(drawn)) == (1.0, 1.0, 1.0, 2, 2)
    assert last.V.dtype == np.float64
