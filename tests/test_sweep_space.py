"""Hydra's sweep syntax becomes a space, and a space knows its points."""

from __future__ import annotations

import subprocess
import sys

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from fmexp.errors import ConfigError
from fmexp.sweep.expressions import read_space
from fmexp.sweep.space import Condition, Dimension, Space

BACKENDS = "backend=choice(numpy_sgd,torch_adam)"
BATCH = "backend.batch_size=choice(8,16)"
ONLY_TORCH = {"backend.batch_size": "backend=torch_adam"}


def parsed(lines):
    return OverridesParser.create().parse_overrides(lines)


def space_of(*lines, params=None, conditions=None, leaves=None):
    return read_space(params or {}, parsed(lines), conditions or {}, leaves or {})[0]


def mistakes_of(*lines, **given):
    with pytest.raises(ConfigError) as caught:
        space_of(*lines, **given)
    return str(caught.value).splitlines()


# The table of the official sweeper's tests; where a range's end was drawn there, it is excluded.
DISTRIBUTIONS = [
    ("choice(1,2)", CategoricalDistribution([1, 2])),
    ("choice(true, false)", CategoricalDistribution([True, False])),
    ("choice('hello', 'world')", CategoricalDistribution(["hello", "world"])),
    ("shuffle(range(1,3))", CategoricalDistribution([1, 2])),
    ("range(1,3)", IntDistribution(1, 2)),
    ("interval(1, 5)", FloatDistribution(1, 5)),
    ("int(interval(1, 5))", IntDistribution(1, 5)),
    ("tag(log, interval(1, 5))", FloatDistribution(1, 5, log=True)),
    ("tag(log, int(interval(1, 5)))", IntDistribution(1, 5, log=True)),
    ("int(tag(log, interval(1, 5)))", IntDistribution(1, 5, log=True)),
    ("range(0.5, 5.5, step=1)", FloatDistribution(0.5, 4.5, step=1)),
    ("range(0, 10, 3)", IntDistribution(0, 9, step=3)),
    ("range(5)", IntDistribution(0, 4)),
    ("float(range(1,4))", FloatDistribution(1, 3, step=1)),
    ("1,2.5,null,a", CategoricalDistribution([1, 2.5, None, "a"])),
    ("sort(3,1,2)", CategoricalDistribution([1, 2, 3])),
    ("str(choice(1,2))", CategoricalDistribution(["1", "2"])),
]


@pytest.mark.parametrize(("text", "expected"), DISTRIBUTIONS)
@pytest.mark.parametrize("given", ["command line", "params"])
def test_expression_becomes_the_distribution(text, expected, given):
    on_line = given == "command line"
    space = space_of(f"key={text}") if on_line else space_of(params={"key": text})
    actual = space["key"].distribution
    if "shuffle" in text:  # in an order of its own
        assert sorted(actual.choices) == sorted(expected.choices)
    else:
        assert actual == expected
        assert type(actual.to_external_repr(0)) is type(expected.to_external_repr(0))


