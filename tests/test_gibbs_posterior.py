"""The Gibbs sampler draws from the posterior: held to it where it is known by other means."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.special import log_ndtr

from fmexp import fm
from fmexp.backends import gibbs_plain, gibbs_prior
from tests.gibbs_support import SCALES, FixedPriors, log_density, make_chain, monte_carlo_error
from tests.test_gibbs_kernels import one_hot_fields, rows_of
from tests.training_fakes import random_parameters

HELD = 1e14
"""A prior precision that holds a parameter at its mean."""


@pytest.mark.parametrize("kind", ["dense", "csr", "one-hot"])
def test_conditionals_are_the_slope_and_curvature_of_the_log_density(kind):
    features, g, n, k = rows_of(kind), np.random.default_rng(2), 11, 3
    p, y, alpha = random_parameters(n, k, scale=0.5), g.normal(size=60), 1.7
    mean, precision = g.normal(size=(n, k + 1)), 1 + g.random((n, k + 1))
    error, sums = gibbs_plain.rebuild(features, y, p)

    def density(j: int, change: np.ndarray) -> float:
        moved = p.copy()
        moved.V[j] += change[:k]
        moved.w[j] += change[k]
        return log_density(moved, features, y, mean, precision, alpha)

    for j, (rows, x) in enumerate(gibbs_plain.columns(features)):
        h, now = x[:, None] * (sums[rows] - x[:, None] * p.V[j]), np.append(p.V[j], p.w[j])
        Q, slope = gibbs_plain.feature_conditional(
            h, x, error[rows], now, mean[j], precision[j], alpha
        )
        step, none = 1e-3 * np.eye(k + 1), np.zeros(k + 1)
        found = [(density(j, s) - density(j, -s)) / 2e-3 for s in step]
        np.testing.assert_allclose(found, slope, rtol=1e-6, atol=1e-6)
        curved = [
            [(density(j, a + b) - density(j, a) - density(j, b) + density(j, none)) / 1e-6
             for b in step] for a in step
        ]  # fmt: skip
        np.testing.assert_allclose(curved, -Q, rtol=1e-4, atol=1e-4)


def test_the_conditional_of_the_bias_is_the_slope_and_curvature_of_the_log_density():
    features, y = rows_of("dense"), np.random.default_rng(2).normal(size=60)
    p, zeros = random_parameters(11, 2), np.zeros((11, 3))
    p.w0 = 0.7
    total = float((fm.scores(p, features) - y).sum())
    mean, precision = gibbs_prior.bias_change(total, 60, p.w0, 1.7)

    def density(change: float) -> float:
        moved = fm.Parameters(p.w0 + change, p.w, p.V)
        return log_density(moved, features, y, zeros, zeros, 1.7)

    slope = (density(1e-3) - density(-1e-3)) / 2e-3
    curvature = (density(1e-3) - 2 * density(0.0) + density(-1e-3)) / 1e-6
    assert -curvature == pytest.approx(precision, rel=1e-5)
    assert slope == pytest.approx(mean * precision, rel=1e-6)


@pytest.mark.parametrize("kind", ["dense", "csr", "one-hot"])
def test_with_factors_held_the_linear_part_has_its_exact_posterior(kind):
    features, g, n, k, alpha = rows_of(kind), np.random.default_rng(3), 11, 2, 2.0
    p = random_parameters(n, k, scale=0.5)
    only_V = fm.Parameters(0.0, np.zeros(n), p.V)
    y = fm.scores(p, features) + g.normal(size=60) / alpha**0.5
    chain = make_chain(features, y, only_V, kind=FixedPriors, groups=np.arange(n))
    chain.mean = np.column_stack([p.V, np.full(n, 0.3)])
    chain.precision = np.column_stack([np.full((n, k), HELD), np.full(n, 1.5)])
    chain.alpha = chain.noise_precision = alpha
    draws = []
    for sweep in range(4200):
        chain.sweep()
        if sweep >= 200:
            draws.append(np.append(chain.parameters().w, chain.w0))
    X = np.zeros((60, n))
    for j, (rows, x) in enumerate(gibbs_plain.columns(features)):
        X[rows, j] = x
    X = np.column_stack([X, np.ones(60)])
    prior = np.append(np.full(n, 1.5), gibbs_prior.W0_PRECISION)
    covariance = np.linalg.inv(alpha * X.T @ X + np.diag(prior))
    prior_mean = np.append(np.full(n, 0.3), 0.0)
    mean = covariance @ (alpha * X.T @ (y - fm.scores(only_V, features)) + prior * prior_mean)
    assert_like(np.array(draws), mean, covariance)
    np.testing.assert_allclose(chain.parameters().V, p.V, atol=1e-5)


def assert_like(draws: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> None:
    """Mean and covariance of a chain's draws, within four Monte Carlo errors of each entry."""
    assert (np.abs(draws.mean(axis=0) - mean) < 4 * monte_carlo_error(draws)).all()
    products = np.einsum("si,sj->sij", draws - mean, draws - mean)
    away = np.abs(products.mean(axis=0) - covariance) / monte_carlo_error(products)
    assert away.max() < 4.5  # of some hundred entries
    assert np.sqrt(np.mean(away**2)) < 1.5


