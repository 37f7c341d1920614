"""What a sampler draws for trial n depends on the seed and on n, not on who asks or when."""

from __future__ import annotations

import threading

import hydra
import optuna
import pytest
from omegaconf import OmegaConf

from fmexp.config.compose import VERSION_BASE
from fmexp.config.shipped import config_folder
from fmexp.errors import ConfigError, MissingPackageError
from fmexp.sweep.options import (
    CmaesOptions,
    GpOptions,
    GridOptions,
    HyperbandOptions,
    MedianOptions,
    NoPrunerOptions,
    QmcOptions,
    RandomOptions,
    TpeOptions,
    read_options,
)
from fmexp.sweep.samplers import SpaceExhaustedError, make_pruner, make_sampler
from fmexp.sweep.space import Condition, Dimension, Space
from fmexp.sweep.storage import open_storage
from fmexp.sweep.trial_status import DISCARD, MARK

optuna.logging.set_verbosity(optuna.logging.WARNING)

K = Dimension("k", "int", 2, 64, 1, log=True)
RATE = Dimension("rate", "float", 0.001, 0.3, log=True)
BACKEND = Dimension("backend", "choice", choices=("sgd", "adam"))
BATCH = Dimension("batch", "choice", choices=(8, 16), condition=Condition("backend", "adam"))
SPACE = Space([K, RATE, BACKEND, BATCH])
NUMBERS = Space([K, RATE])
DISCRETE = Space([BACKEND, BATCH])

SAMPLERS = [
    TpeOptions("tpe", 0, 3, 24),
    RandomOptions("random", 0),
    QmcOptions("qmc", 0),
    CmaesOptions("cmaes", 0, 1, None),
]
every_sampler = pytest.mark.parametrize("options", SAMPLERS, ids=lambda options: options.name)


def new_study(options, space=SPACE, **given):
    return optuna.create_study(sampler=make_sampler(options, space), **given)


def loss(point):
    return (point["k"] - 9) ** 2 + 100 * point["rate"]


def sit(study, trials, space=SPACE):
    """One sitting of so many trials; returns the points."""
    points = []
    for _ in range(trials):
        trial = study.ask()
        points.append(space.suggest(trial))
        study.tell(trial, loss(points[-1]))
    return points


@every_sampler
def test_two_sittings_draw_what_one_would_have_drawn(options, tmp_path):
    once = sit(new_study(options), 12)
    first = new_study(options, study_name="s", storage=open_storage(None, tmp_path))
    twice = sit(first, 6)
    sampler, storage = make_sampler(options, SPACE), open_storage(None, tmp_path)
    twice += sit(optuna.load_study(study_name="s", storage=storage, sampler=sampler), 6)
    assert once == twice
    assert len({SPACE.key(point) for point in once}) == 12


@every_sampler
def test_equally_seeded_workers_draw_no_point_twice(options, tmp_path):
    study = new_study(options, study_name="s", storage=open_storage(None, tmp_path))
    sampler, storage = make_sampler(options, SPACE), open_storage(None, tmp_path)
    other = optuna.load_study(study_name="s", storage=storage, sampler=sampler)
    keys = set()
    for _ in range(4):
        asked = [(worker, worker.ask()) for worker in (study, other, study)]
        for worker, trial in asked:
            point = SPACE.suggest(trial)
            keys.add(SPACE.key(point))
            worker.tell(trial, loss(point))
    assert len(keys) == 12


@every_sampler
def test_another_seed_draws_other_points(options):
    other = type(options)(**{**vars(options), "seed": 1})
    assert sit(new_study(options), 3) != sit(new_study(other), 3)


@every_sampler
def test_parameters_of_a_trial_are_drawn_apart(options):
    """One stream started anew for each parameter would give all of them the same number."""
    space = Space([Dimension(name, "float", 0, 1) for name in "ab"])
    study = new_study(options, space)
    points = [space.suggest(study.ask()) for _ in range(10)]
    assert all(abs(point["a"] - point["b"]) > 1e-6 for point in points[1:])


@pytest.mark.parametrize("name", ["random", "qmc"])
def test_threads_that_share_a_sampler_draw_what_one_would_have_drawn(name):
    (options,) = (options for options in SAMPLERS if options.name == name)
    study, drawn = new_study(options), {}

    def work():
        for _ in range(5):
            trial = study.ask()
            drawn[trial.number] = SPACE.suggest(trial)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = new_study(options)
    assert drawn == {n: SPACE.suggest(alone.ask()) for n in range(20)}


@pytest.mark.parametrize("options", [SAMPLERS[0], SAMPLERS[3]], ids=["tpe", "cmaes"])
def test_learning_sampler_comes_nearer_than_chance(options):
    learned = sit(new_study(options, NUMBERS), 40, NUMBERS)[20:]
    chance = sit(new_study(SAMPLERS[1], NUMBERS), 40, NUMBERS)[20:]
    assert sum(map(loss, learned)) < 0.5 * sum(map(loss, chance))


def test_value_outside_the_space_hides_no_key_from_the_sampler():
    """Optuna would search together only what all trials have, so `k` never again."""
    study = new_study(TpeOptions("tpe", 0, 1, 24))
    SPACE.enqueue(study, {"k": 500, "rate": 0.01, "backend": "sgd"})
    sit(study, 3)
    trial = study.ask()
    assert trial.relative_params.keys() == {"k", "rate", "backend"}
    assert 2 <= SPACE.suggest(trial)["k"] <= 64


