"""The compiled kernels do what their plain twin does, and the twin what the definition says."""

from collections import Counter
from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmexp import fm
from fmexp.backends import sgd, sgd_kernels, sgd_plain
from fmexp.data.dataset import Part
from fmexp.data.features import CSR, Features
from fmexp.errors import DataError
from tests.training_fakes import make_config, random_parameters, random_rows, to_csr

L2 = {"reg_w0": 0.3, "reg_w": 0.2, "reg_V": 0.1}
RATE = 0.01
ATOL = {"float64": 1e-12, "float32": 2e-5}


def trained(
    p: fm.Parameters, features: Features, y: np.ndarray, order: np.ndarray | None,
    rate: float = RATE, **keys: object,
) -> tuple[fm.Parameters, float, int]:  # fmt: skip
    """One epoch of the compiled backend."""
    config = make_config(k=p.k, **L2, **keys)
    trainer = sgd.start(config, Part(features, y, np.arange(len(y))), p)
    loss = trainer.train_epoch(rate, order)
    return trainer.parameters(), loss, trainer.capped_steps


def assert_like_the_twin(
    p: fm.Parameters, features: Features, y: np.ndarray, *, dtype: str = "float64",
    task: fm.Task = "regression", order: np.ndarray | None = None, rate: float = RATE,
    cap_steps: bool = False,
) -> int:  # fmt: skip
    keys = {"dtype": dtype, "task": task, "cap_steps": cap_steps}
    found, loss, n_capped = trained(p, features, y, order, rate, **keys)
    visits = range(len(y)) if order is None else order
    twin, total, of_twin = sgd_plain.train_pass(
        p, features, y, visits, rate, task, cap_steps=cap_steps, **L2
    )
    atol = ATOL[dtype]
    np.testing.assert_allclose(found.w0, twin.w0, rtol=0, atol=atol)
    np.testing.assert_allclose(found.w, twin.w, rtol=0, atol=atol)
    np.testing.assert_allclose(found.V, twin.V, rtol=0, atol=atol)
    assert loss == pytest.approx(total / len(y), rel=10 * atol)
    assert n_capped == of_twin
    return n_capped


def problem(task: str, k: int, density: float) -> tuple[fm.Parameters, np.ndarray, np.ndarray]:
    X = random_rows(40, 19, density=density)
    X[7] = 0
    y = np.random.default_rng(1).normal(size=40)
    return (
        random_parameters(19, k, scale=0.3 / k**0.5),
        X,
        y if task == "regression" else (y > 0) * 1.0,
    )


@pytest.mark.parametrize("cap_steps", [False, True])
@pytest.mark.parametrize("task", ["regression", "classification"])
def test_a_pass_of_the_twin_is_a_step_along_the_gradient_of_each_row(task, cap_steps):
    p, X, y = problem(task, 3, 0.5)
    most = {"regression": 1.0, "classification": 4.0}[task]
    begin = 0.5 * most / np.median(fm.squared_slopes(p, X))
    rate = 2 * begin if cap_steps else RATE
    twin, total, n_capped = sgd_plain.train_pass(
        p, X, y, range(40), rate, task, cap_steps=cap_steps, **L2
    )
    loss, capped = 0.0, 0
    for i in range(40):
        loss += fm.losses(task, fm.scores(p, X[i : i + 1]), y[i : i + 1])[0]
        g = fm.gradients(p, X[i : i + 1], y[i : i + 1], task, **L2)
        G = fm.squared_slopes(p, X[i : i + 1])[0]
        capped += cap_steps and rate * G > most
        step = min(rate, most / G) if cap_steps else rate
        p = fm.Parameters(p.w0 - step * g.w0, p.w - step * g.w, p.V - step * g.V)
    assert n_capped == capped
    assert (0 < capped < 40) == cap_steps
    np.testing.assert_allclose(twin.V, p.V, rtol=0, atol=1e-13)
    np.testing.assert_allclose(twin.w, p.w, rtol=0, atol=1e-13)
    assert twin.w0 == pytest.approx(p.w0)
    assert total == pytest.approx(loss)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("kind", ["dense", "csr", "one-hot"])
