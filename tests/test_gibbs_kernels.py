"""The Gibbs sampler's kernels do what their plain twin does; bits do not depend on threads."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_ndtr, ndtr, ndtri

from fmexp import fm
from fmexp.backends import compiled, gibbs_kernels, gibbs_plain, probit_kernels, sgd_kernels
from fmexp.backends.gibbs_columns import columns_of
from fmexp.data.features import CSR, Features
from fmexp.errors import DataError
from tests.gibbs_support import make_chain
from tests.training_fakes import random_parameters, random_rows, to_csr


def rows_of(kind: str, n_rows: int = 60, n_features: int = 11) -> Features:
    X = random_rows(n_rows, n_features, density=0.4)
    X[7] = 0
    if kind == "dense":
        return X
    return to_csr((X != 0) * 1.0 if kind == "one-hot" else X, one_hot=kind == "one-hot")


def one_hot_fields(n_rows: int, sizes: tuple[int, ...], seed: int = 0) -> CSR:
    """Rows with one feature of each field."""
    g = np.random.default_rng(seed)
    starts = np.cumsum([0, *sizes])
    columns = [g.integers(size, size=n_rows) + a for size, a in zip(sizes, starts, strict=False)]
    indices = np.stack(columns, axis=1).astype(np.int32).ravel()
    return CSR(np.arange(0, len(indices) + 1, len(sizes)), indices, None, int(starts[-1]))


@pytest.mark.parametrize("k", [3, 4, 5, 8])
@pytest.mark.parametrize("kind", ["dense", "csr", "one-hot"])
def test_drawing_the_features_does_what_the_twin_does(kind, k):
    features, g, n = rows_of(kind), np.random.default_rng(1), 11
    p, y = random_parameters(n, k, scale=0.5), g.normal(size=60)
    columns, lanes = columns_of(features, n), gibbs_kernels.lanes_of(k)
    error, sums = gibbs_plain.rebuild(features, y, p)
    mean, precision = g.normal(size=(2, k + 1)), 1 + g.random((2, k + 1))
    noise, groups = g.normal(size=(n, k + 1)).astype(np.float32), np.arange(n) % 2
    used = [*range(k), lanes]

    def padded(table: np.ndarray, fill: float) -> np.ndarray:
        wide = np.full((len(table), lanes + 1), fill, table.dtype)
        wide[:, used] = table
        return wide

    found_sums, V = padded(sums_and(sums), 0)[:, :lanes].copy(), padded(sums_and(p.V), 0)
    V, found_error, w = V[:, :lanes].copy(), error.copy(), p.w.copy()
    gibbs_kernels.draw_features(lanes, columns.kind)(
        0, n, columns.starts, columns.rows, columns.values, found_error, found_sums, V, w, groups,
        padded(mean, 0.0), padded(precision, 1.0), padded(noise, 0), 2.5, np.zeros(0),
    )  # fmt: skip
    gibbs_plain.draw_features(
        features, error, sums, p.V, p.w, mean[groups], precision[groups], noise, 2.5
    )
    for found, twin in ((V[:, :k], p.V), (w, p.w), (found_sums[:, :k], sums), (found_error, error)):
        np.testing.assert_allclose(found, twin, rtol=0, atol=1e-11)
    assert not V[:, k:].any()
    assert not found_sums[:, k:].any()


def sums_and(table: np.ndarray) -> np.ndarray:
    """A column for w behind, which `padded` wants."""
    return np.column_stack([table, np.zeros(len(table))])


@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("kind", ["dense", "csr", "one-hot"])
def test_errors_and_row_sums_stay_those_of_the_parameters(kind, task):
    features, y = rows_of(kind), np.random.default_rng(1).normal(size=60)
    y = y if task == "regression" else (y > 0) * 1.0
    chain = make_chain(features, y, random_parameters(11, 12, scale=0.3), task=task)
    for _ in range(7):
        chain.sweep()
    kept, expected = chain.errors.copy(), fm.scores(chain.parameters(), features) - chain.latent
    np.testing.assert_allclose(kept, expected, rtol=0, atol=1e-12)
    chain.rebuild()
    np.testing.assert_allclose(kept, chain.errors, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["dense", "csr", "one-hot", "fields"])
def test_any_number_of_threads_gives_the_same_bits(kind, monkeypatch):
    monkeypatch.setattr("fmexp.backends.gibbs_columns.CHUNK_ENTRIES", 50)
    monkeypatch.setattr("fmexp.backends.gibbs_chain.SMALL_CHUNK_ROWS", 64)
    monkeypatch.setattr("fmexp.backends.side_by_side.SMALL_CHUNK_ROWS", 64)
    monkeypatch.setattr("fmexp.backends.gibbs_chain.NOISE_FEATURES", 5)
    features = one_hot_fields(500, (30, 20, 3)) if kind == "fields" else rows_of(kind, 500)
    n, label = features.shape[1], np.random.default_rng(0).integers(0, 2, 500) * 1.0

    def bits(threads: int, task: str) -> bytes:
        p = random_parameters(n, 9, scale=0.3)
        chain = make_chain(features, label, p, task=task, threads=threads)
        for _ in range(5):
            chain.sweep()
        return chain.errors.tobytes() + chain.parameters().V.tobytes()

    for task in ("regression", "classification"):
        assert bits(1, task) == bits(2, task) == bits(64, task)


def test_features_of_one_field_are_found_to_share_no_row():
    assert columns_of(one_hot_fields(500, (30, 20, 3)), 53).bounds == [0, 30, 50, 53]
    indices = np.array([0, 2, 1, 2, 1, 3], np.int32)  # rows 0+2, 1+2, 1+3; feature 4 nowhere
    mixed = CSR(np.array([0, 2, 4, 6]), indices, None, 5)
    assert columns_of(mixed, 5).bounds == [0, 2, 5]
    assert columns_of(np.ones((4, 3)), 3).bounds == [0, 1, 2, 3]


def test_rows_whose_features_do_not_ascend_are_refused():
    rows = CSR(np.array([0, 2]), np.array([1, 0], np.int32), None, 2)
    with pytest.raises(DataError, match="ascending"):
        columns_of(rows, 2)


SCORES = np.concatenate([np.linspace(-34, 9, 2001), [-1e-300, 0.0, -0.663, 0.663, -5.66, 40.0]])


def test_the_normal_distribution_function_is_scipys():
    total = np.zeros_like(SCORES)
    probit_kernels.add_probability()(SCORES, total)
    np.testing.assert_allclose(total, ndtr(SCORES), rtol=2e-14, atol=0)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_latent_scores_are_drawn_as_the_twin_draws_them(label):
    scores, g = SCORES * (2 * label - 1), np.random.default_rng(0)
    uniforms, labels = g.random(len(scores)), np.full(len(scores), label)
    errors, latent = scores.copy(), np.zeros(len(scores))
    loss = probit_kernels.draw_latent()(
        0, len(scores), errors, latent, labels, uniforms, np.zeros(0)
    )
    twin, expected = gibbs_plain.draw_latent(scores, labels, 1 - uniforms)
    np.testing.assert_allclose(latent, twin, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(errors, scores - latent, rtol=0, atol=0)
    assert loss == pytest.approx(expected, rel=1e-13)
    assert ((latent > 0) == (label == 1)).all()


def test_a_score_far_on_the_wrong_side_draws_from_the_tails_limit():
    scores, uniforms = np.full(4, -1e6), np.array([0.1, 0.5, 0.9, 0.0])
    latent, ones = np.zeros(4), np.ones(4)
    loss = probit_kernels.draw_latent()(0, 4, scores, latent, ones, uniforms, np.zeros(0))
    np.testing.assert_allclose(latent, -np.log(1 - uniforms) / 1e6)
    assert loss == pytest.approx(-4 * log_ndtr(-1e6))


def test_a_row_that_spans_two_pieces_of_uniforms_has_its_own():
    errors, latent, uniforms = np.zeros(5), np.zeros(5), np.array([0.25, 0.5])
    probit_kernels.draw_latent()(3, 5, errors, latent, np.ones(5), uniforms, np.zeros(0))
    np.testing.assert_allclose(latent[3:], -ndtri((1 - uniforms) / 2), rtol=1e-14)
    assert not latent[:3].any()


def test_another_vector_type_means_other_kernels():
    """Numba caches by what a kernel encloses: a change of `compiled` must be among it."""
    for make in (
        gibbs_kernels.draw_features(4, "csr"), gibbs_kernels.add_features(4, "csr"),
        gibbs_kernels.add_squares(4), gibbs_kernels.shift(), probit_kernels.draw_latent(),
        probit_kernels.label_loss(), probit_kernels.add_probability(),
        gibbs_kernels.to_columns(True), gibbs_kernels.last_neighbours(),
        gibbs_kernels.gather_rows(4), gibbs_kernels.move_rows(4), gibbs_kernels.row_sums(True),
        sgd_kernels.train_dense(4, "float64", False), sgd_kernels.score_dense(4, "float64"),
        sgd_kernels.train_sparse(4, "float64", True, False), sgd_kernels.total_loss(True),
        sgd_kernels.score_sparse(4, "float64", True), sgd_kernels.score_wide("float64", True),
        sgd_kernels.train_wide("float64", True, False),
    ):  # fmt: skip
        assert compiled.SOURCE in [cell.cell_contents for cell in make.py_func.__closure__]
