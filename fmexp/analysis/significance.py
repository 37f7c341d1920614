"""Is one model's error really lower than another's? Paired differences over held-out rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from fmexp.errors import DataError

LEVEL = 0.05
"""A difference that chance shows less often than this is called one."""

_NORMAL = NormalDist()


@dataclass(frozen=True)
class Difference:
    """How much lower A's mean error is than B's.

    Attributes:
        mean: error of B minus error of A; positive where A is better.
        error: standard error of `mean`.
        freedom: degrees of freedom of that standard error.
        rows: held-out rows.
        seeds: trainings of each model that were averaged.
        choices: number of comparisons among which this one was chosen; 1 for one planned before.
    """

    mean: float
    error: float
    freedom: float
    rows: int
    seeds: int
    choices: int

    @property
    def p(self) -> float:
        """Chance that one of the `choices` shows so large a difference between equal models."""
        if self.error == 0:
            return 0.0 if self.mean else 1.0
        z = _normal_from_t(abs(self.mean) / self.error, self.freedom)
        return min(1.0, 2 * (1 - _NORMAL.cdf(z)) * self.choices)

    @property
    def half_width(self) -> float:
        """The interval that holds the true difference with 95 %: mean plus or minus this."""
        z = _NORMAL.inv_cdf(1 - LEVEL / 2 / self.choices)
        return _t_from_normal(z, self.freedom) * self.error

    @property
    def is_real(self) -> bool:
        """Whether it can be told apart from noise."""
        return self.p < LEVEL


def difference(
    errors_a: np.ndarray,
    errors_b: np.ndarray,
    choices: int = 1,
    weights: np.ndarray | None = None,
) -> Difference:
    """Compare two models by their errors on the same rows.

    The rows' part of the variance is that of the differences averaged over the seeds; with several
    seeds that of the seeds' means is added, as rows and seeds both are a sample.

    Args:
        errors_a: A's error on each row, shape (n_rows,), or (n_seeds, n_rows).
        errors_b: B's, same shape; row by row and seed by seed the same.
        choices: how many comparisons this one was picked from (Bonferroni's bound).
        weights: of the rows, shape (n_rows,), by which their mean is taken; None: all the same.

    Raises:
        DataError: one row, or one of weight above 0, has no spread.
    """
    d = np.atleast_2d(errors_b) - np.atleast_2d(errors_a)
    freedom = d.shape[1] - 1.0
    if weights is not None:
        d, freedom = _linearised(d[:, weights > 0], weights[weights > 0])
    n_seeds, n_rows = d.shape
    if n_rows < 2:
        raise DataError(f"expected at least 2 held-out rows that count, got {n_rows}")
    of_rows = float(d.mean(axis=0).var(ddof=1)) / n_rows
    of_seeds = float(d.mean(axis=1).var(ddof=1)) / n_seeds if n_seeds > 1 else 0.0
    variance = of_rows + of_seeds
    if of_seeds:  # Welch and Satterthwaite's sum
        spread = of_rows**2 / freedom + of_seeds**2 / (n_seeds - 1)
        freedom = variance**2 / spread
    return Difference(float(d.mean()), math.sqrt(variance), freedom, n_rows, n_seeds, choices)


def _linearised(d: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Numbers whose mean over the rows, and its standard error, are those of the weighted mean.

    Each is the mean and n times its own part in it (the linearised ratio estimator; Cochran,
    Sampling Techniques, 1977, section 6.3). The degrees of freedom are those of as many rows of
    equal weight as say as much (Kish 1965: (sum w)^2 / sum w^2).
    """
    mean = np.average(d, axis=1, weights=weights)[:, None]
    n_equal = float(weights.sum() ** 2 / np.square(weights).sum())
    return mean + weights / weights.mean() * (d - mean), max(n_equal - 1.0, 1.0)


def in_words(result: Difference, a: str, b: str, unit: str) -> str:
    """One plain sentence.

    Args:
        result: A against B.
        a: what A is called.
        b: what B is called.
        unit: of the error, such as "MSE".
    """
    mean, width = rounded(abs(result.mean), result.half_width)
    amount = f"{mean} ± {width} {unit} on {result.rows:,} rows"
    if result.seeds > 1:
        amount += f" and {result.seeds} seeds"
    if not result.is_real:
        return f"no difference between {a} and {b} can be told apart from noise ({amount})"
    better, worse = (a, b) if result.mean > 0 else (b, a)
    often = _one_in(result.p)
    return (
        f"{better} is better than {worse} by {amount}; "
        f"chance would show this in {often} such comparisons"
    )


def rounded(mean: float, width: float) -> tuple[str, str]:
    """Both to two digits of the width: more of them say nothing."""
    digits = 1 - math.floor(math.log10(width)) if width > 0 else 3
    mean, width = round(mean, digits), round(width, digits)
    return f"{mean:,.{max(digits, 0)}f}", f"{width:,.{max(digits, 0)}f}"


def _one_in(p: float) -> str:
    """A small probability as people say it: "1 of 2,000"."""
    if p < 1e-9:
        return "fewer than 1 of 1,000,000,000"
    exponent = 10 ** max(0, math.floor(math.log10(1 / p)) - 1)
    return f"1 of {int(1 / p / exponent) * exponent:,}"


def _normal_from_t(t: float, freedom: float) -> float:
    """The normal deviate with the same tail as Student's t.

    Wallace, "Bounds on normal approximations to Student's and the chi-square distributions",
    Annals of Mathematical Statistics 30 (1959), p. 1125.
    """
    shrink = (8 * freedom + 1) / (8 * freedom + 3)
    return shrink * math.sqrt(freedom * math.log1p(t * t / freedom))


def _t_from_normal(z: float, freedom: float) -> float:
    """The inverse of `_normal_from_t`."""
    u = z * (8 * freedom + 3) / (8 * freedom + 1)
    return math.sqrt(freedom * math.expm1(u * u / freedom))