def test_every_kernel_does_what_the_twin_does(kind, task, dtype):
    p, X, y = problem(task, 5, 0.4)
    if kind == "one-hot":
        X = (X != 0).astype(float)
    features = X if kind == "dense" else to_csr(X, one_hot=kind == "one-hot")
    order = np.random.default_rng(2).permutation(40)
    assert_like_the_twin(p, features, y, dtype=dtype, task=task)
    assert_like_the_twin(p, features, y, dtype=dtype, task=task, order=order)


def test_dense_and_sparse_rows_give_the_same_model():
    p, X, y = problem("regression", 5, 0.4)
    dense, sparse = (trained(p, rows, y, None)[0] for rows in (X, to_csr(X)))
    np.testing.assert_allclose(dense.V, sparse.V, rtol=0, atol=1e-13)
    np.testing.assert_allclose(dense.w, sparse.w, rtol=0, atol=1e-13)


def test_a_stored_zero_counts_as_absent():
    p, X, y = problem("regression", 5, 0.4)
    everything = to_csr(np.ones_like(X))
    stored = CSR(everything.indptr, everything.indices, X.ravel(), 19)
    assert_like_the_twin(p, stored, y)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", ["dense", "csr"])
def test_every_number_of_factors_does_what_the_twin_does(kind, dtype):
    for k in [*range(1, 66), 100, 128, 129]:
        p, X, y = problem("regression", k, 0.4)
        assert_like_the_twin(p, X if kind == "dense" else to_csr(X), y, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("kind", ["dense", "csr", "one-hot"])
@pytest.mark.parametrize("k", [5, 70])
def test_steps_are_capped_where_the_twin_caps_them(kind, task, dtype, k):
    p, X, y = problem(task, k, 0.4)
    X = (X != 0).astype(float) if kind == "one-hot" else X
    features = X if kind == "dense" else to_csr(X, one_hot=kind == "one-hot")
    rate = {"regression": 1.0, "classification": 4.0}[task] / np.median(fm.squared_slopes(p, X))
    assert 0 < assert_like_the_twin(p, features, y, dtype=dtype, task=task, rate=rate,
                                    cap_steps=True) < 40  # fmt: skip


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", ["dense", "csr", "one-hot"])
@pytest.mark.parametrize("k", [5, 70])
def test_a_cap_changes_no_bit_where_no_step_is_capped(kind, dtype, k):
    p, X, y = problem("regression", k, 0.4)
    X = (X != 0).astype(float) if kind == "one-hot" else X
    features = X if kind == "dense" else to_csr(X, one_hot=kind == "one-hot")
    for rate in (0.8 / fm.squared_slopes(p, X).max(), 1e-4):  # G is asked for; it is not
        without, capped = (
            trained(p, features, y, None, rate, dtype=dtype, cap_steps=cap) for cap in (False, True)
        )
        assert capped[2] == 0
        assert capped[0].V.tobytes() == without[0].V.tobytes()
        assert (capped[0].w.tobytes(), capped[1]) == (without[0].w.tobytes(), without[1])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", ["dense", "csr"])
def test_rows_that_are_scored_closely_at_once_give_the_bits_of_rows_that_first_asked(kind, dtype):
    """More than FEW + MANY rows in one pass; the other way so few at a time that each must ask."""
    X, y = random_rows(600, 19, density=0.4), np.random.default_rng(1).normal(size=600)
    p = random_parameters(19, 5, scale=0.2)
    rate = 1.0 / np.quantile(fm.squared_slopes(p, X), 0.2)
    part = Part(X if kind == "dense" else to_csr(X), y, np.arange(600))
    config = make_config(k=5, **L2, dtype=dtype, cap_steps=True)
    together, apart = (sgd.start(config, part, p) for _ in range(2))
    together.train_chunk(rate, slice(0, 600), None)
    for first in range(0, 600, sgd_kernels.FEW - 1):
        apart.train_chunk(rate, slice(first, min(first + sgd_kernels.FEW - 1, 600)), None)
    assert 0 < together.capped_steps == apart.capped_steps < 600
    assert together.parameters().V.tobytes() == apart.parameters().V.tobytes()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", ["dense", "csr"])
@pytest.mark.parametrize("others", [0.01, 1.0])
def test_large_factors_on_a_cell_far_out_leave_G_its_digits(others, kind, dtype):
    """At 40 standard deviations and |s|^2 = 170,000, where the terms of G nearly cancel."""
    X = others * random_rows(1, 19, density=1.0)
    X[0, 3] = 40.0
    p, y = random_parameters(19, 8, scale=3.0), np.array([1e8])
    config = make_config(k=8, dtype=dtype, cap_steps=True)
    trainer = sgd.start(config, Part(X if kind == "dense" else to_csr(X), y, np.arange(1)), p)
    trainer.train_epoch(1.0, None)
    step = trainer.parameters().w0 - p.w0
    expected = (1e8 - fm.scores(p, X)[0]) / fm.squared_slopes(p, X)[0]
    rounding = 5 * np.finfo(dtype).epsneg * ((X @ p.V) ** 2).sum()
    assert step == pytest.approx(expected, rel=rounding)


@pytest.mark.parametrize("kind", ["dense", "csr"])
def test_factors_that_pad_a_vector_stay_zero(kind):
    p, X, y = problem("regression", 5, 0.4)
    part = Part(X if kind == "dense" else to_csr(X), y, np.arange(40))
    trainer = sgd.start(make_config(k=5), part, p)
    trainer.train_epoch(0.05, None)
    layout = trainer._layout
    padding = layout._V[:, 5:8] if kind == "dense" else layout._table[:, 5:8]
    assert padding.shape == (19, 3)
    assert not padding.any()


shapes = st.tuples(st.integers(1, 9), st.integers(1, 20), st.integers(1, 20))


@settings(max_examples=60, deadline=None)
@given(shape=shapes, density=st.floats(0, 1), seed=st.integers(0, 10**6), sparse=st.booleans())
def test_rows_of_every_shape_do_what_the_twin_does(shape, density, seed, sparse):
    n_rows, n_features, k = shape
    X = random_rows(n_rows, n_features, seed, density)
    y = np.random.default_rng(seed).normal(size=n_rows)
    p = random_parameters(n_features, k, seed, scale=0.1)
    order = np.random.default_rng(seed).permutation(n_rows)
    assert_like_the_twin(p, to_csr(X) if sparse else X, y, order=order)


@pytest.mark.parametrize("one_hot", [False, True])
def test_rows_far_apart_are_announced_without_changing_them(one_hot):
    """More rows than are asked for in advance, in a table larger than NEAR, some of them empty."""
    g, n = np.random.default_rng(0), 20_000
    chosen = [g.choice(n, size=g.integers(0, 40), replace=False) for _ in range(60)]
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in chosen])])
    indices = np.concatenate(chosen).astype(np.int32)
    values = None if one_hot else g.normal(size=len(indices))
    rows = CSR(indptr, indices, values, n)
    p, y = random_parameters(n, 8, scale=0.1), g.normal(size=60)
    assert_like_the_twin(p, rows, y)
    assert_like_the_twin(p, rows, y, order=g.permutation(60))


