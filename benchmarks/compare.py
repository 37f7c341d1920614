"""How often `fmexp compare` calls equal models different, and finds a real difference.

    python benchmarks/compare.py

Each comparison is one of two linear predictors of the same quality on 100 held-out rows with
noise: their errors are correlated and skewed, as those of real models are.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from machine import describe_machine

from fmexp.analysis.significance import LEVEL, difference

REPETITIONS, ROWS, TRIALS = 1000, 100, 20
BOUND = 73  # 50 expected; more than this in less than 1 of 1,000 such counts


def squared_errors(generator: np.random.Generator, n_models: int) -> np.ndarray:
    """Errors of equally good models on the same rows, shape (n_models, ROWS)."""
    noise = generator.normal(size=ROWS)
    return (noise - 0.5 * generator.normal(size=(n_models, ROWS))) ** 2


def equal_pairs(generator: np.random.Generator) -> int:
    return sum(difference(*squared_errors(generator, 2)).is_real for _ in range(REPETITIONS))


def equal_sweeps(generator: np.random.Generator) -> int:
    """Sweeps whose winner is called different from their first trial, all trials being equal."""
    called = 0
    for _ in range(REPETITIONS):
        errors = squared_errors(generator, TRIALS)
        winner = int(errors.mean(axis=1).argmin())
        called += winner > 0 and difference(errors[winner], errors[0], TRIALS - 1).is_real
    return called


def real_differences(generator: np.random.Generator) -> int:
    """B's errors raised by three standard errors of the difference."""
    found = 0
    for _ in range(REPETITIONS):
        a, b = squared_errors(generator, 2)
        shift = 3 * np.sqrt(2 * 0.5**2 * (4 + 2 * 0.5**2) / ROWS)
        found += difference(a, b + shift).is_real
    return found


def main() -> None:
    generator = np.random.default_rng(0)
    theory = REPETITIONS * NormalDist().cdf(3 - NormalDist().inv_cdf(1 - LEVEL / 2))
    print(describe_machine("numpy"))
    print(f"of {REPETITIONS:,} each, called different:")
    for what, count, expected in (
        ("pairs of equal models", equal_pairs(generator), f"at most {BOUND}"),
        (f"winners of {TRIALS} equal trials", equal_sweeps(generator), f"at most {BOUND}"),
        ("differences of 3 standard errors", real_differences(generator), f"theory {theory:.0f}"),
    ):
        print(f"  {what:<34} {count:4d}   {expected}")


if __name__ == "__main__":
    main()