GRIDS = [
    ("range(2,9)", [2, 3, 4, 5, 6, 7, 8]),
    ("range(5,1,step=-2)", [5, 3]),
    ("range(1,0,-0.25)", [1, 0.75, 0.5, 0.25]),
    ("range(0,0.9,0.3)", [0, 0.3, 0.6]),  # adding binary floats gives 0.9 as a fourth
    ("range(0.1,0.75,0.1)", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
    ("int(interval(2,4))", [2, 3, 4]),
    ("b,a", ["b", "a"]),
    ("sort(range(1,4),reverse=true)", [3, 2, 1]),
]


@pytest.mark.parametrize(("text", "values"), GRIDS)
def test_grid_walks_all_values_in_order(text, values):
    space = space_of(f"key={text}")
    assert [point["key"] for point in space.grid()] == values
    assert space.size() == len(values)


def test_range_never_draws_its_end():
    space = space_of("k=range(2,9)", "rate=range(0,0.9,0.3)")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    points = [space.suggest(study.ask()) for _ in range(200)]
    assert {point["k"] for point in points} == {2, 3, 4, 5, 6, 7, 8}
    assert {point["rate"] for point in points} == {0.0, 0.3, 0.6}


def test_shuffled_values_come_in_the_same_order_in_every_process():
    text = "shuffle(range(1,20))"
    code = (
        "from fmexp.sweep.expressions import read_space\n"
        f"print(read_space({{'k': {text!r}}}, [], {{}}, {{}})[0].to_json())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = space_of(f"k={text}")
    assert here.to_json() == there.stdout.strip()
    assert list(here["k"].choices) != sorted(here["k"].choices)


MISTAKES = [
    ("model.k=interval(2,2)", "low end must be below"),
    ("model.k=interval(4,2)", "low end must be below"),
    ("model.k=interval(1,inf)", "must be finite"),
    ("model.k=tag(log,interval(0,1))", "log needs a low end > 0, got 0.0"),
    ("model.k=tag(log,range(1,4))", "log goes with an interval"),
    ("model.k=tag(log,choice(1,4))", "log goes with an interval"),
    ("model.k=tag(lgo,interval(1,4))", "the only tag is log, got lgo"),
    ("model.k=range(5,5)", "the range is empty"),
    ("model.k=range(9,2)", "the range is empty"),
    ("model.k=range(1,5,0)", "step not 0"),
    ("model.k=glob(*)", "glob(...) has no meaning here"),
    ("model.k=choice([1,2],3)", "must be a plain, finite value, got [1, 2]"),
    ("model.k=choice({a:1},3)", "must be a plain, finite value"),
    ("model.k=nan,1", "must be a plain, finite value, got nan"),
    ("model.k=4,4", "choices must differ"),
    ("model.k=1,1.0", "choices must differ"),
    ("model.k=true,1", "choices must differ"),  # Optuna cannot tell them apart
]


@pytest.mark.parametrize(("line", "message"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_mistake_on_the_command_line_is_named(line, message):
    (mistake,) = mistakes_of(line)
    assert mistake.startswith(f"{line}: ")
    assert message in mistake


@pytest.mark.parametrize(
    "text", ["foo(1,2)", "interval(1)", "choice(1,", "4", [1, 2], "", "a b=c,"]
)
def test_mistake_in_params_is_named_with_key_and_expression(text):
    (mistake,) = mistakes_of(params={"model.k": text})
    assert mistake.startswith(f"hydra.sweeper.params.model.k: {text}: expected choice(a, b), ")


def test_all_mistakes_come_in_one_message():
    lines = mistakes_of("a=range(1,1)", "b=4,4", conditions={"d": "e"})
    assert [line.split(":")[0] for line in lines] == [
        "a=range(1,1)",
        "b=4,4",
        "hydra.sweeper.conditions.d",
    ]
    lines = mistakes_of(params={"c": "x(", "e": {"f": "1,1"}})
    assert [line.split(":")[0] for line in lines] == [
        "hydra.sweeper.params.c",
        "hydra.sweeper.params.e.f",
    ]


def test_key_fixed_on_the_command_line_leaves_the_space():
    overrides = parsed(["model.k=4", "training.epochs=9", "hydra.sweeper.n_trials=3"])
    params = {"model.k": "2,4", "training.learning_rate": "interval(0.1,0.2)"}
    space, left = read_space(params, overrides, {}, {})
    assert [d.key for d in space.dimensions] == ["training.learning_rate"]
    assert left == {"model.k": "fixed on the command line"}


PARAMS = {"a": "1,2", "b": "1,2", "c": {"d": "3,4"}, "e": None}


@pytest.mark.parametrize(
    ("lines", "keys"),
    [
        ([], ["a", "b", "c.d"]),
        (["x=1", "group=choice_of_one"], ["a", "b", "c.d"]),
        (["c.d=3"], ["a", "b"]),
        (["+b=7,8"], ["b"]),
        (["b=7,8", "x=range(1,9)", "a=1"], ["b", "x"]),
        (["b=7,8", "b=7"], ["a", "c.d"]),
    ],
    ids=str,
)
def test_keys_with_several_values_are_the_space_else_params_is(lines, keys):
    space = space_of(*lines, params=PARAMS, conditions={"c.d": "a=1"} if "a" in keys else None)
    assert sorted(d.key for d in space.dimensions) == keys


def test_a_condition_on_a_key_of_params_goes_with_params():
    space = space_of("b=7,8", params=PARAMS, conditions={"c": {"d": "a=1"}})
    assert [point["b"] for point in space.grid()] == [7, 8]


def test_last_of_two_overrides_for_a_key_wins():
    assert space_of("a=1,2", "a=5").dimensions == ()
    assert list(space_of("a=5", "a=1,2")["a"].values) == [1, 2]


def test_conditional_key_exists_only_with_its_value():
    space = space_of(BACKENDS, BATCH, conditions=ONLY_TORCH)
    points = [{"backend": "numpy_sgd"}]
    points += [{"backend": "torch_adam", "backend.batch_size": size} for size in (8, 16)]
    assert list(space.grid()) == points
    assert space.size() == 3
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    drawn = {space.key(space.suggest(study.ask())) for _ in range(50)}
    assert drawn == set(map(space.key, points))


def test_condition_waits_for_a_key_given_later_and_for_one_that_is_itself_conditional():
    conditions = {"c": "b=2", "b": "a=1"}
    space = space_of("c=7,8", "b=1,2", "a=0,1", "z=5,6", conditions=conditions)
    assert [d.key for d in space.dimensions] == ["a", "b", "c", "z"]
    without = [{k: v for k, v in p.items() if k != "z"} for p in space.grid()][::2]
    assert without == [{"a": 0}, {"a": 1, "b": 1}, *({"a": 1, "b": 2, "c": c} for c in (7, 8))]
    assert space.size() == 8


def test_condition_on_a_fixed_key_is_decided_at_once():
    given = {"conditions": ONLY_TORCH, "params": {"backend.batch_size": "8,16"}}
    assert (
        space_of(**given, leaves={"backend": "torch_adam"})["backend.batch_size"].condition is None
    )
    _, left = read_space(given["params"], [], ONLY_TORCH, {"backend": "numpy_sgd"})
    assert left == {"backend.batch_size": "exists only with backend=torch_adam"}


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"nope": "a=1"}, "nope is not in the space, which has a, b"),
        ({"b": "nope=1"}, "nope is neither in the space nor in the configuration"),
        ({"b": "a"}, "a condition is written other.key=value"),
        ({"b": "a=1,2"}, "asks for one value"),
        ({"b": "a=3"}, "can never hold, a is swept over 1 | 2"),
        ({"b": "b=1"}, "waits for itself"),
        ({"a": "b=1", "b": "a=1"}, "waits for itself"),
    ],
)
def test_mistaken_condition_is_named(conditions, message):
    assert message in mistakes_of("a=1,2", "b=1,2", conditions=conditions)[0]


