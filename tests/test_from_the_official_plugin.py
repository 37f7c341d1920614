"""What people know from Hydra's own Optuna sweeper (hydra-optuna-sweeper) and find here again.

After the cases of its test file, in our words. Not held: several objectives at once, a space made
by Python code (`custom_search_space`; `hydra.sweeper.conditions` does most of what it is used
for), the deprecated `search_space`, and what is about its own classes. A range's end is excluded
here, as it is everywhere else in Hydra.
"""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution as Choice
from optuna.distributions import FloatDistribution as Float
from optuna.distributions import IntDistribution as Int

from fmexp.sweep.expressions import read_space
from tests.application_support import Application
from tests.sweep_support import left_in

pytestmark = pytest.mark.usefixtures("hydra_restore_singletons")

SPHERE = """
x: 1
y: 1
z: 1
error: false
hydra:
  sweeper:
    params: {x: 'range(-5.5, 5.5, step=0.5)', y: 'choice(-5, 0, 5)', z: 'choice(0, 1)'}
"""


def sphere(cfg):
    if cfg.error:
        raise RuntimeError("cfg.error is True")
    return cfg.x**2 + cfg.y**2


@pytest.fixture
def app(tmp_path, monkeypatch):
    return Application(tmp_path, monkeypatch, {"config.yaml": SPHERE})


@pytest.mark.parametrize(("written", "distribution"), [
    ("choice(1,2)", Choice([1, 2])),
    ("choice(true,false)", Choice([True, False])),
    ("choice('hello','world')", Choice(["hello", "world"])),
    ("range(1,3)", Int(1, 2)),
    ("range(0,10,step=2)", Int(0, 8, step=2)),
    ("interval(1,5)", Float(1, 5)),
    ("int(interval(1,5))", Int(1, 5)),
    ("tag(log,interval(1,5))", Float(1, 5, log=True)),
    ("tag(log,int(interval(1,5)))", Int(1, 5, log=True)),
    ("range(0.5,5.5,step=1)", Float(0.5, 4.5, step=1)),
])  # fmt: skip
@pytest.mark.parametrize("place", ["command line", "params"])
def test_an_expression_means_the_same_distribution(written, distribution, place):
    typed = [f"key={written}"] if place == "command line" else []
    params = {} if typed else {"key": written}
    space, _ = read_space(params, OverridesParser.create().parse_overrides(typed), {}, {"key": 1})
    assert space["key"].distribution == distribution


def test_a_shuffled_range_is_a_choice_of_its_values():
    typed = OverridesParser.create().parse_overrides(["key=shuffle(range(1,4))"])
    space, _ = read_space({}, typed, {}, {})
    assert sorted(space["key"].values) == [1, 2, 3]


def test_one_value_is_fixed_and_several_are_searched():
    typed = OverridesParser.create().parse_overrides(["a=choice(1,2)", "b=5", "c=range(1,3)"])
    space, _ = read_space({}, typed, {}, {})
    assert [d.key for d in space.dimensions] == ["a", "c"]


def test_tpe_finds_the_spheres_middle_in_the_space_of_the_file(app, tmp_path):
    """`~z` takes a key from configuration and space; the bound is the official test's."""
    seeded = ("hydra.sweeper.sampler.seed=123", "hydra.sweeper.study_name=sphere")
    app.sweep(sphere, "~z", "hydra.sweeper.n_trials=20", *seeded)
    left = left_in(tmp_path)
    best = min(left.counted, key=lambda t: t.value)
    found = OmegaConf.load(tmp_path / "jobs" / "optimization_results.yaml")
    assert found.best_params == best.params
    assert best.params.keys() == {"x", "y"}
    assert found.best_value == best.value <= 2.27


def test_a_key_fixed_on_the_command_line_leaves_the_space(app, tmp_path):
    app.sweep(sphere, "x=choice(0,1,2)", "y=0", "hydra/sweeper/sampler=random")
    assert all(t.params.keys() == {"x"} for t in left_in(tmp_path).counted)


@pytest.mark.parametrize("n_trials", [12, 3])
def test_a_grid_searches_its_points_in_order_as_far_as_the_total_goes(app, tmp_path, n_trials):
    grid = ("x=-1,1", "y=-1,0,1", "z=0,1", "hydra/sweeper/sampler=grid")
    app.sweep(sphere, *grid, f"hydra.sweeper.n_trials={n_trials}")
    found = OmegaConf.load(tmp_path / "jobs" / "optimization_results.yaml")
    assert len(left_in(tmp_path).counted) == n_trials
    assert found.best_value == found.best_params.x**2 + found.best_params.y**2
    assert n_trials < 12 or found.best_value == 1


@pytest.mark.parametrize(("rate", "code", "failed"), [(0.5, 1, 11), (1.0, 1, 20)])
def test_a_sweep_ends_when_more_trials_failed_than_it_allows(app, capsys, rate, code, failed):
    app.sweep(sphere, "error=true", f"hydra.sweeper.max_failure_rate={rate}",
              "hydra.sweeper.n_trials=20", "hydra/sweeper/sampler=random", code=code)  # fmt: skip
    printed = capsys.readouterr().out
    assert f"{failed} failed" in printed
    assert "RuntimeError: cfg.error is True" in printed
    assert ("too many failures" in printed) == (rate < 1)
