"""Simulation-based calibration (Talts et al. 2018), on a hundred planted tables: intervals of the
Gibbs sampler hold the truth as often as they say.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fmexp import fm
from fmexp.backends.gibbs_chain import Chain
from tests.gibbs_support import FixedPriors, make_chain
from tests.test_gibbs_kernels import one_hot_fields

SIZES, K, TABLES, NOISE, SCALE = (7, 6, 5), 2, 100, 0.5, 0.7


def ranks(seed: int, kind: type, task: str) -> tuple[float, float]:
    """Shares of the draws below the true score of a new row, and below a new target of it."""
    g, n = np.random.default_rng(seed), sum(SIZES)
    rows = one_hot_fields(91, SIZES, seed)
    truth = fm.Parameters(g.normal(), g.normal(0, SCALE, n), g.normal(0, SCALE, (n, K)))
    scores = fm.scores(truth, rows)
    noise = 1.0 if task == "classification" else NOISE
    y = scores + noise * g.normal(size=91)
    target = (y[:90] > 0) * 1.0 if task == "classification" else y[:90]
    start = fm.initial_parameters(n, K, 0.1, seed)
    chain = make_chain(rows.take(slice(0, 90)), target, start, kind=kind, seed=seed, task=task)
    if isinstance(chain, FixedPriors):
        chain.mean, chain.precision = np.zeros((1, K + 1)), np.full((1, K + 1), SCALE**-2.0)
        chain.noise_precision = noise**-2.0
    drawn = []
    for sweep in range(350):
        chain.sweep()
        if sweep >= 50:
            score = fm.scores(chain.parameters(), rows.take(slice(90, 91)))[0]
            drawn.append((score, score + g.normal() / chain.alpha**0.5))
    below = np.array(drawn) < [scores[90], y[90]]
    return tuple(below.mean(axis=0).tolist())


@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("kind", [FixedPriors, Chain])
def test_intervals_hold_the_truth_as_often_as_they_say(kind, task):
    found = np.array([ranks(seed, kind, task) for seed in range(TABLES)])
    for share in (0.5, 0.9):
        low, high = stats.binom.interval(0.999, TABLES, share)
        inside = (np.abs(found - 0.5) < share / 2).sum(axis=0)  # of scores, and of targets
        assert ((low <= inside) & (inside <= high)).all()