def test_feature_numbers_need_not_ascend():
    p, X, y = problem("regression", 5, 0.4)
    rows = to_csr(X)
    backwards = [slice(a, b) for a, b in zip(rows.indptr, rows.indptr[1:], strict=False)]
    turned = np.concatenate([np.arange(s.stop - 1, s.start - 1, -1) for s in backwards])
    unsorted = CSR(rows.indptr, rows.indices[turned], rows.values[turned], 19)
    assert_like_the_twin(p, unsorted, y)


@pytest.mark.parametrize("bad", [[0, 2, 2], [0, 1, 19], [-1, 1, 2]], ids=["twice", "high", "low"])
def test_feature_numbers_that_would_lead_astray_are_refused(bad):
    indices = np.array([3, 4, *bad], np.int32)
    rows = CSR(np.array([0, 2, 5]), indices, None, 19)
    with pytest.raises(DataError, match=r"each once in a row; row 1 has \["):
        trained(random_parameters(19, 3), rows, np.zeros(2), None)


@pytest.mark.parametrize("indptr", [[0, 2, 4], [1, 2, 5], [0, 6, 5], [0, 3, 2, 5]])
def test_row_pointers_that_would_lead_astray_are_refused(indptr):
    rows = CSR(np.array(indptr), np.arange(5, dtype=np.int32), np.ones(5), 19)
    with pytest.raises(DataError, match="row pointers"):
        trained(random_parameters(19, 3), rows, np.zeros(len(indptr) - 1), None)


