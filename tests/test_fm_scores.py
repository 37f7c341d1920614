"""fm.py: scores, losses, and where parameters start."""

import numpy as np
import pytest

from fmexp import fm
from tests.training_fakes import random_parameters, random_rows, to_csr


def score_by_pairs(p: fm.Parameters, x: np.ndarray) -> float:
    """The definition: a sum over all pairs of features (Rendle 2010, eq. 1)."""
    score = p.w0 + sum(p.w[j] * x[j] for j in range(len(x)))
    for i in range(len(x)):
        for j in range(i + 1, len(x)):
            score += np.dot(p.V[i], p.V[j]) * x[i] * x[j]
    return float(score)


@pytest.mark.parametrize(("n_features", "k", "density"), [(1, 1, 1), (7, 3, 0.5), (200, 32, 0.3)])
def test_scores_are_the_sum_over_all_pairs(n_features, k, density):
    p, X = random_parameters(n_features, k, scale=0.2), random_rows(4, n_features, 1, density)
    expected = [score_by_pairs(p, x) for x in X]
    np.testing.assert_allclose(fm.scores(p, X), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("k", [1, 3, 8, 9, 33])
def test_sparse_rows_have_the_bits_of_dense_rows(k):
    p, X = random_parameters(11, k), random_rows(20, 11, density=0.4)
    X[3] = 0
    assert fm.scores(p, to_csr(X)).tobytes() == fm.scores(p, X).tobytes()


def test_one_hot_rows_need_no_values():
    p, X = random_parameters(11, 3), (random_rows(20, 11, density=0.4) != 0).astype(float)
    assert fm.scores(p, to_csr(X, one_hot=True)).tobytes() == fm.scores(p, X).tobytes()


def test_a_row_has_the_same_bits_alone_and_among_others():
    p, X = random_parameters(11, 9), random_rows(50, 11)
    alone = [fm.scores(p, X[i : i + 1])[0] for i in range(50)]
    assert fm.scores(p, X).tolist() == alone


def test_log_loss_and_probability_are_stable_for_huge_scores():
    scores, target = np.array([1000.0, -1000.0, 1000.0, 0.0]), np.array([1.0, 0.0, 0.0, 1.0])
    assert fm.losses("classification", scores, target).tolist() == [0, 0, 1000, np.log(2)]
    assert fm.predictions("classification", scores).tolist() == [1, 0, 1, 0.5]


def test_squared_error_and_plain_scores_for_regression():
    assert fm.losses("regression", np.array([3.0]), np.array([1.0])).tolist() == [4]
    assert fm.predictions("regression", np.array([3.0])).tolist() == [3]


def test_initial_parameters_come_from_the_seed():
    one, same, other = (fm.initial_parameters(5000, 4, 0.02, seed) for seed in (1, 1, 2))
    assert one.V.tobytes() == same.V.tobytes() != other.V.tobytes()
    assert one.V.shape == (5000, 4)
    assert abs(one.V.std() / 0.02 - 1) < 0.02
    assert one.w0 == 0
    assert not one.w.any()


def test_the_notebook_start_is_the_second_draw_after_the_targets():
    stream = np.random.RandomState(42)
    stream.rand(100, 1)
    stream.normal(scale=1 / 5, size=(8, 5))
    expected = stream.normal(scale=1 / 5, size=(8, 5))
    assert fm.notebook_parameters(8, 5, 100, 42).V.tobytes() == expected.tobytes()