def test_points_are_the_same_by_value_not_by_spelling():
    space = space_of("k=range(1,9)", "rate=range(0.1,1,0.1)", "x=interval(0,1)", "c=1,a")
    one = {"k": 1, "rate": 0.3, "x": 0.0, "c": 1}
    other = {"c": 1.0, "x": -0.0, "rate": 0.1 + 0.2, "k": 1.0, "unknown": 5}
    assert space.key(one) == space.key(other) == '{"k": 1, "rate": 0.3, "x": 0.0, "c": 1}'
    assert space.key(one) != space.key(one | {"x": 1e-300})
    assert space.key({"c": True}) != space.key({"c": 1})
    assert space.key({"k": 100.0}) == space.key({"k": 100})  # outside the space too


def test_size_is_unknown_and_grid_refused_where_a_dimension_is_continuous():
    space = space_of("k=1,2", "rate=tag(log,interval(0.1,1))", "x=interval(0,1)")
    assert space.size() is None
    with pytest.raises(ConfigError, match=r"rate \(0.1 to 1.0, log\)[\s\S]*x \(0.0 to 1.0\)"):
        space.grid()


def test_empty_space_has_one_point():
    assert list(Space([]).grid()) == [{}]
    assert Space([]).size() == 1


WIDE = (
    "k=tag(log,int(interval(2,64)))",
    "rate=tag(log,interval(0.001,0.3))",
    "down=range(9,2,-2)",
    BACKENDS,
    BATCH,
    "mixed=2,0.5,null,true,x",
)