def test_rows_of_another_width_and_targets_of_another_length_are_refused():
    p = random_parameters(19, 3)
    with pytest.raises(DataError, match="expected rows of 19 features"):
        trained(p, np.zeros((2, 18)), np.zeros(2), None)
    with pytest.raises(DataError, match="expected 2 targets"):
        trained(p, np.zeros((2, 19)), np.zeros(3), None)


@pytest.mark.parametrize("order", [[0, 1, 2], [0, 2], [-1, 0]])
def test_an_order_that_would_lead_astray_is_refused(order):
    with pytest.raises(ValueError, match="permutation"):
        trained(random_parameters(19, 3), np.zeros((2, 19)), np.zeros(2), np.array(order))


def test_arrays_that_are_not_contiguous_give_the_same_model():
    p, X, y = problem("regression", 5, 0.4)
    strided = np.asfortranarray(X)
    doubled = np.repeat(y, 2)[::2]
    one, other = trained(p, X, y, None), trained(p, strided, doubled, None)
    assert one[0].V.tobytes() == other[0].V.tobytes()


@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("kind", ["dense", "csr", "wide"])
def test_scores_and_losses_are_those_of_the_definition(kind, task):
    p, X, y = problem(task, 70 if kind == "wide" else 6, 0.4)
    features = X if kind == "dense" else to_csr(X)
    part = Part(features, y, np.arange(40))
    trainer = sgd.start(make_config(k=p.k, task=task), part, p)
    expected = fm.scores(p, X)
    np.testing.assert_allclose(trainer.scores(features), expected, rtol=0, atol=1e-12)
    mean = fm.losses(task, expected, y).mean()
    assert trainer.loss(part) == pytest.approx(mean, rel=1e-13)


def test_the_log_loss_is_exact_for_scores_of_every_size():
    scores = np.concatenate([-np.logspace(-20, 4, 400), np.logspace(-20, 4, 400), [0.0]])
    p = fm.Parameters(0.0, np.ones(1), np.zeros((1, 1)))
    for label in (0.0, 1.0):
        for score in scores:
            part = Part(np.array([[score]]), np.array([label]), np.arange(1))
            trainer = sgd.start(make_config(k=1, task="classification"), part, p)
            expected = fm.losses("classification", np.array([score]), np.array([label]))[0]
            assert trainer.loss(part) == pytest.approx(expected, rel=1e-14, abs=1e-307)


def xoshiro(state: list[int]) -> Iterator[int]:
    """xoshiro256++ as Blackman and Vigna publish it."""
    s, mask = list(state), 2**64 - 1

    def turned(x: int, by: int) -> int:
        return (x << by | x >> (64 - by)) & mask

    while True:
        yield (turned((s[0] + s[3]) & mask, 23) + s[0]) & mask
        shifted = s[1] << 17 & mask
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= shifted
        s[3] = turned(s[3], 45)


def shuffled(n: int, state: list[int]) -> np.ndarray:
    order = np.arange(n)
    sgd_kernels.shuffle()(order, np.array(state, np.uint64))
    return order


@pytest.mark.parametrize("n", [0, 1, 2, 3, 10, 1000])
def test_a_shuffle_is_that_of_fisher_and_yates_with_a_published_generator(n):
    published = [41943041, 58720359, 3588806011781223, 3591011842654386, 9228616714210784205]
    assert list(islice(xoshiro([1, 2, 3, 4]), 5)) == published
    state = [int(x) for x in np.random.default_rng(n).bit_generator.random_raw(4)]
    expected, numbers = list(range(n)), xoshiro(state)
    for i in range(n - 1, 0, -1):
        j = next(numbers) * (i + 1) >> 64
        expected[i], expected[j] = expected[j], expected[i]
    assert shuffled(n, state).tolist() == expected


def test_all_orders_are_equally_frequent():
    generator, draws = np.random.default_rng(0), 24_000
    trainer = sgd.start(make_config(k=1), Part(np.ones((4, 1)), np.ones(4), np.arange(4)),
                              fm.initial_parameters(1, 1, 0.1, 0))  # fmt: skip
    counts = Counter[tuple[int, ...]]()
    for _ in range(draws):
        order = np.arange(4)
        trainer.shuffle(order, generator)
        counts[tuple(order.tolist())] += 1
    assert len(counts) == 24
    chi_square = sum((count - 1000) ** 2 / 1000 for count in counts.values())
    assert chi_square < 49.7  # 23 degrees of freedom: 1 in 1,000