def test_gaussian_process_passes_over_a_trial_outside_the_space():
    pytest.importorskip("torch")
    study = new_study(GpOptions("gp", 0, 2), NUMBERS)
    NUMBERS.enqueue(study, {"k": 500, "rate": 0.01})
    sit(study, 3, NUMBERS)
    trial = study.ask()
    assert trial.relative_params.keys() == {"k", "rate"}


def test_sobol_covers_each_dimension_evenly():
    space = Space([Dimension("x", "float", 0, 1), Dimension("c", "choice", choices=(1, 2, 3, 4))])
    points = sit_without_loss(new_study(QmcOptions("qmc", 7), space), 64, space)
    assert sorted(int(point["x"] * 64) for point in points) == list(range(64))
    assert [sum(p["c"] == c for p in points) for c in (1, 2, 3, 4)] == [16] * 4


def sit_without_loss(study, trials, space):
    return [space.suggest(study.ask()) for _ in range(trials)]


def test_grid_gives_every_point_once_in_order_then_says_that_it_is_exhausted():
    study = new_study(GridOptions("grid"), DISCRETE)
    assert sit_without_loss(study, 3, DISCRETE) == list(DISCRETE.grid())
    with pytest.raises(SpaceExhaustedError, match="all 3 points"):
        DISCRETE.suggest(study.ask())


def test_grid_leaves_out_an_enqueued_point_and_gives_a_discarded_one_again():
    study = new_study(GridOptions("grid"), DISCRETE)
    DISCRETE.enqueue(study, {"backend": "adam", "batch": 8})
    DISCRETE.enqueue(study, {"backend": "jax"})
    drawn = sit_without_loss(study, 4, DISCRETE)
    last = {"backend": "adam", "batch": 16}
    assert drawn[2:] == [{"backend": "sgd"}, last]
    study._storage.set_trial_user_attr(study.trials[3]._trial_id, MARK, DISCARD)
    study.tell(3, state=optuna.trial.TrialState.FAIL)
    assert DISCRETE.suggest(study.ask()) == last


def test_trials_that_ask_the_grid_at_the_same_moment_take_different_points(tmp_path):
    study = new_study(GridOptions("grid"), DISCRETE)
    trials = [study.ask() for _ in range(3)]
    points = [DISCRETE.suggest(trial) for trial in reversed(trials)]
    assert points == list(DISCRETE.grid())[::-1]


def test_grid_over_a_continuous_dimension_is_refused():
    with pytest.raises(ConfigError, match="rate"):
        make_sampler(GridOptions("grid"), SPACE)


@pytest.mark.parametrize(
    ("options", "command"),
    [(SAMPLERS[3], r"fmexp\[cmaes\]"), (GpOptions("gp", 0, 3), r"fmexp\[torch\]")],
)
def test_missing_package_is_named_with_its_command(options, command, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingPackageError, match=f"pip install '{command}'"):
        make_sampler(options, SPACE)


PRUNERS = [
    NoPrunerOptions("none"),
    MedianOptions("median", 2, 0),
    HyperbandOptions("hyperband", None, 3),
]


@pytest.mark.parametrize("options", PRUNERS, ids=lambda options: options.name)
@pytest.mark.parametrize("epochs", [1, 81])
def test_pruner_stops_the_worst_and_never_the_best(options, epochs):
    study = new_study(SAMPLERS[0], pruner=make_pruner(options, epochs))
    pruned = []
    for n in range(12):
        trial = study.ask()
        SPACE.suggest(trial)
        for epoch in range(1, epochs + 1):
            trial.report(float(n), epoch)
            if trial.should_prune():
                pruned.append(n)
                break
        state = optuna.trial.TrialState.PRUNED if n in pruned else None
        study.tell(trial, None if state else n, state=state)
    assert 0 not in pruned
    assert bool(pruned) == (options.name != "none")


def test_hyperband_spreads_its_brackets_over_the_epochs():
    pruner = make_pruner(HyperbandOptions("hyperband", None, 3), 270)
    assert (pruner._min_resource, pruner._max_resource) == (10, 270)
    small = make_pruner(HyperbandOptions("hyperband", 50, 3), 9)
    assert (small._min_resource, small._max_resource) == (9, 9)


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid", "qmc", "cmaes", "gp"])
@pytest.mark.parametrize("pruner", ["none", "median", "hyperband"])
def test_groups_of_the_config_are_spelled_as_the_official_ones(sampler, pruner):
    overrides = ["hydra/sweeper=fmexp", f"hydra/sweeper/sampler={sampler}"]
    overrides += [f"hydra/sweeper/pruner={pruner}", "hydra.sweeper.n_trials=7"]
    overrides += [] if sampler == "grid" else ["hydra.sweeper.sampler.seed=5"]
    with hydra.initialize_config_dir(str(config_folder()), **VERSION_BASE):
        tree = hydra.compose("config", overrides, return_hydra_config=True)
    options = read_options(OmegaConf.to_container(tree.hydra.sweeper))
    assert (options.sampler.name, options.pruner.name, options.n_trials) == (sampler, pruner, 7)
    assert sampler == "grid" or options.sampler.seed == 5


def test_all_mistaken_options_come_in_one_message():
    with pytest.raises(ConfigError) as caught:
        read_options(
            {"n_trails": 3, "n_trials": 0, "direction": "up", "sampler": {"name": "anneal"}}
        )
    message = str(caught.value)
    assert "hydra.sweeper.n_trails is not a key; did you mean hydra.sweeper.n_trials?" in message
    assert "hydra.sweeper.n_trials must be a whole number from 1" in message
    assert "hydra.sweeper.direction must be one of minimize, maximize, or null, got 'up'" in message
    assert "hydra.sweeper.sampler must be one of tpe, random, grid, qmc, cmaes, gp" in message