def test_a_probit_has_the_posterior_of_a_fine_grid():
    x = np.array([-1.5, -1.0, -0.4, 0.2, 0.5, 1.1, 1.3, 2.0])
    labels = np.array([0.0, 0, 1, 0, 1, 1, 0, 1])
    p = fm.Parameters(0.0, np.zeros(1), np.zeros((1, 1)))
    chain = make_chain(x[:, None], labels, p, task="classification", kind=FixedPriors)
    chain.mean, chain.precision = np.array([[0.0, 0.2]]), np.array([[HELD, 0.5]])
    draws = []
    for sweep in range(10_200):
        chain.sweep()
        if sweep >= 200:
            draws.append([chain.w0, chain.parameters().w[0]])
    grid = np.linspace(-8, 8, 801)
    w0, w = np.meshgrid(grid, grid, indexing="ij")
    log = -0.5 * w0**2 - 0.25 * (w - 0.2) ** 2
    for one, label in zip(x, labels, strict=True):
        log += log_ndtr((2 * label - 1) * (w0 + w * one))
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    points = np.stack([w0, w])
    mean = (weight * points).sum(axis=(1, 2))
    apart = points - mean[:, None, None]
    covariance = np.einsum("aij,bij,ij->ab", apart, apart, weight)
    assert_like(np.array(draws), mean, covariance)


def test_hyperparameters_are_drawn_from_their_exact_posterior():
    """Against a grid over (lambda, mu) of one group of four parameters."""
    theta = np.array([1.3, 0.8, 2.5, 1.9])
    generator = gibbs_prior.stream(0, 0, 0)
    table, groups = theta[:, None], np.zeros(4, int)
    scale = np.array([1.6])
    drawn = [gibbs_prior.draw_groups(generator, table, groups, 1, scale) for _ in range(20_000)]
    mu, lam = (np.array([each[i][0, 0] for each in drawn]) for i in (0, 1))
    grid_mu, log_lam = np.meshgrid(np.linspace(-6, 7, 1301), np.linspace(-9, 4, 1301))
    grid_lam = np.exp(log_lam)
    log = stats.gamma.logpdf(grid_lam, 0.5, scale=2.0 / 1.6**2) + log_lam
    log += stats.norm.logpdf(grid_mu, 0, grid_lam**-0.5)
    log += sum(stats.norm.logpdf(each, grid_mu, grid_lam**-0.5) for each in theta)
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    for found, exact in ((mu, grid_mu), (lam, grid_lam), (mu * lam, grid_mu * grid_lam)):
        error = found.std() / len(found) ** 0.5
        assert abs(found.mean() - (weight * exact).sum()) < 4 * error
        shares = np.array([(found < q).mean() for q in np.quantile(found, [0.1, 0.5, 0.9])])
        exactly = [(weight * (exact < q)).sum() for q in np.quantile(found, [0.1, 0.5, 0.9])]
        assert np.abs(shares - exactly).max() < 0.01


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_data_drawn_anew_after_each_sweep_leave_the_prior_as_it_is(task, monkeypatch):
    """Geweke's (2004) joint test, with gamma priors whose tails a chain leaves soon."""
    monkeypatch.setattr(gibbs_prior, "HALF", 4.0)
    features, g, n, k, kept = one_hot_fields(6, (3, 2)), np.random.default_rng(5), 5, 2, []
    chain = make_chain(features, np.zeros(6), random_parameters(n, k), task=task, groups=GROUPS)
    for _ in range(10_000):
        chain.sweep()
        p = chain.parameters()
        kept.append(statistics(chain.w0, np.column_stack([p.V, p.w]), chain.alpha))
        scores = chain.errors + chain.latent
        drawn = scores + g.normal(size=6) / chain.alpha**0.5
        if task == "classification":
            chain._target[:] = drawn > 0
            chain.errors[:], chain.latent[:] = scores, 0.0
            chain._draw_latent()
        else:
            chain.latent[:] = drawn
            chain.rebuild()
    expected = []
    for _ in range(40_000):
        lam = g.gamma(4.0, 0.25, (2, k + 1)) / np.square([SCALES[1]] * k + [SCALES[0]])
        mu = g.normal(size=(2, k + 1)) / lam**0.5
        theta = mu[GROUPS] + g.normal(size=(n, k + 1)) / lam[GROUPS] ** 0.5
        alpha = g.gamma(4.0, 0.25) if task == "regression" else 1.0
        expected.append(statistics(g.normal(), theta, alpha))
    found, direct = np.array(kept), np.array(expected)
    error = np.hypot(monte_carlo_error(found), direct.std(0) / len(direct) ** 0.5)
    away = (found.mean(0) - direct.mean(0)) / np.maximum(error, 1e-12)
    assert np.abs(away).max() < 4


GROUPS = np.array([0, 0, 0, 1, 1])


def statistics(w0: float, theta: np.ndarray, alpha: float) -> list[float]:
    """Means, spreads and products of the parameters (v_j, w_j), shape (5, 3), and the noise."""
    spread = [np.log(((x - x.mean(0)) ** 2).sum(0)) for x in (theta[:3], theta[3:])]
    middle = [np.arctan(x.mean(0)) for x in (theta[:3], theta[3:])]
    pair = theta[0, :2] @ theta[3, :2]
    return [w0, w0**2, np.arctan(pair), np.log(alpha), *np.ravel(spread), *np.ravel(middle)]
