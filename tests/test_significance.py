"""Equal models are rarely called different, and a real difference is found as theory says."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from fmexp.analysis.significance import (
    Difference,
    _normal_from_t,
    _t_from_normal,
    difference,
    in_words,
)


@pytest.mark.parametrize("freedom", [5, 9, 30, 87, 1000])
@pytest.mark.parametrize("t", [0.5, 1.96, 3.0, 5.0])
def test_student_s_tail_is_close_to_scipy_s(freedom: int, t: float) -> None:
    ours = 1 - NormalDist().cdf(_normal_from_t(t, freedom))
    assert ours == pytest.approx(stats.t.sf(t, freedom), rel=0.06)
    assert _t_from_normal(_normal_from_t(t, freedom), freedom) == pytest.approx(t)


def test_one_seed_is_the_paired_t_test() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.chisquare(1, (2, 200))
    found = difference(a, b)
    known = stats.ttest_rel(b, a)
    low, high = known.confidence_interval()
    assert found.mean == pytest.approx((b - a).mean())
    assert found.p == pytest.approx(known.pvalue, rel=0.01)
    assert found.half_width == pytest.approx((high - low) / 2, rel=0.001)


def test_seeds_and_rows_each_add_the_variance_of_their_mean() -> None:
    a = np.zeros((3, 4))
    b = np.array([[1.0, 2.0, 3.0, 4.0]]) + np.array([[0.0], [1.0], [5.0]])
    rows = np.array([1.0, 2.0, 3.0, 4.0]).var(ddof=1) / 4
    seeds = np.array([0.0, 1.0, 5.0]).var(ddof=1) / 3
    assert difference(a, b).error == pytest.approx(np.sqrt(rows + seeds))


def test_seeds_that_disagree_widen_the_interval() -> None:
    generator = np.random.default_rng(1)
    a = generator.chisquare(1, (3, 500))
    shift = np.array([[0.0], [0.5], [1.0]])
    steady = difference(a, a + 0.5 + 0.01 * generator.normal(size=a.shape))
    shaky = difference(a, a + shift + 0.01 * generator.normal(size=a.shape))
    assert steady.is_real
    assert not shaky.is_real
    assert shaky.freedom == pytest.approx(2, rel=0.01)


def test_choosing_among_many_widens_the_interval_and_raises_p() -> None:
    planned = Difference(0.3, 0.1, 500, 501, 1, choices=1)
    chosen = Difference(0.3, 0.1, 500, 501, 1, choices=19)
    assert planned.is_real
    assert not chosen.is_real
    assert chosen.half_width > planned.half_width
    assert chosen.p == pytest.approx(19 * planned.p)


@pytest.mark.parametrize("choices", [1, 19])
def test_the_interval_holds_zero_exactly_when_the_difference_is_not_real(choices: int) -> None:
    for mean in np.linspace(0.1, 0.5, 200):
        found = Difference(float(mean), 0.1, 87, 88, 1, choices)
        assert found.is_real == (found.half_width < found.mean)


def test_equal_errors_are_no_difference() -> None:
    same = np.ones(10)
    assert not difference(same, same).is_real
    assert "no difference between A and B" in in_words(difference(same, same), "A", "B", "MSE")


def test_the_sentence_names_the_better_one() -> None:
    found = Difference(0.012, 0.002, 8838, 8839, 1, 1)
    said = in_words(found, "A", "B", "MSE")
    assert said.startswith("A is better than B by 0.0120 ± 0.0039 MSE on 8,839 rows; chance")
    worse = in_words(Difference(-0.012, 0.002, 8838, 8839, 3, 1), "A", "B", "MSE")
    assert worse.startswith("B is better than A by 0.0120 ± 0.0039 MSE on 8,839 rows and 3 seeds")


def test_no_digit_is_shown_that_the_interval_does_not_carry() -> None:
    wide = Difference(157.3, 163.0, 87, 88, 1, 1)
    assert "(160 ± 320 MSE on 88 rows)" in in_words(wide, "A", "B", "MSE")


def test_one_in_counts_as_people_do() -> None:
    found = Difference(3.48, 1.0, 1e9, 100, 1, 1)
    assert in_words(found, "A", "B", "MSE").endswith(
        "chance would show this in 1 of 1,900 such comparisons"
    )


def test_of_equal_models_about_one_in_twenty_is_called_different() -> None:
    generator = np.random.default_rng(2)
    pairs = generator.normal(size=(1000, 2, 100)) ** 2
    called = sum(difference(a, b).is_real for a, b in pairs)
    assert called <= 73