def test_space_comes_back_from_json():
    space = space_of(*WIDE, conditions=ONLY_TORCH)
    again = Space.from_json(space.to_json())
    assert again == space
    assert again.to_json() == space.to_json()
    assert again != space_of(*WIDE)
    assert str(again) == str(space)


def test_each_dimension_is_a_line_for_the_screen():
    assert str(space_of(*WIDE, conditions=ONLY_TORCH)).splitlines() == [
        "k                   whole 2 to 64, log",
        "rate                0.001 to 0.3, log",
        "down                whole 3 to 9 in steps of 2",
        "backend             numpy_sgd | torch_adam",
        "backend.batch_size  8 | 16, only with backend=torch_adam",
        "mixed               2 | 0.5 | null | true | x",
    ]


def test_configuration_as_composed_is_a_point():
    space = space_of("k=tag(log,int(interval(2,64)))", BACKENDS, BATCH, conditions=ONLY_TORCH)
    leaves = {"k": 8, "backend": "numpy_sgd", "backend.dtype": "float64", "seed": 0}
    assert space.default_point(leaves) == {"k": 8, "backend": "numpy_sgd"}
    assert space.outside(space.default_point(leaves)) == {}


def test_point_outside_the_space_is_evaluated_as_it_is():
    space = space_of("k=2,4", "rate=interval(0.1,1)", "n=int(interval(1,5))")
    study = optuna.create_study()
    point = {"k": 8, "rate": 0.01, "n": 3}
    assert space.outside(point) == {"k": 8, "rate": 0.01}
    space.enqueue(study, point, {"why": "default"})
    trial = study.ask()
    assert space.suggest(trial) == point
    study.tell(trial, 1.0)
    (stored,) = study.trials
    assert space.point(stored) == point
    assert stored.params == {"n": 3}
    assert stored.user_attrs["why"] == "default"


def test_enqueued_point_keeps_its_values_and_has_the_rest_drawn():
    space = space_of("k=2,4", "rate=interval(0.1,1)")
    study = optuna.create_study()
    space.enqueue(study, {"k": 4.0})
    drawn = space.suggest(study.ask())
    assert drawn["k"] == 4
    assert 0.1 <= drawn["rate"] <= 1


def test_mistaken_points_are_named_together():
    space = space_of("k=2,4", "rate=interval(0.1,1)")
    points = [{"k": 4}, {"kk": 1}, {"k": [1]}, {"rate": float("nan")}]
    with pytest.raises(ConfigError) as caught:
        space.checked_points(points, "hydra.sweeper.enqueue")
    assert str(caught.value).splitlines() == [
        "hydra.sweeper.enqueue[1]: kk is not in the space; it has k, rate",
        "hydra.sweeper.enqueue[2]: k must be a plain value, got [1]",
        "hydra.sweeper.enqueue[3]: rate must be a plain value, got nan",
    ]
    assert space.checked_points([{"rate": 1, "k": 9}], "") == [{"k": 9, "rate": 1.0}]


def test_probes_find_a_mistaken_end_or_type():
    assert space_of("k=range(0,9,2)")["k"].probes == [0, 8]
    assert any(x != int(x) for x in space_of("k=interval(2,64)")["k"].probes)


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(-7, 7).filter(bool))
def test_ranges_are_pythons(start, stop, step):
    values = list(range(start, stop, step))
    line = f"k=range({start},{stop},{step})"
    if not values:
        assert "the range is empty" in mistakes_of(line)[0]
        return
    space = space_of(line)
    assert list(space["k"].values) == values
    assert Space.from_json(space.to_json()) == space


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_size_counts_the_grid(sizes, data):
    dimensions = []
    for i, size in enumerate(sizes):
        ruler = data.draw(st.sampled_from([None, *dimensions]))
        rule = Condition(ruler.key, data.draw(st.sampled_from(ruler.choices))) if ruler else None
        dimensions.append(Dimension(f"d{i}", "choice", choices=tuple(range(size)), condition=rule))
    space = Space(dimensions)
    points = list(space.grid())
    assert space.size() == len(points) == len({space.key(point) for point in points})
